//! The stores of the sessions, the quotas and the keys of the server.
//!
//! Rules:
//! 1. Every guarded change, and every take from a quota, is one atomic step of the store: one statement or one script.
//! 2. A write whose outcome is unknown is an error, never a success. The server answers 503, and the next request reads what is stored.
//! 3. Every operation has a time limit. After [`PATIENCE`] it has failed.
//! 4. A failure is logged here, because the crate gets only [`Unavailable`].

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use device_flow::digest::{SessionKey, UserKey};
use device_flow::server::{
    self, Change, Inserted, Pace, RateLimited, RateState, Session, Status, Stored, Subject, Take,
    Unavailable, Write,
};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Postgres, SqlSafeStr as _};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::warn;

use self::memory::Memory;
use self::pace::{Paces, courtesy};
use self::redis::Redis;
use self::sql::Sql;
use self::sqlite::File;
use self::stall::BrokenOff;

mod memory;
mod pace;
mod postgres;
mod redis;
mod sql;
mod sqlite;
mod stall;

/// How long an operation may take. Devices wait for it, and poll again.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A store, chosen by its URL.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    /// The store of the pace, if it is not beside the session.
    paces: Option<Paces>,
    broken_off: BrokenOff,
}

#[derive(Debug)]
enum Kind {
    Memory(Memory),
    Sqlite(File),
    Postgres(Sql<Postgres>),
    Redis(Redis),
}

/// Calls the operation of the store in use, and returns its answer.
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
    /// Opens the store with this URL: `memory:`, `sqlite:PATH`, `postgres://…` or `redis://…`. It also updates the schema.
    ///
    /// `pace` is the URL of a store for the pace of the polls, if it is not beside the sessions: `memory:` for this process, or
    /// `redis://…`. With `SQLite` the default is this process, because otherwise every poll would wait for the disk.
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

    /// Returns the secret with this name. The first process that asks stores its candidate. Every process gets the stored one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]. Do not use the candidate then.
    pub async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        ask!(self, store => store.secret(name, candidate))
    }

    /// Returns the secret with this name, if it was stored before.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn find_secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        ask!(self, store => store.find_secret(name))
    }

    /// Returns the logins of a user that were approved and have not ended, at most a hundred.
    ///
    /// # Errors
    ///
    /// [`Unavailable`].
    pub async fn logins(
        &self,
        subject: &Subject,
        now: OffsetDateTime,
    ) -> Result<Vec<Session>, Unavailable> {
        logged(ask!(self, store => store.logins(subject, now)))
    }

    /// Notes that a sign-in to the page was ended early. The note is kept until `until`.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]. The sign-in may then still be valid.
    pub async fn sign_out(&self, id: &str, until: OffsetDateTime) -> Result<(), Unavailable> {
        logged(ask!(self, store => store.sign_out(id, until)))
    }

    /// Returns whether a sign-in to the page was ended early.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]. Then treat the user as signed out.
    pub async fn is_signed_out(&self, id: &str) -> Result<bool, Unavailable> {
        logged(ask!(self, store => store.is_signed_out(id)))
    }

    /// Checks whether the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        ask!(self, store => store.ping())
    }
}

