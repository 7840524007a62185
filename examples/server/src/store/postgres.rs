//! The store in Postgres, for any number of servers.
//!
//! Rules:
//! 1. Server and database agree on the outcome of a write, or the outcome is unknown: a connection that breaks during the commit is an
//!    error.
//! 2. The database has the same time limit as the server, so a server that was cut off does not hold a lock for long.
//! 3. A connection that may be dead is tested for a moment before it is used again.

use std::str::FromStr as _;

use device_flow::digest::SessionKey;
use device_flow::server::Pace;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, Postgres, query, query_scalar};
use tokio::time::timeout;

use super::sql::{Dialect, Sql};
use super::stall::{BrokenOff, IDLE, TRIAL};
use super::{LAST_MIGRATION, OpenError, PATIENCE, StoreError, migrations, warn_of_first_edition};

const DIALECT: Dialect = Dialect {
    load: "SELECT sessions.body, paces.body FROM sessions LEFT JOIN paces USING (key)
        WHERE sessions.key = $1",
    load_by_user_key: "SELECT body, NULL FROM sessions WHERE user_key = $1",
    // The rows are locked when they are chosen, so a session whose purge time changes meanwhile stays, and two servers take different rows.
    purge_sessions: "DELETE FROM sessions WHERE key IN
        (SELECT key FROM sessions WHERE purge_at <= $1 LIMIT 500 FOR UPDATE SKIP LOCKED)",
    purge_paces: Some(
        "DELETE FROM paces WHERE key IN
        (SELECT key FROM paces WHERE purge_at <= $1 LIMIT 500 FOR UPDATE SKIP LOCKED)",
    ),
    purge_quotas: "DELETE FROM quotas WHERE key IN
        (SELECT key FROM quotas WHERE value <= $1 LIMIT 500 FOR UPDATE SKIP LOCKED)",
    purge_sign_outs: "DELETE FROM sign_outs WHERE id IN
        (SELECT id FROM sign_outs WHERE until <= $1 LIMIT 500 FOR UPDATE SKIP LOCKED)",
};

/// It saves only if the session exists, so that no pace outlives its session for long.
const SAVE_PACE: &str = "
    INSERT INTO paces (key, purge_at, body) SELECT key, purge_at, $2 FROM sessions WHERE key = $1
    ON CONFLICT (key) DO UPDATE SET purge_at = excluded.purge_at, body = excluded.body";

/// How many connections a server has. A newly installed Postgres allows a hundred, enough for ten servers.
const CONNECTIONS: u32 = 8;

pub(super) async fn open(url: &str, broken_off: &BrokenOff) -> Result<Sql<Postgres>, OpenError> {
    let millis = PATIENCE.as_millis();
    let options = PgConnectOptions::from_str(url)?.application_name("device-flow example-server");
    migrate(&options).await?;
    let options = options.options([
        ("statement_timeout", millis),
        ("idle_in_transaction_session_timeout", millis),
    ]);
    let broken_off = broken_off.clone();
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > IDLE {
                    tried(connection).await?;
                }
                Ok(true)
            })
        })
        .after_release(move |connection, _| {
            let is_doubtful = broken_off.lately();
            Box::pin(async move {
                if is_doubtful {
                    tried(connection).await?;
                }
                Ok(true)
            })
        })
        .connect_with(options)
        .await?;
    Ok(Sql {
        read: pool.clone(),
        write: pool,
        dialect: DIALECT,
    })
}

/// Tests whether a connection answers. An error closes it.
async fn tried(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let ping = timeout(TRIAL, connection.ping()).await;
    ping.map_err(|_| sqlx::Error::PoolTimedOut)?
}

/// Migrates the database under an advisory lock, because several servers may start at once, and without a time limit, because a table may
/// be large.
async fn migrate(options: &PgConnectOptions) -> Result<(), OpenError> {
    let connecting = timeout(PATIENCE, PgConnection::connect_with(options)).await;
    let mut connection = connecting.map_err(|_| sqlx::Error::PoolTimedOut)??;
    warn_of_first_edition(
        query_scalar(LAST_MIGRATION)
            .fetch_one(&mut connection)
            .await,
    );
    let migrator = migrations(&[
        include_str!("migrations/1_postgres.sql"),
        include_str!("migrations/2_postgres.sql"),
        include_str!("migrations/3_postgres.sql"),
    ]);
    migrator.run(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

impl Sql<Postgres> {
    pub(super) async fn save_pace(&self, key: &SessionKey, pace: Pace) -> Result<(), StoreError> {
        query(SAVE_PACE)
            .bind(key.as_bytes().as_slice())
            .bind(serde_json::to_string(&pace)?)
            .execute(&self.write)
            .await?;
        Ok(())
    }
}
