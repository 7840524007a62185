//! Runs the vectors of the server half, with a host around the crate that behaves as a vector says.

use std::collections::BTreeMap;
use std::sync::Arc;

use core::time::Duration;
use device_flow::code::UserCodeShape;
use device_flow::digest::SecretDigest;
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Consent, PageError, Policy, PolicyOptions, RateLimit,
    RefreshOptions, Reply, Review, Server, ServerKeys, Session, Status,
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::form::{
    self, After, Deed, File, Method, Numbers, Pace, Rate, Refused, State, Step, Vector, Wrote,
};
use crate::response::{Response, is, sent};
use crate::support::{self, Codes};

mod host;
mod start;

/// Runs a vector. Returns the responses that must be identical to all others of the same name.
pub(crate) fn run(file: &File, vector: &Vector) -> Result<Vec<(String, Response)>, String> {
    let says = |fault: String| format!("{}: {}: {fault}", vector.id, vector.says);
    let mut world = World::new(file, vector);
    let mut named = Vec::new();
    for (number, step) in (1..).zip(&vector.steps) {
        let says = |fault: String| says(format!("step {number}, at {}: {fault}", step.at));
        world.register(&step.clients);
        let mut done = Done {
            before: world.record(step),
            ..Done::default()
        };
        if let Some(request) = &step.request {
            let answer = world.serve(step, request, &mut done);
            let answer = answer.and_then(|answer| answered(&answer, file, step));
            let response = answer.map_err(says)?;
            if let Some((expected, response)) = step.response.as_ref().zip(response)
                && let Some(name) = &expected.identical
            {
                named.push((name.clone(), response));
            }
        } else {
            world.happens(step, &mut done).map_err(says)?;
        }
        done.check(step).map_err(says)?;
        if let Some(after) = &step.after {
            world.check(step, after, &done).map_err(says)?;
        }
    }
    Ok(named)
}

struct World<'v> {
    file: &'v File,
    numbers: Numbers,
    server: Arc<Server>,
    /// How often the keys of the server were changed.
    key_changes: u8,
    clients: BTreeMap<String, Client>,
    sessions: Memory,
    quotas: Memory,
    /// The codes that were issued, in order.
    issued: Vec<Codes>,
    /// The refresh tokens that were sent, in order.
    refresh_tokens: Vec<String>,
    /// How often the generator was asked.
    drawn: u8,
    /// The number of the draw that gave the last user code.
    last_user_code: u8,
}

/// What was done in a step.
#[derive(Default)]
struct Done {
    wrote: Wrote,
    draws: usize,
    looked_up_client: bool,
    looked_up_session: bool,
    /// How many of the store's answers in the step were not asked for.
    unasked: usize,
    /// Whether somebody else changed the session meanwhile.
    rivals: bool,
    /// What was stored before: session and pace.
    before: Record,
}

/// The stored forms of a session and of its pace.
type Record = (Option<Value>, Option<Value>);

/// The result of a request: a response, or a grant type that the host serves itself.
#[derive(Debug)]
enum Answer {
    Reply(Reply),
    Dispatched(String),
}

