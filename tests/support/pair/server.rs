//! The server of a [pair](super). Its answers must agree with what it has stored.

use core::time::Duration;

use device_flow::client;
use device_flow::digest::SessionKey;
use device_flow::server::{
    self, Cause, Consent, Exchange, PageError, PolicyOptions, RateLimit, RefreshOptions, Reply,
    Request, Session, Status, Subject,
};
use serde_json::Value;

use super::refresh::{IDLE, Rotation};
use super::{ASKED, Client, Commit, Granted, Meddler, Setup, at, bob};
use crate::support::{self, BACKEND, CLI, Host, Question, SECRET, SOURCE, Says};

/// The address from which strangers send their requests.
const ELSEWHERE: &str = "198.51.100.66";

/// How many wrong secrets the default policy permits at once.
const WRONG_SECRETS: u32 = 10;

/// The widest interval of the default policy, in milliseconds.
const CAP: i64 = 60_000;

/// The crate on its embedded store, for one session.
pub(crate) struct Server {
    core: server::Server,
    host: Host,
    own: server::Client,
    other: server::Client,
    key: SessionKey,
    pub(crate) interval: i64,
    pub(crate) lifetime: i64,
    /// For how long after the redemption a second poll counts as a duplicate, in milliseconds.
    pub(crate) retry_window: i64,
    /// Until when an approval may be redeemed.
    pub(crate) redeemable_until: i64,
    pub(crate) successes: u8,
    pub(crate) slowed_down: bool,
    /// Whether the user took an approval back.
    pub(crate) withdrawn: bool,
    /// The interval that was announced last, in seconds.
    announced: i64,
    wrong_secrets: u32,
    /// The latest moment at which a wrong secret was sent.
    last_wrong_secret: i64,
    pub(crate) messages: u64,
    /// The refresh tokens, once the device has redeemed its code for one.
    pub(super) rotation: Option<Rotation>,
}

fn received<'a>(request: &'a client::Request, authorization: &'a [&'a str]) -> Request<'a> {
    let types = request
        .headers()
        .filter(|(name, _)| *name == "content-type");
    let types: Vec<_> = types.map(|(_, value)| value).collect();
    assert_eq!(types, [support::FORM]);
    assert!(!request.url().contains('?'));
    Request::new(request.method(), request.body().as_bytes())
        .content_type(Some(support::FORM))
        .authorization(authorization.iter().copied())
}

fn authorization(request: &client::Request) -> Vec<&str> {
    let headers = request
        .headers()
        .filter(|(name, _)| *name == "authorization");
    headers.map(|(_, value)| value).collect()
}

impl Server {
    pub(crate) fn new(setup: Setup) -> Self {
        let (own, other) = match setup.client {
            Client::Public => (support::cli(), support::backend()),
            Client::SecretInHeader | Client::SecretInBody => (support::backend(), support::cli()),
        };
        let own = own.allow_scope(support::scope("openid profile email offline_access"));
        let (interval, lifetime) = (setup.interval.into(), setup.lifetime.into());
        let options = PolicyOptions {
            interval: Duration::from_secs(interval),
            lifetime: Duration::from_secs(lifetime),
            guess_limit: RateLimit::new(5, Duration::from_mins(2)).unwrap(),
            refresh: Some(RefreshOptions {
                idle: IDLE,
                ..RefreshOptions::default()
            }),
            ..PolicyOptions::default()
        };
        let millis = |seconds: u64| i64::try_from(seconds).unwrap() * 1000;
        let interval = millis(interval);
        Self {
            core: support::server_of(support::policy_of(options)),
            host: Host::new([own.clone(), other.clone()]),
            own,
            other,
            key: SessionKey::from_bytes([0; 32]),
            interval,
            lifetime: millis(lifetime),
            retry_window: if interval - (interval / 4).max(1000) > 2000 {
                2000
            } else {
                500
            },
            redeemable_until: 0,
            successes: 0,
            slowed_down: false,
            withdrawn: false,
            announced: 0,
            wrong_secrets: 0,
            last_wrong_secret: i64::MIN,
            messages: 0,
            rotation: None,
        }
    }

