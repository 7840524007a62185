//! The embedded store: a map in memory with the operations of the [store's contract](crate::server#the-stores-contract).
//!
//! For tests and for servers of one process. It has no lock: wrap it in the one of your runtime, and hold that for one
//! operation at a time.

use hashbrown::{HashMap, HashTable};
use time::OffsetDateTime;

use crate::digest::{QuotaKey, SessionKey, UserKey};
use crate::server::{Change, Inserted, Pace, Quota, QuotaChange, Session, Stored, Written};

/// A store in memory.
///
/// A restart forgets it: devices that were waiting are told `invalid_grant`.
#[derive(Debug, Default)]
pub struct Memory {
    /// By session key. The hash is the key's own first word: nobody chooses the digest of a random code.
    sessions: HashTable<Stored>,
    /// From the first word of the user key to that of the session key.
    users: HashTable<User>,
    /// By key; sources are chosen by peers, so this hash is seeded.
    quotas: HashMap<QuotaKey, Quota>,
}

#[derive(Clone, Copy, Debug)]
struct User {
    user: u64,
    session: u64,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many sessions there are, with those past their purge time that were not purged yet.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is no session.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Inserts a new session; never overwrites.
    pub fn insert(&mut self, session: &Session) -> Inserted {
        if self.load(session.key()).is_some() {
            return Inserted::DeviceCodeTaken;
        }
        if self.load_by_user_key(session.user_key()).is_some() {
            return Inserted::UserCodeTaken;
        }
        let user = User {
            user: session.user_key().0.prefix(),
            session: session.key().0.prefix(),
        };
        let stored = Stored {
            pace: None,
            session: session.clone(),
        };
        self.sessions.insert_unique(user.session, stored, hash);
        self.users.insert_unique(user.user, user, |user| user.user);
        Inserted::New
    }

    /// The session of a device code.
    #[inline]
    pub fn load(&self, key: &SessionKey) -> Option<&Stored> {
        let same = |stored: &Stored| stored.session.key() == key;
        self.sessions.find(key.0.prefix(), same)
    }

    /// The session of a user code.
    pub fn load_by_user_key(&self, key: &UserKey) -> Option<&Stored> {
        let prefix = key.0.prefix();
        let same = |stored: &Stored| stored.session.user_key() == key;
        let mut found = self.users.iter_hash(prefix);
        found.find_map(|user| self.sessions.find(user.session, same))
    }

    /// Writes a change where key and version match.
    pub fn change(&mut self, change: &Change) -> Written {
        let Some(stored) = self.load_mut(change.key()) else {
            return Written::Lost;
        };
        if stored.session.update(change) {
            Written::Won
        } else {
            Written::Lost
        }
    }

    /// Saves a pace where the session exists.
    #[inline]
    pub fn save_pace(&mut self, key: &SessionKey, pace: Pace) {
        if let Some(stored) = self.load_mut(key) {
            stored.pace = Some(pace);
        }
    }

    /// The quota of a key.
    pub fn load_quota(&self, key: &QuotaKey) -> Option<Quota> {
        self.quotas.get(key).copied()
    }

    /// Writes a quota where the stored value is still the one that was read.
    pub fn change_quota(&mut self, change: &QuotaChange) -> Written {
        if self.load_quota(change.key()) != change.from() {
            return Written::Lost;
        }
        self.quotas.insert(*change.key(), change.to());
        Written::Won
    }

    /// Removes what is past its purge time, sessions and quotas; tells how many sessions. It looks at every one of them: call
    /// it now and then, not on every request.
    pub fn purge(&mut self, now: OffsetDateTime) -> usize {
        let before = self.sessions.len();
        self.sessions
            .retain(|stored| stored.session.purge_at() > now);
        let sessions = &self.sessions;
        self.users.retain(|user| {
            let same = |stored: &Stored| stored.session.user_key().0.prefix() == user.user;
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
