//! The stores: where sessions, quotas, refresh tokens and the keys of the server live.
//!
//! Rules:
//! 1. Every guarded write is one atomic step of the store: one statement, one transaction or one script.
//! 2. A write whose outcome nobody knows is [`Written::Unknown`], never won. The server answers 503, and the next request finds
//!    out.
//! 3. Every operation has an end: what takes longer than [`PATIENCE`] has failed.
//! 4. The store holds no token, only digests of tokens.

use std::time::Duration;

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::server::{Change, Inserted, Pace, Quota, QuotaChange, Session, Stored, Written};
use time::OffsetDateTime;

mod family;
mod memory;

pub use family::{Family, RefreshToken, Rotation, TokenDigest};

/// How long an operation may take. Devices wait for it, and ask again.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A store, chosen by its URL.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Memory(memory::Memory),
}

#[expect(clippy::unused_async, reason = "the stores to come wait")]
impl Store {
    /// Opens the store of a URL: `memory:`, `sqlite:PATH`, `postgres://…` or `redis://…`; brings its schema up to date.
    ///
    /// `pace` says where the pace of the polls lives, if not in the store: `memory:` or `redis://…`.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what to do and shows no password.
    pub async fn open(url: &str, pace: Option<&str>) -> Result<Self, OpenError> {
        let (kind, _) = url.split_once(':').ok_or(OpenError::Url)?;
        if pace.is_some() {
            return Err(OpenError::Url);
        }
        let kind = match kind {
            "memory" => Kind::Memory(memory::Memory::default()),
            _ => return Err(OpenError::Url),
        };
        Ok(Self { kind })
    }

    /// Inserts a new session; never overwrites.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the session may be there or not. Answer 503: nobody has its codes.
    pub async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.insert(session)),
        }
    }

    /// The session of a device code, with its pace where there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that the code is unknown.
    pub async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.load(key)),
        }
    }

    /// The session of a user code.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that the code is wrong.
    pub async fn load_by_user_key(&self, key: &UserKey) -> Result<Option<Stored>, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.load_by_user_key(key)),
        }
    }

    /// Writes a change of the session that was read, where key and version still match. A failure is logged and is
    /// [`Written::Unknown`].
    pub async fn change(&self, read: &Session, change: &Change) -> Written {
        self.redeem(read, change, None).await
    }

    /// Writes a change as [`Store::change`] does and, if it wins, in the same step the first refresh token of a new family.
    pub async fn redeem(
        &self,
        read: &Session,
        change: &Change,
        refresh: Option<(&Family, &RefreshToken)>,
    ) -> Written {
        let Some(_after) = read.apply(change) else {
            return Written::Lost;
        };
        match &self.kind {
            Kind::Memory(store) => store.redeem(change, refresh),
        }
    }

    /// Saves a pace. It may fail, which is logged: the device is slowed down less.
    pub async fn save_pace(&self, key: &SessionKey, pace: Pace) {
        match &self.kind {
            Kind::Memory(store) => store.save_pace(key, pace),
        }
    }

    /// The quota of a key.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that nothing was taken.
    pub async fn load_quota(&self, key: &QuotaKey) -> Result<Option<Quota>, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.load_quota(key)),
        }
    }

    /// Writes a quota where the stored one is still the one that was read. A failure is logged and is [`Written::Unknown`].
    pub async fn change_quota(&self, change: &QuotaChange) -> Written {
        match &self.kind {
            Kind::Memory(store) => store.change_quota(change),
        }
    }

    /// The family of a refresh token that has not expired, whether it is its newest token or one rotated away; none for a
    /// revoked one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that the token is invalid.
    pub async fn load_family(
        &self,
        token: &TokenDigest,
        now: OffsetDateTime,
    ) -> Result<Option<Family>, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.load_family(token, now)),
        }
    }

    /// Puts a new token in the place of the newest of its family, in one step. Of two at once exactly one wins; the other is
    /// [`Rotation::Reused`], and with it the whole family is revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nobody knows whether it was rotated: drop the new token, answer 503.
    pub async fn rotate(
        &self,
        old: &TokenDigest,
        new: &RefreshToken,
        now: OffsetDateTime,
    ) -> Result<Rotation, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.rotate(old, new, now)),
        }
    }

    /// Revokes the refresh tokens that descend from a session, where there are any.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; they may still be valid.
    pub async fn revoke_family(&self, key: &SessionKey) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Memory(store) => store.revoke_family(key),
        }
        Ok(())
    }

    /// The secret of this name. The first process that asks for it stores its candidate; every process gets what is stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; do not use the candidate then.
    pub async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        match &self.kind {
            Kind::Memory(store) => Ok(store.secret(name, candidate)),
        }
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Memory(_) => Ok(()),
        }
    }

    /// Removes what is past its time: sessions, quotas, refresh tokens. Call it now and then, from any number of processes.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; try again later.
    pub async fn purge(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        match &self.kind {
            Kind::Memory(store) => store.purge(now),
        }
        Ok(())
    }
}

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a URL of a store.
    #[error(
        "the store must be memory:, sqlite:PATH, postgres://… or redis://…; the pace, memory: or redis://…"
    )]
    Url,
}

/// An operation that failed, or whose outcome nobody knows. Its text and its sources are for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It took longer than [`PATIENCE`].
    #[error("the store did not answer in time")]
    Timeout,
    /// A newer server wrote it, or something else did.
    #[error("the store holds a form that cannot be read")]
    Form(#[from] serde_json::Error),
}
