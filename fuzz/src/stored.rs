//! No stored form panics; what decodes encodes, and decodes to the same; a decoded session can be decided on at any moment, and what was decided can be stored again.
//!
//! An input is read as each of the forms: a session, a pace, a quota, a snapshot of the client.

use core::fmt::Debug;
use core::time::Duration;

use device_flow::client::{
    DeviceFlow, Endpoints, Failure, Next, Received, Snapshot, Step, Waiting,
};
use device_flow::digest::QuotaKey;
use device_flow::server::{
    Authentication, Cause, Change, Entered, Entry, HostValue, Pace, Polled, Quota, Registration,
    Session, Status, Stored, Written,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::{Date, OffsetDateTime};

use crate::login::bob;
use crate::support::{self, NO_CODE, NOW};

pub(crate) fn run(data: &[u8]) {
    let pace = same::<Pace>(data);
    if let Some(pace) = pace {
        assert!(!pace.interval().is_zero());
    }
    if let Some(session) = same::<Session>(data) {
        is_decided_on(&session, pace);
    }
    if let Some(quota) = same::<Quota>(data) {
        is_taken_from(quota);
    }
    if let Some(snapshot) = same::<Snapshot>(data) {
        is_resumed(&snapshot);
    }
    // A pace is nothing without a session.
    if let Some(pace) = pace {
        let mut session = issued();
        session = decode(&key_of(&session, NO_CODE)).unwrap();
        is_decided_on(&session, Some(pace));
    }
}

/// What decodes, encodes, and decodes to the same.
fn same<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(data).ok()?;
    let written = encode(&read);
    let again: T = serde_json::from_value(written.clone()).expect("what was written is read");
    assert_eq!(encode(&again), written);
    assert_eq!(format!("{again:?}"), format!("{read:?}"));
    // Also as text, where the order of members is part of it.
    let text = serde_json::to_string(&read).unwrap();
    let again: T = serde_json::from_str(&text).expect("what was written is read");
    assert_eq!(serde_json::to_string(&again).unwrap(), text);
    Some(read)
}

fn encode(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("a stored form encodes")
}

fn decode<T: DeserializeOwned>(form: &Value) -> serde_json::Result<T> {
    serde_json::from_value(form.clone())
}

/// A session that was issued just now.
fn issued() -> Session {
    let mut store = device_flow::memory::Memory::new();
    let policy = support::policy();
    let codes = support::issue(&mut store, &policy, &support::cli(), 1, NOW);
    store.load(&codes.key).unwrap().session.clone()
}

/// The form of a session as if it were of this device code.
fn key_of(session: &Session, code: &str) -> Value {
    let octets: [u8; 32] = Sha256::digest(code.as_bytes()).into();
    let key = device_flow::digest::SessionKey::from_bytes(octets);
    let mut form = encode(session);
    form["key"] = json!(key);
    form
}

// Sessions.

/// The moments around everything that a form names, and the ends of time.
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
        // The bytes of the host are no moments.
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn is_decided_on(session: &Session, pace: Option<Pace>) {
    let form = key_of(session, NO_CODE);
    let session: Session = decode(&form).expect("a session of another code is one");
    let mut found = vec![
        Date::MIN.midnight().assume_utc(),
        NOW,
        Date::MAX.midnight().assume_utc(),
    ];
    moments(&form, &mut found);
    found.sort_unstable();
    found.dedup();
    let stored = Stored {
        session: session.clone(),
        pace,
    };
    for now in found {
        polls(&stored, &form, now);
        is_entered(&session, now);
        decisions(&session, &form, now);
    }
}

/// The moment that a member of the form names, as the form has it.
fn millis(now: OffsetDateTime) -> i128 {
    i128::from(now.unix_timestamp()) * 1000 + i128::from(now.millisecond())
}

