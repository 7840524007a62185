//! The store in memory: one process, forgotten at its end.

use std::collections::HashMap;
use std::sync::Mutex;

use device_flow::digest::{SessionKey, UserKey};
use device_flow::memory;
use device_flow::server::{Change, Inserted, Pace, RateLimited, Session, Stored, Take, Write};
use time::OffsetDateTime;

use super::pace::lock;
use super::{Purged, StoreError};

#[derive(Debug, Default)]
pub(super) struct Memory {
    core: Mutex<memory::Memory>,
    secrets: Mutex<HashMap<String, Secret>>,
    /// Until when each is kept.
    sign_outs: Mutex<HashMap<String, OffsetDateTime>>,
}

/// Not shown.
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[expect(clippy::unused_async, reason = "asked as the other stores are")]
impl Memory {
    pub(super) async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        Ok(lock(&self.core).insert(session))
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        Ok(lock(&self.core).load(key).cloned())
    }

    pub(super) async fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> Result<Option<Stored>, StoreError> {
        Ok(lock(&self.core).load_by_user_key(key).cloned())
    }

    pub(super) async fn change(&self, change: Change<'_>) -> Result<Write, StoreError> {
        Ok(lock(&self.core).change(change))
    }

    pub(super) fn save_pace(&self, key: &SessionKey, pace: Pace) {
        lock(&self.core).save_pace(key, pace);
    }

    pub(super) async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, StoreError> {
        Ok(lock(&self.core).take(&take))
    }

    pub(super) async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut secrets = lock(&self.secrets);
        let secret = secrets.entry(name.to_owned());
        Ok(secret.or_insert(Secret(candidate.to_owned())).0.clone())
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
        Ok(Purged {
            sessions: lock(&self.core).purge(now),
            is_more: false,
        })
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