    pub(crate) fn issue(&mut self, request: &client::Request) -> Reply {
        let authorization = authorization(request);
        let request = received(request, &authorization);
        let issuing = self.core.device_authorization(request, SOURCE, None, at(0));
        let reply = self.host.run(issuing);
        assert_eq!(reply.cause(), Cause::Issued);
        self.key = support::Codes::of(&reply).key;
        reply
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.host.session(&self.key)
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.session().map(Session::status)
    }

    /// Returns the stored session and pace as one text.
    pub(super) fn record(&self) -> Option<String> {
        let stored = self.host.store.load(&self.key)?;
        Some(serde_json::to_string(&(&stored.session, stored.pace)).unwrap())
    }

    /// Returns the moment of the last accepted poll, if it is stored.
    fn last_poll(&self) -> Option<i64> {
        let pace = self.host.store.load(&self.key)?.pace?;
        let pace = serde_json::to_value(pace).unwrap();
        Some(pace["last"].as_i64().unwrap() - at(0).unix_timestamp() * 1000)
    }

    pub(crate) fn purge(&mut self, now: i64) {
        let _ = self.host.store.purge(at(now));
        if let Some(rotation) = &mut self.rotation {
            rotation.purge(now);
        }
    }

    /// Answers a poll with the device's code, whoever sends it. Asserts that the answer is right.
    pub(crate) fn poll(&mut self, request: &client::Request, commit: Commit, now: i64) -> Reply {
        self.messages += 1;
        let before = self.status();
        let version = self.session().map(Session::version);
        let (record, last) = (self.record(), self.last_poll());
        let reply = self.answer(request, commit, now);
        if reply.cause() == Cause::Granted {
            self.successes += 1;
            let is_refreshable = self.session().unwrap().refreshed_at().is_some();
            self.rotation =
                is_refreshable.then(|| Rotation::first(support::refresh_token(&reply), now));
        }
        assert!(self.successes <= 1, "two successes of one session");
        let unexpired = now < self.lifetime;
        let open = matches!(before, Some(Status::Pending | Status::Claimed));
        let approved = before == Some(Status::Approved);
        let redeemable = approved && now < self.redeemable_until;
        let active = before == Some(Status::Active);
        let written = commit == Commit::Heard;
        // If the clock went back, the poll is no replay.
        let since = reply.since_redemption().unwrap_or_default();
        let window = Duration::from_millis(self.retry_window.unsigned_abs());
        let right = match reply.cause() {
            Cause::Granted => redeemable && written,
            Cause::Pending | Cause::TooFast => open && unexpired,
            Cause::Repeated => {
                let is_repeated = last.is_some_and(|last| (last..last + 1000).contains(&now));
                open && unexpired && is_repeated && self.record() == record
            }
            Cause::Expired => open && !unexpired,
            Cause::ApprovalExpired => approved && !redeemable,
            Cause::Denied => before == Some(Status::Denied),
            Cause::Duplicate => active && since < window,
            Cause::Replay => active && since >= window && written,
            Cause::Ended => before == Some(Status::Ended),
            Cause::UnknownCode => before.is_none(),
            Cause::OutcomeUnknown => (redeemable || active) && !written,
            Cause::StoreFailed => commit == Commit::Down,
            _ => false,
        };
        assert!(
            right,
            "{:?} of a session that is {before:?}, at {now}",
            reply.cause()
        );
        let done = commit == Commit::UnheardButDone;
        match (before, self.status()) {
            (Some(Status::Approved), Some(Status::Active)) => {
                assert!(reply.cause() == Cause::Granted || done);
            }
            (Some(Status::Active), Some(Status::Ended)) => {
                assert!(reply.cause() == Cause::Replay || done);
            }
            (before, after) => {
                assert_eq!(before, after);
                assert_eq!(version, self.session().map(Session::version));
                assert!(!matches!(reply.cause(), Cause::Granted | Cause::Replay));
            }
        }
        if reply.cause() == Cause::TooFast {
            self.slowed_down = true;
            let announced = reply.response().header("retry-after").unwrap();
            let announced: i64 = announced.parse().unwrap();
            let widths = self.announced.max(self.interval / 1000)..=CAP / 1000;
            assert!(widths.contains(&announced));
            self.announced = announced;
        }
        reply
    }

