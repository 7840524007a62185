//! Rate limits: the generic cell rate algorithm, with one timestamp per key.
//!
//! Rules:
//! 1. A key is a digest of what is limited and for whom. The core makes it, so that no host leaves out a part.
//! 2. The stored timestamp is the moment when the quota will be full again. No job has to refill it.
//! 3. A store applies a [`Take`] to what it has, in one atomic step. Parallel requests cannot take the same unit twice.
//! 4. A stored moment that is too far ahead is not trusted, so that a clock that ran ahead locks nobody out for long.

use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::subject::{InvalidText, Subject};
use super::timestamp::Timestamp;
use crate::digest::{Digest, QuotaKey, SessionKey};

/// A limit: a number of times at once (the burst), then once per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    burst: u32,
    period: Duration,
}

impl RateLimit {
    /// Makes a limit that allows `burst` at once, then one per `period`.
    ///
    /// # Errors
    ///
    /// [`InvalidText::RateLimit`] for a burst of zero, or a period under a millisecond or over a day.
    pub fn new(burst: u32, period: Duration) -> Result<Self, InvalidText> {
        let shortest = Duration::from_millis(1);
        let longest = Duration::from_hours(24);
        if burst == 0 || period < shortest || period > longest {
            return Err(InvalidText::RateLimit);
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

    /// Returns the operation that takes one under `key`, for a limit of the host's own ([`QuotaKey::of_host`]). Give it to
    /// [`Store::take`](super::Store::take).
    pub fn take(&self, key: QuotaKey, now: OffsetDateTime) -> Take {
        self.count(key, 1, now)
    }

    /// Returns the operation that only checks whether one is left.
    pub(super) fn look(&self, key: QuotaKey, now: OffsetDateTime) -> Take {
        self.count(key, 0, now)
    }

    fn count(&self, key: QuotaKey, count: u32, now: OffsetDateTime) -> Take {
        Take {
            key,
            limit: *self,
            count,
            now: Timestamp::from(now),
        }
    }
}

/// An operation on a quota: take one, or only check whether one is left.
///
/// A store applies it **in one atomic step**: read what is stored under [`Take::key`], call [`Take::apply`], write what that
/// returns. In memory that is a lock, in SQL a transaction on the locked row, in Redis a script that does the same
/// arithmetic with the numbers below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing is taken until the store has applied it"]
pub struct Take {
    key: QuotaKey,
    limit: RateLimit,
    count: u32,
    now: Timestamp,
}

impl Take {
    /// Returns the key of the quota.
    pub const fn key(&self) -> &QuotaKey {
        &self.key
    }

    /// Returns what to store in place of `stored`, or `None` if there is nothing to write. `stored` is `None` for a key that
    /// was never written, or that was purged.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if nothing is left now. Write nothing then.
    pub fn apply(&self, stored: Option<RateState>) -> Result<Option<RateState>, RateLimited> {
        let room = self.room();
        let at = match stored {
            None => self.now,
            // A clock that ran ahead has written this: go on as if exactly one were left.
            Some(RateState(at)) if at > self.latest() => self.now.after(room),
            Some(RateState(at)) => at.max(self.now),
        };
        match at.since(self.now).checked_sub(room) {
            None | Some(Duration::ZERO) => {}
            Some(retry_after) => return Err(RateLimited { retry_after }),
        }
        Ok((self.count > 0).then(|| RateState(at.after(self.cost()))))
    }

    /// Returns the refusal. A store that decides by its own statement or script calls this, because it does not call [`Take::apply`].
    /// `stored` is the state that the store found.
    pub fn refused(&self, stored: RateState) -> RateLimited {
        match self.apply(Some(stored)) {
            Err(limited) => limited,
            // The state has changed since the store decided, so it no longer refuses.
            Ok(_) => RateLimited {
                retry_after: Duration::from_secs(1),
            },
        }
    }

    fn cost(&self) -> Duration {
        self.limit.period.saturating_mul(self.count)
    }

    fn room(&self) -> Duration {
        let others = self.limit.burst.saturating_sub(1);
        self.limit.period.saturating_mul(others)
    }

    /// Returns the latest moment that can be stored, if clocks agree within [`DRIFT`].
    fn latest(&self) -> Timestamp {
        let all = self.limit.period.saturating_mul(self.limit.burst);
        self.now.after(all.saturating_add(DRIFT))
    }

    /// Returns the clock reading in milliseconds since the Unix epoch. A script needs this number and the three below. It does this:
    ///
    /// ```text
    /// at = stored, or now if nothing is stored
    /// if at > latest: at = now + room        written by a clock that ran ahead
    /// if at < now:    at = now
    /// if at > now + room: refuse, and write nothing
    /// if cost > 0:    store at + cost
    /// ```
    pub const fn now_millis(&self) -> i64 {
        self.now.millis()
    }

    /// Returns the latest moment that can be stored, in milliseconds since the Unix epoch. A later moment was written by
    /// a clock that ran ahead.
    pub fn latest_millis(&self) -> i64 {
        self.latest().millis()
    }

    /// Returns how far the stored moment may be after now while one is still left, in milliseconds.
    pub fn room_millis(&self) -> i64 {
        i64::try_from(self.room().as_millis()).unwrap_or(i64::MAX)
    }

    /// Returns by how much the stored moment grows, in milliseconds. It is zero for a check, which writes nothing.
    pub fn cost_millis(&self) -> i64 {
        i64::try_from(self.cost().as_millis()).unwrap_or(i64::MAX)
    }
}

/// What a store keeps of a quota: the moment when it will be full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RateState(Timestamp);

impl RateState {
    /// Makes the state from its moment, in milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(Timestamp::from_millis(millis))
    }

    /// Returns the moment in milliseconds since the Unix epoch.
    pub const fn millis(&self) -> i64 {
        self.0.millis()
    }

    /// Returns when a store may remove it: a minute after the quota is full again, so that a delayed request still finds it.
    pub fn purge_at(&self) -> OffsetDateTime {
        self.0.after(KEPT).to_offset()
    }
}

/// How far the clocks of servers that share a store may be apart.
const DRIFT: Duration = Duration::from_mins(1);

/// For how long a state is kept after its quota is full again.
const KEPT: Duration = Duration::from_mins(1);

impl QuotaKey {
    /// The key for issuing codes. A public client is counted together with its source, because anybody can use its id.
    /// An authenticated client is counted alone, with an empty source.
    pub(super) fn issuing(client_id: &str, source: &str) -> Self {
        Self::of(b'i', client_id, source)
    }

