//! The store in one file: `SQLite`, for one machine.
//!
//! Rules:
//! 1. `synchronous=FULL`: a write is on the disk before it is acknowledged. With `NORMAL` it would survive a killed process but
//!    not a power cut, after which a redeemed code could be redeemed again.
//! 2. One connection writes, so that writers queue here and not in the file's lock. Readers never wait for it (WAL).
//! 3. The session of a poll is read on the thread of the request ([`Readers`]). sqlx reads on a thread of its own; to ask that thread
//!    and to wait for it took more than the read and everything else that a poll does.
//! 4. The file belongs to its owner alone: it holds the server's keys.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, TryLockError};
use std::thread::available_parallelism;

use device_flow::digest::SessionKey;
use device_flow::server::Stored;
use rusqlite::{Connection as Reader, OpenFlags};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite, SqliteConnection, query_scalar};

use super::pace::lock;
use super::sql::{Dialect, Sql};
use super::{
    LAST_MIGRATION, OpenError, PATIENCE, StoreError, migrations, stored, warn_of_first_edition,
};

const DIALECT: Dialect = Dialect {
    load: "SELECT body, NULL FROM sessions WHERE key = $1",
    load_by_user_key: "SELECT body, NULL FROM sessions WHERE user_key = $1",
    purge_sessions: "DELETE FROM sessions WHERE key IN
        (SELECT key FROM sessions WHERE purge_at <= $1 LIMIT 500)",
    purge_paces: None,
    purge_quotas: "DELETE FROM quotas WHERE key IN
        (SELECT key FROM quotas WHERE value <= $1 LIMIT 500)",
    purge_sign_outs: "DELETE FROM sign_outs WHERE id IN
        (SELECT id FROM sign_outs WHERE until <= $1 LIMIT 500)",
};

/// How many connections of the pool read at once.
const READERS: u32 = 4;

const OWNER_ONLY: u32 = 0o600;

/// Returns the store of a file, and what reads from it on the thread that asks.
pub(super) async fn open(path: &str) -> Result<(Sql<Sqlite>, Readers), OpenError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    // What other programs take for settings would be the name of a file here.
    if path.is_empty() || path.starts_with(':') || path.contains('?') {
        return Err(OpenError::Url);
    }
    let path = Path::new(path);
    own(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(PATIENCE);
    migrate(&options).await?;
    let pool = SqlitePoolOptions::new()
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false) // a file does not hang up
        .idle_timeout(None)
        .max_lifetime(None);
    let write = pool.clone().max_connections(1);
    let read = pool.max_connections(READERS);
    let sql = Sql {
        write: write.connect_with(options.clone()).await?,
        read: read.connect_with(options).await?,
        dialect: DIALECT,
    };
    Ok((sql, Readers::open(path)?))
}

/// Connections that read on the thread that asks, as many as threads can ask at once.
///
/// In WAL a reader waits for no writer, so a read takes as long as the file system takes for a few pages, which the operating system
/// keeps in memory. A disk that hangs stops the thread, however: not the request alone.
#[derive(Debug)]
pub(super) struct Readers(Vec<Mutex<Reader>>);

impl Readers {
    fn open(path: &Path) -> Result<Self, rusqlite::Error> {
        let threads = available_parallelism().map_or(1, usize::from);
        let open = |_| {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Reader::open_with_flags(path, flags)?;
            reader.busy_timeout(PATIENCE)?;
            reader.pragma_update(None, "query_only", true)?;
            Ok(Mutex::new(reader))
        };
        (0..threads).map(open).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the session of a key.
    pub(super) fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        let free = self.0.iter().find_map(|reader| match reader.try_lock() {
            Ok(reader) => Some(reader),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        });
        let first = || self.0.first().map(lock);
        let Some(reader) = free.or_else(first) else {
            return Ok(None); // there is at least one
        };
        let mut load = reader.prepare_cached(DIALECT.load)?;
        let mut rows = load.query([key.as_bytes().as_slice()])?;
        match rows.next()? {
            Some(row) => stored(
                row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?,
                None,
            )
            .map(Some),
            None => Ok(None),
        }
    }
}

/// Makes the file where there is none, for its owner alone; refuses one that others may read.
fn own(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(OWNER_ONLY);
    let file = |error| OpenError::File(path.to_owned(), error);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let metadata = path.metadata().map_err(file)?;
            if metadata.is_dir() {
                return Err(file(ErrorKind::IsADirectory.into()));
            }
            let mode = metadata.permissions().mode();
            if mode & 0o777 & !OWNER_ONLY == 0 {
                Ok(())
            } else {
                Err(OpenError::Mode(path.to_owned()))
            }
        }
        Err(error) => Err(file(error)),
    }
}

/// In one transaction that takes the file's lock first: several processes may start at once, and a killed one leaves nothing
/// half done.
async fn migrate(options: &SqliteConnectOptions) -> Result<(), OpenError> {
    let mut connection = SqliteConnection::connect_with(options).await?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    warn_of_first_edition(
        query_scalar(LAST_MIGRATION)
            .fetch_one(&mut *transaction)
            .await,
    );
    let migrator = migrations(&[
        include_str!("migrations/1_sqlite.sql"),
        include_str!("migrations/2_sqlite.sql"),
        include_str!("migrations/3_sqlite.sql"),
    ]);
    migrator.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}