    pub(super) fn answer(&mut self, request: &client::Request, commit: Commit, now: i64) -> Reply {
        let authorization = authorization(request);
        let request = received(request, &authorization);
        self.during(commit, |core, host| {
            host.run(core.token(request, SOURCE, at(now)))
        })
    }

    /// Runs a request while the store behaves as `commit` says.
    fn during(
        &mut self,
        commit: Commit,
        request: impl FnOnce(&server::Server, &mut Host) -> Reply,
    ) -> Reply {
        match commit {
            Commit::Heard => {}
            Commit::UnheardButDone => self.host.says.push_back(Says::UnknownDone),
            Commit::UnheardAndNotDone => self.host.says.push_back(Says::UnknownNotDone),
            Commit::Down => self.host.fails = Some(Question::Load),
        }
        let reply = request(&self.core, &mut self.host);
        self.host.says.clear();
        self.host.fails = None;
        reply
    }

    /// Returns whether the code was accepted.
    pub(crate) fn enter(&mut self, user: &Subject, code: &str, now: i64) -> bool {
        let before = self.record();
        let entered = self.host.run(self.core.enter(code, user, "", at(now)));
        let Ok(review) = entered else {
            assert_eq!(before, self.record(), "a refused entry changed the record");
            return false;
        };
        assert_eq!(review.session_key(), &self.key);
        assert!(now < self.lifetime, "entered after the expiry");
        assert_eq!(self.status(), Some(Status::Claimed));
        assert_eq!(self.session().unwrap().claimant(), Some(user));
        true
    }

    pub(crate) fn approve(&mut self, user: &Subject, granted: Granted, now: i64) {
        let consent = match granted {
            Granted::All => Consent::to_all(),
            Granted::Less => Consent::to("openid".parse().unwrap()),
        };
        let decided = self.decide(user, Status::Approved, now, |core, key| {
            core.approve(key, user, &consent, at(now))
        });
        if decided {
            let session = self.session().unwrap();
            let scope = session.granted().unwrap().as_str();
            assert_eq!(scope == ASKED, granted == Granted::All);
            self.redeemable_until = self.lifetime.max(now + CAP + self.interval);
        }
    }

    pub(crate) fn deny(&mut self, user: &Subject, now: i64) {
        self.decide(user, Status::Denied, now, |core, key| {
            core.deny(key, user, at(now))
        });
    }

    pub(crate) fn withdraw(&mut self, user: &Subject, now: i64) {
        self.withdrawn |= self.decide(user, Status::Ended, now, |core, key| {
            core.withdraw(key, user, at(now))
        });
    }

    pub(crate) fn release(&mut self, user: &Subject, now: i64) {
        self.decide(user, Status::Pending, now, |core, key| {
            core.release(key, user, at(now))
        });
    }

