//! When to poll, and whether to poll at all.
//!
//! Rules:
//! 1. The caller reads a monotonic clock. A reading that is earlier than the last one counts as the last one.
//! 2. Between an answer and the next poll at least the interval in force passes, unless `first_poll_at_once` skips the first wait. The
//!    interval only rises.
//! 3. The server decides whether a code has expired, so one last poll goes out at the deadline or later. It is left out if it would be due
//!    more than twice the interval, or a minute if that is longer, after the deadline. It is also left out if the interval is longer than
//!    the lifetime. A device that slept through the deadline still sends it.
//! 4. Every operation on times saturates. An overflow gives the farthest moment or the longest span.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::response::TransportError;

/// The schedule of the polls. All times are readings of the caller's clock.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// The latest reading.
    pub(crate) clock: Duration,
    /// When the next poll may go out, without the jitter.
    pub(crate) earliest: Duration,
    /// What the caller adds to `earliest` for the next poll: at most the interval.
    pub(crate) jitter: Duration,
    pub(crate) deadline: Duration,
    pub(crate) lifetime: Duration,
    /// The interval in force.
    pub(crate) min_interval: Duration,
    /// Failures in a row.
    pub(crate) failures: u32,
    pub(crate) last_poll: LastPoll,
    /// Whether an answer that may have had tokens was lost.
    pub(crate) lost: bool,
    pub(crate) reason: Option<WaitingFor>,
}

/// The poll at the deadline or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LastPoll {
    /// The caller switched it off.
    Off,
    /// It would come too late, or the interval is longer than the lifetime.
    TooLate,
    /// It will go out.
    Ahead,
    Sent,
}

/// What a login waits for, according to the answer to its last poll. `Display` says it to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitingFor {
    /// For the user, who has not decided yet.
    User,
    /// For the user. The server also asked for fewer requests, so the interval has become longer.
    SlowDown,
    /// For the server. It, or a gateway before it, could not answer. Holds the status.
    Server(u16),
    /// For the network: there was no response.
    Connection(TransportError),
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("nobody has approved the code yet"),
            Self::SlowDown => f.write_str(
                "nobody has approved the code yet, and the server asks for fewer requests",
            ),
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

pub(crate) enum Turn {
    Wait(Duration),
    Send,
    Over,
}

impl Schedule {
    /// Returns the schedule that begins with the answer to the device authorization request.
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

    pub(crate) fn tick(&mut self, now: Duration) {
        self.clock = self.clock.max(now);
    }

    pub(crate) fn turn(&mut self) -> Turn {
        let asks_late = self.last_poll == LastPoll::Ahead;
        let past = self.is_past_deadline();
        let due = self.due();
        if self.clock < due && (asks_late || due < self.deadline) {
            Turn::Wait(due)
        } else if past && !asks_late {
            Turn::Over
        } else if self.clock < due {
            // No poll is left, but the code may still be shown until it expires.
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
        self.raise(announced);
        self.reason = Some(WaitingFor::User);
    }

    /// Notes that the server wants fewer polls.
    pub(crate) fn slow_down(&mut self, announced: Option<Duration>) {
        self.failures = 0;
        self.min_interval = self.min_interval.saturating_add(SLOW_DOWN_STEP);
        self.raise(announced);
        self.reason = Some(WaitingFor::SlowDown);
    }

    /// Takes over an interval that a response announces. The interval in force only rises.
    fn raise(&mut self, announced: Option<Duration>) {
        let announced = announced.unwrap_or_default().min(MAX_ANNOUNCED);
        self.min_interval = self.min_interval.max(announced);
    }

    /// Notes that the server could not answer, and whether it may have issued tokens nevertheless.
    pub(crate) fn unavailable(&mut self, status: u16, may_hide_success: bool) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(WaitingFor::Server(status));
        self.lost |= may_hide_success;
    }

    /// Notes that no response arrived, although the server may have sent one.
    pub(crate) fn failed(&mut self, failure: TransportError) {
        // "On encountering a connection timeout, clients MUST unilaterally reduce their polling frequency before retrying."
        // (RFC 8628, section 3.5)
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(WaitingFor::Connection(failure));
        self.lost = true;
    }

    /// Notes that the answer to a poll was lost just now.
    pub(crate) fn lose_answer(&mut self) {
        self.failed(TransportError::Other);
        self.plan(None);
    }

    /// Sets when the next poll may go out, counted from the latest reading. `pause` is the value of `Retry-After`.
    pub(crate) fn plan(&mut self, pause: Option<Duration>) {
        // "Before each new request, the client MUST wait at least the number of seconds specified by the "interval"
        // parameter of the device authorization response (see Section 3.2), or 5 seconds if none was provided, and respect
        // any increase in the polling interval required by the "slow_down" error." (RFC 8628, section 3.5)
        let left = self.deadline.saturating_sub(self.clock);
        let pause = pause.unwrap_or_default().min(left);
        self.earliest = self.clock.saturating_add(self.back_off().max(pause));
        self.jitter = Duration::ZERO;
        if matches!(self.last_poll, LastPoll::Ahead | LastPoll::TooLate) {
            let latest = self.deadline.saturating_add(ceiling(self.min_interval));
            let makes_sense =
                self.earliest.max(self.deadline) <= latest && self.min_interval <= self.lifetime;
            self.last_poll = if makes_sense {
                LastPoll::Ahead
            } else {
                LastPoll::TooLate
            };
        }
    }

    /// Returns how long to wait after an answer. It doubles with each failure in a row, up to the ceiling, and is never under the interval
    /// in force.
    fn back_off(&self) -> Duration {
        if self.failures == 0 {
            return self.min_interval;
        }
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let doubled = self.min_interval.saturating_mul(factor);
        doubled.min(ceiling(self.min_interval))
    }

    /// Returns when the next poll goes out.
    pub(crate) const fn due(&self) -> Duration {
        self.earliest.saturating_add(self.jitter)
    }

    pub(crate) fn is_past_deadline(&self) -> bool {
        self.clock >= self.deadline
    }
}

/// "If no value is provided, clients MUST use 5 as the default."
/// ([RFC 8628, section 3.2](https://www.rfc-editor.org/rfc/rfc8628#section-3.2))
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// "the interval MUST be increased by 5 seconds for this and all subsequent requests"
/// ([RFC 8628, section 3.5](https://www.rfc-editor.org/rfc/rfc8628#section-3.5))
const SLOW_DOWN_STEP: Duration = Duration::from_secs(5);

/// A longer interval in a response to a poll is cut to this, because it is a mistake or an attack.
pub(crate) const MAX_ANNOUNCED: Duration = Duration::from_hours(1);

/// However short the interval is, a back-off can grow to this. It is long enough to relieve a server, and short enough to wait for.
const MIN_CEILING: Duration = Duration::from_mins(1);

/// Returns the longest back-off. The last poll may be planned for up to this long after the deadline.
pub(crate) fn ceiling(min_interval: Duration) -> Duration {
    min_interval.saturating_add(min_interval).max(MIN_CEILING)
}
