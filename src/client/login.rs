//! A login, from the request for codes to its outcome (RFC 8628, sections 3.1 to 3.5).
//!
//! Rules:
//! 1. An `Ask` borrows the login and takes the answer, so only one request is in flight at a time.
//! 2. Nothing is sent after the outcome. A login does not start again by itself, because the user may have left.
//! 3. Tokens are never thrown away, however late they arrive.
//! 4. The lifetime counts from the moment when the request for codes was handed out, so the code does not expire later for the client than
//!    for the server.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use super::body::Malformed;
use super::codes::{self, StartError};
use super::flow::{DeviceFlow, FlowError, Setup};
use super::prompt::Prompt;
use super::refusal::Refusal;
use super::request::Request;
use super::response::{Response, TransportError};
use super::schedule::{LastPoll, Schedule, Turn, WaitingFor};
use super::tokens::Tokens;
use super::verdict::{Verdict, may_hide_success, verdict};
use crate::wire::debug_shows;
use crate::wire::metadata::DEVICE_CODE_GRANT;

impl DeviceFlow {
    /// Returns a login that has not sent anything yet.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: the first mistake in the set-up.
    pub fn login(&self) -> Result<Login, FlowError> {
        self.check()?;
        let Setup {
            endpoints, scope, ..
        } = &*self.0;
        // RFC 8628, section 3.1
        let parameters = [("client_id", self.id_in_body()), ("scope", scope.as_str())];
        Ok(Login {
            request: self.request(&endpoints.device_authorization, &parameters),
            flow: self.clone(),
            stage: Stage::Start(Duration::ZERO),
            is_cancelled: false,
        })
    }

    /// Returns the device access token request ([RFC 8628, section 3.4](https://www.rfc-editor.org/rfc/rfc8628#section-3.4)).
    pub(crate) fn poll_request(&self, device_code: &str) -> Request {
        let parameters = [
            ("grant_type", DEVICE_CODE_GRANT),
            ("device_code", device_code),
            ("client_id", self.id_in_body()),
        ];
        self.request(&self.0.endpoints.token, &parameters)
    }
}

/// One login. Call [`next`](Self::next) and do what it says, until it is done; or let [`run`](Self::run) or
/// [`run_blocking`](Self::run_blocking) do so.
///
/// All times are readings of your own monotonic clock, for example `started.elapsed()` of an `Instant`.
#[must_use = "nothing is sent by itself: ask what is next"]
pub struct Login {
    pub(crate) flow: DeviceFlow,
    /// The request of this stage.
    pub(crate) request: Request,
    pub(crate) stage: Stage,
    /// Whether the caller gave up while a request was in flight.
    pub(crate) is_cancelled: bool,
}

/// How far a login has come.
pub(crate) enum Stage {
    /// Asks for codes. Holds when that request was last handed out.
    Start(Duration),
    Poll(Box<Polls>),
    /// The outcome, or `None` once it was returned.
    Over(Option<Result<Tokens, LoginError>>),
}

pub(crate) struct Polls {
    pub(crate) schedule: Schedule,
    pub(crate) device_code: String,
    /// `None` after a restart, because the caller has kept it.
    pub(crate) prompt: Option<Prompt>,
    pub(crate) is_shown: bool,
    /// Whether a poll was handed out and not answered yet.
    pub(crate) in_flight: bool,
}

