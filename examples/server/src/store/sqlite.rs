//! The store in one file: `SQLite`, for one machine.
//!
//! Rules:
//! 1. `synchronous=FULL`: a write is on the disk before it is acknowledged. With `NORMAL` it would survive a killed process but not a power
//!    cut. After that, a redeemed code could be redeemed again.
//! 2. Only one connection writes, so writers wait for it in this process and not for the lock of the file. Readers never wait for it (WAL).
//! 3. The session of a poll is read on the thread of the request ([`File::load`]). sqlx would read on its own thread. Handing the read over
//!    to that thread took longer than the read and the rest of the poll together.
//! 4. Only the owner can read the file, because it holds the server's keys.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::ops::Deref;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;
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

/// Opens the store in a file.
pub(super) async fn open(path: &str) -> Result<File, OpenError> {
    let path = path.strip_prefix("//").unwrap_or(path);
    // Other programs take these for settings. Here they would be a part of the file's name.
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
        .test_before_acquire(false) // a file does not close its connection
        .idle_timeout(None)
        .max_lifetime(None);
    let write = pool.clone().max_connections(1);
    let read = pool.max_connections(READERS);
    let sql = Sql {
        write: write.connect_with(options.clone()).await?,
        read: read.connect_with(options).await?,
        dialect: DIALECT,
    };
    let others = available_parallelism().map_or(0, |threads| threads.get() - 1);
    let others = (0..others).map(|_| reader(path));
    Ok(File {
        sql,
        first: reader(path)?,
        others: others.collect::<Result<_, _>>()?,
    })
}

/// Opens a connection that only reads.
fn reader(path: &Path) -> Result<Mutex<Reader>, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Reader::open_with_flags(path, flags)?;
    reader.busy_timeout(PATIENCE)?;
    reader.pragma_update(None, "query_only", true)?;
    Ok(Mutex::new(reader))
}

/// The store in a file. It is the store in a database, except that a poll reads its session on the thread of the request.
///
/// There are as many connections for these reads as threads that can ask at once. In WAL a reader waits for no writer, so a read takes only
/// as long as the file system needs for a few pages, which the operating system caches. But if the disk hangs, the thread hangs, too. Then
/// other requests wait, and the time limit for the read does not hold.
#[derive(Debug)]
pub(super) struct File {
    sql: Sql<Sqlite>,
    /// The connection to wait for if all others are in use.
    first: Mutex<Reader>,
    others: Vec<Mutex<Reader>>,
}

impl Deref for File {
    type Target = Sql<Sqlite>;

    fn deref(&self) -> &Self::Target {
        &self.sql
    }
}

impl File {
    #[expect(clippy::unused_async, reason = "as the other stores have it")]
    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        let mut others = self.others.iter();
        let free = others.find_map(|reader| reader.try_lock().ok());
        let reader = free.unwrap_or_else(|| lock(&self.first));
        let mut load = reader.prepare_cached(DIALECT.load)?;
        let mut rows = load.query([key.as_bytes().as_slice()])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        let body = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        stored(body, None).map(Some)
    }
}

/// Creates the file if it does not exist, so that only its owner may read it. Refuses a file that others may read.
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

/// Migrates the database in one transaction, which first takes the lock of the file. Several processes may start at once, and a killed
/// process leaves nothing half done.
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
