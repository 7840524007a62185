//! One login under test, and what each poll of it wrote.
//!
//! Moments are in milliseconds after [`NOW`], when its codes were issued.

use device_flow::server::{
    Cause, Client, Consent, Pace, PageError, Policy, Reply, Server, Session, Status, Subject,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::support::{
    ACCESS_TOKEN, Codes, Host, NOW, Question, alice, assert_refused, assert_reply, cli, error_body,
    policy, server_of, subject,
};

/// The default lifetime of a code, in milliseconds.
pub(crate) const LIFETIME: i64 = 300_000;

/// The default retention after the end of a session, in milliseconds.
pub(crate) const RETENTION: i64 = 300_000;

/// For how long an approval can be redeemed at least, in milliseconds: the default cap plus one interval.
pub(crate) const REDEEM_TIME: i64 = 65_000;

/// Returns the moment that is this many milliseconds after [`NOW`].
pub(crate) fn at(millis: i64) -> OffsetDateTime {
    NOW + Duration::milliseconds(millis)
}

/// Returns the same moment as it is stored: in milliseconds since the Unix epoch.
pub(crate) fn stored_at(millis: i64) -> i64 {
    NOW.unix_timestamp() * 1000 + millis
}

/// Returns another user.
pub(crate) fn bob() -> Subject {
    subject("bob")
}

/// A login: the server, a host with one session, the client, and the codes of the session.
pub(crate) struct Login {
    pub(crate) server: Server,
    pub(crate) host: Host,
    pub(crate) client: Client,
    pub(crate) codes: Codes,
}

/// The result of a poll: the reply, and what was written.
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
    /// The session, by a guarded change.
    Session,
}

/// Returns [`Wrote::Pace`] with the last accepted poll, the interval in force in seconds, and whether it was widened since then.
pub(crate) fn pace(last: i64, interval: u32, widened: bool) -> Wrote {
    let last = stored_at(last);
    Wrote::Pace(json!({ "v": 2, "last": last, "interval": interval, "widened": widened }))
}

/// Returns such a pace as a store returns it.
pub(crate) fn pace_of(last: i64, interval: u32, widened: bool) -> Pace {
    let last = stored_at(last);
    let form = json!({ "v": 2, "last": last, "interval": interval, "widened": widened });
    serde_json::from_value(form).unwrap()
}

impl Login {
    /// Issues codes with the default policy to the public client, at [`NOW`].
    pub(crate) fn new() -> Self {
        Self::of(policy(), cli())
    }

    pub(crate) fn of(policy: Policy, client: Client) -> Self {
        Self::asking(policy, client, "openid+profile")
    }

    /// Issues codes with this scope, which must be form-encoded.
    pub(crate) fn asking(policy: Policy, client: Client, scope: &str) -> Self {
        let server = server_of(policy);
        let mut host = Host::new([client.clone(), crate::support::backend()]);
        let codes = host.issue_for(&server, &client, 1, scope, NOW);
        Self {
            server,
            host,
            client,
            codes,
        }
    }

    /// Returns a login as [`Login::new`] does, which Alice has claimed and approved at `moment`, with all of the scope.
    pub(crate) fn approved_at(moment: i64) -> Self {
        let mut login = Self::new();
        login.approve(moment);
        login
    }

    pub(crate) fn session(&self) -> &Session {
        self.host.session(&self.codes.key).unwrap()
    }

    /// Returns the session in its stored form, which holds everything.
    pub(crate) fn form(&self) -> Value {
        serde_json::to_value(self.session()).unwrap()
    }

    /// Returns the session in its stored form, or `None` if it is not stored.
    pub(crate) fn form_if_any(&self) -> Option<Value> {
        let session = self.host.session(&self.codes.key)?;
        Some(serde_json::to_value(session).unwrap())
    }

    pub(crate) fn status(&self) -> Status {
        self.session().status()
    }

    pub(crate) fn pace(&self) -> Option<Pace> {
        self.host.store.load(&self.codes.key).unwrap().pace
    }

    pub(crate) fn set_pace(&mut self, pace: Pace) {
        self.host.store.save_pace(&self.codes.key, pace);
    }

    /// Polls as the client of the login, with the host as it is.
    pub(crate) fn poll(&mut self, now: i64) -> Answer {
        let client = self.client.clone();
        self.poll_as(&client, now)
    }

