//! Polling ([RFC 8628, sections 3.4 and 3.5]).
//!
//! Rules:
//! 1. One request is in flight at a time: while there is one, nothing is left that could make another.
//! 2. Whoever has an outcome has no machine left.
//! 3. Tokens are never thrown away, however late they come.
//! 4. Nothing starts again by itself: the user may have gone.
//!
//! [RFC 8628, sections 3.4 and 3.5]: https://www.rfc-editor.org/rfc/rfc8628#section-3.4

use alloc::boxed::Box;
use core::fmt;
use core::time::Duration;

use super::answer::{Failure, Malformed, Received, Refusal, Verdict, verdict};
use super::flow::DeviceFlow;
use super::pace::{Cause, Pace, Turn};
use super::request::Request;
use super::start::DeviceCode;
use super::tokens::Tokens;
use crate::digest::Digest;
use crate::scope::Scope;

/// What a poller consists of; in one box, for it is moved with every step.
pub(crate) struct Machine {
    pub(crate) pace: Pace,
    request: Request,
    requested: Scope,
    pub(crate) device_code: DeviceCode,
    pub(crate) client: Digest,
}

/// A poller between two requests.
#[must_use = "nothing is sent by itself: ask what is next"]
pub struct Waiting(pub(crate) Box<Machine>);

impl Waiting {
    pub(crate) fn new(flow: &DeviceFlow, device_code: DeviceCode, pace: Pace) -> Self {
        Self(Box::new(Machine {
            pace,
            request: flow.poll(&device_code.0),
            requested: flow.requested(),
            device_code,
            client: flow.digest(),
        }))
    }

    /// Puts the next poll off by `margin`, so that a fleet of devices does not ask in step. It is drawn by the caller, counts
    /// up to the interval in force, replaces the one given before, and is forgotten with the next answer: give one to what
    /// [`Starting::answer`](super::Starting::answer), [`DeviceFlow::resume`] and each [`Step::Again`] return.
    pub fn with_margin(mut self, margin: Duration) -> Self {
        self.0.pace.put_off(margin);
        self
    }

    /// What to do at `now`, a reading of a monotonic clock. It may be asked too early and as often as one likes. At the deadline
    /// or after it one last poll is handed out, so that expiry is the server's word;
    /// [`no_final_poll`](DeviceFlow::no_final_poll) turns that off.
    pub fn next(mut self, now: Duration) -> Next {
        let machine = &mut *self.0;
        machine.pace.tick(now);
        match machine.pace.turn() {
            Turn::Wait(until) => Next::Wait(self, until),
            Turn::Send => {
                let request = machine.request.clone();
                Next::Send(Sent(self.0), request)
            }
            Turn::Over => Next::Done(Outcome::Expired(Expiry::ByClock(machine.pace.cause))),
        }
    }

    /// When the code expires, as a reading of the clock: for the time left on the screen.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.0.pace.deadline
    }

    /// Gives up. Nothing is in flight, so no token can come.
    pub fn cancel(self) -> Outcome {
        Outcome::Cancelled(None)
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("due", &self.0.pace.due())
            .finish_non_exhaustive()
    }
}

/// A poller with a request in flight.
#[must_use = "the answer to the request is fed in here"]
pub struct Sent(pub(crate) Box<Machine>);

