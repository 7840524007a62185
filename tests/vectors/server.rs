//! Runs the vectors of the server half: a host around the crate that does what a vector says of it.

use std::collections::BTreeMap;

use core::time::Duration;
use device_flow::code::UserCodeShape;
use device_flow::digest::{SecretDigest, SessionKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, Entered, Entry, Form, HostValue, Inserted, Limit, Policy, Registration,
    Reply, SecretPlacement, Session, Written,
};
use serde_json::Value;
use time::OffsetDateTime;

use crate::form::{
    After, Client, Deed, File, Kind, Method, Numbers, Pace, Rate, Start, State, Step, Taken,
    Vector, Wrote,
};
use crate::response::{Response, is, sent};
use crate::support::{self, Codes};
use host::spend;

#[path = "host.rs"]
mod host;

/// Runs a vector, and gives the responses that are to be told from no other of their name.
pub(crate) fn run(file: &File, vector: &Vector) -> Result<Vec<(String, Response)>, String> {
    let says = |fault: String| format!("{}: {}: {fault}", vector.id, vector.says);
    let mut world = World::new(file, vector);
    let mut named = Vec::new();
    for (number, step) in (1..).zip(&vector.steps) {
        let says = |fault: String| says(format!("step {number}, at {}: {fault}", step.at));
        if let Some(request) = &step.request {
            let done = world.serve(step, request);
            let response = done.check(file, step).map_err(says)?;
            if let Some((expected, response)) = step.response.as_ref().zip(response)
                && let Some(name) = &expected.identical
            {
                named.push((name.clone(), response));
            }
            if let Some(after) = &step.after {
                world.check(after, &done).map_err(says)?;
            }
        } else {
            world.happens(step).map_err(says)?;
        }
    }
    Ok(named)
}

struct World<'v> {
    file: &'v File,
    numbers: Numbers,
    policy: Policy,
    clients: BTreeMap<String, Registration>,
    sessions: Memory,
    quotas: Memory,
    codes: Option<Codes>,
    /// How often codes were drawn.
    drawn: u8,
}

/// What was done for a request.
struct Done {
    answer: Result<Reply, String>,
    wrote: Wrote,
    draws: usize,
    looked_up_client: bool,
    looked_up_session: bool,
    /// Whether somebody else changed the session meanwhile.
    rivals: bool,
    /// What was stored before: session and pace.
    before: (Option<Value>, Option<Value>),
}