    /// Returns whether the decision changed anything. Asserts that it did if the claimant decided in time, and did not otherwise.
    fn decide<'r>(
        &'r mut self,
        user: &'r Subject,
        to: Status,
        now: i64,
        decision: impl FnOnce(
            &'r server::Server,
            &SessionKey,
        ) -> Exchange<'r, Result<Session, PageError>>,
    ) -> bool {
        let Self {
            core, host, key, ..
        } = self;
        let Some(session) = host.session(key) else {
            return false;
        };
        let (from, version) = (session.status(), session.version());
        let is_theirs = session.claimant() == Some(user);
        let right = match to {
            Status::Approved | Status::Denied => from == Status::Claimed && now < self.lifetime,
            Status::Pending => from == Status::Claimed,
            Status::Ended => matches!(from, Status::Approved | Status::Active),
            Status::Claimed | Status::Active => false,
        };
        let decided = host.run(decision(core, key));
        let session = host.session(key).unwrap();
        let is_changed = session.version() != version;
        assert_eq!(
            is_changed,
            is_theirs && right,
            "{user:?} made {to:?} of {from:?}, at {now}: {decided:?}"
        );
        if is_changed {
            assert_eq!(decided.unwrap().status(), to);
            assert_eq!(session.status(), to);
            assert!(to == Status::Pending || session.claimant() == Some(user));
        } else {
            // The same decision again succeeds.
            assert!(decided.is_err() || session.status() == to || from == Status::Active);
            assert_eq!(session.status(), from);
        }
        is_changed
    }

    /// Sends a request of somebody who has no right to the session. Asserts that it is refused and changes nothing.
    pub(crate) fn meddle(&mut self, meddler: Meddler, device_code: &str, now: i64) {
        let before = self.record();
        let (own, other) = (self.own.id(), self.other.id());
        let header = match meddler {
            Meddler::OtherClient => support::authorization(&self.other),
            Meddler::WrongCredential if own == CLI => Some(support::basic(CLI, SECRET)),
            Meddler::WrongCredential => Some(support::basic(BACKEND, "wrong")),
            Meddler::OtherMethod | Meddler::ShortCode | Meddler::UnknownCode => {
                support::authorization(&self.own)
            }
            Meddler::Malformed | Meddler::WrongUserCode | Meddler::Thief => None,
        };
        let body = match meddler {
            Meddler::UnknownCode => support::poll_body(own, support::NO_CODE),
            Meddler::ShortCode => support::poll_body(own, &device_code[1..]),
            Meddler::OtherClient => support::poll_body(other, device_code),
            Meddler::WrongCredential | Meddler::OtherMethod => support::poll_body(own, device_code),
            Meddler::Malformed => format!("{}&client_id=%", support::poll_body(own, device_code)),
            Meddler::WrongUserCode => {
                // The entropy is fixed, and this is not the code that it gives.
                assert!(!self.enter(&bob(), "BCDF-GHJK", now));
                assert_eq!(before, self.record(), "{meddler:?} changed the session");
                return;
            }
            Meddler::Thief => unreachable!("the requests of a thief are made by the pair"),
        };
        self.messages += 1;
        let method = if meddler == Meddler::OtherMethod {
            "GET"
        } else {
            "POST"
        };
        let request = Request::new(method, body.as_bytes())
            .content_type(Some(support::FORM))
            .authorization(header.as_ref());
        let reply = self.host.run(self.core.token(request, ELSEWHERE, at(now)));
        let (status, error) = match meddler {
            // After many wrong secrets, right ones are refused, too. If the clock went back, fewer are enough.
            _ if reply.cause() == Cause::SecretQuotaSpent => {
                assert!(self.wrong_secrets >= WRONG_SECRETS || now < self.last_wrong_secret);
                (429, "temporarily_unavailable")
            }
            Meddler::WrongCredential => (401, "invalid_client"),
            Meddler::OtherMethod => (405, "invalid_request"),
            Meddler::Malformed => (400, "invalid_request"),
            _ => (400, "invalid_grant"),
        };
        if reply.cause() == Cause::WrongSecret {
            self.wrong_secrets += 1;
            self.last_wrong_secret = self.last_wrong_secret.max(now);
        }
        assert_eq!(reply.response().status(), status);
        let body: Value = serde_json::from_str(reply.response().body()).unwrap();
        assert_eq!(body["error"], error);
        assert_eq!(before, self.record(), "{meddler:?} changed the session");
    }
}
