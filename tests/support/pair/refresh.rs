//! The refreshes of a [pair](super). A device that has its tokens refreshes them once in each turn that is left.
//!
//! The device uses the client half. It keeps the last tokens that it received. If it gets no answer, or is told to try again later, it
//! sends the same refresh again.

use core::time::Duration;

use device_flow::client::{Refresh, Request, RequestError, Response, Tokens, TransportError};
use device_flow::server::{Cause, Reply, Status};

use super::server::Server;
use super::{ASKED, Commit, FAIR, Heard, Late, Op, Pair, TIMEOUT, answer_of};
use crate::support::{ACCESS_TOKEN, refresh_token};

/// For how long a refresh token is valid if it is not used.
pub(crate) const IDLE: Duration = Duration::from_mins(10);

/// For how long a refresh token that was replaced may be sent again, by default, in milliseconds.
const GRACE: i64 = 30_000;

/// The default quota of refreshes of one login: this many at once, then one per minute.
const BURST: i64 = 20;
const REFILL: i64 = 60_000;

/// For how long a quota is kept after everything was given back, in milliseconds.
const KEPT: i64 = 60_000;

/// By how much the clocks of servers may differ, in milliseconds.
const DRIFT: i64 = 60_000;

/// How long the device waits before it refreshes, and before it tries again after a 5xx, in milliseconds.
const PAUSE: i64 = 60_000;
const RETRY: i64 = 5_000;

/// The results of the refreshes of a login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refreshes {
    /// How many gave the device new tokens.
    pub(crate) heard: u64,
    /// How many were sent again.
    pub(crate) resent: u64,
    /// The cause that ended the login for the device.
    pub(crate) ended: Option<Cause>,
}

/// The refresh tokens of a login, by a second implementation of table R.
#[derive(Clone)]
pub(super) struct Rotation {
    /// The token in force. `None` if no response has contained it.
    current: Option<String>,
    previous: Option<String>,
    rotated_at: i64,
    until: i64,
    /// When everything taken from the quota will have been given back. The earliest moment if nothing is stored.
    quota: i64,
}

impl Rotation {
    /// Returns the state after the first refresh token of a login was issued.
    pub(super) fn first(token: String, now: i64) -> Self {
        Self {
            current: Some(token),
            previous: None,
            rotated_at: now,
            until: now + idle(),
            quota: i64::MIN,
        }
    }

    /// Removes the quota if everything was given back a minute ago or earlier.
    pub(super) const fn purge(&mut self, now: i64) {
        if self.quota.saturating_add(KEPT) <= now {
            self.quota = i64::MIN;
        }
    }

    /// Takes one from the quota, and returns whether there was one left.
    fn take(&mut self, now: i64) -> bool {
        let room = (BURST - 1) * REFILL;
        let is_from_a_fast_clock = self.quota > now + BURST * REFILL + DRIFT;
        let stored = if is_from_a_fast_clock {
            now + room
        } else {
            self.quota.max(now)
        };
        let is_left = stored - now <= room;
        if is_left {
            self.quota = stored + REFILL;
        }
        is_left
    }

    /// Replaces the token that was presented. `successor` is `None` if no response contains the new token.
    fn rotate(&mut self, presented: &str, successor: Option<String>, now: i64) {
        if self.current.as_deref() == Some(presented) {
            self.previous = Some(presented.to_owned());
            self.rotated_at = self.rotated_at.max(now);
        }
        self.current = successor;
        self.until = self.rotated_at.max(now) + idle();
    }
}

fn idle() -> i64 {
    i64::try_from(IDLE.as_millis()).unwrap()
}

impl Server {
    /// Answers a refresh with a token that this server made, sent by the device or by anybody with a copy. Asserts that the answer is
    /// right.
    fn refresh(&mut self, request: &Request, token: &str, commit: Commit, now: i64) -> Reply {
        self.messages += 1;
        let (before, status) = (self.record(), self.status());
        let reply = self.answer(request, commit, now);
        let mut rotation = self.rotation.take().unwrap();
        let is_current = rotation.current.as_deref() == Some(token);
        let is_previous = rotation.previous.as_deref() == Some(token);
        let is_good = is_current || is_previous && now - rotation.rotated_at < GRACE;
        // The expected cause if the outcome of the write is known, and whether anything is to be written.
        let (cause, writes) = match status {
            _ if commit == Commit::Down => (Cause::StoreFailed, false),
            None => (Cause::UnknownRefreshToken, false),
            Some(Status::Ended) => (Cause::Ended, false),
            Some(Status::Active) if now >= rotation.until => (Cause::LoginExpired, true),
            Some(Status::Active) if !is_good => (Cause::Reuse, true),
            Some(Status::Active) if !rotation.take(now) => (Cause::RefreshQuotaSpent, false),
            Some(Status::Active) => (Cause::Refreshed, true),
            Some(other) => panic!("a refresh token of a session that is {other:?}"),
        };
        let is_unheard = writes && commit != Commit::Heard;
        let expected = if is_unheard {
            Cause::OutcomeUnknown
        } else {
            cause
        };
        assert_eq!(reply.cause(), expected, "at {now}");
        let is_done = writes && matches!(commit, Commit::Heard | Commit::UnheardButDone);
        if !is_done {
            assert_eq!(before, self.record(), "a refresh without a write");
        } else if cause == Cause::Refreshed {
            let successor = (!is_unheard).then(|| refresh_token(&reply));
            rotation.rotate(token, successor, now);
            assert_eq!(self.status(), Some(Status::Active));
        } else {
            assert_eq!(self.status(), Some(Status::Ended));
        }
        self.rotation = Some(rotation);
        reply
    }
}

