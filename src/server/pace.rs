//! The pace: how a polling device is slowed down.
//!
//! Rules (C9 to C13 of the tables):
//! 1. The first poll is free, and the timestamp moves on accepted polls only.
//! 2. A poll is early where it comes sooner than the interval in force less a tolerance for clocks and networks.
//! 3. The interval widens once per accepted poll, by the step, up to the cap. A poller stuck on one rate gets through.
//! 4. Pacing is courtesy, not protection: parallel polls read the same pace, and losing it costs a few early polls.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::stored::StoredError;
use crate::time::Timestamp;

/// When a device last polled, and how often it may.
///
/// It is saved apart from the session, by the session's key: in its row, in another table, in process memory. Saving it may
/// fail, and must never insert a session, touch its version or extend its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Pace {
    /// The last accepted poll.
    last: Timestamp,
    /// The interval in force, in seconds.
    interval: u32,
    /// Whether the interval was widened since the last accepted poll.
    widened: bool,
}

impl Pace {
    /// The interval in force.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.into())
    }

    /// The interval in force, in seconds.
    pub(super) const fn seconds(&self) -> u32 {
        self.interval
    }
}

/// What a pending poll meets.
pub(super) enum Step {
    /// In time: the pace to save.
    Accepted(Pace),
    /// Early, and the interval is wider from now on: the pace to save.
    Widened(Pace),
    /// Early, with the interval in force in seconds. Nothing to save.
    Early(u32),
}

impl Policy {
    #[inline(always)]
    pub(super) fn step(&self, pace: Option<&Pace>, now: Timestamp) -> Step {
        let accepted = |interval| {
            Step::Accepted(Pace {
                last: now,
                interval,
                widened: false,
            })
        };
        let Some(pace) = pace else {
            return accepted(self.interval); // C10
        };
        // C9: a clock that went back makes nobody early.
        let early = now >= pace.last && now.since(pace.last) < least_gap(pace.interval);
        if !early {
            return accepted(pace.interval); // C9, C11
        }
        if pace.widened || pace.interval >= self.cap {
            return Step::Early(pace.interval); // C13
        }
        Step::Widened(Pace {
            interval: pace.interval.saturating_add(self.step).min(self.cap),
            widened: true,
            last: pace.last,
        }) // C12
    }
}

/// The interval less the tolerance: a second, or a quarter of the interval where that is more. With it a client whose clock is
/// 30 % fast is never slowed down.
fn least_gap(interval: u32) -> Duration {
    let interval = Duration::from_secs(interval.into());
    let quarter = interval.checked_div(4).unwrap_or_default();
    interval.saturating_sub(quarter.max(Duration::from_secs(1)))
}

/// The version of the stored form.
const VERSION: u8 = 1;

/// The stored form of a pace.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Pace", deny_unknown_fields)]
struct Form {
    v: u8,
    last: Timestamp,
    interval: u32,
    widened: bool,
}

impl From<Pace> for Form {
    fn from(pace: Pace) -> Self {
        Self {
            v: VERSION,
            last: pace.last,
            interval: pace.interval,
            widened: pace.widened,
        }
    }
}

impl TryFrom<Form> for Pace {
    type Error = StoredError;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        if form.v != VERSION {
            return Err(StoredError::Version);
        }
        if form.interval == 0 {
            return Err(StoredError::Corrupt);
        }
        Ok(Self {
            last: form.last,
            interval: form.interval,
            widened: form.widened,
        })
    }
}
