//! The arithmetic on timestamps and intervals.
//!
//! Rules:
//! 1. The server half counts wall-clock milliseconds since the Unix epoch, the client half a monotonic [`Duration`].
//! 2. Every operation saturates. An overflow gives the farthest moment or the longest span, never the current moment.
//! 3. A clock that went back never yields a negative difference.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A wall-clock reading of the server half: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Timestamp(i64);

impl Timestamp {
    pub(crate) const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub(crate) const fn millis(self) -> i64 {
        self.0
    }

    /// The moment `span` later.
    pub(crate) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` earlier.
    pub(crate) fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// The time from `earlier` to this moment, or zero if `earlier` is later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same moment as the type of the public API. Outside its range, the midnight that begins its first or its last day.
    pub(crate) fn to_offset(self) -> OffsetDateTime {
        let rest = u64::try_from(self.0.rem_euclid(1000)).unwrap_or(0);
        let rest = time::Duration::try_from(Duration::from_millis(rest)).unwrap_or_default();
        match OffsetDateTime::from_unix_timestamp(self.0.div_euclid(1000)) {
            Ok(moment) => moment.saturating_add(rest),
            Err(_) if self.0 < 0 => time::Date::MIN.midnight().assume_utc(),
            Err(_) => time::Date::MAX.midnight().assume_utc(),
        }
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(moment: OffsetDateTime) -> Self {
        let millis = moment.unix_timestamp().saturating_mul(1000);
        Self(millis.saturating_add(i64::from(moment.millisecond())))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

// The client half: spans of time, and readings of the caller's monotonic clock.

/// "If no value is provided, clients MUST use 5 as the default." ([RFC 8628, section 3.2])
///
/// [RFC 8628, section 3.2]: https://www.rfc-editor.org/rfc/rfc8628#section-3.2
pub(crate) const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);

/// "the interval MUST be increased by 5 seconds for this and all subsequent requests" ([RFC 8628, section 3.5])
///
/// [RFC 8628, section 3.5]: https://www.rfc-editor.org/rfc/rfc8628#section-3.5
const SLOW_DOWN_STEP: Duration = Duration::from_secs(5);

/// A longer interval in a response to a poll is cut to this, because it is a mistake or an attack.
pub(crate) const MAX_ANNOUNCED: Duration = Duration::from_hours(1);

/// However short the interval is, a back-off can grow to this. It is long enough to relieve a server, and short enough to wait for.
const MIN_CEILING: Duration = Duration::from_mins(1);

/// Returns the interval in force after a response that may announce one. It only rises.
pub(crate) fn raised(min_interval: Duration, announced: Option<Duration>) -> Duration {
    min_interval.max(announced.map_or(Duration::ZERO, |announced| announced.min(MAX_ANNOUNCED)))
}

/// Returns the interval in force after `slow_down`.
pub(crate) fn slowed(min_interval: Duration, announced: Option<Duration>) -> Duration {
    raised(min_interval.saturating_add(SLOW_DOWN_STEP), announced)
}

/// Returns how long to wait after so many failures in a row. It doubles with each failure, up to a ceiling, and is never under the
/// interval in force.
pub(crate) fn back_off(min_interval: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return min_interval;
    }
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    min_interval
        .saturating_mul(factor)
        .min(ceiling(min_interval))
}

/// Returns the longest back-off. The last poll may be planned for up to this long after the deadline.
pub(crate) fn ceiling(min_interval: Duration) -> Duration {
    min_interval.saturating_add(min_interval).max(MIN_CEILING)
}

/// Returns a number of seconds, rounded up to whole seconds. Returns `None` if it is negative or not a number.
pub(crate) fn whole_seconds(number: f64) -> Option<u64> {
    match Duration::try_from_secs_f64(number) {
        Ok(span) => {
            let part = u64::from(span.subsec_nanos() > 0);
            Some(
                span.as_secs()
                    .saturating_add(part)
                    .max(u64::from(number > 0.0)),
            )
        }
        Err(_) => (number > 0.0).then_some(u64::MAX),
    }
}