fn polls(stored: &Stored, form: &Value, now: OffsetDateTime) {
    let session = &stored.session;
    let policy = support::policy();
    let own = Registration::new(session.client_id(), Authentication::Public);
    let own = own.expect("a stored client id is one").allow_device_grant();
    let id = support::encoded(session.client_id());
    let body = support::poll_body(&id, NO_CODE);
    let decided = support::with_poll(&policy, support::post(&body), Some(&own), |poll| {
        let expired = millis(now) >= i128::from(form["expires_at"].as_i64().unwrap());
        match (poll.decide(Some(stored), now), session.status()) {
            (Polled::Reply(reply), Status::Pending | Status::Claimed) => {
                let wanted = if expired {
                    Cause::Expired
                } else {
                    Cause::TooFast
                };
                assert_eq!(reply.cause(), wanted);
            }
            (Polled::Paced(key, pace, reply), Status::Pending | Status::Claimed) => {
                assert!(!expired);
                assert_eq!(key, session.key());
                assert!(matches!(reply.cause(), Cause::Pending | Cause::TooFast));
                let before = stored.pace.map(|pace| pace.interval());
                assert!(pace.interval() >= before.unwrap_or_default());
                let again: Pace = decode(&encode(&pace)).expect("a pace to save is one");
                assert_eq!(again, pace);
            }
            (Polled::Reply(reply), Status::Approved) => {
                let until = form["state"]["approved"]["redeemable_until"].as_i64();
                assert!(millis(now) >= i128::from(until.unwrap()));
                assert_eq!(reply.cause(), Cause::ApprovalExpired);
            }
            (Polled::Redeem(redemption), Status::Approved) => {
                let grant = &form["state"]["approved"];
                let approval = redemption.approval();
                assert_eq!(grant["subject"], json!(approval.subject()));
                assert_eq!(grant["scope"], json!(approval.scope()));
                assert_eq!(grant["value"], json!(approval.host_value()));
                is_stored_again(session, redemption.change(), Status::Redeemed);
                let revocation = redemption.revoke();
                is_stored_again(session, revocation.change(), Status::Revoked);
            }
            (Polled::Reply(reply), Status::Redeemed) => {
                assert!(matches!(reply.cause(), Cause::Replay | Cause::Duplicate));
                assert!(reply.since_redemption().is_some());
            }
            (Polled::Reply(reply), Status::Denied) => assert_eq!(reply.cause(), Cause::Denied),
            (Polled::Reply(reply), Status::Revoked) => assert_eq!(reply.cause(), Cause::Revoked),
            (polled, status) => panic!("{polled:?} for {status:?}"),
        }
    });
    decided.expect("the client is known");
}

fn is_entered(session: &Session, now: OffsetDateTime) {
    let policy = support::policy();
    let keys = support::keys();
    for user in [support::alice(), bob()] {
        let mut entry = Entry::new("BCDF-GHJK", &user, &keys, &policy);
        let paid = entry.pay(None, now).unwrap().settle(Written::Won).unwrap();
        let mut form = encode(session);
        form["user_key"] = json!(paid.user_keys().next().unwrap());
        let session: Session = decode(&form).expect("a session of another user code is one");
        if let Ok(Entered::Claim(claim)) = paid.enter(Some(&session), now) {
            is_stored_again(&session, claim.change(), Status::Claimed);
            let review = claim.settle(Written::Won).unwrap();
            assert!(review.time_left() > Duration::ZERO);
            let _ = (review.age(), review.origin(), review.scope());
        }
    }
}

fn decisions(session: &Session, form: &Value, now: OffsetDateTime) {
    let policy = support::policy();
    let mut users = vec![support::alice(), bob()];
    users.extend(session.claimant().cloned());
    for user in users {
        let is_claimant = session.claimant() == Some(&user);
        let approved = session.approve(&user, session.scope(), HostValue::default(), &policy, now);
        let denied = session.deny(&user, now);
        let withdrawn = session.withdraw(&user);
        let released = session.release(&user);
        assert!(is_claimant || approved.is_err());
        assert!(is_claimant || denied.is_err());
        assert!(is_claimant || withdrawn.is_err());
        assert!(is_claimant || released.is_err());
        let expired = millis(now) >= i128::from(form["expires_at"].as_i64().unwrap());
        let changes = [
            (approved.ok().flatten(), Status::Approved, true),
            (denied.ok().flatten(), Status::Denied, true),
            (withdrawn.ok().flatten(), Status::Revoked, false),
            (released.ok(), Status::Pending, false),
        ];
        for (change, status, in_time) in changes {
            if let Some(change) = change {
                assert!(!(in_time && expired));
                is_stored_again(session, &change, status);
            }
        }
    }
}

/// A change leads to a session that can be stored and read, and is not led to twice.
fn is_stored_again(session: &Session, change: &Change, status: Status) {
    let next = session.apply(change).expect("nothing came between");
    assert_eq!(next.status(), status);
    let millis = |name: &str| encode(&next)[name].as_i64();
    assert!(millis("purge_at") >= millis("expires_at"));
    // A form may name times and versions that no server comes to; at their ends they saturate.
    let form = encode(session);
    let ends = i64::MAX - 1_000_000_000;
    let is_far = |name| form[name].as_i64().is_some_and(|millis| millis > ends);
    if session.version() > u64::MAX - 2 || is_far("expires_at") || is_far("purge_at") {
        return;
    }
    assert_eq!(next.version(), session.version() + 1);
    assert!(next.apply(change).is_none());
    let again: Session = decode(&encode(&next)).expect("what was decided is read again");
    assert_eq!(encode(&again), encode(&next));
}

