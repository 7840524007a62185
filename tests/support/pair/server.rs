//! The server of a [pair](super): what it answers is held to what it has stored.

use core::time::Duration;

use device_flow::client::Request;
use device_flow::digest::SessionKey;
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Change, Entered, Entry, Form, Grant, HostValue, Incoming, Limit, Policy, Polled,
    Registration, Reply, Session, Status, Subject, Written,
};
use serde_json::Value;

use super::{ASKED, Client, Commit, Granted, Meddler, Setup};
use crate::login::{at, bob};
use crate::support::{self, BACKEND, CLI, SECRET};

/// The crate on its embedded store, for one session.
pub(crate) struct Server {
    policy: Policy,
    own: Registration,
    other: Registration,
    pub(crate) store: Memory,
    key: SessionKey,
    pub(crate) interval: i64,
    pub(crate) lifetime: i64,
    /// Until when an approval may be redeemed.
    pub(crate) redeemable_until: i64,
    pub(crate) successes: u8,
    pub(crate) slowed_down: bool,
    /// The interval that was told last.
    told: i64,
    pub(crate) messages: u64,
}

fn incoming<'a>(request: &'a Request, authorization: &'a [&'a str]) -> Incoming<'a> {
    let types = request
        .headers()
        .filter(|(name, _)| *name == "content-type");
    let types: Vec<_> = types.map(|(_, value)| value).collect();
    assert_eq!(types, [support::FORM]);
    assert!(!request.url().contains('?'));
    Incoming::new(request.method(), request.body().as_bytes())
        .content_type(Some(support::FORM))
        .authorization(authorization.iter().copied())
}

