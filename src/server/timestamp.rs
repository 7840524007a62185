//! The arithmetic on the server's wall clock.
//!
//! Rules:
//! 1. Every operation saturates. An overflow gives the farthest moment, never the current one.
//! 2. A clock that went back never yields a negative difference.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A reading of the wall clock: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Timestamp(i64);

impl Timestamp {
    pub(super) const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub(super) const fn millis(self) -> i64 {
        self.0
    }

    /// The moment `span` later.
    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` earlier.
    pub(super) fn before(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// The time from `earlier` to this moment, or zero if `earlier` is later.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Converts to the type of the public API. A moment outside the range of that type becomes midnight at the start of the first or the
    /// last day that it can hold.
    pub(super) fn to_offset(self) -> OffsetDateTime {
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