// Quotas.

fn is_taken_from(quota: Quota) {
    let limit = support::policy().guess_limit();
    let key = QuotaKey::guesses_from("203.0.113.7");
    let ends = [Date::MIN, Date::MAX].map(|date| date.midnight().assume_utc());
    for now in [ends[0], NOW, quota.purge_at(), ends[1]] {
        let taken = limit.take(key, Some(quota), now);
        assert_eq!(taken.is_ok(), limit.check(Some(quota), now).is_ok());
        match taken {
            Ok(change) => {
                assert_eq!(change.from(), Some(quota));
                let millis = |quota: Quota| encode(&quota).as_i64().unwrap();
                assert!(millis(change.to()) >= millis(quota));
                let again: Quota = decode(&encode(&change.to())).unwrap();
                assert_eq!(again, change.to());
            }
            Err(spent) => assert!(spent.retry_after > Duration::ZERO && spent.seconds() > 0),
        }
    }
}

// Snapshots.

fn flow() -> DeviceFlow {
    let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
    DeviceFlow::new(endpoints.unwrap(), "cli")
}

/// What a snapshot of [`flow`] is bound to.
fn client() -> Value {
    const ISSUED: &str = r#"{"device_code":"d","user_code":"u","verification_uri":"https://as.example/","expires_in":300}"#;
    let (starting, _) = flow().start(Duration::ZERO).unwrap();
    let issued = starting.answer(Ok(Received::new(200, ISSUED)), Duration::ZERO);
    let snapshot = issued.unwrap().0.snapshot(Duration::ZERO);
    encode(&snapshot)["client"].clone()
}

fn is_resumed(snapshot: &Snapshot) {
    assert_eq!(format!("{snapshot:?}"), "Snapshot(redacted)");
    let _ = snapshot.elapsed(Duration::MAX);
    let mut form = encode(snapshot);
    form["client"] = client();
    let snapshot: Snapshot = decode(&form).expect("a snapshot of another client is one");
    // With nothing elapsed it is the same poller.
    let waiting = flow().resume(snapshot.clone(), Some(Duration::ZERO), Duration::ZERO);
    form["taken_at"] = Value::Null;
    assert_eq!(encode(&waiting.unwrap().snapshot(Duration::ZERO)), form);

    let floor: Duration = decode(&form["floor"]).unwrap();
    for elapsed in [
        None,
        Some(Duration::ZERO),
        Some(Duration::from_mins(5)),
        Some(Duration::MAX),
    ] {
        for start in [Duration::ZERO, Duration::from_hours(1), Duration::MAX] {
            let waiting = flow().resume(snapshot.clone(), elapsed, start).unwrap();
            goes_on(waiting, start, floor);
        }
    }
}

/// A few polls of a poller that is fed whatever keeps it going.
fn goes_on(mut waiting: Waiting, mut now: Duration, mut floor: Duration) {
    for turn in 0..8 {
        let snapshot = waiting.snapshot(now);
        let again: Snapshot = decode(&encode(&snapshot)).expect("what was put aside is read");
        assert_eq!(encode(&again), encode(&snapshot));
        match waiting.next(now) {
            Next::Wait(same, until) => {
                assert!(until > now);
                waiting = same;
                now = until;
            }
            Next::Send(sent, request) => {
                assert_eq!(request.url(), "https://as.example/token");
                let snapshot = sent.snapshot(now);
                let again: Snapshot =
                    decode(&encode(&snapshot)).expect("what was put aside is read");
                assert_eq!(encode(&again), encode(&snapshot));
                let answer = match turn % 3 {
                    0 => Ok(Received::new(400, r#"{"error":"authorization_pending"}"#)),
                    1 => Ok(Received::new(400, r#"{"error":"slow_down"}"#)),
                    _ => Err(Failure::ConnectionTimeout),
                };
                match sent.answer(answer, now) {
                    Step::Again(later) => waiting = later,
                    Step::Done(_) => return,
                }
                // From an answer to the next request at least the floor, which never falls.
                let form = encode(&waiting.snapshot(now));
                let next: Duration = decode(&form["floor"]).unwrap();
                let wait: Duration = decode(&form["wait"]).unwrap();
                assert!(next >= floor && (wait >= next || now.checked_add(next).is_none()));
                floor = next;
            }
            Next::Done(_) => return,
        }
    }
}
