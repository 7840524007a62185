//! The stores: where sessions, quotas and the keys of the server live.
//!
//! Rules:
//! 1. Every guarded change, and every take from a quota, is one atomic step of the store: one statement or one script.
//! 2. A write whose outcome nobody knows is an error, never committed. The server answers 503, and the next request finds out.
//! 3. Every operation has an end: what takes longer than [`PATIENCE`] has failed.
//! 4. What failed is logged here, because the core is told [`Unavailable`] and no more.

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
    Sqlite(File),
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

    /// The secret of this name. The first process that asks for it stores its candidate; every process gets what is stored.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; do not use the candidate then.
    pub async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        ask!(self, store => store.secret(name, candidate))
    }

    /// The secret of this name, if it was made before.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn find_secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        ask!(self, store => store.find_secret(name))
    }

    /// The logins of a user that were approved and have not ended, a hundred at most.
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

    /// Notes that a sign-in to the page has ended before its time, until which that is kept.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]; the sign-in may then still be good.
    pub async fn sign_out(&self, id: &str, until: OffsetDateTime) -> Result<(), Unavailable> {
        logged(ask!(self, store => store.sign_out(id, until)))
    }

    /// Whether a sign-in to the page has ended before its time.
    ///
    /// # Errors
    ///
    /// [`Unavailable`]; take nobody for signed in then.
    pub async fn is_signed_out(&self, id: &str) -> Result<bool, Unavailable> {
        logged(ask!(self, store => store.is_signed_out(id)))
    }

    /// Whether the store answers.
    ///
    /// # Errors
    ///
    /// [`StoreError`] where it does not.
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
            (None, Kind::Sqlite(_)) => {} // it always has paces apart
        }
    }

    async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, Unavailable> {
        logged(ask!(self, store => store.take(take)))
    }

    /// Any number of processes may call it.
    async fn purge(&self, now: OffsetDateTime) -> Result<usize, Unavailable> {
        if let Some(paces) = &self.paces {
            paces.purge();
        }
        let mut sessions = 0_usize;
        // A batch at a time, so that no statement takes long.
        loop {
            let purged = logged(ask!(self, store => store.purge(now)))?;
            sessions = sessions.saturating_add(purged.sessions);
            if !purged.is_more {
                return Ok(sessions);
            }
        }
    }
}

/// What a batch of a purge removed.
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

/// Logs what failed. A write that failed may have been written all the same.
fn logged<T>(outcome: Result<T, StoreError>) -> Result<T, Unavailable> {
    outcome.map_err(|error| {
        crate::store_failed(&error);
        Unavailable
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
    /// A file that cannot be opened to read from it.
    #[error("the database cannot be opened")]
    Sqlite(#[from] rusqlite::Error),
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
    /// A file could not be read from.
    #[error("the database failed")]
    Sqlite(#[from] rusqlite::Error),
    /// Redis failed, or the connection to it.
    #[error("redis failed")]
    Redis(#[from] ::redis::RedisError),
}

/// How many logins of a user are listed.
const MOST_LOGINS: usize = 100;

/// The user in whose list of logins a session is.
fn listed_of(session: &Session) -> Option<&Subject> {
    match session.status() {
        Status::Approved | Status::Active => session.claimant(),
        Status::Pending | Status::Claimed | Status::Denied | Status::Ended => None,
    }
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

/// For how many milliseconds a quota is kept after it has nothing left to say.
fn quota_kept() -> i64 {
    millis(RateState::from_millis(0).purge_at())
}

/// The last migration of a database. It fails if there was none yet.
const LAST_MIGRATION: &str = "SELECT MAX(version) FROM _sqlx_migrations";

/// Says what becomes of a database that the first edition wrote.
fn warn_of_first_edition(last_migration: Result<Option<i64>, sqlx::Error>) {
    if last_migration.is_ok_and(|last| last == Some(1)) {
        warn!(
            "the database was written by the first edition, whose logins cannot be read: they are removed, and users must sign \
            their devices in again"
        );
    }
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
