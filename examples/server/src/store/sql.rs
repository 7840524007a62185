//! The store in a database: the code that `SQLite` and Postgres share, which is nearly all of it.
//!
//! Rules:
//! 1. A guarded change is one statement whose `WHERE` is the guard. It is committed if it changed a row.
//! 2. A take from a quota is one statement, too. The database compares and adds while it holds the row.
//! 3. A statement that fails is an error with an unknown outcome. It never counts as committed.

use device_flow::digest::{SessionKey, UserKey};
use device_flow::server::{
    Change, Inserted, RateLimited, RateState, Session, Stored, Subject, Take, Write,
};
use sqlx::postgres::PgQueryResult;
use sqlx::sqlite::SqliteQueryResult;
use sqlx::{
    Database, Encode, Executor, FromRow, IntoArguments, Pool, Type, query, query_as, query_scalar,
};
use time::OffsetDateTime;

use super::{MOST_LOGINS, Purged, StoreError, listed_of, millis, quota_kept, stored};

/// A database with the tables of the migrations.
#[derive(Debug)]
pub(super) struct Sql<DB: Database> {
    pub(super) read: Pool<DB>,
    pub(super) write: Pool<DB>,
    pub(super) dialect: Dialect,
}

/// The statements that differ between the databases.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Loads the body and the pace of the session with a key.
    pub(super) load: &'static str,
    /// Loads the same by a user key.
    pub(super) load_by_user_key: &'static str,
    /// Removes at most [`BATCH`] sessions whose purge time has passed.
    pub(super) purge_sessions: &'static str,
    /// Removes paces in the same way, if they have a table.
    pub(super) purge_paces: Option<&'static str>,
    /// Removes quotas in the same way.
    pub(super) purge_quotas: &'static str,
    /// Removes sign-outs in the same way.
    pub(super) purge_sign_outs: &'static str,
}

/// How many rows a statement of the purge removes at most, so that no other statement waits long for it.
const BATCH: u64 = 500;

const INSERT: &str = "
    INSERT INTO sessions (key, user_key, version, purge_at, body) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
const IS_KEY_TAKEN: &str = "SELECT 1 FROM sessions WHERE key = $1";
const CHANGE: &str = "
    UPDATE sessions SET version = $3, user_key = $4, purge_at = $5, body = $6, subject = $7
    WHERE key = $1 AND version = $2";

/// The column `subject` is set from the approval of a session to its end.
const LOGINS: &str = "
    SELECT body FROM sessions WHERE subject = $1 AND purge_at > $2 ORDER BY purge_at DESC LIMIT $3";

/// The arithmetic of [`Take`]. $2 is the time now, $3 the cost of one, and $4 the last moment at which one may be taken. A value past $5
/// comes from a clock that was ahead.
const TAKE: &str = "
    INSERT INTO quotas (key, value) VALUES ($1, $2 + $3)
    ON CONFLICT (key) DO UPDATE SET value = $3 + CASE
            WHEN quotas.value > $5 THEN $4
            WHEN quotas.value < $2 THEN $2
            ELSE quotas.value
        END
        WHERE quotas.value <= $4 OR quotas.value > $5";
const LOOK: &str = "SELECT value FROM quotas WHERE key = $1";

const FIRST_SECRET: &str =
    "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const LOAD_SECRET: &str = "SELECT value FROM secrets WHERE name = $1";

const SIGN_OUT: &str = "INSERT INTO sign_outs (id, until) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const SIGNED_OUT: &str = "SELECT until FROM sign_outs WHERE id = $1";

/// Returns how many rows a statement changed. Each database has its own type for this.
pub(super) trait Changed {
    fn rows(&self) -> u64;
}

impl Changed for SqliteQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl Changed for PgQueryResult {
    fn rows(&self) -> u64 {
        self.rows_affected()
    }
}

