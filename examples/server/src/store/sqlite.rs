//! The store in one file: `SQLite`, for one machine.
//!
//! Rules:
//! 1. `synchronous=FULL`: a write is on the disk before it is acknowledged. With `NORMAL` it would survive a killed process but
//!    not a power cut, after which a redeemed code could be redeemed again.
//! 2. One connection writes, so that writers queue here and not in the file's lock. Readers never wait for it (WAL).
//! 3. The file belongs to its owner alone: it holds the server's keys.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Sqlite, SqliteConnection, query_scalar};

use super::sql::{Dialect, Sql};
use super::{LAST_MIGRATION, OpenError, PATIENCE, migrations, warn_of_first_edition};

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

/// How many connections read at once.
const READERS: u32 = 4;

const OWNER_ONLY: u32 = 0o600;

pub(super) async fn open(path: &str) -> Result<Sql<Sqlite>, OpenError> {
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
    Ok(Sql {
        write: write.connect_with(options.clone()).await?,
        read: read.connect_with(options).await?,
        dialect: DIALECT,
    })
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