fn authorization(request: &Request) -> Vec<&str> {
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
        let (interval, lifetime) = (setup.interval.into(), setup.lifetime.into());
        let policy = support::builder()
            .interval(Duration::from_secs(interval))
            .lifetime(Duration::from_secs(lifetime))
            .guess_limit(Limit::new(5, Duration::from_mins(2)).unwrap());
        let millis = |seconds: u64| i64::try_from(seconds).unwrap() * 1000;
        Self {
            policy: policy.build().unwrap(),
            own,
            other,
            store: Memory::new(),
            key: SessionKey::from_bytes([0; 32]),
            interval: millis(interval),
            lifetime: millis(lifetime),
            redeemable_until: 0,
            successes: 0,
            slowed_down: false,
            told: 0,
            messages: 0,
        }
    }

    pub(crate) fn issue(&mut self, request: &Request) -> Reply {
        let authorization = authorization(request);
        let incoming = incoming(request, &authorization);
        let issued = support::with_issuing(&self.policy, incoming, Some(&self.own), |issuing| {
            let entropy = support::entropy(1);
            let issuance = issuing.draw(entropy, &support::keys(), at(0)).unwrap();
            self.key = *issuance.session().key();
            let inserted = self.store.insert(issuance.session());
            issuance.settle(inserted).unwrap()
        });
        issued.unwrap()
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        Some(&self.store.load(&self.key)?.session)
    }

    pub(crate) fn status(&self) -> Option<Status> {
        self.session().map(Session::status)
    }

    /// What is stored, session and pace.
    fn record(&self) -> Option<String> {
        let stored = self.store.load(&self.key)?;
        Some(serde_json::to_string(&(&stored.session, stored.pace)).unwrap())
    }

    /// A poll with the device's own code, by whomever.
    pub(crate) fn poll(&mut self, request: &Request, commit: Commit, now: i64) -> Reply {
        self.messages += 1;
        let before = self.status();
        let version = self.session().map(Session::version);
        let reply = self.answer(request, commit, now);
        self.successes += u8::from(reply.cause() == Cause::Granted);
        assert!(self.successes <= 1, "two successes of one session");
        let unexpired = now < self.lifetime;
        let open = matches!(before, Some(Status::Pending | Status::Claimed));
        let approved = before == Some(Status::Approved);
        let redeemable = approved && now < self.redeemable_until;
        let right = match reply.cause() {
            Cause::Granted => redeemable && commit == Commit::Heard,
            Cause::Pending | Cause::TooFast => open && unexpired,
            Cause::Expired => open && !unexpired,
            Cause::ApprovalExpired => approved && !redeemable,
            Cause::Denied => before == Some(Status::Denied),
            Cause::Replay | Cause::Duplicate => before == Some(Status::Redeemed),
            Cause::Revoked => before == Some(Status::Revoked),
            Cause::UnknownCode => before.is_none(),
            Cause::OutcomeUnknown => redeemable && commit != Commit::Heard,
            Cause::StoreFailed => commit == Commit::Down,
            _ => false,
        };
        assert!(
            right,
            "{:?} of a session that is {before:?}, at {now}",
            reply.cause()
        );
        let is_redeemed = before != self.status();
        let redeems = reply.cause() == Cause::Granted || commit == Commit::UnheardButDone;
        assert!(!is_redeemed || (redeems && self.status() == Some(Status::Redeemed)));
        assert!(is_redeemed || version == self.session().map(Session::version));
        if reply.cause() == Cause::TooFast {
            self.slowed_down = true;
            let told: i64 = reply
                .response()
                .header("retry-after")
                .unwrap()
                .parse()
                .unwrap();
            assert!((self.interval / 1000..=60).contains(&told) && told >= self.told);
            self.told = told;
        }
        reply
    }

    fn answer(&mut self, request: &Request, commit: Commit, now: i64) -> Reply {
        let authorization = authorization(request);
        let form = Form::read(incoming(request, &authorization), &self.policy).unwrap();
        let Grant::DeviceCode(unauthenticated) = form.grant().unwrap() else {
            panic!("another grant");
        };
        let mut poll = unauthenticated.authenticate(Some(&self.own)).unwrap();
        if commit == Commit::Down {
            return Reply::store_failed();
        }
        let key = *poll.session_key().unwrap();
        match poll.decide(self.store.load(&key), at(now)) {
            Polled::Reply(reply) => reply,
            Polled::Paced(key, pace, reply) => {
                self.store.save_pace(key, pace);
                reply
            }
            Polled::Redeem(redemption) => {
                assert_eq!(
                    redemption.approval().subject(),
                    self.session().unwrap().claimant().unwrap()
                );
                let written = match commit {
                    Commit::Heard => self.store.change(redemption.change()),
                    Commit::UnheardButDone => {
                        let _ = self.store.change(redemption.change());
                        Written::Unknown
                    }
                    Commit::UnheardAndNotDone | Commit::Down => Written::Unknown,
                };
                redemption.settle(written, &support::tokens()).unwrap()
            }
        }
    }

    /// Tells whether the code was of use.
    pub(crate) fn enter(&mut self, user: &Subject, code: &str, now: i64) -> bool {
        let keys = support::keys();
        let mut entry = Entry::new(code, user, &keys, &self.policy);
        let quota = self.store.load_quota(entry.quota_key());
        let Ok(guess) = entry.pay(quota, at(now)) else {
            return false;
        };
        let written = self.store.change_quota(guess.change());
        let paid = guess.settle(written).unwrap();
        let mut user_keys = paid.user_keys();
        let found = user_keys.find_map(|key| self.store.load_by_user_key(&key));
        let entered = paid.enter(found.map(|stored| &stored.session), at(now));
        let before = self.status();
        let is_useful = match entered {
            Ok(Entered::Claim(claim)) => {
                assert_eq!(before, Some(Status::Pending), "claimed");
                let written = self.store.change(claim.change());
                claim.settle(written).is_ok()
            }
            Ok(Entered::Review(_)) => true,
            Err(_) => return false,
        };
        assert!(now < self.lifetime, "entered after the expiry");
        assert_eq!(self.status(), Some(Status::Claimed));
        assert_eq!(self.session().unwrap().claimant(), Some(user));
        is_useful
    }

    pub(crate) fn approve(&mut self, user: &Subject, granted: Granted, now: i64) {
        let scope: Scope = match granted {
            Granted::All => ASKED.parse().unwrap(),
            Granted::Less => "openid".parse().unwrap(),
        };
        let decided = self.decide(user, Status::Approved, now, |session, policy| {
            let value = HostValue::default();
            session.approve(user, &scope, value, policy, at(now)).ok()?
        });
        if decided {
            self.redeemable_until = self.lifetime.max(now + 2 * self.interval);
        }
    }

    /// Tells whether that changed anything. Nobody but the claimant changes anything, and nobody too late.
    pub(crate) fn decide(
        &mut self,
        user: &Subject,
        to: Status,
        now: i64,
        decision: impl FnOnce(&Session, &Policy) -> Option<Change>,
    ) -> bool {
        let Some(session) = self.session() else {
            return false;
        };
        let (from, is_theirs) = (session.status(), session.claimant() == Some(user));
        let Some(change) = decision(session, &self.policy) else {
            return false;
        };
        let right = match to {
            Status::Approved | Status::Denied => from == Status::Claimed && now < self.lifetime,
            Status::Pending => from == Status::Claimed,
            Status::Revoked => from == Status::Approved,
            Status::Claimed | Status::Redeemed => false,
        };
        assert!(
            is_theirs && right,
            "{user:?} made {to:?} of {from:?}, at {now}"
        );
        assert_eq!(self.store.change(&change), Written::Won);
        assert_eq!(self.status(), Some(to));
        assert!(to == Status::Pending || self.session().unwrap().claimant() == Some(user));
        true
    }

    /// A request of somebody who has no right to the session: it gets nothing and changes nothing.
    pub(crate) fn meddle(&mut self, meddler: Meddler, device_code: &str, now: i64) {
        let before = self.record();
        let (own, other) = (self.own.client_id(), self.other.client_id());
        let public = *own == *CLI;
        let header = match meddler {
            Meddler::OtherClient => support::authorization(&self.other),
            Meddler::WrongCredential if public => Some(support::basic(CLI, SECRET)),
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
                // The entropy is given, and this is not the code that comes of it.
                assert!(!self.enter(&bob(), "BCDF-GHJK", now));
                assert_eq!(before, self.record(), "{meddler:?} changed the session");
                return;
            }
            Meddler::Thief => unreachable!("whoever has the code and the name of a client is one"),
        };
        self.messages += 1;
        let method = if meddler == Meddler::OtherMethod {
            "GET"
        } else {
            "POST"
        };
        let incoming = Incoming::new(method, body.as_bytes())
            .content_type(Some(support::FORM))
            .authorization(header.as_ref());
        let found = if meddler == Meddler::OtherClient {
            &self.other
        } else {
            &self.own
        };
        let stored = |key: &SessionKey| self.store.load(key);
        let reply = support::with_poll(&self.policy, incoming, Some(found), |poll| {
            let stored = poll.session_key().and_then(stored);
            match poll.decide(stored, at(now)) {
                Polled::Reply(reply) => reply,
                Polled::Paced(..) | Polled::Redeem(_) => panic!("{meddler:?} got through"),
            }
        });
        let reply = reply.unwrap_or_else(|refused| refused);
        let (status, error) = match meddler {
            Meddler::WrongCredential => (401, "invalid_client"),
            Meddler::OtherMethod => (405, "invalid_request"),
            Meddler::Malformed => (400, "invalid_request"),
            _ => (400, "invalid_grant"),
        };
        assert_eq!(reply.response().status(), status);
        let body: Value = serde_json::from_str(reply.response().body()).unwrap();
        assert_eq!(body["error"], error);
        assert_eq!(before, self.record(), "{meddler:?} changed the session");
    }
}
