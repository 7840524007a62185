//! No stored form panics. What decodes also encodes, and decodes to the same.
//! A decoded session can be decided on at any moment, and the session after the decision can be stored again.
//!
//! An input is read as each of the forms: a session, a pace, a quota, a snapshot, a prompt and tokens of the client.

use core::fmt::Debug;
use core::time::Duration;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::client::{
    self, DeviceFlow, Endpoints, Login, Prompt, Response, Snapshot, Tokens, TransportError,
};
use device_flow::digest::{QuotaKey, SecretDigest};
use device_flow::server::{
    Cause, Change, Client, ClientAuthMethod, Consent, Exchange, Finish, GrantRefusal, Next, Pace,
    PageError, RateLimit, RateState, Server, Session, Status, Stored, Subject, Write,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::{Date, OffsetDateTime};

use crate::support::login::bob;
use crate::support::{self, Host, NO_CODE, NOW};

pub(crate) fn run(data: &[u8]) {
    let pace = same::<Pace>(data);
    if let Some(pace) = pace {
        assert!(!pace.interval().is_zero());
    }
    if let Some(session) = same::<Session>(data) {
        assert!(session.version() > 0);
        is_decided_on(&session, pace);
    }
    if let Some(quota) = same::<RateState>(data) {
        is_taken_from(quota);
    }
    if let Some(snapshot) = same::<Snapshot>(data) {
        is_resumed(&snapshot);
    }
    if let Some(prompt) = same::<Prompt>(data) {
        let uris = [&prompt.verification_uri].into_iter();
        let mut shown = uris
            .chain(&prompt.verification_uri_complete)
            .chain([&prompt.user_code]);
        assert!(shown.all(|text| text.bytes().all(|b| b.is_ascii_graphic())));
    }
    if let Some(tokens) = same::<Tokens>(data) {
        let others = [
            tokens.refresh_token(),
            tokens.id_token(),
            Some(tokens.token_type()),
        ];
        let mut sent = others.into_iter().flatten().chain([tokens.access_token()]);
        assert!(sent.all(|text| text.bytes().all(|b| (0x20..0x7F).contains(&b))));
    }
    // A pace is used only together with a session.
    if let Some(pace) = pace {
        is_decided_on(&issued(), Some(pace));
    }
}

/// Decodes a value, and asserts that it encodes, and decodes to the same. Returns `None` if it does not decode.
fn same<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let written = encode(&read);
    let again: T = serde_json::from_value(written.clone()).expect("the encoded value decodes");
    assert_eq!(encode(&again), written);
    assert_eq!(format!("{again:?}"), format!("{read:?}"));
    // The text is compared, too, because the order of the members is part of it. This leaves out numbers with a fraction, because
    // `serde_json` does not keep their last bit.
    if has_fraction(&written) {
        return Some(read);
    }
    let text = serde_json::to_string(&read).unwrap();
    let again: T = serde_json::from_str(&text).expect("the encoded value decodes");
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    Some(read)
}

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_fraction),
        Value::Object(members) => members.values().any(has_fraction),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn encode(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("a stored form encodes")
}

fn decode<T: DeserializeOwned>(form: &Value) -> serde_json::Result<T> {
    serde_json::from_value(form.clone())
}

/// Returns a session that was issued just now.
fn issued() -> Session {
    let client = support::cli();
    let mut host = Host::new([client.clone()]);
    let codes = host.issue(&support::server(), &client, 1, NOW);
    host.session(&codes.key).unwrap().clone()
}

/// Returns the form of a session, as if the session had this device code.
fn key_of(session: &Session, code: &str) -> Value {
    let mut form = encode(session);
    form["key"] = json!(support::key_of(code));
    form
}

// Sessions.