impl<DB> Sql<DB>
where
    DB: Database<QueryResult: Changed, Arguments: IntoArguments<DB>>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'q> Vec<u8>: Encode<'q, DB> + Type<DB>,
    for<'q> Option<Vec<u8>>: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> Option<String>: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'r> (i64,): FromRow<'r, DB::Row>,
    for<'r> (Vec<u8>,): FromRow<'r, DB::Row>,
    for<'r> (String,): FromRow<'r, DB::Row>,
    for<'r> (String, Option<String>): FromRow<'r, DB::Row>,
{
    pub(super) async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        let key = session.key().as_bytes().to_vec();
        let insert = query(INSERT)
            .bind(key.clone())
            .bind(user_key(session))
            .bind(version(session.version()))
            .bind(millis(session.purge_at()))
            .bind(serde_json::to_string(session)?);
        if insert.execute(&self.write).await?.rows() > 0 {
            return Ok(Inserted::New);
        }
        let taken = query(IS_KEY_TAKEN).bind(key);
        Ok(match taken.fetch_optional(&self.write).await? {
            Some(_) => Inserted::DeviceCodeTaken,
            None => Inserted::UserCodeTaken,
        })
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        self.stored(self.dialect.load, key.as_bytes()).await
    }

    pub(super) async fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> Result<Option<Stored>, StoreError> {
        let load = self.dialect.load_by_user_key;
        self.stored(load, key.as_bytes()).await
    }

    async fn stored(&self, load: &'static str, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        let row = query_as(load).bind(key.to_vec());
        let row: Option<(String, Option<String>)> = row.fetch_optional(&self.read).await?;
        row.map(|(session, pace)| stored(&session, pace.as_deref()))
            .transpose()
    }

    pub(super) async fn change(&self, change: Change<'_>) -> Result<Write, StoreError> {
        let next = change.session();
        let update = query(CHANGE)
            .bind(change.key().as_bytes().to_vec())
            .bind(version(change.expected_version()))
            .bind(version(next.version()))
            .bind(user_key(next))
            .bind(millis(next.purge_at()))
            .bind(serde_json::to_string(next)?)
            .bind(listed_of(next).map(|subject| subject.as_str().to_owned()));
        Ok(match update.execute(&self.write).await?.rows() {
            0 => Write::Conflict,
            _ => Write::Committed,
        })
    }

    pub(super) async fn logins(
        &self,
        subject: &Subject,
        now: OffsetDateTime,
    ) -> Result<Vec<Session>, StoreError> {
        let logins = query_as(LOGINS)
            .bind(subject.as_str().to_owned())
            .bind(millis(now))
            .bind(i64::try_from(MOST_LOGINS).unwrap_or(i64::MAX));
        let rows: Vec<(String,)> = logins.fetch_all(&self.read).await?;
        let sessions = rows.iter().map(|(body,)| Ok(serde_json::from_str(body)?));
        sessions.collect()
    }

    pub(super) async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, StoreError> {
        let key = take.key().as_bytes().to_vec();
        let is_look = take.cost_millis() == 0;
        if !is_look {
            let now = take.now_millis();
            let taken = query(TAKE)
                .bind(key.clone())
                .bind(now)
                .bind(take.cost_millis())
                .bind(now.saturating_add(take.room_millis()))
                .bind(take.latest_millis());
            if taken.execute(&self.write).await?.rows() > 0 {
                return Ok(Ok(()));
            }
        }
        let look = query_as(LOOK).bind(key);
        let found: Option<(i64,)> = look.fetch_optional(&self.read).await?;
        let found = found.map(|(value,)| RateState::from_millis(value));
        Ok(if is_look {
            take.apply(found).map(|_| ())
        } else {
            // The take was refused. If the quota was purged since then, the client may try again in a moment.
            let gone = RateState::from_millis(take.now_millis());
            Err(take.refused(found.unwrap_or(gone)))
        })
    }

    pub(super) async fn secret(&self, name: &str, candidate: &[u8]) -> Result<Vec<u8>, StoreError> {
        query(FIRST_SECRET)
            .bind(name.to_owned())
            .bind(candidate.to_vec())
            .execute(&self.write)
            .await?;
        let load = query_scalar(LOAD_SECRET).bind(name.to_owned());
        Ok(load.fetch_one(&self.write).await?)
    }

    pub(super) async fn find_secret(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let load = query_scalar(LOAD_SECRET).bind(name.to_owned());
        Ok(load.fetch_optional(&self.write).await?)
    }

    pub(super) async fn sign_out(&self, id: &str, until: OffsetDateTime) -> Result<(), StoreError> {
        let sign_out = query(SIGN_OUT).bind(id.to_owned()).bind(millis(until));
        sign_out.execute(&self.write).await?;
        Ok(())
    }

    pub(super) async fn is_signed_out(&self, id: &str) -> Result<bool, StoreError> {
        let signed_out = query(SIGNED_OUT).bind(id.to_owned());
        Ok(signed_out.fetch_optional(&self.read).await?.is_some())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        query("SELECT 1").fetch_optional(&self.read).await?;
        Ok(())
    }

    /// Removes a batch from every table.
    pub(super) async fn purge(&self, now: OffsetDateTime) -> Result<Purged, StoreError> {
        let now = millis(now);
        let remove = async |statement: &'static str, before: i64| {
            let removed = query(statement).bind(before).execute(&self.write).await?;
            Ok::<_, StoreError>(removed.rows())
        };
        let sessions = remove(self.dialect.purge_sessions, now).await?;
        let quotas = now.saturating_sub(quota_kept());
        let mut most = sessions.max(remove(self.dialect.purge_quotas, quotas).await?);
        most = most.max(remove(self.dialect.purge_sign_outs, now).await?);
        if let Some(purge_paces) = self.dialect.purge_paces {
            most = most.max(remove(purge_paces, now).await?);
        }
        Ok(Purged {
            sessions: usize::try_from(sessions).unwrap_or(usize::MAX),
            is_more: most >= BATCH,
        })
    }
}

/// Returns the user key, or `None` once the code was redeemed. The code may then be issued again.
fn user_key(session: &Session) -> Option<Vec<u8>> {
    session.user_key().map(|key| key.as_bytes().to_vec())
}

/// Returns the version as the database has it. The crate counts only to four billion.
fn version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