impl Login {
    /// Returns what to do at `now`. You may call it too early, and as often as you like.
    ///
    /// At the deadline or later it may hand out one last poll, so that the server decides whether the code has expired.
    /// [`no_final_poll`](DeviceFlow::no_final_poll) turns that off.
    pub fn next(&mut self, now: Duration) -> Next<'_> {
        if self.is_cancelled {
            self.cancel();
        }
        let reason = match &mut self.stage {
            Stage::Start(asked) => {
                *asked = now.max(*asked);
                return Next::Send(Ask(self));
            }
            Stage::Poll(polls) => {
                if !core::mem::replace(&mut polls.is_shown, true)
                    && let Some(prompt) = &polls.prompt
                {
                    return Next::Show(prompt.clone());
                }
                match polls.turn(now) {
                    Turn::Wait(until) => return Next::Wait { until },
                    Turn::Send => return Next::Send(Ask(self)),
                    Turn::Over => polls.schedule.reason,
                }
            }
            Stage::Over(outcome) => {
                return Next::Done(outcome.take().unwrap_or(Err(LoginError::Over)));
            }
        };
        self.stage = Stage::Over(None);
        Next::Done(Err(LoginError::TimedOut(reason)))
    }

    /// Delays the next poll by `span`, so that many devices do not poll at the same moment. Draw a random span after each answer, because
    /// each answer clears it. A second call replaces the span. A span over the interval in force counts as that interval.
    pub fn jitter(&mut self, span: Duration) {
        if let Stage::Poll(polls) = &mut self.stage {
            polls.schedule.jitter = span.min(polls.schedule.min_interval);
        }
    }

    /// Ends the login. Tokens that arrived and were not returned yet are returned in [`LoginError::Cancelled`].
    ///
    /// If a request is in flight, call [`Ask::cancel`] instead, so that the login can still take its answer.
    pub fn cancel(&mut self) {
        self.is_cancelled = false;
        let late = match core::mem::replace(&mut self.stage, Stage::Over(None)) {
            Stage::Over(Some(Ok(tokens))) => Some(Box::new(tokens)),
            Stage::Over(Some(Err(LoginError::Cancelled(late)))) => late,
            Stage::Start(_) | Stage::Poll(_) | Stage::Over(Some(Err(_))) => None,
            Stage::Over(None) => return,
        };
        self.stage = Stage::Over(Some(Err(LoginError::Cancelled(late))));
    }

    /// Returns what to show to the user, once the codes have arrived. It is `None` after [`resume`](DeviceFlow::resume) and at the end.
    pub fn prompt(&self) -> Option<&Prompt> {
        self.polls().and_then(|polls| polls.prompt.as_ref())
    }

    /// Returns what the login waits for, if it is polling.
    pub fn waiting_for(&self) -> Option<WaitingFor> {
        let reason = |polls: &Polls| polls.schedule.reason.unwrap_or(WaitingFor::User);
        self.polls().map(reason)
    }

    /// Returns the interval in force, if the login is polling. After each answer to a poll the login waits for at least this long.
    pub fn interval(&self) -> Option<Duration> {
        self.polls().map(|polls| polls.schedule.min_interval)
    }

    /// Returns the reading of the clock at which the code expires, if the login is polling, to show the time left.
    pub fn deadline(&self) -> Option<Duration> {
        self.polls().map(|polls| polls.schedule.deadline)
    }

    pub(crate) fn polls(&self) -> Option<&Polls> {
        match &self.stage {
            Stage::Poll(polls) => Some(polls),
            Stage::Start(_) | Stage::Over(_) => None,
        }
    }

    fn answer(&mut self, answer: Result<Response<&[u8]>, TransportError>, now: Duration) {
        match &mut self.stage {
            Stage::Start(asked) => {
                let asked = *asked;
                self.stage = match self.begin(answer, asked, now) {
                    Ok(polls) => Stage::Poll(Box::new(polls)),
                    Err(error) => Stage::Over(Some(Err(LoginError::Start(error)))),
                };
            }
            Stage::Poll(polls) => {
                if let Some(outcome) = polls.answer(answer, now).transpose() {
                    let outcome = outcome.map(|tokens| tokens.compare(&self.flow.0.scope));
                    self.stage = Stage::Over(Some(outcome));
                }
            }
            Stage::Over(_) => {}
        }
        if self.is_cancelled {
            self.cancel();
        }
    }

    /// Takes the answer to the request for codes, and begins to poll.
    fn begin(
        &mut self,
        answer: Result<Response<&[u8]>, TransportError>,
        asked: Duration,
        now: Duration,
    ) -> Result<Polls, StartError> {
        let response = answer.map_err(StartError::Failed)?;
        let setup = &self.flow.0;
        let codes = codes::read(&response, setup)?;
        let clock = asked.max(now);
        let lifetime = codes.prompt.lifetime;
        let deadline = asked.saturating_add(lifetime);
        let mut schedule = Schedule::new(clock, deadline, lifetime, codes.interval);
        if !setup.polls_at_the_end {
            schedule.last_poll = LastPoll::Off;
        }
        schedule.plan(response.retry_after);
        if setup.polls_at_once {
            schedule.earliest = clock;
        }
        self.request = self.flow.poll_request(&codes.device_code);
        Ok(Polls {
            schedule,
            device_code: codes.device_code,
            prompt: Some(codes.prompt),
            is_shown: false,
            in_flight: false,
        })
    }
}

