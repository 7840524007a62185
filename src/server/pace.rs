//! The pace: how a polling device is slowed down.
//!
//! Rules (C9 to C13 and C20 of the tables):
//! 1. The first poll is accepted. Only accepted polls move the timestamp.
//! 2. A poll is early if it comes sooner than the interval in force minus a tolerance for clocks and networks.
//! 3. After each accepted poll, the interval can grow once, by 5 s and at most to the cap. So polls of a client
//!    that keeps to a fixed rate are still accepted now and then.
//! 4. A poll within a second of the last accepted one counts as the same poll, sent twice. It changes nothing.
//! 5. The pace helps clients, but does not protect the server, because parallel polls read the same pace, and a pace may be lost.

use core::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::timestamp::Timestamp;
use crate::wire::version::Version;

/// When a device last polled, and the interval at which it may poll.
///
/// It is saved under the session's key, but not as a part of the session: in another column, another table or process memory. Saving
/// it may fail, and must never insert a session, touch its version or extend its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    v: Version<2>,
    /// The last accepted poll.
    pub(super) last: Timestamp,
    /// The interval in force, in seconds.
    #[serde(deserialize_with = "positive")]
    pub(super) interval: u32,
    /// Whether the interval was widened since the last accepted poll.
    pub(super) widened: bool,
}

impl Pace {
    /// Returns the interval in force.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.into())
    }

    /// Returns the pace after a poll that is accepted now.
    #[inline(always)]
    pub(super) const fn accepted(now: Timestamp, interval: u32) -> Self {
        Self {
            v: Version,
            last: now,
            interval,
            widened: false,
        }
    }

    /// Whether a poll comes too soon. If the clock went back, no poll is early (C9).
    #[inline(always)]
    pub(super) fn is_early(&self, now: Timestamp) -> bool {
        now >= self.last && now.since(self.last) < least_gap(self.interval)
    }

    /// Whether an early poll counts as the last accepted one, sent twice.
    #[inline(always)]
    pub(super) fn is_repeated(&self, now: Timestamp) -> bool {
        now.since(self.last) < REPEATED
    }

    /// Returns the pace with a wider interval. `None` if it was widened since the last accepted poll, or is at the cap.
    #[inline(always)]
    pub(super) fn widened(&self, cap: u32) -> Option<Self> {
        (!self.widened && self.interval < cap).then(|| Self {
            interval: self.interval.saturating_add(STEP).min(cap),
            widened: true,
            ..*self
        })
    }
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("the interval of a pace must not be zero")),
        interval => Ok(interval),
    }
}

/// "the interval MUST be increased by 5 seconds for this and all subsequent requests"
/// ([RFC 8628, section 3.5](https://www.rfc-editor.org/rfc/rfc8628#section-3.5)). Clients also add 5 s. If the server added more, correct
/// clients would poll early.
pub(super) const STEP: u32 = 5;

/// A poll this soon after an accepted one is the same poll, sent twice by a proxy or by a client that tries two ways of
/// authentication (golang.org/x/oauth2).
const REPEATED: Duration = Duration::from_secs(1);

/// The interval minus the tolerance, which is a second or a quarter of the interval, whichever is more. So a client whose clock is
/// 30 % fast is never slowed down.
pub(super) fn least_gap(interval: u32) -> Duration {
    let interval = Duration::from_secs(interval.into());
    let quarter = interval.checked_div(4).unwrap_or_default();
    interval.saturating_sub(quarter.max(Duration::from_secs(1)))
}
