//! Quotas: the generic cell rate algorithm, one timestamp a key.
//!
//! Rules:
//! 1. A key is a digest of what is limited and of whom, so that no host keys a limit by too little.
//! 2. What is stored is the moment at which everything taken will have been given back. Nobody needs to tick.
//! 3. It is written by compare-and-swap on the value read. A take that lost is taken again from a fresh value.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::registration::Registration;
use super::subject::Subject;
use crate::digest::{Digest, QuotaKey};
use crate::time::Timestamp;

/// A limit: so many at once, then one per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    burst: u32,
    period: Duration,
}

impl Limit {
    /// `burst` at once, then one per `period`.
    ///
    /// # Errors
    ///
    /// [`LimitError`] for a burst of zero, or a period under a millisecond or over a day.
    pub fn new(burst: u32, period: Duration) -> Result<Self, LimitError> {
        let shortest = Duration::from_millis(1);
        let longest = Duration::from_hours(24);
        if burst == 0 || period < shortest || period > longest {
            return Err(LimitError);
        }
        Ok(Self { burst, period })
    }

    pub(super) const fn constant(burst: u32, seconds: u64) -> Self {
        Self {
            burst,
            period: Duration::from_secs(seconds),
        }
    }

    /// The most that can be taken within any stretch of `span`.
    pub(super) fn within(&self, span: Duration) -> u64 {
        let refilled = span.as_millis().div_ceil(self.period.as_millis().max(1));
        u64::from(self.burst).saturating_add(u64::try_from(refilled).unwrap_or(u64::MAX))
    }

    /// What taking one makes of the stored quota. None is stored for a key that was never seen.
    ///
    /// Write the change by compare-and-swap; where it lost, load and take again. A loss is no failure: of many who come at once
    /// for one key, one wins each round. **Let those of one process stand in line**, and pause at random after a loss to another
    /// process; where that takes too long answer [`Reply::store_failed`](super::Reply::store_failed).
    ///
    /// # Errors
    ///
    /// [`Spent`] where nothing is left now.
    pub fn take(
        &self,
        key: QuotaKey,
        stored: Option<Quota>,
        now: OffsetDateTime,
    ) -> Result<QuotaChange, Spent> {
        let now = Timestamp::from(now);
        self.check_at(stored, now)?;
        let from = stored.map_or(now, |quota| quota.0.max(now));
        Ok(QuotaChange {
            key,
            from: stored,
            to: Quota(from.after(self.period)),
        })
    }

    /// Whether one could be taken now; nothing changes.
    ///
    /// # Errors
    ///
    /// [`Spent`] where nothing is left now.
    pub fn check(&self, stored: Option<Quota>, now: OffsetDateTime) -> Result<(), Spent> {
        self.check_at(stored, Timestamp::from(now))
    }

    fn check_at(&self, stored: Option<Quota>, now: Timestamp) -> Result<(), Spent> {
        let taken = stored.map_or(Duration::ZERO, |quota| quota.0.since(now));
        let room = self.period.saturating_mul(self.burst.saturating_sub(1));
        match taken.checked_sub(room) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(retry_after) => Err(Spent { retry_after }),
        }
    }
}

/// A stored quota: one timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quota(Timestamp);

impl Quota {
    /// When everything is given back: from then on the stored value says no more than none, and may be removed.
    pub fn purge_at(&self) -> OffsetDateTime {
        self.0.to_offset()
    }
}

/// A quota's change, to be written where the stored value is still the one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct QuotaChange {
    key: QuotaKey,
    from: Option<Quota>,
    to: Quota,
}

impl QuotaChange {
    /// The key.
    pub const fn key(&self) -> &QuotaKey {
        &self.key
    }

    /// What must be stored for the write to win; none: nothing.
    pub const fn from(&self) -> Option<Quota> {
        self.from
    }

    /// What is stored then.
    pub const fn to(&self) -> Quota {
        self.to
    }
}

impl QuotaKey {
    /// The key for issuing codes: a public client and its source together, for anybody can spend a public id; an
    /// authenticated client alone.
    pub(super) fn issuing(client: &Registration, source: &str) -> Self {
        let source = if client.is_public() { source } else { "" };
        Self::of(b"issuing", client.client_id(), source)
    }

    /// The key for wrong secrets: a client and a source together. By the client alone, anybody could lock it out.
    pub(super) fn secrets(client_id: &str, source: &str) -> Self {
        Self::of(b"secrets", client_id, source)
    }

    /// The key for guesses by a user.
    pub(super) fn guesses(user: &Subject) -> Self {
        Self::of(b"guesses by user", user.as_str(), "")
    }

    /// The key for guesses from a source, such as an address, for a host that limits these too.
    pub fn guesses_from(source: &str) -> Self {
        Self::of(b"guesses by source", source, "")
    }

    /// The key for a limit of the host's own, of attempts to sign in for example: `what` is limited, and of whom. It is never
    /// the key of another limit.
    pub fn of_host(what: &str, whose: &[&str]) -> Self {
        let parts = ["host", what].into_iter().chain(whose.iter().copied());
        Self(Digest::of_parts(parts.map(str::as_bytes)))
    }

    fn of(what: &[u8], whose: &str, source: &str) -> Self {
        Self(Digest::of_parts([
            what,
            whose.as_bytes(),
            source.as_bytes(),
        ]))
    }
}

/// A quota of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the quota is spent; try again in {} s", self.seconds())]
#[non_exhaustive]
pub struct Spent {
    /// The time until one can be taken again.
    pub retry_after: Duration,
}

impl Spent {
    /// The same in whole seconds, rounded up, at least one: the value of `Retry-After`.
    pub fn seconds(&self) -> u32 {
        let seconds = self.retry_after.as_millis().div_ceil(1000);
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }
}

/// A limit that would never or always refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a limit needs a burst of at least one and a period from a millisecond to a day")]
#[non_exhaustive]
pub struct LimitError;
