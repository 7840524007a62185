//! Runs the vectors of the server half: a host around the crate that does what a vector says of it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core::time::Duration;
use device_flow::code::UserCodeShape;
use device_flow::digest::{QuotaKey, SecretDigest, SessionKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, Change, Entered, Entry, Form, Grant, HostError, HostValue, HostVerdict,
    Incoming, Inserted, Issuing, Limit, Policy, Poll, Polled, Registration, Reply, Revocation,
    SecretPlacement, Session, Unauthenticated, Written,
};
use device_flow::wire::tokens::Tokens;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::support::{self, Codes};

// The form of a file: `tests/vectors/README.md` says what each member means.

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    #[allow(dead_code, reason = "for the reader")]
    about: String,
    base: i64,
    content_type: String,
    headers: BTreeMap<String, String>,
    policy: Map<String, Value>,
    clients: BTreeMap<String, Client>,
    tokens: Map<String, Value>,
    pub(crate) vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vector {
    pub(crate) id: String,
    pub(crate) rows: Vec<String>,
    says: String,
    #[serde(default)]
    policy: Map<String, Value>,
    #[serde(default)]
    clients: BTreeMap<String, Option<Client>>,
    session: Option<Start>,
    #[serde(default)]
    quotas: Vec<Taken>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    verification_uri: String,
    verification_uri_complete: bool,
    realm: String,
    lifetime: u64,
    interval: u64,
    step: u64,
    cap: u64,
    tolerance: u64,
    tolerance_part: u64,
    retry_window: u64,
    retention: u64,
    grace: u64,
    user_code: Shape,
    max_body: usize,
    max_parameters: usize,
    retry_later: u64,
    wrong_secrets: Rate,
    issuing: Rate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    alphabet: String,
    length: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    burst: u32,
    period: u64,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Client {
    method: Method,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    compared_by_host: bool,
    device_grant: bool,
    scope: String,
    default_scope: Option<String>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    None,
    ClientSecret,
    ClientSecretBasic,
    PrivateKeyJwt,
    TlsClientAuth,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Start {
    client_id: String,
    scope: String,
    issued_at: i64,
    expires_at: i64,
    state: State,
    user: Option<String>,
    claimed_at: Option<i64>,
    approved_at: Option<i64>,
    granted: Option<String>,
    denied_at: Option<i64>,
    redeemed_at: Option<i64>,
    pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum State {
    Pending,
    Claimed,
    Approved,
    Denied,
    Redeemed,
    Revoked,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Pace {
    last: i64,
    interval: i64,
    widened: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    limit: Kind,
    client_id: String,
    source: String,
    times: u32,
    at: i64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    WrongSecrets,
    Issuing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    at: i64,
    request: Option<Sent>,
    source: Option<String>,
    #[serde(default)]
    host: Host,
    #[serde(default)]
    store: Store,
    pub(crate) response: Option<Expected>,
    pub(crate) dispatched: Option<String>,
    after: Option<After>,
    revoke_tokens: Option<bool>,
    draws: Option<usize>,
    looks_up_client: Option<bool>,
    looks_up_session: Option<bool>,
    user: Option<String>,
    does: Option<Deed>,
    scope: Option<String>,
    #[serde(default)]
    refused: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Deed {
    Enter,
    Approve,
    Deny,
    Withdraw,
    Purge,
    LosePace,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    endpoint: Endpoint,
    #[serde(default = "post")]
    method: String,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "the core never sees it")
    )]
    query: Option<String>,
    content_type: Option<Vec<String>>,
    #[serde(default)]
    authorization: Vec<String>,
    #[serde(default)]
    body: String,
    body_base64: Option<String>,
}

fn post() -> String {
    "POST".into()
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Endpoint {
    Token,
    DeviceAuthorization,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Host {
    grants: Vec<String>,
    registry: Option<Fails>,
    verdict: Option<Finding>,
    refuses: Option<Refusal>,
    consent: Option<Gone>,
    minting: Option<Fails>,
    tokens: Option<Map<String, Value>>,
}

/// What the host found when it verified the client by itself.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Finding {
    Authenticated(String),
    Refused,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Fails {
    Fails,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Gone {
    Gone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    error: String,
    status: u16,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Store {
    load: Option<Load>,
    save_pace: Option<Fails>,
    change: Vec<Write>,
    insert: Vec<Insert>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Load {
    Fails,
    Corrupt,
    UnknownVersion,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    says: Says,
    meanwhile: Option<Meanwhile>,
    written: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Says {
    Won,
    Lost,
    Unknown,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Meanwhile {
    Redeemed,
    Withdrawn,
    Removed,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Insert {
    New,
    UserCodeTaken,
    DeviceCodeTaken,
    Unknown,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Map<String, Value>,
    #[serde(default)]
    free: BTreeMap<String, Free>,
    pub(crate) identical: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Free {
    characters: String,
    least: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct After {
    wrote: Wrote,
    state: Option<State>,
    pace: Option<Pace>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Wrote {
    Nothing,
    Pace,
    Session,
}

/// A response as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

// Running.

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

    // The host.

    fn serve(&mut self, step: &Step, request: &Sent) -> Done {
        let mut done = Done {
            answer: Err(String::new()),
            wrote: Wrote::Nothing,
            draws: 0,
            looked_up_client: false,
            looked_up_session: false,
            rivals: false,
            before: self.record(),
        };
        let body = match &request.body_base64 {
            Some(octets) => STANDARD.decode(octets).unwrap(),
            None => self.filled_in(&request.body).into_bytes(),
        };
        let usual = [self.file.content_type.clone()];
        let types = request.content_type.as_deref().unwrap_or(&usual);
        // Policy and clients are read while the stores are written.
        let policy = policy(&self.numbers);
        let clients = self.clients.clone();
        done.answer = with_incoming(request, types, &body, |incoming| {
            let form = match Form::read(incoming, &policy) {
                Ok(form) => form,
                Err(reply) => return Ok(reply),
            };
            let reply = match request.endpoint {
                Endpoint::Token => match form.grant() {
                    Ok(Grant::Other(form)) => {
                        let asked = form.parameter("grant_type").unwrap_or_default();
                        if step.host.grants.iter().any(|own| *own == asked) {
                            return Err(asked.into_owned());
                        }
                        Ok(form.unsupported_grant())
                    }
                    Ok(Grant::DeviceCode(request)) => self
                        .knows(step, &clients, request, &mut done)
                        .map(|poll| self.polled(step, poll, &mut done)),
                    Err(reply) => Err(reply),
                },
                Endpoint::DeviceAuthorization => form
                    .device_authorization()
                    .and_then(|request| self.knows(step, &clients, request, &mut done))
                    .map(|issuing| self.issues(step, issuing, &mut done)),
            };
            Ok(reply.unwrap_or_else(|refused| refused))
        });
        done
    }

    /// Table B, for both endpoints.
    fn knows<'f, T: Next<'f>>(
        &mut self,
        step: &Step,
        clients: &'f BTreeMap<String, Registration>,
        request: Unauthenticated<'f, T>,
        done: &mut Done,
    ) -> Result<T, Reply> {
        done.looked_up_client = true;
        if step.host.registry.is_some() {
            return Err(Reply::store_failed());
        }
        let now = self.at(step.at);
        let key = request.secret_quota_key(step.source.as_deref().unwrap_or_default());
        if let Some(key) = &key {
            request.check_secret_quota(self.quotas.load_quota(key), now)?;
        }
        let found = request.client_id().and_then(|id| clients.get(id));
        let next = match &step.host.verdict {
            Some(Finding::Authenticated(id)) => {
                T::by_host(request, HostVerdict::Authenticated(&clients[id]))
            }
            Some(Finding::Refused) => T::by_host(request, HostVerdict::Refused),
            None => T::by_core(request, found),
        };
        next.inspect_err(|refused| {
            if let Some(key) = key.filter(|_| refused.cause().is_wrong_secret()) {
                let limit = self.policy.secret_limit();
                assert!(spend(&mut self.quotas, key, limit, now).is_ok());
            }
        })
    }

    fn issues(&mut self, step: &Step, mut issuing: Issuing<'_>, done: &mut Done) -> Reply {
        let now = self.at(step.at);
        let key = issuing.quota_key(step.source.as_deref().unwrap_or_default());
        if let Err(spent) = spend(&mut self.quotas, key, self.policy.issuing_limit(), now) {
            return spent;
        }
        let mut says = step.store.insert.iter();
        loop {
            let issuance = match issuing.draw(self.entropy(), &support::keys(), now) {
                Ok(issuance) => issuance,
                Err(reply) => return reply,
            };
            done.draws += 1;
            let inserted = match says.next() {
                None | Some(Insert::New) => self.sessions.insert(issuance.session()),
                Some(Insert::UserCodeTaken) => Inserted::UserCodeTaken,
                Some(Insert::DeviceCodeTaken) => Inserted::DeviceCodeTaken,
                Some(Insert::Unknown) => Inserted::Unknown,
            };
            let key = *issuance.session().key();
            if let Ok(reply) = issuance.settle(inserted) {
                assert!(says.next().is_none(), "the store was asked less often");
                if inserted == Inserted::New {
                    self.codes = Some(codes(key, &reply));
                    done.wrote = Wrote::Session;
                }
                return reply;
            }
        }
    }

    fn polled(&mut self, step: &Step, mut poll: Poll<'_>, done: &mut Done) -> Reply {
        let now = self.at(step.at);
        let key = poll.session_key().copied();
        done.looked_up_session = key.is_some();
        let mut says = step.store.change.iter();
        let minted = step.host.tokens.as_ref().unwrap_or(&self.file.tokens);
        let reply = loop {
            let stored = key.and_then(|key| self.sessions.load(&key).cloned());
            if let Some(load) = step.store.load {
                unreadable(load, &stored.unwrap().session);
                return Reply::store_failed();
            }
            let settled = match poll.decide(stored.as_ref(), now) {
                Polled::Reply(reply) => break reply,
                Polled::Paced(key, pace, reply) => {
                    if step.store.save_pace.is_none() {
                        self.sessions.save_pace(key, pace);
                        done.wrote = Wrote::Pace;
                    }
                    break reply;
                }
                Polled::Redeem(redemption) => {
                    if let Some(refusal) = &step.host.refuses {
                        assert_eq!(refusal.status, 400);
                        let error = refusal.error.clone().leak();
                        break redemption.refuse(HostError::new(error, "no").unwrap());
                    }
                    if step.host.consent.is_some() {
                        let revocation: Revocation<'_> = redemption.revoke();
                        let written = self.writes(says.next(), revocation.change(), now, done);
                        revocation.settle(written)
                    } else if step.host.minting.is_some() {
                        break redemption.minting_failed();
                    } else {
                        let written = self.writes(says.next(), redemption.change(), now, done);
                        redemption.settle(written, &tokens(minted))
                    }
                }
            };
            if let Ok(reply) = settled {
                break reply;
            }
        };
        assert!(says.next().is_none(), "the store was asked less often");
        reply
    }

    fn writes(
        &mut self,
        says: Option<&Write>,
        change: &Change,
        now: OffsetDateTime,
        done: &mut Done,
    ) -> Written {
        let Some(write) = says else {
            done.wrote = Wrote::Session;
            return self.sessions.change(change);
        };
        done.rivals |= write.meanwhile.is_some();
        match write.meanwhile {
            None => {}
            Some(Meanwhile::Removed) => self.sessions = Memory::new(),
            Some(Meanwhile::Redeemed) => self.is_redeemed(now),
            Some(Meanwhile::Withdrawn) => {
                let session = self.session().unwrap();
                let user = session.claimant().unwrap().clone();
                let change = session.withdraw(&user).unwrap().unwrap();
                assert_eq!(self.sessions.change(&change), Written::Won);
            }
        }
        match write.says {
            Says::Won => {
                done.wrote = Wrote::Session;
                self.sessions.change(change)
            }
            // Where somebody was faster the guard must see it; else the store lost it for reasons of its own.
            Says::Lost if write.meanwhile.is_some() => self.sessions.change(change),
            Says::Lost => Written::Lost,
            Says::Unknown => {
                if write.written == Some(true) {
                    done.wrote = Wrote::Session;
                    assert_eq!(self.sessions.change(change), Written::Won);
                }
                Written::Unknown
            }
        }
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

fn is<T: PartialEq + core::fmt::Debug>(what: &str, got: &T, expected: &T) -> Result<(), String> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what} is {got:?}, expected {expected:?}"))
}

fn codes(key: SessionKey, reply: &Reply) -> Codes {
    let body: Value = serde_json::from_str(reply.response().body()).unwrap();
    Codes {
        device_code: body["device_code"].as_str().unwrap().into(),
        user_code: body["user_code"].as_str().unwrap().into(),
        key,
    }
}

fn spend(
    quotas: &mut Memory,
    key: QuotaKey,
    limit: Limit,
    now: OffsetDateTime,
) -> Result<(), Reply> {
    let change = limit.take(key, quotas.load_quota(&key), now);
    let change = change.map_err(Reply::issuing_quota_spent)?;
    assert_eq!(quotas.change_quota(&change), Written::Won);
    Ok(())
}

/// A stored form that cannot be read must say so when it is read.
fn unreadable(load: Load, session: &Session) {
    let mut form = serde_json::to_value(session).unwrap();
    match load {
        Load::Fails => return,
        Load::Corrupt => form["expires_at"] = json!(0),
        Load::UnknownVersion => form["v"] = json!(255),
    }
    assert!(serde_json::from_value::<Session>(form).is_err());
}

fn tokens(minted: &Map<String, Value>) -> Tokens<'_> {
    let text = |name: &str| minted.get(name).and_then(Value::as_str);
    let token_type = text("token_type").unwrap();
    let mut tokens = Tokens::of_type(token_type, text("access_token").unwrap()).unwrap();
    for (name, value) in minted {
        tokens = match name.as_str() {
            "access_token" | "token_type" => tokens,
            "expires_in" => tokens.expires_in(Duration::from_secs(value.as_u64().unwrap())),
            "refresh_token" => tokens.refresh_token(value.as_str().unwrap()).unwrap(),
            "id_token" => tokens.id_token(value.as_str().unwrap()).unwrap(),
            other => tokens.member(other, value).unwrap(),
        };
    }
    tokens
}

/// What an authenticated request becomes, at either endpoint.
trait Next<'f>: Sized {
    fn by_core(
        request: Unauthenticated<'f, Self>,
        found: Option<&'f Registration>,
    ) -> Result<Self, Reply>;
    fn by_host(request: Unauthenticated<'f, Self>, verdict: HostVerdict<'f>)
    -> Result<Self, Reply>;
}

macro_rules! next {
    ($next:ident) => {
        impl<'f> Next<'f> for $next<'f> {
            fn by_core(
                request: Unauthenticated<'f, Self>,
                found: Option<&'f Registration>,
            ) -> Result<Self, Reply> {
                request.authenticate(found)
            }

            fn by_host(
                request: Unauthenticated<'f, Self>,
                verdict: HostVerdict<'f>,
            ) -> Result<Self, Reply> {
                request.authenticate_by(verdict)
            }
        }
    };
}

next!(Poll);
next!(Issuing);

/// The request as the core takes it. It has no query: that of the vector stays where it is.
#[cfg(not(feature = "http"))]
fn with_incoming<T>(
    request: &Sent,
    types: &[String],
    body: &[u8],
    then: impl FnOnce(Incoming<'_>) -> T,
) -> T {
    let incoming = Incoming::new(&request.method, body)
        .content_type(types)
        .authorization(&request.authorization);
    then(incoming)
}

/// The same out of the types of `http`, where the query is.
#[cfg(feature = "http")]
fn with_incoming<T>(
    request: &Sent,
    types: &[String],
    body: &[u8],
    then: impl FnOnce(Incoming<'_>) -> T,
) -> T {
    let query = request.query.as_deref().unwrap_or_default();
    let mut builder = http::Request::builder()
        .method(&*request.method)
        .uri(format!("https://as.example/endpoint?{query}"));
    for value in types {
        builder = builder.header("content-type", value);
    }
    for value in &request.authorization {
        builder = builder.header("authorization", value);
    }
    then(Incoming::from(&builder.body(body.to_vec()).unwrap()))
}

/// The response as it is sent.
#[cfg(not(feature = "http"))]
fn sent(reply: Reply) -> Response {
    let response = reply.into_response();
    let headers = response.headers();
    Response {
        status: response.status(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .collect(),
        body: response.body().to_owned(),
    }
}

/// The same by way of the types of `http`.
#[cfg(feature = "http")]
fn sent(reply: Reply) -> Response {
    let response: http::Response<std::borrow::Cow<'static, [u8]>> = reply.into();
    let headers = response.headers().iter();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    Response {
        status: response.status().as_u16(),
        headers: headers
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8(response.body().to_vec()).unwrap(),
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

impl Expected {
    /// Compares a response: all but the free texts exactly.
    pub(crate) fn check(&self, file: &File, response: &Response) -> Result<(), String> {
        is("the status", &response.status, &self.status)?;
        let mut headers = file.headers.clone();
        headers.extend(self.headers.clone());
        is("the headers", &response.headers, &headers)?;
        let body: Map<String, Value> =
            serde_json::from_str(&response.body).map_err(|_| "the body is no object")?;
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut rest = body.clone();
        for (name, value) in &self.body {
            let value = match value.as_str() {
                Some(template) => template.replace("{user_code}", text("user_code")).into(),
                None => value.clone(),
            };
            is(name, &rest.remove(name), &Some(value))?;
        }
        for (name, free) in &self.free {
            let legal = text(name).chars().all(|c| free.characters.contains(c));
            is(name, &(legal && text(name).len() >= free.least), &true)?;
            rest.remove(name);
        }
        if self.body.contains_key("error") {
            // "MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E." (RFC 6749, section 5.2)
            let legal = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
            let description = text("error_description");
            let legal = !description.is_empty() && description.bytes().all(legal);
            is("that the description is legal", &legal, &true)?;
            rest.remove("error_description");
        }
        is("what else is in the body", &rest, &Map::new())
    }
}
