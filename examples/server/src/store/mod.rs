//! The stores: where sessions, quotas, refresh tokens and the keys of the server live.
//!
//! Rules:
//! 1. Every guarded write is one atomic step of the store: one statement, one transaction or one script.
//! 2. A write whose outcome nobody knows is [`Written::Unknown`], never won. The server answers 503, and the next request finds
//!    out.
//! 3. Every operation has an end: what takes longer than [`PATIENCE`] has failed.
//! 4. The store holds no token, only digests of tokens.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::server::{Change, Inserted, Pace, Quota, QuotaChange, Session, Stored, Written};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Postgres, SqlSafeStr as _, Sqlite};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::warn;

use self::memory::Memory;
use self::pace::{Paces, courtesy};
use self::redis::Redis;
use self::sql::Sql;
use self::stall::BrokenOff;

mod family;
mod memory;
mod pace;
mod postgres;
mod redis;
mod sql;
mod sqlite;
mod stall;

pub use family::{Family, RefreshToken, Rotation, TokenDigest};

/// How long an operation may take. Devices wait for it, and ask again.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A store, chosen by its URL.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    /// Where the pace is, if not beside the session.
    paces: Option<Paces>,
    broken_off: BrokenOff,
}

#[derive(Debug)]
enum Kind {
    Memory(Memory),
    Sqlite(Sql<Sqlite>),
    Postgres(Sql<Postgres>),
    Redis(Redis),
}

/// What the store of whichever kind answers.
macro_rules! ask {
    ($self:ident, $store:ident => $operation:expr) => {
        match &$self.kind {
            Kind::Memory($store) => in_time($operation).await,
            Kind::Sqlite($store) => in_time($operation).await,
            Kind::Postgres($store) => in_time($self.broken_off.watch(Box::pin($operation))).await,
            Kind::Redis($store) => in_time($self.broken_off.watch(Box::pin($operation))).await,
        }
    };
}

impl Store {
    /// Opens the store of a URL: `memory:`, `sqlite:PATH`, `postgres://…` or `redis://…`; brings its schema up to date.
    ///
    /// `pace` says where the pace of the polls lives, if not beside the sessions: `memory:`, in this process, or `redis://…`.
    /// With `SQLite` it is in this process anyway, for there every poll would wait for the disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what to do and shows no password.
    pub async fn open(url: &str, pace: Option<&str>) -> Result<Self, OpenError> {
        let (scheme, path) = url.split_once(':').ok_or(OpenError::Url)?;
        let broken_off = BrokenOff::default();
        let kind = match scheme {
            "memory" => Kind::Memory(Memory::default()),
            "sqlite" => Kind::Sqlite(sqlite::open(path).await?),
            "postgres" | "postgresql" => Kind::Postgres(postgres::open(url, &broken_off).await?),
            "redis" | "rediss" | "redis+unix" => {
                let redis = Redis::open(url, &broken_off).await?;
                redis.warn_of_loss().await;
                Kind::Redis(redis)
            }
            _ => return Err(OpenError::Url),
        };
        let paces = match pace {
            None => matches!(kind, Kind::Sqlite(_)).then(Paces::here),
            Some(url) => match url.split_once(':') {
                Some(("memory", _)) => Some(Paces::here()),
                Some(("redis" | "rediss" | "redis+unix", _)) => {
                    Some(Paces::Redis(Box::new(Redis::open(url, &broken_off).await?)))
                }
                Some(_) | None => return Err(OpenError::Pace),
            },
        };
        Ok(Self {
            kind,
            paces,
            broken_off,
        })
    }

