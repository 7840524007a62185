//! The store in memory: one process, forgotten at its end.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::memory;
use device_flow::server::{Change, Inserted, Pace, Quota, QuotaChange, Session, Stored, Written};
use time::OffsetDateTime;

use super::StoreError;
use super::family::{Family, RefreshToken, Rotation, TokenDigest};

#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    core: memory::Memory,
    families: HashMap<SessionKey, Kept>,
    /// To the family, and until when.
    tokens: HashMap<TokenDigest, (SessionKey, OffsetDateTime)>,
    secrets: HashMap<String, Secret>,
}

#[derive(Debug)]
struct Kept {
    family: Family,
    newest: RefreshToken,
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
    /// One operation at a time. None leaves the contents half changed, so a panic elsewhere spoils nothing.
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        Ok(self.contents().core.insert(session))
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        Ok(self.contents().core.load(key).cloned())
    }

    pub(super) async fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> Result<Option<Stored>, StoreError> {
        Ok(self.contents().core.load_by_user_key(key).cloned())
    }

    pub(super) async fn redeem(
        &self,
        _after: &Session,
        change: &Change,
        refresh: Option<(&Family, &RefreshToken)>,
    ) -> Result<Written, StoreError> {
        let mut contents = self.contents();
        let written = contents.core.change(change);
        if let (Written::Won, Some((family, token))) = (written, refresh) {
            let to = (family.key, token.expires_at);
            contents.tokens.insert(token.digest, to);
            let kept = Kept {
                family: family.clone(),
                newest: *token,
            };
            contents.families.insert(family.key, kept);
        }
        Ok(written)
    }

    pub(super) fn save_pace(&self, key: &SessionKey, pace: Pace) {
        self.contents().core.save_pace(key, pace);
    }

    pub(super) async fn load_quota(&self, key: &QuotaKey) -> Result<Option<Quota>, StoreError> {
        Ok(self.contents().core.load_quota(key))
    }

    pub(super) async fn change_quota(&self, change: &QuotaChange) -> Result<Written, StoreError> {
        Ok(self.contents().core.change_quota(change))
    }

    pub(super) async fn load_family(
        &self,
        token: &TokenDigest,
        now: OffsetDateTime,
    ) -> Result<Option<Family>, StoreError> {
        let contents = self.contents();
        let key = contents.family_of(token, now);
        let kept = key.and_then(|key| contents.families.get(&key));
        Ok(kept.map(|kept| kept.family.clone()))
    }

    pub(super) async fn rotate(
        &self,
        old: &TokenDigest,
        new: &RefreshToken,
        now: OffsetDateTime,
    ) -> Result<Rotation, StoreError> {
        let mut contents = self.contents();
        let Some(key) = contents.family_of(old, now) else {
            return Ok(Rotation::Unknown);
        };
        let Some(kept) = contents.families.get_mut(&key) else {
            return Ok(Rotation::Unknown);
        };
        if kept.newest.digest != *old {
            contents.families.remove(&key);
            return Ok(Rotation::Reused);
        }
        kept.newest = *new;
        contents.tokens.insert(new.digest, (key, new.expires_at));
        Ok(Rotation::Rotated)
    }

    pub(super) async fn revoke_family(&self, key: &SessionKey) -> Result<(), StoreError> {
        self.contents().families.remove(key);
        Ok(())
    }

    pub(super) async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut contents = self.contents();
        let secret = contents.secrets.entry(name.to_owned());
        Ok(secret.or_insert(Secret(candidate.to_owned())).0.clone())
    }

    pub(super) async fn purge(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let mut contents = self.contents();
        contents.core.purge(now);
        contents.tokens.retain(|_, (_, until)| *until > now);
        contents
            .families
            .retain(|_, kept| kept.newest.expires_at > now);
        Ok(false)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Contents {
    fn family_of(&self, token: &TokenDigest, now: OffsetDateTime) -> Option<SessionKey> {
        let (key, until) = self.tokens.get(token)?;
        (*until > now).then_some(*key)
    }
}