impl Sent {
    /// Takes the answer, or the reason why there is none.
    pub fn answer<B: AsRef<[u8]>>(
        mut self,
        answer: Result<Received<B>, Failure>,
        now: Duration,
    ) -> Step {
        let machine = &mut *self.0;
        let pace = &mut machine.pace;
        pace.tick(now);
        let mut pause = None;
        match answer {
            Ok(received) => {
                pause = received.pause();
                match verdict(&received) {
                    Verdict::Pending(told) => pace.pending(told),
                    Verdict::SlowDown(told) => pace.slow_down(told),
                    Verdict::Transient => pace.unavailable(received.status()),
                    Verdict::Denied(refusal) => return Step::Done(Outcome::Denied(refusal)),
                    Verdict::Expired(refusal) => {
                        return Step::Done(Outcome::Expired(Expiry::ByServer(refusal)));
                    }
                    Verdict::InvalidGrant(refusal) => {
                        return Step::Done(invalid_grant(pace, refusal));
                    }
                    Verdict::Rejected(refusal) => return Step::Done(Outcome::Rejected(refusal)),
                    Verdict::Tokens(tokens) => {
                        return Step::Done(Outcome::Granted(tokens.compare(&machine.requested)));
                    }
                    Verdict::Redirected(status) => return Step::Done(Outcome::Redirected(status)),
                    Verdict::Malformed(why) => return Step::Done(Outcome::Malformed(why)),
                }
            }
            Err(Failure::Permanent) => return Step::Done(Outcome::Failed(Failure::Permanent)),
            Err(failure @ (Failure::ConnectionTimeout | Failure::Other)) => pace.failed(failure),
        }
        if pace.was_last() {
            return Step::Done(Outcome::Expired(Expiry::ByClock(pace.cause)));
        }
        pace.schedule(pause);
        Step::Again(Waiting(self.0))
    }

    /// Gives up, with a request in flight whose answer may still be fed in.
    pub fn cancel(self) -> Cancelled {
        Cancelled(())
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("clock", &self.0.pace.clock)
            .finish_non_exhaustive()
    }
}

/// `invalid_grant` says that the code is unknown, foreign, redeemed or expired; the history tells which.
fn invalid_grant(pace: &Pace, mut refusal: Refusal) -> Outcome {
    if pace.lost {
        refusal.possibly_redeemed = true;
        Outcome::Rejected(refusal)
    } else if pace.is_past_deadline() {
        Outcome::Expired(Expiry::ByServer(refusal))
    } else {
        Outcome::Rejected(refusal)
    }
}

/// A poller that was given up while a request was in flight.
#[derive(Debug)]
#[must_use = "a token may still arrive, and should then be revoked"]
pub struct Cancelled(());

impl Cancelled {
    /// Takes the answer that still came. A token in it belongs to nobody: revoke it ([RFC 7009]).
    ///
    /// [RFC 7009]: https://www.rfc-editor.org/rfc/rfc7009
    pub fn answer<B: AsRef<[u8]>>(self, answer: Result<Received<B>, Failure>) -> Outcome {
        let late = match answer.map(|received| verdict(&received)) {
            Ok(Verdict::Tokens(late)) => Some(late),
            Ok(_) | Err(_) => None,
        };
        Outcome::Cancelled(late)
    }
}

/// What to do next.
#[derive(Debug)]
#[must_use = "it holds the poller"]
#[expect(clippy::exhaustive_enums, reason = "a caller has to do each of these")]
pub enum Next {
    /// Wait until this reading of the clock, then ask again.
    Wait(Waiting, Duration),
    /// Send this and feed in what comes of it.
    Send(Sent, Request),
    /// It is over.
    Done(Outcome),
}

/// What came of an answer.
#[derive(Debug)]
#[must_use = "it holds the poller"]
#[expect(clippy::exhaustive_enums, reason = "a caller has to do each of these")]
pub enum Step {
    /// Go on.
    Again(Waiting),
    /// It is over.
    Done(Outcome),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it may hold tokens"]
#[expect(
    clippy::exhaustive_enums,
    reason = "each ending is another message to the user"
)]
pub enum Outcome {
    /// The user agreed.
    Granted(Tokens),
    /// The user said no.
    Denied(Refusal),
    /// The code expired before the user decided.
    Expired(Expiry),
    /// The server refused for another reason.
    Rejected(Refusal),
    /// There was no answer, and there will be none.
    Failed(Failure),
    /// The server answered with a redirect of this status, which was not followed.
    Redirected(u16),
    /// The server's answer was none.
    Malformed(Malformed),
    /// The caller gave up. The tokens, if any, came late: revoke them.
    Cancelled(Option<Tokens>),
}

/// Who says that the code expired.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "there is nobody else")]
pub enum Expiry {
    /// The server.
    ByServer(Refusal),
    /// The caller's clock, with what came of the last poll.
    ByClock(Option<Cause>),
}