fn span(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

fn policy(numbers: &Numbers) -> Policy {
    let rate = |rate: &Rate| Limit::new(rate.burst, span(rate.period)).unwrap();
    // What is no choice of this crate's policy, but is one of its own.
    assert_eq!((numbers.tolerance, numbers.tolerance_part), (1000, 4));
    assert_eq!((numbers.max_parameters, numbers.retry_later), (64, 5));
    assert_eq!(numbers.grace, 2 * numbers.interval);
    let shape = UserCodeShape::new(&numbers.user_code.alphabet, numbers.user_code.length);
    let builder = Policy::builder(&numbers.verification_uri)
        .realm(&numbers.realm)
        .lifetime(span(numbers.lifetime))
        .interval(span(numbers.interval))
        .step(span(numbers.step))
        .cap(span(numbers.cap))
        .retry_window(span(numbers.retry_window))
        .retention(span(numbers.retention))
        .user_code(shape.unwrap())
        .max_body(numbers.max_body)
        .secret_limit(rate(&numbers.wrong_secrets))
        .issuing_limit(rate(&numbers.issuing));
    let builder = if numbers.verification_uri_complete {
        builder.with_verification_uri_complete()
    } else {
        builder
    };
    builder.build().unwrap()
}

fn registration(id: &str, client: &Client) -> Registration {
    let placement = match client.method {
        Method::ClientSecretBasic => SecretPlacement::BasicOnly,
        Method::None | Method::ClientSecret | Method::PrivateKeyJwt | Method::TlsClientAuth => {
            SecretPlacement::Anywhere
        }
    };
    let authentication = match client.method {
        Method::None => Authentication::Public,
        Method::PrivateKeyJwt => Authentication::Assertion,
        Method::TlsClientAuth => Authentication::MutualTls,
        Method::ClientSecret | Method::ClientSecretBasic if client.compared_by_host => {
            Authentication::HostSecret(placement)
        }
        Method::ClientSecret | Method::ClientSecretBasic => {
            let mut digests = client.secrets.iter().map(|secret| SecretDigest::of(secret));
            let digests = [digests.next(), digests.next()];
            Authentication::Secret { digests, placement }
        }
    };
    let mut own = Registration::new(id, authentication)
        .unwrap()
        .allow_scope(scope(&client.scope));
    if client.device_grant {
        own = own.allow_device_grant();
    }
    if let Some(default) = &client.default_scope {
        own = own.default_scope(scope(default));
    }
    if client.disabled { own.disabled() } else { own }
}

impl<'v> World<'v> {
    fn new(file: &'v File, vector: &'v Vector) -> Self {
        let mut numbers = file.policy.clone();
        numbers.extend(vector.policy.clone());
        let numbers: Numbers = serde_json::from_value(Value::Object(numbers)).unwrap();
        let mut clients = file.clients.clone();
        for (id, client) in &vector.clients {
            match client {
                Some(client) => clients.insert(id.clone(), client.clone()),
                None => clients.remove(id),
            };
        }
        let clients = clients
            .iter()
            .map(|(id, client)| (id.clone(), registration(id, client)));
        let mut world = Self {
            file,
            policy: policy(&numbers),
            numbers,
            clients: clients.collect(),
            sessions: Memory::new(),
            quotas: Memory::new(),
            codes: None,
            drawn: 0,
        };
        if let Some(start) = &vector.session {
            world.set_up(start);
        }
        for taken in &vector.quotas {
            world.take(taken);
        }
        world
    }

    fn at(&self, millis: i64) -> OffsetDateTime {
        let nanos = i128::from(self.file.base + millis) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap()
    }

    fn session(&self) -> Option<&Session> {
        Some(&self.sessions.load(&self.codes.as_ref()?.key)?.session)
    }

    // What is stored at first, reached by the steps that lead to it.

    fn set_up(&mut self, start: &Start) {
        let client = Registration::new(start.client_id.as_str(), Authentication::Public)
            .unwrap()
            .allow_device_grant()
            .allow_scope(scope(&start.scope))
            .default_scope(scope(&start.scope));
        let (now, entropy) = (self.at(start.issued_at), self.entropy());
        let body = format!("client_id={}", support::encoded(&start.client_id));
        let issued = support::with_issuing(
            &self.policy,
            support::post(&body),
            Some(&client),
            |issuing| {
                let issuance = issuing.draw(entropy, &support::keys(), now).unwrap();
                let key = *issuance.session().key();
                let inserted = self.sessions.insert(issuance.session());
                (key, issuance.settle(inserted).unwrap())
            },
        );
        let (key, reply) = issued.unwrap();
        self.codes = Some(codes(key, &reply));
        assert_eq!(
            self.session().unwrap().expires_at(),
            self.at(start.expires_at)
        );
        if let Some(pace) = start.pace {
            self.reach(pace, &client);
        }
        let user = start.user.as_deref();
        match start.state {
            State::Pending => {}
            State::Claimed => self
                .enters(user.unwrap(), start.claimed_at.unwrap())
                .unwrap(),
            State::Denied => {
                let at = start.denied_at.unwrap();
                self.enters(user.unwrap(), at).unwrap();
                self.decides(user.unwrap(), Deed::Deny, None, at).unwrap();
            }
            State::Approved | State::Redeemed | State::Revoked => {
                let (user, at) = (user.unwrap(), start.approved_at.unwrap());
                self.enters(user, at).unwrap();
                self.decides(user, Deed::Approve, start.granted.as_deref(), at)
                    .unwrap();
                if start.state == State::Revoked {
                    self.decides(user, Deed::Withdraw, None, at).unwrap();
                }
                if start.state == State::Redeemed {
                    self.is_redeemed(self.at(start.redeemed_at.unwrap()));
                }
            }
        }
        assert_eq!(self.state(), Some(start.state));
    }

    /// Polls until the pace is this one: each widening takes an accepted poll and an early one.
    fn reach(&mut self, pace: Pace, client: &Registration) {
        const HOUR: i64 = 3_600_000;
        let [first, step, cap] = [self.numbers.interval, self.numbers.step, self.numbers.cap];
        let widths = core::iter::successors(Some(first), |width| Some(cap.min(width + step)));
        let target = u64::try_from(pace.interval).unwrap();
        let widenings = widths.take_while(|width| *width < target).count();
        let widenings = i64::try_from(widenings).unwrap();
        for ago in (0..widenings).rev() {
            let ago = if pace.widened { ago } else { ago + 1 };
            self.polls(client, pace.last - ago * HOUR);
            self.polls(client, pace.last - ago * HOUR + 1);
        }
        if !pace.widened {
            self.polls(client, pace.last);
        }
        assert_eq!(self.pace(), Some(pace));
    }

    /// One poll of the session, as a host runs it.
    fn polls(&mut self, client: &Registration, at: i64) {
        let (now, code) = (
            self.at(at),
            self.codes.as_ref().unwrap().device_code.clone(),
        );
        let _ = support::poll(&mut self.sessions, &self.policy, client, &code, now);
    }

    /// Another poll redeems the session.
    fn is_redeemed(&mut self, now: OffsetDateTime) {
        let client = self.session().unwrap().client_id().to_owned();
        let client = Registration::new(client, Authentication::Public)
            .unwrap()
            .allow_device_grant();
        let code = self.codes.as_ref().unwrap().device_code.clone();
        let reply = support::poll(&mut self.sessions, &self.policy, &client, &code, now);
        assert_eq!(reply.cause(), Cause::Granted);
    }

    fn take(&mut self, taken: &Taken) {
        let body = format!(
            "client_id={}&client_secret=x",
            support::encoded(&taken.client_id)
        );
        let form = Form::read(support::post(&body), &self.policy).unwrap();
        let request = form.device_authorization().unwrap();
        let public = Registration::new(taken.client_id.as_str(), Authentication::Public).unwrap();
        let body = format!("client_id={}", support::encoded(&taken.client_id));
        let (key, limit) = match taken.limit {
            Kind::WrongSecrets => {
                let key = request.secret_quota_key(&taken.source).unwrap();
                (key, self.policy.secret_limit())
            }
            Kind::Issuing => {
                let public = public.allow_device_grant();
                let incoming = support::post(&body);
                let key = support::with_issuing(&self.policy, incoming, Some(&public), |issuing| {
                    issuing.quota_key(&taken.source)
                });
                (key.unwrap(), self.policy.issuing_limit())
            }
        };
        let now = self.at(taken.at);
        for _ in 0..taken.times {
            assert!(spend(&mut self.quotas, key, limit, now).is_ok());
        }
    }

    /// Other codes with every draw.
    fn entropy(&mut self) -> device_flow::code::Entropy {
        self.drawn += 1;
        support::entropy(self.drawn)
    }

    // What others do.

    fn happens(&mut self, step: &Step) -> Result<(), String> {
        let user = step.user.as_deref().unwrap_or_default();
        let done = match step.does.ok_or("neither a request nor a deed")? {
            Deed::Enter => self.enters(user, step.at),
            deed @ (Deed::Approve | Deed::Deny | Deed::Withdraw) => {
                self.decides(user, deed, step.scope.as_deref(), step.at)
            }
            Deed::Purge => {
                let _ = self.sessions.purge(self.at(step.at));
                Ok(())
            }
            Deed::LosePace => {
                let session = self.session().unwrap().clone();
                self.sessions = Memory::new();
                assert_eq!(self.sessions.insert(&session), Inserted::New);
                Ok(())
            }
        };
        match (done, step.refused) {
            (Ok(()), false) | (Err(_), true) => Ok(()),
            (Ok(()), true) => Err("it was not refused".into()),
            (Err(why), false) => Err(format!("it was refused: {why}")),
        }
    }

    fn enters(&mut self, user: &str, at: i64) -> Result<(), String> {
        let (user, keys, now) = (support::subject(user), support::keys(), self.at(at));
        let typed = &self.codes.as_ref().unwrap().user_code;
        let mut entry = Entry::new(typed, &user, &keys, &self.policy);
        let quota = self.quotas.load_quota(entry.quota_key());
        let guess = entry.pay(quota, now).unwrap();
        let written = self.quotas.change_quota(guess.change());
        let paid = guess.settle(written).unwrap();
        let mut user_keys = paid.user_keys();
        let found = user_keys.find_map(|key| self.sessions.load_by_user_key(&key));
        let entered = paid.enter(found.map(|stored| &stored.session), now);
        if let Entered::Claim(claim) = entered.map_err(|fault| fault.to_string())? {
            assert_eq!(self.sessions.change(claim.change()), Written::Won);
        }
        Ok(())
    }

    fn decides(
        &mut self,
        user: &str,
        deed: Deed,
        granted: Option<&str>,
        at: i64,
    ) -> Result<(), String> {
        let (user, now) = (support::subject(user), self.at(at));
        let session = self.session().ok_or("there is no session")?;
        let granted = granted.map_or_else(|| session.scope().clone(), scope);
        let change = match deed {
            Deed::Approve => {
                session.approve(&user, &granted, HostValue::default(), &self.policy, now)
            }
            Deed::Deny => session.deny(&user, now),
            Deed::Withdraw => session.withdraw(&user),
            Deed::Enter | Deed::Purge | Deed::LosePace => panic!("{deed:?} is no decision"),
        };
        let change = change.map_err(|fault| fault.to_string())?;
        let written = change.map(|change| self.sessions.change(&change));
        assert!(matches!(written, None | Some(Written::Won)));
        Ok(())
    }

    /// The placeholders of a body.
    fn filled_in(&self, body: &str) -> String {
        let own = self.codes.as_ref();
        let code = own.map_or(support::NO_CODE, |codes| &codes.device_code);
        let flip = |c: char| {
            if c.is_ascii_lowercase() {
                c.to_ascii_uppercase()
            } else {
                c.to_ascii_lowercase()
            }
        };
        let flipped: String = code.chars().map(flip).collect();
        body.replace("{device_code}", code)
            .replace("{unknown_device_code}", support::NO_CODE)
            .replace("{device_code_in_the_other_case}", &flipped)
    }

    // What is stored afterwards.

    fn record(&self) -> (Option<Value>, Option<Value>) {
        let stored = self
            .codes
            .as_ref()
            .and_then(|codes| self.sessions.load(&codes.key));
        let session = stored.map(|stored| serde_json::to_value(&stored.session).unwrap());
        let pace = stored.and_then(|stored| stored.pace);
        (
            session,
            pace.map(|pace| serde_json::to_value(pace).unwrap()),
        )
    }

    fn state(&self) -> Option<State> {
        use device_flow::server::Status;

        Some(match self.session()?.status() {
            Status::Pending => State::Pending,
            Status::Claimed => State::Claimed,
            Status::Approved => State::Approved,
            Status::Denied => State::Denied,
            Status::Redeemed => State::Redeemed,
            Status::Revoked => State::Revoked,
        })
    }

    fn pace(&self) -> Option<Pace> {
        let pace = self.record().1?;
        Some(Pace {
            last: pace["last"].as_i64().unwrap() - self.file.base,
            interval: pace["interval"].as_i64().unwrap() * 1000,
            widened: pace["widened"].as_bool().unwrap(),
        })
    }

    fn check(&self, after: &After, done: &Done) -> Result<(), String> {
        is("state", &self.state(), &after.state)?;
        is("written", &done.wrote, &after.wrote)?;
        if after.pace.is_some() {
            is("pace", &self.pace(), &after.pace)?;
        }
        if done.rivals {
            return Ok(());
        }
        let (session, pace) = self.record();
        let same = match done.wrote {
            Wrote::Nothing => (session, pace) == done.before,
            Wrote::Pace => session == done.before.0,
            Wrote::Session => session != done.before.0 && pace == done.before.1,
        };
        is("what else is stored", &same, &true)
    }
}

fn codes(key: SessionKey, reply: &Reply) -> Codes {
    let body: Value = serde_json::from_str(reply.response().body()).unwrap();
    Codes {
        device_code: body["device_code"].as_str().unwrap().into(),
        user_code: body["user_code"].as_str().unwrap().into(),
        key,
    }
}

impl Done {
    fn check(&self, file: &File, step: &Step) -> Result<Option<Response>, String> {
        if let Some(draws) = step.draws {
            is("the number of draws", &self.draws, &draws)?;
        }
        if let Some(looks_up) = step.looks_up_client {
            is(
                "that the client is looked up",
                &self.looked_up_client,
                &looks_up,
            )?;
        }
        if let Some(looks_up) = step.looks_up_session {
            is(
                "that the session is looked up",
                &self.looked_up_session,
                &looks_up,
            )?;
        }
        match (&self.answer, &step.response, &step.dispatched) {
            (Ok(reply), Some(expected), None) => {
                if let Some(revoke) = step.revoke_tokens {
                    let revokes = reply.cause() == Cause::Replay;
                    is("that tokens are revoked", &revokes, &revoke)?;
                }
                let response = sent(reply.clone());
                expected.check(file, &response)?;
                Ok(Some(response))
            }
            (Err(grant), None, Some(expected)) => {
                is("the grant that is dispatched", grant, expected)?;
                Ok(None)
            }
            (answer, ..) => Err(format!("it was answered by {answer:?}")),
        }
    }
}
