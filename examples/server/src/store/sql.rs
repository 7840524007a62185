//! The store in a database: what `SQLite` and Postgres have in common, which is nearly all.
//!
//! Rules:
//! 1. A guarded write is one statement whose `WHERE` is the guard; it won if it changed a row. What must come with it is in the
//!    same transaction after it: the row is locked by then, so no other write comes between.
//! 2. A commit that fails is an error, and its outcome unknown: never won.

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::server::{Change, Inserted, Quota, QuotaChange, Session, Stored, Written};
use sqlx::postgres::PgQueryResult;
use sqlx::sqlite::SqliteQueryResult;
use sqlx::{
    Database, Encode, Executor, FromRow, IntoArguments, Pool, Type, query, query_as, query_scalar,
};
use time::OffsetDateTime;

use super::family::{Family, RefreshToken, Rotation, TokenDigest};
use super::{StoreError, millis, quota_millis, quota_of, stored};

/// A database with the tables of the migrations.
#[derive(Debug)]
pub(super) struct Sql<DB: Database> {
    pub(super) read: Pool<DB>,
    pub(super) write: Pool<DB>,
    pub(super) dialect: Dialect,
}

/// The statements that differ.
#[derive(Debug)]
pub(super) struct Dialect {
    /// Begins a transaction that writes.
    pub(super) begin: &'static str,
    /// The body and the pace of the session of a key.
    pub(super) load: &'static str,
    /// The same, of a user key.
    pub(super) load_by_user_key: &'static str,
    /// Each removes at most [`BATCH`] rows that are past a moment.
    pub(super) purge: &'static [&'static str],
}

/// How many rows a statement of the purge removes at most, so that it never holds others up for long.
const BATCH: u64 = 500;

const INSERT: &str = "
    INSERT INTO sessions (key, user_key, version, purge_at, body) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING";
const IS_KEY_TAKEN: &str = "SELECT 1 FROM sessions WHERE key = $1";
const CHANGE: &str = "
    UPDATE sessions SET version = $3, purge_at = $4, body = $5 WHERE key = $1 AND version = $2";
const LOAD_QUOTA: &str = "SELECT value FROM quotas WHERE key = $1";
const FIRST_QUOTA: &str = "INSERT INTO quotas (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const CHANGE_QUOTA: &str = "UPDATE quotas SET value = $2 WHERE key = $1 AND value = $3";
const INSERT_FAMILY: &str =
    "INSERT INTO families (key, newest, expires_at, body) VALUES ($1, $2, $3, $4)";
const INSERT_TOKEN: &str =
    "INSERT INTO refresh_tokens (digest, family, expires_at) VALUES ($1, $2, $3)";
const LOAD_FAMILY: &str = "
    SELECT body FROM families
    WHERE key = (SELECT family FROM refresh_tokens WHERE digest = $1 AND expires_at > $2)";
const FAMILY_OF: &str = "SELECT family FROM refresh_tokens WHERE digest = $1 AND expires_at > $2";
const ROTATE: &str =
    "UPDATE families SET newest = $3, expires_at = $4 WHERE key = $1 AND newest = $2";
const REVOKE: &str = "DELETE FROM families WHERE key = $1";
const FIRST_SECRET: &str =
    "INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const LOAD_SECRET: &str = "SELECT value FROM secrets WHERE name = $1";

/// How many rows a statement changed, which each database tells by a type of its own.
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

fn written(result: &impl Changed) -> Written {
    match result.rows() {
        0 => Written::Lost,
        _ => Written::Won,
    }
}