impl Pair<'_> {
    /// Plays the turns that are left, and then two more in which nothing goes wrong.
    pub(super) fn refreshes(&mut self, token: &str, turns: &[Vec<Op>]) -> Refreshes {
        let mut played = Refreshes::default();
        let mut device = Device::new(self, token);
        let mut pause = PAUSE;
        for turn in turns.iter().map(Vec::as_slice).chain([&[][..]; 2]) {
            self.copied = Some(device.token.clone());
            self.late_copies();
            for &op in turn {
                self.note(|| format!("{op:?}"));
                self.befalls(op);
            }
            self.pass(pause);
            played.resent += u64::from(pause != PAUSE);
            let (reply, answer) = self.exchange_refresh(&mut device, &mut pause);
            self.shows(&(&answer, &device.refresh));
            match (reply.as_ref().map(Reply::cause), answer) {
                (Some(Cause::Refreshed), Ok(tokens)) => {
                    assert_eq!(tokens.bearer(), Some(ACCESS_TOKEN));
                    assert_eq!(tokens.scope(), Some(ASKED));
                    device = Device::new(self, tokens.refresh_token().unwrap());
                    played.heard += 1;
                }
                (
                    Some(Cause::RefreshQuotaSpent | Cause::StoreFailed | Cause::OutcomeUnknown)
                    | None,
                    Err(error),
                ) => assert!(error.may_be_retried(), "{error}"),
                (Some(ended), Err(RequestError::Ended(refusal))) => {
                    assert_eq!(refusal.code(), Some("invalid_grant"));
                    assert_eq!(refusal.possibly_redeemed, device.is_lost);
                    assert_ne!(self.server.status(), Some(Status::Active));
                    played.ended = Some(ended);
                    break;
                }
                (reply, answer) => panic!("{reply:?} became {answer:?}"),
            }
        }
        self.note(|| format!("the end of the refreshes: {played:?}"));
        played
    }

    /// Refreshes once, with the faults of the turn. Returns the server's reply, if it arrives, and what the device makes of it. Sets
    /// `pause` to the time until the next refresh.
    fn exchange_refresh(
        &mut self,
        device: &mut Device,
        pause: &mut i64,
    ) -> (Option<Reply>, Result<Tokens, RequestError>) {
        let weather = core::mem::replace(&mut self.weather, FAIR);
        let (request, token) = (device.refresh.request().clone(), device.token.clone());
        if let Some(turns) = weather.late_copy {
            let late = Late::Refresh(request.clone(), token.clone());
            self.late.push((turns, late));
        }
        self.pass(weather.delays[0]);
        let mut reply = None;
        if !weather.request_lost && weather.gateway != Some(false) {
            let now = self.wall() + weather.skew;
            let first = self.refresh(&request, &token, weather.commit, now);
            reply = Some(first);
            if let Some(heard) = weather.twice {
                let second = self.refresh(&request, &token, Commit::Heard, now);
                if heard == Heard::Second {
                    reply = Some(second);
                }
            }
        }
        if weather.dies || weather.answer_lost || weather.request_lost {
            self.note(|| "the device hears nothing".into());
            self.pass(TIMEOUT);
            *pause = 0;
            device.is_lost = true;
            if weather.dies {
                // The other process knows that the refresh was sent before.
                device.refresh = self.flow.refresh(&token).unwrap().sent_before();
                return (None, Err(RequestError::Failed(TransportError::Other)));
            }
            let lost = Err(TransportError::ConnectionTimeout);
            return (None, device.refresh.answer::<&str>(lost));
        }
        self.pass(weather.delays[1]);
        if weather.gateway.is_some() {
            *pause = RETRY;
            device.is_lost = true;
            let answer = Response::new(502, "<html>Bad Gateway</html>");
            return (None, device.refresh.answer(Ok(answer)));
        }
        *pause = match reply.as_ref().map(Reply::cause) {
            Some(Cause::StoreFailed | Cause::OutcomeUnknown) => RETRY,
            _ => PAUSE,
        };
        let heard = reply.as_ref().unwrap();
        device.is_lost |= heard.response().status() >= 500;
        let answer = device.refresh.answer(Ok(answer_of(heard)));
        (reply, answer)
    }

    /// Sends a request with a refresh token to the server.
    pub(super) fn refresh(
        &mut self,
        request: &Request,
        token: &str,
        commit: Commit,
        now: i64,
    ) -> Reply {
        let reply = self.server.refresh(request, token, commit, now);
        if reply.cause() == Cause::Refreshed {
            self.secrets.push(refresh_token(&reply));
        }
        self.shows(&reply);
        self.note(|| format!("to a refresh the server says {:?}", reply.cause()));
        reply
    }
}

/// The device, with its refresh token.
struct Device {
    refresh: Refresh,
    token: String,
    /// Whether an answer did not arrive that may have been a success.
    is_lost: bool,
}

impl Device {
    fn new(pair: &mut Pair<'_>, token: &str) -> Self {
        pair.secrets.push(token.to_owned());
        Self {
            refresh: pair.flow.refresh(token).unwrap(),
            token: token.to_owned(),
            is_lost: false,
        }
    }
}