    /// The key for wrong secrets: a client and a source together. If the client alone were counted, anybody could lock it out.
    pub(super) fn secrets(client_id: &str, source: &str) -> Self {
        Self::of(b's', client_id, source)
    }

    /// The key for guesses by a user.
    pub(super) fn guesses(user: &Subject) -> Self {
        Self::of(b'u', user.as_str(), "")
    }

    /// The key for guesses from a source.
    pub(super) fn guesses_from(source: &str) -> Self {
        Self::of(b'f', source, "")
    }

    /// The key for the refreshes of a login: the session key, which is a digest already.
    pub(super) fn refreshes(login: &SessionKey) -> Self {
        Self(login.0)
    }

    /// Returns the key for a limit of the host's own: `what` names the limit, for example attempts to sign in, and `whose` names who
    /// is limited. It never equals the key of another limit.
    pub fn of_host(what: &str, whose: &[&str]) -> Self {
        let parts = ["host", what].into_iter().chain(whose.iter().copied());
        Self(Digest::of_parts(parts.map(str::as_bytes)))
    }

    /// Returns the digest of a letter that says what is counted, the length of `whose`, and both texts. What is digested for a key of the
    /// host begins with a zero octet instead of the letter.
    fn of(letter: u8, whose: &str, source: &str) -> Self {
        let [a, b, c, d] = u32::try_from(whose.len()).unwrap_or(u32::MAX).to_be_bytes();
        let head = [letter, a, b, c, d];
        Self(Digest::of_all(head, whose.as_bytes(), source.as_bytes()))
    }
}

/// A quota is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("too many attempts; try again in {} s", self.seconds())]
#[non_exhaustive]
pub struct RateLimited {
    /// The time until one is left again.
    pub retry_after: Duration,
}

impl RateLimited {
    /// Returns [`Self::retry_after`] in whole seconds, rounded up and at least one: the value of the header `Retry-After`.
    pub fn seconds(&self) -> u32 {
        let seconds = self.retry_after.as_millis().div_ceil(1000);
        u32::try_from(seconds).unwrap_or(u32::MAX).max(1)
    }
}
