//! When to ask, and whether to ask at all.
//!
//! Rules:
//! 1. The clock is the caller's and monotonic; one that goes back is held where it was.
//! 2. From an answer to the next request passes at least the interval in force, which only rises.
//! 3. Expiry is the server's word: one last poll goes out at the deadline or after it, unless it would come so late, or the
//!    interval be so long, that it means nothing. A machine that slept through the deadline still asks once.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::response::TransportError;
use crate::time;

/// The schedule of the polls. All moments are readings of the caller's clock.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// The latest reading.
    pub(crate) clock: Duration,
    /// When the next poll may go out, without the jitter.
    pub(crate) earliest: Duration,
    /// What the caller adds to it, once: no more than the interval.
    pub(crate) jitter: Duration,
    pub(crate) deadline: Duration,
    pub(crate) lifetime: Duration,
    /// The smallest gap: the interval in force.
    pub(crate) min_interval: Duration,
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) last_poll: LastPoll,
    /// Whether the answer to a poll was lost that may have carried tokens.
    pub(crate) lost: bool,
    pub(crate) reason: Option<WaitingFor>,
}

/// The poll at the deadline or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LastPoll {
    /// Not wanted by the caller.
    Off,
    /// It would come too late to mean anything.
    TooLate,
    /// It will go out.
    Ahead,
    /// It went out.
    Sent,
}

/// What a login waits for, which is what came of its last poll. `Display` says it to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitingFor {
    /// For the user, who has not decided yet.
    User,
    /// For the user, and the server asks for fewer requests: the interval has become longer.
    SlowDown,
    /// For the server, or something before it, which could not answer; with the status.
    Server(u16),
    /// For the network: there was no response.
    Connection(TransportError),
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("nobody has approved the code yet"),
            Self::SlowDown => f.write_str("the server asks for fewer requests"),
            Self::Server(status) => {
                write!(
                    f,
                    "the server cannot answer now (status {status}), trying again"
                )
            }
            Self::Connection(_) => f.write_str("no connection to the server, trying again"),
        }
    }
}

/// What there is to do.
pub(crate) enum Turn {
    Wait(Duration),
    Send,
    Over,
}

impl Schedule {
    /// Returns the schedule from the answer to the device authorization request on.
    pub(crate) const fn new(
        clock: Duration,
        deadline: Duration,
        lifetime: Duration,
        min_interval: Duration,
    ) -> Self {
        Self {
            clock,
            earliest: clock,
            jitter: Duration::ZERO,
            deadline,
            lifetime,
            min_interval,
            failures: 0,
            last_poll: LastPoll::Ahead,
            lost: false,
            reason: None,
        }
    }

    /// Takes a reading of the clock.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.clock = self.clock.max(now);
    }

    /// Returns what to do now.
    pub(crate) fn turn(&mut self) -> Turn {
        let asks_late = self.last_poll == LastPoll::Ahead;
        let past = self.is_past_deadline();
        let due = self.due();
        if self.clock < due && (asks_late || due < self.deadline) {
            Turn::Wait(due)
        } else if past && !asks_late {
            Turn::Over
        } else if self.clock < due {
            // No poll is left; the user may still be shown the code until it expires.
            Turn::Wait(self.deadline)
        } else {
            if past {
                self.last_poll = LastPoll::Sent;
            }
            Turn::Send
        }
    }

    /// Notes that the code is still pending; the body may have named an interval.
    pub(crate) fn pending(&mut self, announced: Option<Duration>) {
        self.failures = 0;
        self.min_interval = time::raised(self.min_interval, announced);
        self.reason = Some(WaitingFor::User);
    }

    /// Notes that the server wants fewer polls.
    pub(crate) fn slow_down(&mut self, announced: Option<Duration>) {
        // "the interval MUST be increased by 5 seconds for this and all subsequent requests" (RFC 8628, section 3.5)
        self.failures = 0;
        self.min_interval = time::slowed(self.min_interval, announced);
        self.reason = Some(WaitingFor::SlowDown);
    }

    /// Notes that the server could not answer, and whether what came may hide tokens.
    pub(crate) fn unavailable(&mut self, status: u16, may_hide_success: bool) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(WaitingFor::Server(status));
        self.lost |= may_hide_success;
    }

    /// Notes that the caller got no response, though there may have been one.
    pub(crate) fn failed(&mut self, failure: TransportError) {
        // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency before retrying."
        // (RFC 8628, section 3.5)
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(WaitingFor::Connection(failure));
        self.lost = true;
    }

    /// Takes the answer to a poll for lost just now.
    pub(crate) fn lose(&mut self) {
        self.failed(TransportError::Other);
        self.schedule(None);
    }

    /// Sets the next poll, counted from the latest reading; `pause` is what `Retry-After` said.
    pub(crate) fn schedule(&mut self, pause: Option<Duration>) {
        // "Before each new request, the client MUST wait at least the number of seconds specified by the "interval"
        // parameter of the device authorization response (see Section 3.2), or 5 seconds if none was provided, and respect
        // any increase in the polling interval required by the "slow_down" error." (RFC 8628, section 3.5)
        let left = self.deadline.saturating_sub(self.clock);
        let pause = pause.unwrap_or_default().min(left);
        let gap = time::back_off(self.min_interval, self.failures);
        self.earliest = self.clock.saturating_add(gap.max(pause));
        self.jitter = Duration::ZERO;
        if matches!(self.last_poll, LastPoll::Ahead | LastPoll::TooLate) {
            let ceiling = time::ceiling(self.min_interval);
            let latest = self.deadline.saturating_add(ceiling);
            let makes_sense =
                self.earliest.max(self.deadline) <= latest && self.min_interval <= self.lifetime;
            self.last_poll = if makes_sense {
                LastPoll::Ahead
            } else {
                LastPoll::TooLate
            };
        }
    }

    /// Returns when the next poll goes out.
    pub(crate) const fn due(&self) -> Duration {
        self.earliest.saturating_add(self.jitter)
    }

    pub(crate) fn is_past_deadline(&self) -> bool {
        self.clock >= self.deadline
    }
}
