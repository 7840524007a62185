//! One login under test, and what each poll of it wrote.
//!
//! Moments are milliseconds after [`NOW`], at which its codes were issued.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a test fails"
)]

use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Change, DecisionError, HostValue, Pace, Policy, Polled, Redemption, Registration, Reply,
    Session, Status, Subject, Written,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::support::{
    self, ACCESS_TOKEN, Codes, NOW, alice, assert_refused, assert_reply, cli, error_body, policy,
    post, subject,
};

/// The default lifetime of a code.
pub(crate) const LIFETIME: i64 = 300_000;

/// The default retention after the end of a session.
pub(crate) const RETENTION: i64 = 300_000;

/// Twice the default interval: the grace of an approval.
pub(crate) const GRACE: i64 = 10_000;

/// The moment so many milliseconds after [`NOW`].
pub(crate) fn at(millis: i64) -> OffsetDateTime {
    NOW + Duration::milliseconds(millis)
}

/// The same as it is stored: milliseconds since the epoch.
pub(crate) fn stored_at(millis: i64) -> i64 {
    NOW.unix_timestamp() * 1000 + millis
}

/// Somebody else.
pub(crate) fn bob() -> Subject {
    subject("bob")
}

/// A login: a store with one session, its codes, the policy and the client of both.
pub(crate) struct Login {
    pub(crate) policy: Policy,
    pub(crate) store: Memory,
    pub(crate) client: Registration,
    pub(crate) codes: Codes,
}

/// What became of a poll: the reply, and what was written for it.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) wrote: Wrote,
}

/// What a poll wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    Nothing,
    /// The pace in its stored form; see [`pace`].
    Pace(Value),
    /// The session, guarded.
    Session,
}

/// A saved pace: the last accepted poll, the interval in force in seconds, whether it was widened since.
pub(crate) fn pace(last: i64, interval: u32, widened: bool) -> Wrote {
    let last = stored_at(last);
    Wrote::Pace(json!({ "v": 1, "last": last, "interval": interval, "widened": widened }))
}

/// A pace that a store returned.
pub(crate) fn pace_of(last: i64, interval: u32, widened: bool) -> Pace {
    let last = stored_at(last);
    let form = json!({ "v": 1, "last": last, "interval": interval, "widened": widened });
    serde_json::from_value(form).unwrap()
}

impl Login {
    /// With the default policy and the public client, issued now.
    pub(crate) fn new() -> Self {
        Self::of(policy(), cli())
    }

    pub(crate) fn of(policy: Policy, client: Registration) -> Self {
        let mut store = Memory::new();
        let codes = support::issue(&mut store, &policy, &client, 1, NOW);
        Self {
            policy,
            store,
            client,
            codes,
        }
    }

    /// The same, claimed and approved by Alice at a moment, with all of the scope.
    pub(crate) fn approved_at(moment: i64) -> Self {
        let mut login = Self::new();
        login.approve(moment);
        login
    }

    pub(crate) fn session(&self) -> &Session {
        &self.store.load(&self.codes.key).unwrap().session
    }

    /// The session in its stored form: all there is to know of it.
    pub(crate) fn form(&self) -> Value {
        serde_json::to_value(self.session()).unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.session().status()
    }