    /// Polls as any client. Asserts that the session changes only by a guarded change.
    pub(crate) fn poll_as(&mut self, client: &Client, now: i64) -> Answer {
        let code = self.codes.device_code.clone();
        self.poll_with(client, &code, now)
    }

    /// Registers this client, or replaces its registration, and polls as it with any code.
    pub(crate) fn poll_with(&mut self, client: &Client, code: &str, now: i64) -> Answer {
        let before = self.form_if_any();
        if !self.host.clients.iter().any(|own| own.id() == client.id()) {
            self.host.clients.push(client.clone());
        }
        if let Some(own) = self
            .host
            .clients
            .iter_mut()
            .find(|own| own.id() == client.id())
        {
            *own = client.clone();
        }
        let reply = self.host.poll(&self.server, client, code, at(now));
        let after = self.form_if_any();
        let is_paced = self.host.count(Question::SavePace) > 0;
        let wrote = if self.host.count(Question::Change) > 0 {
            Wrote::Session
        } else if is_paced {
            Wrote::Pace(serde_json::to_value(self.pace()).unwrap())
        } else {
            Wrote::Nothing
        };
        if wrote != Wrote::Session {
            assert_eq!(before, after, "the session changed without a guarded write");
        }
        Answer { reply, wrote }
    }

    /// Enters the code as Alice.
    pub(crate) fn claim(&mut self, now: i64) {
        self.claim_by(&alice(), now);
    }

    pub(crate) fn claim_by(&mut self, user: &Subject, now: i64) {
        let code = self.codes.user_code.clone();
        let review = self.host.claim(&self.server, user, &code, at(now));
        assert_eq!(review.unwrap().session_key(), &self.codes.key);
    }

    /// Enters the code as Alice, and approves all of the scope.
    pub(crate) fn approve(&mut self, now: i64) {
        self.host
            .approve(&self.server, &alice(), &self.codes, at(now));
    }

    /// Enters the code as Alice, and denies.
    pub(crate) fn deny(&mut self, now: i64) {
        self.host.deny(&self.server, &alice(), &self.codes, at(now));
    }

    /// Takes Alice's approval back.
    pub(crate) fn withdraw(&mut self) {
        self.withdraw_by(&alice(), 0).unwrap();
    }

    pub(crate) fn withdraw_by(&mut self, user: &Subject, now: i64) -> Result<Session, PageError> {
        self.host
            .run(self.server.withdraw(&self.codes.key, user, at(now)))
    }

    /// Approves all of the scope as this user, and returns the result.
    pub(crate) fn approve_by(&mut self, user: &Subject, now: i64) -> Result<Session, PageError> {
        self.consent_by(user, &Consent::to_all(), now)
    }

    pub(crate) fn consent_by(
        &mut self,
        user: &Subject,
        consent: &Consent,
        now: i64,
    ) -> Result<Session, PageError> {
        self.host
            .run(self.server.approve(&self.codes.key, user, consent, at(now)))
    }

    pub(crate) fn deny_by(&mut self, user: &Subject, now: i64) -> Result<Session, PageError> {
        self.host
            .run(self.server.deny(&self.codes.key, user, at(now)))
    }

    pub(crate) fn release_by(&mut self, user: &Subject, now: i64) -> Result<Session, PageError> {
        self.host
            .run(self.server.release(&self.codes.key, user, at(now)))
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

/// Asserts the `invalid_grant` response, which is the same for every poll.
#[track_caller]
pub(crate) fn assert_invalid_grant(reply: &Reply, cause: Cause) {
    assert_refused(
        reply,
        cause,
        "invalid_grant",
        "the device code is not valid",
    );
}

/// Asserts `invalid_grant` for a code that was redeemed this many milliseconds ago.
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

/// Returns the status, the headers and the body, to compare them byte for byte.
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

/// Returns the bytes of the `invalid_grant` response to a poll, written out by hand.
pub(crate) fn invalid_grant_bytes() -> (u16, Vec<(&'static str, String)>, String) {
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("pragma", "no-cache".to_owned()),
    ];
    let body = error_body("invalid_grant", "the device code is not valid");
    (400, headers, body)
}