impl server::Store for Store {
    async fn insert(&self, session: &Session) -> Result<Inserted, Unavailable> {
        logged(ask!(self, store => store.insert(session)))
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, Unavailable> {
        let session = async { logged(ask!(self, store => store.load(key))) };
        let Some(paces) = &self.paces else {
            return session.await;
        };
        let (stored, pace) = tokio::join!(session, paces.load(key));
        Ok(stored?.map(|stored| Stored { pace, ..stored }))
    }

    async fn load_by_user_key(&self, key: &UserKey) -> Result<Option<Stored>, Unavailable> {
        logged(ask!(self, store => store.load_by_user_key(key)))
    }

    async fn change(&self, change: Change<'_>) -> Result<Write, Unavailable> {
        logged(ask!(self, store => store.change(change)))
    }

    async fn save_pace(&self, key: &SessionKey, pace: Pace) {
        match (&self.paces, &self.kind) {
            (Some(paces), _) => paces.save(key, pace).await,
            (None, Kind::Memory(store)) => store.save_pace(key, pace),
            (None, Kind::Postgres(store)) => {
                courtesy(&self.broken_off, store.save_pace(key, pace)).await;
            }
            (None, Kind::Redis(store)) => {
                courtesy(&self.broken_off, store.save_pace(key, pace)).await;
            }
            (None, Kind::Sqlite(_)) => {} // it always has a separate store of paces
        }
    }

    async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, Unavailable> {
        logged(ask!(self, store => store.take(take)))
    }

    /// Several processes may call it at the same time.
    async fn purge(&self, now: OffsetDateTime) -> Result<usize, Unavailable> {
        if let Some(paces) = &self.paces {
            paces.purge();
        }
        let mut sessions = 0_usize;
        // It removes one batch after the other, so that no statement takes long.
        loop {
            let purged = logged(ask!(self, store => store.purge(now)))?;
            sessions = sessions.saturating_add(purged.sessions);
            if !purged.is_more {
                return Ok(sessions);
            }
        }
    }
}

/// The result of one batch of a purge.
#[derive(Debug, Default)]
struct Purged {
    sessions: usize,
    /// Whether there may be more to remove.
    is_more: bool,
}

async fn in_time<T>(
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let outcome = timeout(PATIENCE, operation).await;
    outcome.unwrap_or(Err(StoreError::Timeout))
}

/// Logs a failure. A write that failed may have been written nevertheless.
fn logged<T>(outcome: Result<T, StoreError>) -> Result<T, Unavailable> {
    outcome.map_err(|error| {
        crate::store_failed(&error);
        Unavailable
    })
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is not that of a store.
    #[error("the store must be memory:, sqlite:PATH without settings, postgres://… or redis://…")]
    Url,
    /// The URL is not that of a store for the pace.
    #[error("the place for the pace must be memory: or redis://…")]
    Pace,
    /// Other users may read the file.
    #[error("{0} holds the server's keys and must be its owner's alone: chmod 600 it")]
    Mode(PathBuf),
    /// The file cannot be created or opened.
    #[error("{0} cannot be opened")]
    File(PathBuf, #[source] std::io::Error),
    /// The database cannot be reached, or refuses.
    #[error("the database cannot be opened")]
    Sql(#[from] sqlx::Error),
    /// The file cannot be opened for reading.
    #[error("the database cannot be opened")]
    Sqlite(#[from] rusqlite::Error),
    /// The schema cannot be updated.
    #[error("the schema of the database cannot be brought up to date")]
    Schema(#[from] MigrateError),
    /// Redis cannot be reached, or refuses.
    #[error("redis cannot be reached")]
    Redis(#[from] ::redis::RedisError),
}

/// Why an operation failed, or why its outcome is unknown. Its text and its sources are for the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It took longer than [`PATIENCE`].
    #[error("the store did not answer in time")]
    Timeout,
    /// The stored text was written by a newer server, or by something else.
    #[error("the store holds a form that cannot be read")]
    Form(#[from] serde_json::Error),
    /// The database failed, or the connection to it.
    #[error("the database failed")]
    Sql(#[from] sqlx::Error),
    /// The file could not be read.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// Redis failed, or the connection to it.
    #[error("redis failed")]
    Redis(#[from] ::redis::RedisError),
}

/// How many logins of a user are listed at most.
const MOST_LOGINS: usize = 100;

/// Returns the user whose list of logins has this session.
fn listed_of(session: &Session) -> Option<&Subject> {
    match session.status() {
        Status::Approved | Status::Active => session.claimant(),
        Status::Pending | Status::Claimed | Status::Denied | Status::Ended => None,
    }
}

/// Returns a session and its pace from the texts of a store. A pace that cannot be read counts as lost.
fn stored(session: &str, pace: Option<&str>) -> Result<Stored, StoreError> {
    Ok(Stored {
        session: serde_json::from_str(session)?,
        pace: pace.and_then(|pace| serde_json::from_str(pace).ok()),
    })
}

/// Returns the milliseconds since the Unix epoch. A time too large for an `i64` becomes the largest.
fn millis(moment: OffsetDateTime) -> i64 {
    i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Returns for how many milliseconds a quota is kept after it no longer limits anything.
fn quota_kept() -> i64 {
    millis(RateState::from_millis(0).purge_at())
}

/// The statement for the last migration of a database. It fails if there was no migration yet.
const LAST_MIGRATION: &str = "SELECT MAX(version) FROM _sqlx_migrations";

/// Warns of what happens to a database of the first edition.
fn warn_of_first_edition(last_migration: Result<Option<i64>, sqlx::Error>) {
    if last_migration.is_ok_and(|last| last == Some(1)) {
        warn!(
            "the database was written by the first edition, whose logins cannot be read: they are removed, and users must sign \
            their devices in again"
        );
    }
}

/// Returns the migrations in their order. A released migration is never edited; a change is a new one.
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
