//! The embedded store: a map in memory with the operations of [`Store`](crate::server::Store).
//!
//! It is for tests and for servers of one process. With the feature `std`, which is on by default, a `Mutex<Memory>` is a
//! [`Store`](crate::server::Store) that several threads can share.

use hashbrown::{HashMap, HashTable};
use time::OffsetDateTime;

use crate::digest::{QuotaKey, SessionKey, UserKey};
#[cfg(feature = "std")]
use crate::server::Unavailable;
use crate::server::{Change, Inserted, Pace, RateLimited, RateState, Session, Stored, Take, Write};

/// A store in memory.
///
/// A restart loses it. Devices that poll or refresh are then told `invalid_grant`.
#[derive(Debug, Default)]
pub struct Memory {
    /// By session key. Its first eight octets are the hash, because nobody can choose the digest of a random code.
    sessions: HashTable<Stored>,
    /// Maps the first eight octets of a user key to those of the session key. The entry of a session whose code was redeemed, or that has
    /// ended, stays until the next purge.
    users: HashTable<User>,
    /// By quota key. The hash is seeded, because peers can choose what such a key is made of.
    quotas: HashMap<QuotaKey, RateState>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    user: u64,
    session: u64,
}

impl Memory {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many sessions there are, including those that could be purged.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Returns whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Inserts a new session. Never overwrites one.
    pub fn insert(&mut self, session: &Session) -> Inserted {
        if self.load(session.key()).is_some() {
            return Inserted::DeviceCodeTaken;
        }
        if let Some(user_key) = session.user_key() {
            if self.load_by_user_key(user_key).is_some() {
                return Inserted::UserCodeTaken;
            }
            let user = User {
                user: user_key.0.prefix(),
                session: session.key().0.prefix(),
            };
            self.users.insert_unique(user.user, user, |user| user.user);
        }
        let stored = Stored {
            pace: None,
            session: session.clone(),
        };
        self.sessions.insert_unique(hash(&stored), stored, hash);
        Inserted::New
    }

    /// Returns the session with this key.
    #[inline]
    pub fn load(&self, key: &SessionKey) -> Option<&Stored> {
        let same = |stored: &Stored| stored.session.key() == key;
        self.sessions.find(key.0.prefix(), same)
    }

    /// Returns the session with this user key.
    pub fn load_by_user_key(&self, key: &UserKey) -> Option<&Stored> {
        let prefix = key.0.prefix();
        let same = |stored: &Stored| stored.session.user_key() == Some(key);
        let mut found = self.users.iter_hash(prefix);
        found.find_map(|user| self.sessions.find(user.session, same))
    }

    /// Writes a change if key, version and state match.
    pub fn change(&mut self, change: Change<'_>) -> Write {
        let Some(stored) = self.load_mut(change.key()) else {
            return Write::Conflict;
        };
        if !change.applies_to(&stored.session) {
            return Write::Conflict;
        }
        stored.session.become_like(change.session());
        Write::Committed
    }

    /// Saves a pace if the session exists.
    #[inline]
    pub fn save_pace(&mut self, key: &SessionKey, pace: Pace) {
        if let Some(stored) = self.load_mut(key) {
            stored.pace = Some(pace);
        }
    }

    /// Takes one from a quota, or checks whether one is left.
    ///
    /// # Errors
    ///
    /// [`RateLimited`] if nothing is left.
    pub fn take(&mut self, take: &Take) -> Result<(), RateLimited> {
        if let Some(stored) = self.quotas.get_mut(take.key()) {
            if let Some(next) = take.apply(Some(*stored))? {
                *stored = next;
            }
        } else if let Some(next) = take.apply(None)? {
            self.quotas.insert(*take.key(), next);
        }
        Ok(())
    }

    /// Removes the sessions and quotas whose purge time has come, and returns how many sessions it removed. Call it now and then, and
    /// not on every request, because it looks at all of them.
    pub fn purge(&mut self, now: OffsetDateTime) -> usize {
        let before = self.sessions.len();
        self.sessions
            .retain(|stored| stored.session.purge_at() > now);
        let sessions = &self.sessions;
        self.users.retain(|user| {
            let same = |stored: &Stored| {
                let user_key = stored.session.user_key();
                user_key.is_some_and(|key| key.0.prefix() == user.user)
            };
            sessions.find(user.session, same).is_some()
        });
        self.quotas.retain(|_, quota| quota.purge_at() > now);
        before.saturating_sub(self.sessions.len())
    }

    #[inline]
    fn load_mut(&mut self, key: &SessionKey) -> Option<&mut Stored> {
        let same = |stored: &Stored| stored.session.key() == key;
        self.sessions.find_mut(key.0.prefix(), same)
    }
}

fn hash(stored: &Stored) -> u64 {
    stored.session.key().0.prefix()
}

/// A store that several threads share. It is locked for one operation at a time. If a thread panics while it holds the lock, the others go
/// on.
#[cfg(feature = "std")]
impl crate::server::Store for std::sync::Mutex<Memory> {
    async fn insert(&self, session: &Session) -> Result<Inserted, Unavailable> {
        Ok(lock(self).insert(session))
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, Unavailable> {
        Ok(lock(self).load(key).cloned())
    }

    async fn load_by_user_key(&self, key: &UserKey) -> Result<Option<Stored>, Unavailable> {
        Ok(lock(self).load_by_user_key(key).cloned())
    }

    async fn change(&self, change: Change<'_>) -> Result<Write, Unavailable> {
        Ok(lock(self).change(change))
    }

    async fn save_pace(&self, key: &SessionKey, pace: Pace) {
        lock(self).save_pace(key, pace);
    }

    async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, Unavailable> {
        Ok(lock(self).take(&take))
    }

    async fn purge(&self, now: OffsetDateTime) -> Result<usize, Unavailable> {
        Ok(lock(self).purge(now))
    }
}

/// Locks the store, even if a thread panicked while it held the lock, because every operation leaves the maps whole.
#[cfg(feature = "std")]
fn lock(memory: &std::sync::Mutex<Memory>) -> std::sync::MutexGuard<'_, Memory> {
    memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
