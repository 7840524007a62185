//! The store in memory. It serves one process, and is lost when the process ends.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use device_flow::digest::{SessionKey, UserKey};
use device_flow::memory;
use device_flow::server::{
    Change, Inserted, Pace, RateLimited, Session, Stored, Subject, Take, Write,
};
use time::OffsetDateTime;

use super::pace::lock;
use super::{MOST_LOGINS, Purged, StoreError, listed_of};

#[derive(Debug, Default)]
pub(super) struct Memory {
    core: Mutex<Sessions>,
    secrets: Mutex<HashMap<String, Secret>>,
    /// The sign-outs, and until when each is kept.
    sign_outs: Mutex<HashMap<String, OffsetDateTime>>,
}

#[derive(Debug, Default)]
struct Sessions {
    all: memory::Memory,
    /// The sessions that are logins of each user. Some of these may have been purged.
    logins: HashMap<Subject, HashSet<SessionKey>>,
}

/// A secret that `Debug` does not show.
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[expect(clippy::unused_async, reason = "asked as the other stores are")]
impl Memory {
    pub(super) async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        Ok(lock(&self.core).all.insert(session))
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        Ok(lock(&self.core).all.load(key).cloned())
    }

    pub(super) async fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> Result<Option<Stored>, StoreError> {
        Ok(lock(&self.core).all.load_by_user_key(key).cloned())
    }

    pub(super) async fn change(&self, change: Change<'_>) -> Result<Write, StoreError> {
        let mut core = lock(&self.core);
        let Sessions { all, logins } = &mut *core;
        let written = all.change(change);
        let session = change.session();
        if let (Write::Committed, Some(subject)) = (written, session.claimant()) {
            let of_subject = logins.entry(subject.clone()).or_default();
            match listed_of(session) {
                Some(_) => of_subject.insert(*session.key()),
                None => of_subject.remove(session.key()),
            };
        }
        Ok(written)
    }

    pub(super) async fn logins(
        &self,
        subject: &Subject,
        now: OffsetDateTime,
    ) -> Result<Vec<Session>, StoreError> {
        let core = lock(&self.core);
        let keys = core.logins.get(subject).into_iter().flatten();
        let stored = keys.filter_map(|key| core.all.load(key));
        let sessions = stored.map(|stored| stored.session.clone());
        let sessions = sessions.filter(|session| session.purge_at() > now);
        Ok(sessions.take(MOST_LOGINS).collect())
    }

    pub(super) fn save_pace(&self, key: &SessionKey, pace: Pace) {
        lock(&self.core).all.save_pace(key, pace);
    }

    pub(super) async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, StoreError> {
        Ok(lock(&self.core).all.take(&take))
    }

    pub(super) async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut secrets = lock(&self.secrets);
        let secret = secrets.entry(name.to_owned());
        Ok(secret.or_insert(Secret(candidate.to_owned())).0.clone())
    }

    pub(super) async fn find_secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.secrets).get(name).map(|secret| secret.0.clone()))
    }

    pub(super) async fn sign_out(&self, id: &str, until: OffsetDateTime) -> Result<(), StoreError> {
        lock(&self.sign_outs).insert(id.to_owned(), until);
        Ok(())
    }

    pub(super) async fn is_signed_out(&self, id: &str) -> Result<bool, StoreError> {
        Ok(lock(&self.sign_outs).contains_key(id))
    }

    pub(super) async fn purge(&self, now: OffsetDateTime) -> Result<Purged, StoreError> {
        lock(&self.sign_outs).retain(|_, until| *until > now);
        let mut core = lock(&self.core);
        let Sessions { all, logins } = &mut *core;
        let sessions = all.purge(now);
        logins.retain(|_, keys| {
            keys.retain(|key| all.load(key).is_some());
            !keys.is_empty()
        });
        Ok(Purged {
            sessions,
            is_more: false,
        })
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