impl Polls {
    fn turn(&mut self, now: Duration) -> Turn {
        self.schedule.tick(now);
        if self.in_flight {
            // The `Ask` was dropped without an answer, but its request may have been sent.
            self.schedule.lose_answer();
        }
        let turn = self.schedule.turn();
        self.in_flight = matches!(turn, Turn::Send);
        turn
    }

    /// Takes the answer to a poll. Returns the tokens, or `None` if the login goes on.
    fn answer(
        &mut self,
        answer: Result<Response<&[u8]>, TransportError>,
        now: Duration,
    ) -> Result<Option<Tokens>, LoginError> {
        self.in_flight = false;
        let schedule = &mut self.schedule;
        schedule.tick(now);
        let mut pause = None;
        match answer {
            Ok(response) => {
                pause = response.retry_after;
                match verdict(&response) {
                    Verdict::Pending(announced) => schedule.pending(announced),
                    Verdict::SlowDown(announced) => schedule.slow_down(announced),
                    Verdict::Transient => {
                        schedule.unavailable(response.status, may_hide_success(&response));
                    }
                    Verdict::Tokens(tokens) => return Ok(Some(tokens)),
                    Verdict::Denied(refusal) => return Err(LoginError::Denied(refusal)),
                    Verdict::Expired(refusal) => return Err(LoginError::Expired(refusal)),
                    // The code is unknown, of another client, redeemed or expired. What happened before tells which.
                    Verdict::InvalidGrant(mut refusal) => {
                        refusal.possibly_redeemed = schedule.lost;
                        let is_expired = schedule.is_past_deadline() && !schedule.lost;
                        return Err(if is_expired {
                            LoginError::Expired(refusal)
                        } else {
                            LoginError::Rejected(refusal)
                        });
                    }
                    Verdict::Rejected(refusal) => return Err(LoginError::Rejected(refusal)),
                    Verdict::Redirected(status) => return Err(LoginError::Redirected(status)),
                    Verdict::Malformed(why) => return Err(LoginError::Malformed(why)),
                }
            }
            Err(failure) if failure.is_temporary() => schedule.failed(failure),
            Err(failure) => return Err(LoginError::Failed(failure)),
        }
        if schedule.last_poll == LastPoll::Sent {
            return Err(LoginError::TimedOut(schedule.reason));
        }
        schedule.plan(pause);
        Ok(None)
    }
}

debug_shows!(Login: waiting_for(), deadline());

/// What to do next.
#[derive(Debug)]
#[must_use = "it may hold the outcome"]
#[expect(clippy::exhaustive_enums, reason = "a caller has to do each of these")]
pub enum Next<'a> {
    /// Send this request, and pass the result to [`Ask::answer`].
    Send(Ask<'a>),
    /// Show this to the user. The login returns it once, when the codes have arrived.
    Show(Prompt),
    /// Wait, then call [`Login::next`] again.
    Wait {
        /// The reading of the clock until which to wait. It is a time, not a span.
        until: Duration,
    },
    /// The login is over. It returns its outcome once, and then [`LoginError::Over`].
    Done(Result<Tokens, LoginError>),
}