    pub(crate) fn pace(&self) -> Option<Pace> {
        self.store.load(&self.codes.key).unwrap().pace
    }

    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.store.save_pace(&self.codes.key, pace);
    }

    /// A poll of the client with an honest host: paces saved, an approval redeemed.
    pub(crate) fn poll(&mut self, now: i64) -> Answer {
        let client = self.client.clone();
        self.poll_as(&client, now)
    }

    /// The same by any client. Asserts that the session changes with a guarded write alone.
    pub(crate) fn poll_as(&mut self, client: &Registration, now: i64) -> Answer {
        let before = (self.store.load(&self.codes.key).is_some()).then(|| self.form());
        let stored = self.store.load(&self.codes.key).cloned();
        let store = &mut self.store;
        let code = &self.codes.device_code;
        let own = self.codes.key;
        let answer = with_poll_of(&self.policy, client, code, |poll| {
            match poll.decide(stored.as_ref(), at(now)) {
                Polled::Reply(reply) => Answer {
                    reply,
                    wrote: Wrote::Nothing,
                },
                Polled::Paced(key, pace, reply) => {
                    assert_eq!(key, &own);
                    store.save_pace(key, pace);
                    let form = serde_json::to_value(pace).unwrap();
                    Answer {
                        reply,
                        wrote: Wrote::Pace(form),
                    }
                }
                Polled::Redeem(redemption) => {
                    let written = store.change(redemption.change());
                    Answer {
                        reply: redemption.settle(written, &support::tokens()).unwrap(),
                        wrote: Wrote::Session,
                    }
                }
            }
        });
        if answer.wrote != Wrote::Session {
            let after = (self.store.load(&self.codes.key).is_some()).then(|| self.form());
            assert_eq!(before, after, "the session changed without a guarded write");
        }
        answer
    }

    /// What the core decides on the session as it is stored now, without writing anything.
    pub(crate) fn decide<T>(&self, now: i64, then: impl FnOnce(Polled<'_>) -> T) -> T {
        let stored = self.store.load(&self.codes.key).cloned();
        with_poll_of(
            &self.policy,
            &self.client,
            &self.codes.device_code,
            |poll| then(poll.decide(stored.as_ref(), at(now))),
        )
    }

    /// The redemption that a poll of an approved session leads to.
    pub(crate) fn redeem<T>(&self, now: i64, then: impl FnOnce(Redemption<'_>) -> T) -> T {
        self.decide(now, |polled| then(redemption(polled)))
    }

    /// Alice enters the code.
    pub(crate) fn claim(&mut self, now: i64) {
        self.claim_by(&alice(), now);
    }

    pub(crate) fn claim_by(&mut self, user: &Subject, now: i64) {
        let code = &self.codes.user_code;
        let _ = support::claim(&mut self.store, &self.policy, user, code, at(now));
    }

    /// Alice enters the code and approves all of the scope.
    pub(crate) fn approve(&mut self, now: i64) {
        support::approve(
            &mut self.store,
            &self.policy,
            &alice(),
            &self.codes,
            at(now),
        );
    }

    /// Alice enters the code and denies.
    pub(crate) fn deny(&mut self, now: i64) {
        support::deny(
            &mut self.store,
            &self.policy,
            &alice(),
            &self.codes,
            at(now),
        );
    }

    /// Alice takes her approval back.
    pub(crate) fn withdraw(&mut self) {
        let change = self.session().withdraw(&alice()).unwrap().unwrap();
        self.write(&change);
    }

    /// What approving gives, with all of the scope.
    pub(crate) fn approval_by(
        &self,
        user: &Subject,
        now: i64,
    ) -> Result<Option<Change>, DecisionError> {
        self.approval_of(user, self.session().scope(), now)
    }

    pub(crate) fn approval_of(
        &self,
        user: &Subject,
        scope: &Scope,
        now: i64,
    ) -> Result<Option<Change>, DecisionError> {
        let value = HostValue::default();
        self.session()
            .approve(user, scope, value, &self.policy, at(now))
    }

    /// Writes a change that must win, and asserts that the version rises by one.
    #[track_caller]
    pub(crate) fn write(&mut self, change: &Change) {
        let version = self.session().version();
        assert_eq!(change.expected_version(), version);
        assert_eq!(self.store.change(change), Written::Won);
        assert_eq!(self.session().version(), version + 1);
    }
}

/// A poll of a client of this policy with any code.
pub(crate) fn with_poll_of<T>(
    policy: &Policy,
    client: &Registration,
    code: &str,
    then: impl FnOnce(&mut device_flow::server::Poll<'_>) -> T,
) -> T {
    let body = support::poll_body(client.client_id(), code);
    let header = support::authorization(client);
    let incoming = post(&body).authorization(header.as_ref());
    support::with_poll(policy, incoming, Some(client), then).unwrap()
}

/// The redemption, which must be what the core decided.
#[track_caller]
pub(crate) fn redemption(polled: Polled<'_>) -> Redemption<'_> {
    match polled {
        Polled::Redeem(redemption) => redemption,
        Polled::Reply(reply) | Polled::Paced(_, _, reply) => {
            panic!("no redemption but {:?}", reply.cause())
        }
    }
}

/// Asserts `authorization_pending` and what was written.
#[track_caller]
pub(crate) fn assert_pending(answer: &Answer, wrote: &Wrote) {
    assert_refused(
        &answer.reply,
        Cause::Pending,
        "authorization_pending",
        "the user has not decided yet",
    );
    assert_eq!(answer.wrote, *wrote);
}

/// Asserts `slow_down` with the interval in the body and the header, and what was written.
#[track_caller]
pub(crate) fn assert_slow_down(answer: &Answer, interval: u32, wrote: &Wrote) {
    let seconds = interval.to_string();
    let body = format!(
        r#"{{"error":"slow_down","error_description":"polling too fast","interval":{interval}}}"#
    );
    assert_reply(
        &answer.reply,
        Cause::TooFast,
        400,
        &[("retry-after", &seconds)],
        &body,
    );
    assert_eq!(answer.wrote, *wrote);
}

/// Asserts the one `invalid_grant` of every poll.
#[track_caller]
pub(crate) fn assert_invalid_grant(reply: &Reply, cause: Cause) {
    assert_refused(
        reply,
        cause,
        "invalid_grant",
        "the device code is not valid",
    );
}

/// Asserts `invalid_grant` for a code that was redeemed so many milliseconds ago.
#[track_caller]
pub(crate) fn assert_used(reply: &Reply, cause: Cause, millis: u64) {
    assert_invalid_grant(reply, cause);
    let since = core::time::Duration::from_millis(millis);
    assert_eq!(reply.since_redemption(), Some(since));
}

/// Asserts `access_denied`.
#[track_caller]
pub(crate) fn assert_denied(reply: &Reply) {
    assert_refused(
        reply,
        Cause::Denied,
        "access_denied",
        "the user denied the request",
    );
}

/// Asserts `expired_token`.
#[track_caller]
pub(crate) fn assert_expired(reply: &Reply, cause: Cause) {
    assert_refused(reply, cause, "expired_token", "the device code has expired");
}

/// Asserts a success with the tokens of [`support::tokens`] and this scope.
#[track_caller]
pub(crate) fn assert_granted(reply: &Reply, scope: &str) {
    let body =
        format!(r#"{{"access_token":"{ACCESS_TOKEN}","token_type":"Bearer","scope":"{scope}"}}"#);
    assert_reply(reply, Cause::Granted, 200, &[], &body);
}

/// The status, the headers and the body, for comparing byte for byte.
pub(crate) fn bytes(reply: &Reply) -> (u16, Vec<(&'static str, String)>, String) {
    let response = reply.response();
    let headers = response
        .headers()
        .map(|(name, value)| (name, (*value).to_owned()));
    (
        response.status(),
        headers.collect(),
        response.body().to_owned(),
    )
}

/// The bytes of the poll's `invalid_grant`, written out.
pub(crate) fn invalid_grant_bytes() -> (u16, Vec<(&'static str, String)>, String) {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("pragma", "no-cache".to_owned()),
    ];
    let body = error_body("invalid_grant", "the device code is not valid");
    (400, headers, body)
}