impl<DB> Sql<DB>
where
    DB: Database<QueryResult: Changed, Arguments: IntoArguments<DB>>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'q> Vec<u8>: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'r> (i64,): FromRow<'r, DB::Row>,
    for<'r> (String,): FromRow<'r, DB::Row>,
    for<'r> (Vec<u8>,): FromRow<'r, DB::Row>,
    for<'r> (String, Option<String>): FromRow<'r, DB::Row>,
{
    pub(super) async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        let key = session.key().as_bytes().to_vec();
        let insert = query(INSERT)
            .bind(key.clone())
            .bind(session.user_key().as_bytes().to_vec())
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

    pub(super) async fn redeem(
        &self,
        after: &Session,
        change: &Change,
        refresh: Option<(&Family, &RefreshToken)>,
    ) -> Result<Written, StoreError> {
        let update = query(CHANGE)
            .bind(change.key().as_bytes().to_vec())
            .bind(version(change.expected_version()))
            .bind(version(after.version()))
            .bind(millis(after.purge_at()))
            .bind(serde_json::to_string(after)?);
        let Some((family, token)) = refresh else {
            return Ok(written(&update.execute(&self.write).await?));
        };
        let mut transaction = self.write.begin_with(self.dialect.begin).await?;
        if update.execute(&mut *transaction).await?.rows() == 0 {
            return Ok(Written::Lost);
        }
        let key = family.key.as_bytes().to_vec();
        let newest = token.digest.as_bytes().to_vec();
        query(INSERT_FAMILY)
            .bind(key.clone())
            .bind(newest.clone())
            .bind(millis(token.expires_at))
            .bind(serde_json::to_string(family)?)
            .execute(&mut *transaction)
            .await?;
        query(INSERT_TOKEN)
            .bind(newest)
            .bind(key)
            .bind(millis(token.expires_at))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Written::Won)
    }

    pub(super) async fn load_quota(&self, key: &QuotaKey) -> Result<Option<Quota>, StoreError> {
        let load = query_as(LOAD_QUOTA).bind(key.as_bytes().to_vec());
        let row: Option<(i64,)> = load.fetch_optional(&self.read).await?;
        Ok(row.map(|(value,)| quota_of(value)).transpose()?)
    }

    pub(super) async fn change_quota(&self, change: &QuotaChange) -> Result<Written, StoreError> {
        let (statement, from) = match change.from() {
            None => (FIRST_QUOTA, None),
            Some(from) => (CHANGE_QUOTA, Some(quota_millis(from)?)),
        };
        let mut query = query(statement)
            .bind(change.key().as_bytes().to_vec())
            .bind(quota_millis(change.to())?);
        if let Some(from) = from {
            query = query.bind(from);
        }
        Ok(written(&query.execute(&self.write).await?))
    }

    pub(super) async fn load_family(
        &self,
        token: &TokenDigest,
        now: OffsetDateTime,
    ) -> Result<Option<Family>, StoreError> {
        let load = query_as(LOAD_FAMILY)
            .bind(token.as_bytes().to_vec())
            .bind(millis(now));
        let row: Option<(String,)> = load.fetch_optional(&self.read).await?;
        Ok(row.map(|(body,)| serde_json::from_str(&body)).transpose()?)
    }

    pub(super) async fn rotate(
        &self,
        old: &TokenDigest,
        new: &RefreshToken,
        now: OffsetDateTime,
    ) -> Result<Rotation, StoreError> {
        let old = old.as_bytes().to_vec();
        let family = query_as(FAMILY_OF).bind(old.clone()).bind(millis(now));
        let family: Option<(Vec<u8>,)> = family.fetch_optional(&self.read).await?;
        let Some((family,)) = family else {
            return Ok(Rotation::Unknown);
        };
        let newest = new.digest.as_bytes().to_vec();
        let mut transaction = self.write.begin_with(self.dialect.begin).await?;
        let rotated = query(ROTATE)
            .bind(family.clone())
            .bind(old)
            .bind(newest.clone())
            .bind(millis(new.expires_at))
            .execute(&mut *transaction)
            .await?;
        let rotation = if rotated.rows() > 0 {
            query(INSERT_TOKEN)
                .bind(newest)
                .bind(family)
                .bind(millis(new.expires_at))
                .execute(&mut *transaction)
                .await?;
            Rotation::Rotated
        } else {
            // The token is known and not the newest, which it never becomes again. Without its family it is revoked already.
            let revoked = query(REVOKE).bind(family).execute(&mut *transaction);
            match revoked.await?.rows() {
                0 => Rotation::Unknown,
                _ => Rotation::Reused,
            }
        };
        transaction.commit().await?;
        Ok(rotation)
    }

    pub(super) async fn revoke_family(&self, key: &SessionKey) -> Result<(), StoreError> {
        let revoke = query(REVOKE).bind(key.as_bytes().to_vec());
        revoke.execute(&self.write).await?;
        Ok(())
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

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        query("SELECT 1").fetch_optional(&self.read).await?;
        Ok(())
    }

    /// Removes a batch of every table, and tells whether there may be more.
    pub(super) async fn purge(&self, now: OffsetDateTime) -> Result<bool, StoreError> {
        let mut is_more = false;
        for statement in self.dialect.purge {
            let removed = query(*statement).bind(millis(now)).execute(&self.write);
            is_more |= removed.await?.rows() >= BATCH;
        }
        Ok(is_more)
    }
}

/// The core counts to four billion.
fn version(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