/// A request to send. Pass the result to [`answer`](Self::answer).
///
/// If you drop it without an answer, the answer counts as lost. If it was a poll, the login then waits longer, because the poll may have
/// been sent. If it was the request for codes, the login hands it out again.
#[must_use = "the answer to the request is fed in here"]
pub struct Ask<'a>(pub(crate) &'a mut Login);

impl Ask<'_> {
    /// Returns the request.
    pub const fn request(&self) -> &Request {
        &self.0.request
    }

    /// Takes the response that arrived at `now`, or the reason why no response came.
    pub fn answer<B: AsRef<[u8]>>(
        self,
        answer: Result<Response<B>, TransportError>,
        now: Duration,
    ) {
        match answer {
            Ok(response) => self.0.answer(Ok(response.by_ref()), now),
            Err(failure) => self.0.answer(Err(failure), now),
        }
    }

    /// Cancels the login while the request is in flight. **If an answer still arrives, pass it to [`answer`](Self::answer).** Tokens in it
    /// are returned in [`LoginError::Cancelled`], so that you can revoke them.
    pub const fn cancel(&mut self) {
        self.0.is_cancelled = true;
    }
}

debug_shows!(Ask<'_>: request());

/// Why a login ended without tokens. `Display` says to the user what happened and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "each needs its own message")]
pub enum LoginError {
    /// The server issued no codes.
    #[error("{0}")]
    Start(StartError),
    /// The user denied the request.
    #[error("the sign-in was denied ({0}); start again if that was not intended")]
    Denied(Refusal),
    /// The code expired before the user decided. The server says so, or it answered `invalid_grant` after the deadline and no earlier
    /// answer was lost.
    #[error("the code has expired ({0}); start again, and approve the new code in time")]
    Expired(Refusal),
    /// The code expired by your clock. Holds what the login waited for, if it has polled.
    #[error("the code expired {}", timed_out(*.0))]
    TimedOut(Option<WaitingFor>),
    /// The server refused for another reason. [`Refusal::possibly_redeemed`] says whether this device may have redeemed the code.
    #[error("{}", rejected(.0))]
    Rejected(Refusal),
    /// There was no response, and trying again will not help.
    #[error("{0}")]
    Failed(TransportError),
    /// The server answered with a redirect of this status, which was not followed.
    #[error(
        "the server answered with a redirect (status {0}), which is not followed; check the URL of the token endpoint"
    )]
    Redirected(u16),
    /// The response could not be used.
    #[error("the sign-in failed: {0}")]
    Malformed(Malformed),
    /// The caller cancelled the login. If there are tokens, they arrived too late: revoke them.
    #[error("the sign-in was cancelled{}", late(.0.is_some()))]
    Cancelled(Option<Box<Tokens>>),
    /// The outcome was already returned.
    #[error(
        "this login has ended and already returned its outcome; use that outcome, or start a new login"
    )]
    Over,
}

fn timed_out(reason: Option<WaitingFor>) -> &'static str {
    match reason {
        None | Some(WaitingFor::User | WaitingFor::SlowDown) => {
            "before it was approved; start again, and approve the new code in time"
        }
        Some(WaitingFor::Server(_)) => "while the server could not answer; start again when it can",
        Some(WaitingFor::Connection(_)) => {
            "while there was no connection to the server; check the network connection, then start again"
        }
    }
}

fn rejected(refusal: &Refusal) -> String {
    if refusal.possibly_redeemed {
        return alloc::format!(
            "the server no longer accepts the device code ({refusal}), and an earlier answer was lost which may have had the \
             tokens; start again"
        );
    }
    alloc::format!(
        "the server refused the sign-in: {refusal}; {}",
        refusal.advice()
    )
}

fn late(came: bool) -> &'static str {
    if came {
        ", but tokens arrived; revoke them"
    } else {
        "; start again to sign in"
    }
}