fn span(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn policy(numbers: &Numbers) -> Policy {
    let rate = |rate: &Rate| RateLimit::new(rate.burst, span(rate.period)).unwrap();
    // A policy of this crate cannot set these numbers, so they must be those of the crate.
    assert_eq!((numbers.tolerance, numbers.tolerance_part), (1000, 4));
    assert_eq!((numbers.max_parameters, numbers.retry_later), (64, 5));
    assert_eq!(numbers.redeem_time, numbers.cap + numbers.interval);
    let shape = UserCodeShape::new(&numbers.user_code.alphabet, numbers.user_code.length);
    let defaults = PolicyOptions::default();
    let refresh = |refresh: &form::Refresh| RefreshOptions {
        scope: refresh.scope.clone(),
        idle: span(refresh.idle),
        absolute: refresh.absolute.map(span),
        grace: span(refresh.grace),
        limit: rate(&refresh.limit),
    };
    let options = PolicyOptions {
        verification_uri_complete: numbers.verification_uri_complete,
        realm: numbers.realm.clone(),
        interval: span(numbers.interval),
        cap: span(numbers.cap),
        lifetime: span(numbers.lifetime),
        user_code: shape.unwrap(),
        outstanding: defaults.outstanding,
        guess_limit: numbers.guesses.as_ref().map_or(defaults.guess_limit, rate),
        issuing_limit: rate(&numbers.issuing),
        secret_limit: rate(&numbers.wrong_secrets),
        retry_window: Some(span(numbers.retry_window)),
        retention: span(numbers.retention),
        max_body: numbers.max_body,
        refresh: numbers.refresh.as_ref().map(refresh),
    };
    Policy::new(&numbers.verification_uri, options).unwrap()
}

fn server(numbers: &Numbers, key_changes: u8) -> Arc<Server> {
    let key = |change| support::key(7 + change);
    let mut keys = ServerKeys::new(&key(key_changes)).unwrap();
    if let Some(before) = key_changes.checked_sub(1) {
        keys = keys.with_previous(&key(before)).unwrap();
    }
    Arc::new(Server::new(policy(numbers), keys))
}

fn client(id: &str, form: &form::Client) -> Client {
    let mut digests = form.secrets.iter().map(|secret| SecretDigest::of(secret));
    let digests = [digests.next(), digests.next()];
    let method = match (form.method, form.compared_by_host) {
        (Method::None, _) => ClientAuthMethod::None,
        (Method::PrivateKeyJwt, _) => ClientAuthMethod::Assertion,
        (Method::TlsClientAuth, _) => ClientAuthMethod::MutualTls,
        (Method::ClientSecret, true) => ClientAuthMethod::HostSecret,
        (Method::ClientSecret, false) => ClientAuthMethod::Secret(digests),
        (Method::ClientSecretBasic, true) => ClientAuthMethod::HostSecretBasic,
        (Method::ClientSecretBasic, false) => ClientAuthMethod::SecretBasic(digests),
    };
    let mut client = Client::new(id, method)
        .unwrap()
        .allow_scope(support::scope(&form.scope));
    if let Some(name) = &form.name {
        client = client.named(&**name);
    }
    if form.device_grant {
        client = client.allow_device_grant();
    }
    if let Some(default) = &form.default_scope {
        client = client.default_scope(support::scope(default));
    }
    if form.disabled {
        client.disabled()
    } else {
        client
    }
}

impl<'v> World<'v> {
    fn new(file: &'v File, vector: &'v Vector) -> Self {
        let mut numbers = file.policy.clone();
        numbers.extend(vector.policy.clone());
        let numbers: Numbers = serde_json::from_value(Value::Object(numbers)).unwrap();
        let clients = file.clients.iter();
        let mut world = Self {
            file,
            server: server(&numbers, 0),
            numbers,
            key_changes: 0,
            clients: clients
                .map(|(id, form)| (id.clone(), client(id, form)))
                .collect(),
            sessions: Memory::new(),
            quotas: Memory::new(),
            issued: Vec::new(),
            refresh_tokens: Vec::new(),
            drawn: 0,
            last_user_code: 0,
        };
        world.register(&vector.clients);
        if let Some(start) = &vector.session {
            world.set_up(start);
        }
        for taken in &vector.quotas {
            world.take(taken);
        }
        world
    }

    fn register(&mut self, changed: &BTreeMap<String, Option<form::Client>>) {
        for (id, form) in changed {
            match form {
                Some(form) => self.clients.insert(id.clone(), client(id, form)),
                None => self.clients.remove(id),
            };
        }
    }

    fn at(&self, millis: i64) -> OffsetDateTime {
        let nanos = i128::from(self.file.base + millis) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap()
    }

    /// Returns the codes that a step is about: the last that were issued, or those that it names.
    fn codes(&self, step: &Step) -> Option<&Codes> {
        match step.session {
            None => self.issued.last(),
            Some(number) => Some(&self.issued[number - 1]),
        }
    }

    fn session(&self, codes: &Codes) -> Option<&Session> {
        Some(&self.sessions.load(&codes.key)?.session)
    }

    // What others do.

    fn happens(&mut self, step: &Step, done: &mut Done) -> Result<(), String> {
        let deed = step.does.ok_or("neither a request nor a deed")?;
        let now = self.at(step.at);
        match deed {
            Deed::Purge => {
                let _ = self.sessions.purge(now);
            }
            Deed::LosePace => {
                let codes = self.codes(step).unwrap();
                let session = self.session(codes).unwrap().clone();
                self.sessions = Memory::new();
                let _ = self.sessions.insert(&session);
            }
            Deed::ChangeKeys => {
                self.key_changes += 1;
                self.server = server(&self.numbers, self.key_changes);
            }
            Deed::Enter | Deed::Approve | Deed::Deny | Deed::Withdraw | Deed::Release => {
                let answer = self.acts(step, deed, now, done);
                return self.acted(step, answer, done);
            }
        }
        Ok(())
    }

    /// Plays what a user does at the page. Returns a review only after an entry.
    fn acts(
        &mut self,
        step: &Step,
        deed: Deed,
        now: OffsetDateTime,
        done: &mut Done,
    ) -> Result<Option<Review>, PageError> {
        let server = self.server.clone();
        let user = support::subject(step.user.as_deref().unwrap());
        let codes = self.codes(step).unwrap().clone();
        let consent = match &step.scope {
            Some(scope) => Consent::to(support::scope(scope)),
            None => Consent::to_all(),
        };
        let decision = match deed {
            Deed::Enter => {
                let typed = step.typed.as_deref().unwrap_or("{user_code}");
                let typed = typed
                    .replace("{user_code}", &codes.user_code)
                    .replace("{user_code_in_the_other_case}", &flipped(&codes.user_code));
                let source = step.source.as_deref().unwrap_or_default();
                let entry = server.enter(&typed, &user, source, now);
                return self.ask(entry, &codes, step.into(), done).map(Some);
            }
            Deed::Approve => server.approve(&codes.key, &user, &consent, now),
            Deed::Deny => server.deny(&codes.key, &user, now),
            Deed::Withdraw => server.withdraw(&codes.key, &user, now),
            Deed::Release => server.release(&codes.key, &user, now),
            Deed::Purge | Deed::LosePace | Deed::ChangeKeys => panic!("{deed:?} has no user"),
        };
        self.ask(decision, &codes, step.into(), done).map(|_| None)
    }

    fn acted(
        &self,
        step: &Step,
        answer: Result<Option<Review>, PageError>,
        done: &Done,
    ) -> Result<(), String> {
        let refused = answer.as_ref().err().copied();
        match (refused, &step.refused) {
            (None, None | Some(Refused::Somehow(false))) => {}
            (None, Some(_)) => return Err("it was not refused".into()),
            (Some(why), None | Some(Refused::Somehow(false))) => {
                return Err(format!("it was refused: {why}"));
            }
            (Some(why), Some(expected)) => {
                if let Refused::Because(expected) = expected {
                    is("the reason", &reason(why), &&**expected)?;
                }
                if let Some(expected) = step.retry_after {
                    let PageError::RateLimited(limited) = why else {
                        return Err(format!("it was refused: {why}"));
                    };
                    is("when to come back", &limited.seconds(), &expected)?;
                }
                // If the step states what is stored afterwards, that is compared elsewhere.
                if step.after.is_none() {
                    is("what is stored", &self.record(step), &done.before)?;
                }
            }
        }
        let Some(expected) = &step.review else {
            return Ok(());
        };
        let review = answer.ok().flatten().ok_or("there is no review")?;
        is("the review", &shown(&review), expected)
    }

    /// Returns a body with its placeholders filled in.
    fn filled_in(&self, step: &Step, body: &str) -> String {
        let own = self.codes(step);
        let code = own.map_or(support::NO_CODE, |codes| &codes.device_code);
        let mut body = body
            .replace("{device_code}", code)
            .replace("{unknown_device_code}", support::NO_CODE)
            .replace("{device_code_in_the_other_case}", &flipped(code));
        for (number, token) in (1..).zip(&self.refresh_tokens) {
            // Alters the character in the middle, which is in the secret of the token.
            let (start, end) = token.split_at(token.len() / 2);
            let other = if end.starts_with('A') { 'B' } else { 'A' };
            body = body
                .replace(&format!("{{refresh_token:{number}}}"), token)
                .replace(
                    &format!("{{altered_refresh_token:{number}}}"),
                    &format!("{start}{other}{}", &end[1..]),
                );
        }
        assert!(
            !body.contains("refresh_token:"),
            "there is no such token: {body}"
        );
        body
    }

    /// Keeps a refresh token that is sent. Each one must be new and have at least 256 bits.
    fn note_refresh_token(&mut self, reply: &Reply) -> Result<(), String> {
        let body: Option<Map<String, Value>> = serde_json::from_str(reply.response().body()).ok();
        let token = body.as_ref().and_then(|body| body.get("refresh_token"));
        let Some(token) = token.and_then(Value::as_str) else {
            return Ok(());
        };
        let is_of_host = self.numbers.refresh.is_none();
        let is_new = token.len() >= 43 && !self.refresh_tokens.iter().any(|own| own == token);
        is(
            "that the refresh token is new",
            &(is_of_host || is_new),
            &true,
        )?;
        self.refresh_tokens.push(token.into());
        Ok(())
    }

    // What is stored afterwards.

    fn record(&self, step: &Step) -> Record {
        self.codes(step)
            .map(|codes| self.record_of(codes))
            .unwrap_or_default()
    }

    fn record_of(&self, codes: &Codes) -> Record {
        let Some(stored) = self.sessions.load(&codes.key) else {
            return Record::default();
        };
        let session = serde_json::to_value(&stored.session).unwrap();
        let pace = stored.pace.map(|pace| serde_json::to_value(pace).unwrap());
        (Some(session), pace)
    }

    fn state(&self, codes: &Codes) -> Option<State> {
        Some(match self.session(codes)?.status() {
            Status::Pending => State::Pending,
            Status::Claimed => State::Claimed,
            Status::Approved => State::Approved,
            Status::Denied => State::Denied,
            Status::Active => State::Active,
            Status::Ended => State::Ended,
        })
    }

    fn check(&self, step: &Step, after: &After, done: &Done) -> Result<(), String> {
        let state = self.codes(step).and_then(|codes| self.state(codes));
        is("state", &state, &after.state)?;
        is("written", &done.wrote, &after.wrote)?;
        let (session, pace) = self.record(step);
        if after.pace.is_some() {
            let pace = pace_of(&(None, pace.clone()), self.file.base);
            is("pace", &pace, &after.pace)?;
        }
        if done.rivals {
            return Ok(());
        }
        let same = match done.wrote {
            Wrote::Nothing => (session, pace) == done.before,
            Wrote::Pace => session == done.before.0,
            Wrote::Session => session != done.before.0 && pace == done.before.1,
        };
        is("what else is stored", &same, &true)
    }
}

/// Returns a text with the case of its letters changed.
fn flipped(text: &str) -> String {
    let flip = |c: char| {
        if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    text.chars().map(flip).collect()
}

fn pace_of((_, pace): &Record, base: i64) -> Option<Pace> {
    let pace = pace.as_ref()?;
    Some(Pace {
        last: pace["last"].as_i64().unwrap() - base,
        interval: pace["interval"].as_i64().unwrap() * 1000,
        widened: pace["widened"].as_bool().unwrap(),
    })
}

/// Returns what the user is shown, in the form of the vectors.
fn shown(review: &Review) -> Map<String, Value> {
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap();
    let shown = json!({
        "client_id": review.client_id(),
        "client_name": review.client_name(),
        "public": review.is_public_client(),
        "scope": review.scope().as_str(),
        "age": millis(review.age()),
        "time_left": millis(review.time_left()),
    });
    shown.as_object().unwrap().clone()
}

/// Returns what the user is told, as a name.
fn reason(why: PageError) -> &'static str {
    match why {
        PageError::RateLimited(_) => "too_many",
        PageError::MalformedCode
        | PageError::UnknownCode
        | PageError::ExpiredCode
        | PageError::UsedCode
        | PageError::ClaimedByAnother
        | PageError::AmbiguousCode => "wrong_code",
        PageError::ClientGone => "client_gone",
        PageError::NotYours => "not_yours",
        PageError::Expired => "expired",
        PageError::Scope => "scope",
        PageError::Decided => "decided",
        PageError::Undecided => "undecided",
        PageError::Unavailable => "unavailable",
        _ => panic!("{why:?} has no name"),
    }
}

fn answered(answer: &Answer, file: &File, step: &Step) -> Result<Option<Response>, String> {
    match (answer, &step.response, &step.dispatched) {
        (Answer::Reply(reply), Some(expected), None) => {
            if let Some(revoke) = step.revoke_tokens {
                let revokes = reply.cause() == Cause::Replay;
                is("that tokens are revoked", &revokes, &revoke)?;
            }
            let response = sent(reply.clone());
            expected.check(file, &response)?;
            Ok(Some(response))
        }
        (Answer::Dispatched(grant), None, Some(expected)) => {
            is("the grant that is dispatched", grant, expected)?;
            Ok(None)
        }
        (answer, ..) => Err(format!("it was answered by {answer:?}")),
    }
}

impl Done {
    fn check(&self, step: &Step) -> Result<(), String> {
        is("what the store was not asked", &self.unasked, &0)?;
        if let Some(draws) = step.draws {
            is("the number of draws", &self.draws, &draws)?;
        }
        if let Some(looks_up) = step.looks_up_client {
            let looked_up = &self.looked_up_client;
            is("that the client is looked up", looked_up, &looks_up)?;
        }
        if let Some(looks_up) = step.looks_up_session {
            let looked_up = &self.looked_up_session;
            is("that the session is looked up", looked_up, &looks_up)?;
        }
        Ok(())
    }
}
