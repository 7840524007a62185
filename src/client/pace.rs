//! When to ask, and whether to ask at all.
//!
//! Rules:
//! 1. The clock is the caller's and monotonic; one that goes back is held where it was.
//! 2. From an answer to the next request passes at least the floor, which only rises.
//! 3. Expiry is the server's word: one last poll goes out at the deadline or after it, unless it would come so late, or the
//!    floor be so high, that it means nothing. A machine that slept through the deadline still asks once.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer::Failure;
use crate::time;

/// The schedule of a poller. All moments are readings of the caller's clock.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// The latest reading.
    pub(crate) clock: Duration,
    /// When the next poll may go out, but for the margin.
    pub(crate) earliest: Duration,
    /// What the caller adds to it.
    pub(crate) margin: Duration,
    pub(crate) deadline: Duration,
    pub(crate) lifetime: Duration,
    /// The smallest gap.
    pub(crate) floor: Duration,
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) last_poll: LastPoll,
    /// Whether the answer to a poll was lost.
    pub(crate) lost: bool,
    pub(crate) cause: Option<Cause>,
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

/// Why a poller was still waiting when the code expired: what came of the last poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The user had not decided.
    Pending,
    /// The user had not decided, and the server wanted fewer polls.
    SlowDown,
    /// The server, or something before it, could not answer; with the status.
    Unavailable(u16),
    /// There was no answer.
    Failure(Failure),
}

/// What there is to do.
pub(crate) enum Turn {
    Wait(Duration),
    Send,
    Over,
}

impl Pace {
    /// The schedule from the answer to the device authorization request on.
    pub(crate) fn new(
        clock: Duration,
        deadline: Duration,
        lifetime: Duration,
        floor: Duration,
    ) -> Self {
        Self {
            clock,
            earliest: clock,
            margin: Duration::ZERO,
            deadline,
            lifetime,
            floor,
            failures: 0,
            last_poll: LastPoll::Ahead,
            lost: false,
            cause: None,
        }
    }

    /// Takes a reading of the clock.
    pub(crate) fn tick(&mut self, now: Duration) {
        self.clock = self.clock.max(now);
    }

    /// What to do now.
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

    /// The code is still pending; the body may have named an interval.
    pub(crate) fn pending(&mut self, told: Option<Duration>) {
        self.failures = 0;
        self.floor = time::raised(self.floor, told);
        self.cause = Some(Cause::Pending);
    }

    /// The server wants fewer polls.
    pub(crate) fn slow_down(&mut self, told: Option<Duration>) {
        // "the interval MUST be increased by 5 seconds for this and all subsequent requests" (RFC 8628, section 3.5)
        self.failures = 0;
        self.floor = time::slowed(self.floor, told);
        self.cause = Some(Cause::SlowDown);
    }

    /// The server could not answer.
    pub(crate) fn unavailable(&mut self, status: u16) {
        self.failures = self.failures.saturating_add(1);
        self.cause = Some(Cause::Unavailable(status));
    }

    /// There was no answer, though there may have been a response.
    pub(crate) fn failed(&mut self, failure: Failure) {
        // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency before retrying."
        // (RFC 8628, section 3.5)
        self.failures = self.failures.saturating_add(1);
        self.cause = Some(Cause::Failure(failure));
        self.lost = true;
    }

    /// Sets the next poll, counted from the latest reading; `pause` is what `Retry-After` said.
    pub(crate) fn schedule(&mut self, pause: Option<Duration>) {
        // "Before each new request, the client MUST wait at least the number of seconds specified by the "interval"
        // parameter of the device authorization response (see Section 3.2), or 5 seconds if none was provided, and respect
        // any increase in the polling interval required by the "slow_down" error." (RFC 8628, section 3.5)
        let left = self.deadline.saturating_sub(self.clock);
        let pause = pause.unwrap_or_default().min(left);
        let gap = time::back_off(self.floor, self.failures);
        self.earliest = self.clock.saturating_add(gap.max(pause));
        self.margin = Duration::ZERO;
        self.last_poll = match self.last_poll {
            LastPoll::Ahead | LastPoll::TooLate => self.last_poll_of_schedule(),
            kept @ (LastPoll::Off | LastPoll::Sent) => kept,
        };
    }

    /// Puts the next poll off, once, and no further than by the floor.
    pub(crate) fn put_off(&mut self, margin: Duration) {
        self.margin = margin.min(self.floor);
    }

    /// When the next poll goes out.
    pub(crate) fn due(&self) -> Duration {
        self.earliest.saturating_add(self.margin)
    }

    pub(crate) fn is_past_deadline(&self) -> bool {
        self.clock >= self.deadline
    }

    /// Whether the poll that was answered was the last.
    pub(crate) fn was_last(&self) -> bool {
        self.last_poll == LastPoll::Sent
    }

    fn last_poll_of_schedule(&self) -> LastPoll {
        let latest = self.deadline.saturating_add(time::ceiling(self.floor));
        if self.earliest.max(self.deadline) <= latest && self.floor <= self.lifetime {
            LastPoll::Ahead
        } else {
            LastPoll::TooLate
        }
    }
}