/// Collects the moments just before, at, and just after everything that a form names.
fn moments(form: &Value, found: &mut Vec<OffsetDateTime>) {
    match form {
        Value::Number(number) => {
            let Some(millis) = number.as_i64() else {
                return;
            };
            for millis in [millis.saturating_sub(1), millis, millis.saturating_add(1)] {
                let nanos = i128::from(millis) * 1_000_000;
                found.extend(OffsetDateTime::from_unix_timestamp_nanos(nanos));
            }
        }
        Value::Object(members) => members.values().for_each(|member| moments(member, found)),
        // The bytes of the host are not moments.
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn is_decided_on(session: &Session, pace: Option<Pace>) {
    let form = key_of(session, NO_CODE);
    let session: Session = decode(&form).expect("a session with another code is valid");
    let mut found = vec![
        Date::MIN.midnight().assume_utc(),
        NOW,
        Date::MAX.midnight().assume_utc(),
    ];
    moments(&form, &mut found);
    found.sort_unstable();
    found.dedup();
    let stored = Stored { session, pace };
    let one = One::new(&stored, form);
    for now in found {
        one.polls(now);
        one.refreshes(now);
        one.is_entered(now);
        one.decisions(now);
    }
}

/// Returns a moment in the form that a member of the form has.
fn millis(now: OffsetDateTime) -> i128 {
    i128::from(now.unix_timestamp()) * 1000 + i128::from(now.millisecond())
}

/// Returns whether a moment is at or after one that a form names.
fn is_past(now: OffsetDateTime, named: &Value) -> bool {
    millis(now) >= i128::from(named.as_i64().unwrap())
}

/// One stored session. Each exchange begins with it again.
struct One<'s> {
    server: Server,
    client: Client,
    stored: &'s Stored,
    form: Value,
}

/// What an exchange wrote.
enum Wrote {
    Nothing,
    Pace(Pace),
    Session(Session),
}

impl Wrote {
    fn status(&self) -> Option<Status> {
        match self {
            Self::Nothing | Self::Pace(_) => None,
            Self::Session(session) => Some(session.status()),
        }
    }
}

impl<'s> One<'s> {
    fn new(stored: &'s Stored, form: Value) -> Self {
        let session = &stored.session;
        let client = Client::new(session.client_id(), ClientAuthMethod::None);
        let client = client.expect("a stored client id is valid");
        let client = client.allow_device_grant();
        Self {
            server: support::server(),
            client: client.allow_scope(session.scope().clone()),
            stored,
            form,
        }
    }

    fn status(&self) -> Status {
        self.stored.session.status()
    }

    fn is_expired(&self, now: OffsetDateTime) -> bool {
        is_past(now, &self.form["expires_at"])
    }

    /// Returns the approval in the form.
    fn approval(&self) -> &Value {
        let state = &self.form["state"];
        let of = [
            &state["approved"],
            &state["active"]["approval"],
            &state["ended"],
        ];
        of.into_iter().find(|own| !own.is_null()).unwrap()
    }

    /// Runs an exchange with this session as the only one. A look-up by any user code finds it.
    fn run<'r, T: Finish<'r>>(&self, exchange: Exchange<'r, T>) -> (T, Wrote) {
        self.run_refused(exchange, None)
    }

    /// Runs an exchange in the same way, but if there is a `refusal`, the host refuses to mint with it.
    fn run_refused<'r, T: Finish<'r>>(
        &self,
        mut exchange: Exchange<'r, T>,
        refusal: Option<GrantRefusal>,
    ) -> (T, Wrote) {
        let mut wrote = Wrote::Nothing;
        loop {
            match exchange.next() {
                Next::Client(claim, ask) => {
                    assert_eq!(claim.client_id(), Some(self.client.id()));
                    ask.answer(Ok(Some(&self.client)));
                }
                Next::Take(_, ask) => ask.answer(Ok(Ok(()))),
                Next::Load(key, ask) => {
                    assert_eq!(key, self.stored.session.key());
                    ask.answer(Ok(Some(self.stored)));
                }
                Next::LoadByUserKey(_, ask) => ask.answer(Ok(Some(self.stored))),
                Next::Draw(ask) => ask.answer(Ok(support::entropy(2))),
                Next::Insert(session, _) => panic!("{session:?} is inserted"),
                Next::Mint(grant, change, ask) => {
                    let approval = self.approval();
                    assert_eq!(approval["subject"], json!(grant.subject()));
                    assert_eq!(approval["scope"], json!(grant.scope()));
                    assert_eq!(approval["value"], json!(grant.host_value()));
                    assert_eq!(grant.session_key(), self.stored.session.key());
                    assert_eq!(grant.client_id(), self.client.id());
                    assert_eq!(grant.is_refresh(), self.status() == Status::Active);
                    if let Some(refusal) = refusal {
                        ask.refuse(refusal);
                    } else {
                        wrote = self.write(change);
                        ask.answer(Ok(Write::Committed), &support::tokens());
                    }
                }
                Next::Change(change, ask) => {
                    wrote = self.write(change);
                    ask.answer(Ok(Write::Committed));
                }
                Next::SavePace(key, pace) => {
                    assert_eq!(key, self.stored.session.key());
                    let again: Pace = decode(&encode(&pace)).expect("a pace to save is valid");
                    assert_eq!(again, pace);
                    wrote = Wrote::Pace(pace);
                }
                Next::Done(end) => return (end, wrote),
            }
        }
    }

    /// Asserts that a change leads to a session that can be stored and read, and that it cannot be applied twice. Returns that session.
    fn write(&self, change: Change<'_>) -> Wrote {
        let (before, next) = (&self.stored.session, change.session());
        let written = Wrote::Session(next.clone());
        assert_eq!(change.key(), before.key());
        let millis = |name: &str| encode(next)[name].as_i64();
        assert!(millis("purge_at") >= millis("expires_at"));
        // A form may name times and versions that no server reaches. At their ends they saturate, so the checks below do not hold.
        let ends = i64::MAX - 1_000_000_000_000;
        let is_far = self.form["purge_at"].as_i64().unwrap() > ends;
        if is_far || before.version() == u64::from(u32::MAX) {
            return written;
        }
        assert_eq!(change.expected_version(), before.version());
        assert_eq!(next.version(), before.version() + 1);
        assert!(change.applies_to(before) && !change.applies_to(next));
        let is_indexed = !matches!(next.status(), Status::Active | Status::Ended);
        assert_eq!(next.user_key().is_some(), is_indexed);
        let again: Session = decode(&encode(next)).expect("a session can be read after a decision");
        assert_eq!(encode(&again), encode(next));
        written
    }

    fn polls(&self, now: OffsetDateTime) {
        let id = support::encoded(self.client.id());
        let body = support::poll_body(&id, NO_CODE);
        let (reply, wrote) = self.run(self.server.token(support::post(&body), "", now));
        let cause = reply.cause();
        match (self.status(), wrote) {
            (Status::Pending | Status::Claimed, Wrote::Nothing) => {
                let is_early = matches!(cause, Cause::TooFast | Cause::Repeated);
                assert!(self.is_expired(now) && cause == Cause::Expired || is_early);
                assert!(!is_early || self.stored.pace.is_some());
            }
            (Status::Pending | Status::Claimed, Wrote::Pace(pace)) => {
                assert!(!self.is_expired(now));
                assert!(matches!(cause, Cause::Pending | Cause::TooFast));
                let before = self.stored.pace.map(|pace| pace.interval());
                assert!(pace.interval() >= before.unwrap_or_default());
            }
            (Status::Approved, Wrote::Nothing) => {
                assert!(is_past(now, &self.approval()["redeemable_until"]));
                assert_eq!(cause, Cause::ApprovalExpired);
            }
            (Status::Approved, Wrote::Session(session)) => {
                assert!(!is_past(now, &self.approval()["redeemable_until"]));
                assert_eq!((cause, session.status()), (Cause::Granted, Status::Active));
                self.is_refused(&body, now);
            }
            (Status::Active, wrote) => {
                let told = (Cause::Replay, Some(Status::Ended));
                assert!([told, (Cause::Duplicate, None)].contains(&(cause, wrote.status())));
                assert!(reply.since_redemption().is_some());
            }
            (Status::Denied, Wrote::Nothing) => assert_eq!(cause, Cause::Denied),
            (Status::Ended, Wrote::Nothing) => assert_eq!(cause, Cause::Ended),
            (status, wrote) => panic!("{cause} and {:?} for {status:?}", wrote.status()),
        }
    }

    /// Asserts what happens if the host refuses a redemption: if the consent is gone, the session ends, otherwise nothing is written.
    fn is_refused(&self, body: &str, now: OffsetDateTime) {
        for (refusal, cause, status) in [
            (
                GrantRefusal::consent_gone(),
                Cause::ConsentGone,
                Some(Status::Ended),
            ),
            (GrantRefusal::failed(), Cause::MintingFailed, None),
        ] {
            let exchange = self.server.token(support::post(body), "", now);
            let (reply, wrote) = self.run_refused(exchange, Some(refusal));
            assert_eq!((reply.cause(), wrote.status()), (cause, status));
        }
    }

    /// Refreshes and revokes an active login, with the token in force, with the previous one, and with another one.
    fn refreshes(&self, now: OffsetDateTime) {
        let (token, digest) = TOKEN.get_or_init(token);
        let rotation = &self.form["state"]["active"]["refresh"];
        if rotation.is_null() {
            let (cause, wrote) = self.refresh(token, now);
            assert!(cause == Cause::Ended && wrote.status().is_none());
            let (cause, wrote) = self.revoke(token, now);
            assert!(cause == Cause::NothingToRevoke && wrote.status().is_none());
            return;
        }
        // Without an absolute end, the longest possible number of milliseconds takes its place.
        let number = |form: &Value| form.as_i64().unwrap();
        let redeemed_at = number(&self.form["state"]["active"]["redeemed_at"]);
        let end = number(&rotation["until"]).min(redeemed_at.saturating_add(i64::MAX));
        let latest = millis(now).max(number(&rotation["rotated_at"]).into());
        let is_over = latest >= i128::from(end);
        for place in ["current", "previous", "neither"] {
            let mut form = self.form.clone();
            if place != "neither" {
                form["state"]["active"]["refresh"][place] = json!(digest);
            }
            // A session whose two digests are the same is invalid.
            let Ok(session) = decode::<Session>(&form) else {
                let rotation = &form["state"]["active"]["refresh"];
                assert_eq!(rotation["current"], rotation["previous"]);
                continue;
            };
            let rotation = &form["state"]["active"]["refresh"];
            let knows = |place: &str| rotation[place] == json!(digest);
            let (is_current, is_previous) = (knows("current"), knows("previous"));
            let stored = Stored {
                session,
                pace: None,
            };
            let one = One::new(&stored, form.clone());
            let (cause, wrote) = one.refresh(token, now);
            let rotated_at = rotation["rotated_at"].as_i64().unwrap();
            let is_in_grace = millis(now) - i128::from(rotated_at) < GRACE;
            let wanted = if is_over {
                (Cause::LoginExpired, Status::Ended)
            } else if is_current || (is_previous && is_in_grace) {
                (Cause::Refreshed, Status::Active)
            } else {
                (Cause::Reuse, Status::Ended)
            };
            assert_eq!((cause, wrote.status()), (wanted.0, Some(wanted.1)));
            let (cause, wrote) = one.revoke(token, now);
            assert_eq!(cause, Cause::Revoked);
            assert_eq!(wrote.status(), Some(Status::Ended));
        }
    }

    fn refresh(&self, token: &str, now: OffsetDateTime) -> (Cause, Wrote) {
        let body = support::refresh_body(&support::encoded(self.client.id()), token);
        let (reply, wrote) = self.run(self.server.token(support::post(&body), "", now));
        (reply.cause(), wrote)
    }

    fn revoke(&self, token: &str, now: OffsetDateTime) -> (Cause, Wrote) {
        let id = support::encoded(self.client.id());
        let body = format!("token={token}&client_id={id}");
        let (reply, wrote) = self.run(self.server.revocation(support::post(&body), "", now));
        (reply.cause(), wrote)
    }

    fn is_entered(&self, now: OffsetDateTime) {
        for user in [support::alice(), bob()] {
            let mut form = self.form.clone();
            if !form["user_key"].is_null() {
                form["user_key"] = user_key(&self.server, &user);
            }
            let session: Session = decode(&form).expect("a session of another code is valid");
            let claimant = session.claimant().cloned();
            let stored = Stored {
                session,
                pace: None,
            };
            let one = One::new(&stored, form);
            match one.run(one.server.enter(ENTERED, &user, "", now)) {
                (Ok(review), wrote) => {
                    let claimed = (self.status() == Status::Pending).then_some(Status::Claimed);
                    assert_eq!(wrote.status(), claimed);
                    assert!(claimant.is_none_or(|claimant| claimant == user));
                    assert!(!self.is_expired(now) && review.time_left() > Duration::ZERO);
                    let _ = (review.age(), review.shown_source(), review.scope());
                }
                (Err(error), wrote) => {
                    let wanted = match (self.status(), claimant) {
                        // An index may still have the codes of these sessions.
                        (Status::Active | Status::Ended, _) => PageError::UnknownCode,
                        (Status::Approved | Status::Denied, _) => PageError::UsedCode,
                        (Status::Pending | Status::Claimed, _) if self.is_expired(now) => {
                            PageError::ExpiredCode
                        }
                        (Status::Pending | Status::Claimed, _) => PageError::ClaimedByAnother,
                    };
                    assert_eq!(error, wanted);
                    assert!(wrote.status().is_none());
                }
            }
        }
    }

    fn decisions(&self, now: OffsetDateTime) {
        let session = &self.stored.session;
        let (key, all) = (session.key(), Consent::to_all());
        let mut users = vec![support::alice(), bob()];
        users.extend(session.claimant().cloned());
        for user in &users {
            let decided = [
                (self.server.approve(key, user, &all, now), Status::Approved),
                (self.server.deny(key, user, now), Status::Denied),
                (self.server.withdraw(key, user, now), Status::Ended),
                (self.server.release(key, user, now), Status::Pending),
            ];
            for (exchange, status) in decided {
                let (end, wrote) = self.run(exchange);
                assert!(end.is_err() || session.claimant() == Some(user));
                assert!(end.is_ok() || wrote.status().is_none());
                if let Some(written) = wrote.status() {
                    assert_eq!(written, status);
                    let in_time = matches!(status, Status::Approved | Status::Denied);
                    assert!(!in_time || !self.is_expired(now));
                }
            }
        }
    }
}

/// The user code that is entered.
const ENTERED: &str = "BCDF-GHJK";

/// Returns the key under which the code that is entered is looked up.
fn user_key(server: &Server, user: &Subject) -> Value {
    let mut exchange = server.enter(ENTERED, user, "", NOW);
    if let Next::Take(_, ask) = exchange.next() {
        ask.answer(Ok(Ok(())));
    }
    let Next::LoadByUserKey(key, _) = exchange.next() else {
        panic!("a code is looked up")
    };
    json!(key)
}

/// For how long the previous refresh token may be used by default, in milliseconds.
const GRACE: i128 = 30_000;

static TOKEN: OnceLock<(String, SecretDigest)> = OnceLock::new();

/// Returns a refresh token of the session of [`NO_CODE`], and the digest of its secret. A form with this digest belongs to a login that was
/// given the token.
fn token() -> (String, SecretDigest) {
    let (server, client) = (support::server(), support::cli());
    let client = client.allow_scope(support::scope("offline_access"));
    let mut host = Host::new([client.clone()]);
    let codes = host.issue_for(&server, &client, 1, "offline_access", NOW);
    host.approve(&server, &support::alice(), &codes, NOW);
    let approved = key_of(host.session(&codes.key).unwrap(), NO_CODE);
    let mut host = Host::new([client.clone()]);
    let _ = host.store.insert(&decode(&approved).unwrap());
    let token = support::refresh_token(&host.poll(&server, &client, NO_CODE, NOW));
    let octets = URL_SAFE_NO_PAD.decode(&token).unwrap();
    let digest: [u8; 32] = Sha256::digest(&octets[32..64]).into();
    (token, SecretDigest::from_bytes(digest))
}

// Quotas.

fn is_taken_from(quota: RateState) {
    let limit = RateLimit::new(5, Duration::from_mins(1)).unwrap();
    let ends = [Date::MIN, Date::MAX].map(|date| date.midnight().assume_utc());
    for now in [ends[0], NOW, quota.purge_at(), ends[1]] {
        let take = limit.take(QuotaKey::of_host("test", &[]), now);
        // What the script of a store does with the numbers of the operation.
        let (now, room) = (take.now_millis(), take.room_millis());
        let at = if quota.millis() > take.latest_millis() {
            now.saturating_add(room)
        } else {
            quota.millis().max(now)
        };
        match take.apply(Some(quota)) {
            Ok(next) => {
                let next = next.expect("something was taken");
                assert!(at <= now.saturating_add(room));
                assert_eq!(next.millis(), at.saturating_add(take.cost_millis()));
                let again: RateState = decode(&encode(&next)).unwrap();
                assert_eq!(again, next);
            }
            Err(limited) => {
                assert!(at > now.saturating_add(room));
                assert!(limited.retry_after > Duration::ZERO && limited.seconds() > 0);
                assert_eq!(take.refused(quota), limited);
            }
        }
    }
}

// Snapshots.

fn flow() -> DeviceFlow {
    let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
    DeviceFlow::new(endpoints.unwrap(), "cli")
}

/// Returns what a snapshot of [`flow`] is bound to.
fn client() -> Value {
    const ISSUED: &str = r#"{"device_code":"d","user_code":"u","verification_uri":"https://as.example/","expires_in":300}"#;
    let mut login = flow().login().unwrap();
    if let client::Next::Send(ask) = login.next(Duration::ZERO) {
        ask.answer(Ok(Response::new(200, ISSUED)), Duration::ZERO);
    }
    assert!(matches!(login.next(Duration::ZERO), client::Next::Show(_)));
    let snapshot = login.snapshot(Duration::ZERO).unwrap();
    encode(&snapshot)["client"].clone()
}

fn is_resumed(snapshot: &Snapshot) {
    assert_eq!(format!("{snapshot:?}"), "Snapshot { .. }");
    let _ = snapshot.elapsed(Duration::MAX);
    let mut form = encode(snapshot);
    form["client"] = client();
    let snapshot: Snapshot = decode(&form).expect("a snapshot of another client is valid");
    // If no time has elapsed, it is the same login.
    let login = flow().resume(snapshot.clone(), Some(Duration::ZERO), Duration::ZERO);
    form["taken_at"] = Value::Null;
    let again = login.unwrap().snapshot(Duration::ZERO).unwrap();
    assert_eq!(encode(&again), form);

    let interval: Duration = decode(&form["min_interval"]).unwrap();
    for elapsed in [
        None,
        Some(Duration::ZERO),
        Some(Duration::from_mins(5)),
        Some(Duration::MAX),
    ] {
        for start in [Duration::ZERO, Duration::from_hours(1), Duration::MAX] {
            let login = flow().resume(snapshot.clone(), elapsed, start).unwrap();
            goes_on(login, start, interval);
        }
    }
}

/// Polls a few times, with answers that do not end the login, and asserts that the interval is kept.
fn goes_on(mut login: Login, mut now: Duration, mut interval: Duration) {
    for turn in 0..8 {
        is_read_back(&login.snapshot(now).unwrap());
        match login.next(now) {
            client::Next::Wait { until } => {
                assert!(until > now);
                now = until;
            }
            client::Next::Send(ask) => {
                assert_eq!(ask.request().url(), "https://as.example/token");
                is_read_back(&ask.snapshot(now).unwrap());
                let answer = match turn % 3 {
                    0 => Ok(Response::new(400, r#"{"error":"authorization_pending"}"#)),
                    1 => Ok(Response::new(400, r#"{"error":"slow_down"}"#)),
                    _ => Err(TransportError::ConnectionTimeout),
                };
                ask.answer(answer, now);
                // From an answer to the next request, at least the interval in force must pass. It never falls.
                let Some(snapshot) = login.snapshot(now) else {
                    return;
                };
                let form = encode(&snapshot);
                let next: Duration = decode(&form["min_interval"]).unwrap();
                let wait: Duration = decode(&form["wait"]).unwrap();
                assert_eq!(login.interval(), Some(next));
                assert!(next >= interval && (wait >= next || now.checked_add(next).is_none()));
                interval = next;
            }
            client::Next::Show(_) => panic!("the prompt was shown before"),
            client::Next::Done(_) => return,
        }
    }
}

fn is_read_back(snapshot: &Snapshot) {
    let again: Snapshot = decode(&encode(snapshot)).expect("a stored snapshot is read");
    assert_eq!(encode(&again), encode(snapshot));
}