    /// Inserts a new session; never overwrites.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the session may be there or not. Answer 503: nobody has its codes.
    pub async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        ask!(self, store => store.insert(session))
    }

    /// The session of a device code, with its pace where there is one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that the code is unknown.
    pub async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        let session = async { ask!(self, store => store.load(key)) };
        let Some(paces) = &self.paces else {
            return session.await;
        };
        let (stored, pace) = tokio::join!(session, paces.load(key));
        Ok(stored?.map(|stored| Stored { pace, ..stored }))
    }

    /// The session of a user code.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that the code is wrong.
    pub async fn load_by_user_key(&self, key: &UserKey) -> Result<Option<Stored>, StoreError> {
        ask!(self, store => store.load_by_user_key(key))
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
        let Some(after) = read.apply(change) else {
            return Written::Lost; // it is not the session that the change was made of
        };
        known(ask!(self, store => store.redeem(&after, change, refresh)))
    }

    /// Saves a pace. It may fail, which is logged: the device is slowed down less.
    pub async fn save_pace(&self, key: &SessionKey, pace: Pace) {
        match (&self.paces, &self.kind) {
            (Some(paces), _) => paces.save(key, pace).await,
            (None, Kind::Memory(store)) => store.save_pace(key, pace),
            (None, Kind::Postgres(store)) => {
                courtesy(&self.broken_off, store.save_pace(key, pace)).await;
            }
            (None, Kind::Redis(store)) => {
                courtesy(&self.broken_off, store.save_pace(key, pace)).await;
            }
            (None, Kind::Sqlite(_)) => {} // it always has paces apart
        }
    }

    /// The quota of a key.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that nothing was taken.
    pub async fn load_quota(&self, key: &QuotaKey) -> Result<Option<Quota>, StoreError> {
        ask!(self, store => store.load_quota(key))
    }

    /// Writes a quota where the stored one is still the one that was read. A failure is logged and is [`Written::Unknown`].
    pub async fn change_quota(&self, change: &QuotaChange) -> Written {
        known(ask!(self, store => store.change_quota(change)))
    }

    /// The family of a refresh token that has not expired, whether it is the newest or was rotated away; none for a revoked
    /// one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; answer 503, never that the token is invalid.
    pub async fn load_family(
        &self,
        token: &TokenDigest,
        now: OffsetDateTime,
    ) -> Result<Option<Family>, StoreError> {
        ask!(self, store => store.load_family(token, now))
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
        ask!(self, store => store.rotate(old, new, now))
    }

    /// Revokes the refresh tokens that descend from a session, where there are any.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; they may still be valid.
    pub async fn revoke_family(&self, key: &SessionKey) -> Result<(), StoreError> {
        ask!(self, store => store.revoke_family(key))
    }

    /// The secret of this name. The first process that asks for it stores its candidate; every process gets what is stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; do not use the candidate then.
    pub async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        ask!(self, store => store.secret(name, candidate))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        ask!(self, store => store.ping())
    }

    /// Removes what is past its time: sessions, quotas, refresh tokens. Call it now and then, from any number of processes.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; try again later.
    pub async fn purge(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        if let Some(paces) = &self.paces {
            paces.purge();
        }
        // A batch at a time, so that no statement takes long.
        while ask!(self, store => store.purge(now))? {}
        Ok(())
    }
}

async fn in_time<T>(
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let outcome = timeout(PATIENCE, operation).await;
    outcome.unwrap_or(Err(StoreError::Timeout))
}

/// A write that failed may have been written all the same.
fn known(outcome: Result<Written, StoreError>) -> Written {
    outcome.unwrap_or_else(|error| {
        let error: &dyn std::error::Error = &error;
        warn!(error, "a guarded write failed; its outcome is unknown");
        Written::Unknown
    })
}

/// A store that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a URL of a store.
    #[error("the store must be memory:, sqlite:PATH without settings, postgres://… or redis://…")]
    Url,
    /// Not a URL of a place for the pace.
    #[error("the place for the pace must be memory: or redis://…")]
    Pace,
    /// A file that others may read.
    #[error("{0} holds the server's keys and must be its owner's alone: chmod 600 it")]
    Mode(PathBuf),
    /// A file that cannot be made or looked at.
    #[error("{0} cannot be opened")]
    File(PathBuf, #[source] std::io::Error),
    /// A database that cannot be reached, or refuses.
    #[error("the database cannot be opened")]
    Sql(#[from] sqlx::Error),
    /// A schema that cannot be brought up to date.
    #[error("the schema of the database cannot be brought up to date")]
    Schema(#[from] MigrateError),
    /// A Redis that cannot be reached, or refuses.
    #[error("redis cannot be reached")]
    Redis(#[from] ::redis::RedisError),
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
    /// The database failed, or the connection to it.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    /// Redis failed, or the connection to it.
    #[error("redis failed")]
    Redis(#[from] ::redis::RedisError),
}

/// What a store that keeps texts has of a session. A pace that cannot be read is as good as lost.
fn stored(session: &str, pace: Option<&str>) -> Result<Stored, StoreError> {
    Ok(Stored {
        session: serde_json::from_str(session)?,
        pace: pace.and_then(|pace| serde_json::from_str(pace).ok()),
    })
}

/// Milliseconds since the Unix epoch. Later than an `i64` can count is its last.
fn millis(moment: OffsetDateTime) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// The stored form of a quota, which is one integer: the milliseconds of its purge time.
fn quota_millis(quota: Quota) -> Result<i64, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(quota)?)
}

fn quota_of(millis: i64) -> Result<Quota, serde_json::Error> {
    serde_json::from_value(millis.into())
}

/// Migrations in their order. What was released is never edited; what changes is added.
fn migrations(statements: &[&'static str]) -> Migrator {
    let migration = |(version, statements): (i64, &&'static str)| {
        let (kind, description) = (MigrationType::Simple, "example-server".into());
        let no_transaction = false;
        Migration::new(
            version,
            description,
            kind,
            statements.into_sql_str(),
            no_transaction,
        )
    };
    Migrator::with_migrations((1..).zip(statements).map(migration).collect())
}
