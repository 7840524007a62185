//! The store in Redis, for any number of servers.
//!
//! Rules:
//! 1. Every guarded write is one script: Redis runs nothing else meanwhile.
//! 2. What is stored expires by itself, by the clock of Redis: keep it in step with the servers'.
//! 3. Redis keeps what its settings keep. With `appendonly yes` a killed Redis loses nothing, with `appendfsync always` a power
//!    cut neither. A failover to a replica may lose acknowledged writes, and with them that a code was redeemed: `WAIT` would
//!    narrow this, not close it. Where that is not good enough, use Postgres.
//! 4. One Redis, or one primary with replicas. The scripts name keys of several slots, which a cluster refuses.

use std::fmt::Display;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::server::{Change, Inserted, Pace, Quota, QuotaChange, Session, Stored, Written};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands as _, Client, ExistenceCheck, RedisError, Script, SetOptions};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::warn;

use super::family::{Family, RefreshToken, Rotation, TokenDigest};
use super::pace::lock;
use super::stall::{BrokenOff, IDLE, TRIAL};
use super::{OpenError, PATIENCE, StoreError, millis, quota_millis, quota_of, stored};

pub(super) struct Redis {
    client: Client,
    connection: Mutex<Connection>,
    pub(super) broken_off: BrokenOff,
}

struct Connection {
    manager: ConnectionManager,
    since: Instant,
    last_used: Instant,
}

impl Connection {
    fn new(manager: ConnectionManager) -> Self {
        let now = Instant::now();
        Self {
            manager,
            since: now,
            last_used: now,
        }
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis(..)") // its client would show the password
    }
}

/// The longest between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(500);

/// A pace kept apart outlives its last poll by this much: longer than any interval.
const PACE_LIFETIME_SECONDS: u64 = 3600;

/// A quota is kept for a minute after it has come to nothing. Where the clock of Redis is ahead of the servers', one that has not
/// yet would be gone.
const QUOTA_SLACK_MILLIS: i64 = 60_000;

/// KEYS: session, user code. ARGV: version, body, purge time, session key.
static INSERT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
        if redis.call('EXISTS', KEYS[2]) == 1 then return 2 end
        redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
        redis.call('PEXPIREAT', KEYS[1], ARGV[3])
        redis.call('SET', KEYS[2], ARGV[4], 'PXAT', ARGV[3])
        return 0",
    )
});

/// KEYS: session, user code, and with a refresh token: family, token. ARGV: version read, version, body, purge time; token,
/// family, its body, its expiry.
static REDEEM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
        redis.call('HSET', KEYS[1], 'version', ARGV[2], 'body', ARGV[3])
        redis.call('PEXPIREAT', KEYS[1], ARGV[4])
        redis.call('PEXPIREAT', KEYS[2], ARGV[4])
        if KEYS[3] then
            redis.call('HSET', KEYS[3], 'newest', ARGV[5], 'body', ARGV[7])
            redis.call('PEXPIREAT', KEYS[3], ARGV[8])
            redis.call('SET', KEYS[4], ARGV[6], 'PXAT', ARGV[8])
        end
        return 1",
    )
});

/// KEYS: session. ARGV: pace.
static SAVE_PACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'pace', ARGV[1]) end",
    )
});

/// KEYS: quota. ARGV: value read, or nothing; value; when it may go.
static CHANGE_QUOTA: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])
        return 1",
    )
});

/// KEYS: family, new token. ARGV: old token, new token, family, expiry.
static ROTATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        local newest = redis.call('HGET', KEYS[1], 'newest')
        if not newest then return 0 end
        if newest ~= ARGV[1] then
            redis.call('DEL', KEYS[1])
            return 1
        end
        redis.call('HSET', KEYS[1], 'newest', ARGV[2])
        redis.call('PEXPIREAT', KEYS[1], ARGV[4])
        redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[4])
        return 2",
    )
});

impl Redis {
    pub(super) async fn open(url: &str, broken_off: &BrokenOff) -> Result<Self, OpenError> {
        let client = Client::open(url)?;
        let manager = ConnectionManager::new_with_config(client.clone(), config()).await?;
        Ok(Self {
            client,
            connection: Mutex::new(Connection::new(manager)),
            broken_off: broken_off.clone(),
        })
    }

    /// Warns of settings under which acknowledged writes are lost. A server that may not ask says nothing.
    pub(super) async fn warn_of_loss(&self) {
        let info = redis::cmd("INFO");
        let info: Result<String, RedisError> = info.query_async(&mut self.connection().await).await;
        let has = |line| matches!(&info, Ok(info) if info.lines().any(|one| one == line));
        if has("aof_enabled:0") {
            warn!("redis runs without appendonly: a restart of it may redeem a code twice");
        }
        if info.is_ok() && !has("maxmemory_policy:noeviction") {
            warn!("redis may evict what has not expired: set maxmemory-policy noeviction");
        }
    }

    /// The connection. One that was idle, or on which something was broken off, is tried for a moment: if it broke, what is asked
    /// next waits for another; if it is silent, another one takes its place.
    async fn connection(&self) -> ConnectionManager {
        let (mut manager, idle) = {
            let mut connection = lock(&self.connection);
            let idle = connection.last_used.elapsed();
            connection.last_used = Instant::now();
            (connection.manager.clone(), idle)
        };
        if idle > IDLE || self.broken_off.lately() {
            let ping = redis::cmd("PING");
            let ping = ping.query_async::<()>(&mut manager);
            if timeout(TRIAL, ping).await.is_err() {
                return self.replaced();
            }
        }
        manager
    }

    /// A new connection in the place of a silent one, once for all who found it so.
    fn replaced(&self) -> ConnectionManager {
        let mut connection = lock(&self.connection);
        if connection.since.elapsed() > TRIAL {
            let client = self.client.clone();
            match ConnectionManager::new_lazy_with_config(client, config()) {
                Ok(next) => *connection = Connection::new(next),
                Err(error) => warn!(%error, "no other connection to redis can be made"),
            }
        }
        connection.manager.clone()
    }

    pub(super) async fn insert(&self, session: &Session) -> Result<Inserted, StoreError> {
        let mut insert = INSERT.key(name("session", session.key()));
        insert
            .key(name("user", session.user_key()))
            .arg(session.version())
            .arg(serde_json::to_string(session)?)
            .arg(millis(session.purge_at()))
            .arg(session.key().to_string());
        Ok(
            match insert.invoke_async(&mut self.connection().await).await? {
                0 => Inserted::New,
                1 => Inserted::DeviceCodeTaken,
                _ => Inserted::UserCodeTaken,
            },
        )
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, StoreError> {
        self.stored(name("session", key)).await
    }

    pub(super) async fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> Result<Option<Stored>, StoreError> {
        let session: Option<String> = self.connection().await.get(name("user", key)).await?;
        match session {
            Some(session) => self.stored(name("session", session)).await,
            None => Ok(None),
        }
    }

    async fn stored(&self, name: String) -> Result<Option<Stored>, StoreError> {
        let fields = ["body", "pace"];
        let (session, pace): (Option<String>, Option<String>) =
            self.connection().await.hmget(name, &fields).await?;
        session
            .map(|session| stored(&session, pace.as_deref()))
            .transpose()
    }

    pub(super) async fn redeem(
        &self,
        after: &Session,
        change: &Change,
        refresh: Option<(&Family, &RefreshToken)>,
    ) -> Result<Written, StoreError> {
        let mut redeem = REDEEM.key(name("session", change.key()));
        redeem
            .key(name("user", after.user_key()))
            .arg(change.expected_version())
            .arg(after.version())
            .arg(serde_json::to_string(after)?)
            .arg(millis(after.purge_at()));
        if let Some((family, token)) = refresh {
            redeem
                .key(name("family", family.key))
                .key(name_of(&token.digest))
                .arg(token.digest.as_bytes())
                .arg(family.key.to_string())
                .arg(serde_json::to_string(family)?)
                .arg(millis(token.expires_at));
        }
        written(redeem.invoke_async(&mut self.connection().await).await)
    }

    pub(super) async fn save_pace(&self, key: &SessionKey, pace: Pace) -> Result<(), StoreError> {
        let mut save = SAVE_PACE.key(name("session", key));
        save.arg(serde_json::to_string(&pace)?);
        Ok(save.invoke_async(&mut self.connection().await).await?)
    }

    /// The pace of a session that is stored elsewhere.
    pub(super) async fn load_pace_apart(
        &self,
        key: &SessionKey,
    ) -> Result<Option<Pace>, StoreError> {
        let pace: Option<String> = self.connection().await.get(name("pace", key)).await?;
        Ok(pace.map(|pace| serde_json::from_str(&pace)).transpose()?)
    }

    pub(super) async fn save_pace_apart(
        &self,
        key: &SessionKey,
        pace: Pace,
    ) -> Result<(), StoreError> {
        let pace = serde_json::to_string(&pace)?;
        let mut connection = self.connection().await;
        let save = connection.set_ex(name("pace", key), pace, PACE_LIFETIME_SECONDS);
        Ok(save.await?)
    }

    pub(super) async fn load_quota(&self, key: &QuotaKey) -> Result<Option<Quota>, StoreError> {
        let value: Option<i64> = self.connection().await.get(name("quota", key)).await?;
        Ok(value.map(quota_of).transpose()?)
    }

    pub(super) async fn change_quota(&self, change: &QuotaChange) -> Result<Written, StoreError> {
        let from = change.from().map(quota_millis).transpose()?;
        let to = quota_millis(change.to())?;
        let mut script = CHANGE_QUOTA.key(name("quota", change.key()));
        script
            .arg(from.map(|from| from.to_string()).unwrap_or_default())
            .arg(to)
            .arg(to.saturating_add(QUOTA_SLACK_MILLIS));
        written(script.invoke_async(&mut self.connection().await).await)
    }

    async fn family_of(&self, token: &TokenDigest) -> Result<Option<String>, StoreError> {
        Ok(self.connection().await.get(name_of(token)).await?)
    }

    pub(super) async fn load_family(
        &self,
        token: &TokenDigest,
        _now: OffsetDateTime,
    ) -> Result<Option<Family>, StoreError> {
        let Some(family) = self.family_of(token).await? else {
            return Ok(None);
        };
        let mut connection = self.connection().await;
        let body: Option<String> = connection.hget(name("family", family), "body").await?;
        Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
    }

    pub(super) async fn rotate(
        &self,
        old: &TokenDigest,
        new: &RefreshToken,
        _now: OffsetDateTime,
    ) -> Result<Rotation, StoreError> {
        let Some(family) = self.family_of(old).await? else {
            return Ok(Rotation::Unknown);
        };
        let mut rotate = ROTATE.key(name("family", &family));
        rotate
            .key(name_of(&new.digest))
            .arg(old.as_bytes())
            .arg(new.digest.as_bytes())
            .arg(family)
            .arg(millis(new.expires_at));
        Ok(
            match rotate.invoke_async(&mut self.connection().await).await? {
                0 => Rotation::Unknown,
                1 => Rotation::Reused,
                _ => Rotation::Rotated,
            },
        )
    }

    pub(super) async fn revoke_family(&self, key: &SessionKey) -> Result<(), StoreError> {
        Ok(self.connection().await.del(name("family", key)).await?)
    }

    pub(super) async fn secret(
        &self,
        secret: &str,
        candidate: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let first = SetOptions::default().conditional_set(ExistenceCheck::NX);
        let name = name("secret", secret);
        let mut connection = self.connection().await;
        let _: Option<String> = connection.set_options(&name, candidate, first).await?;
        Ok(connection.get(&name).await?)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("PING")
            .query_async(&mut self.connection().await)
            .await?)
    }

    /// Everything expires by itself.
    #[expect(clippy::unused_async, reason = "asked as the other stores are")]
    pub(super) async fn purge(&self, _now: OffsetDateTime) -> Result<bool, StoreError> {
        Ok(false)
    }
}

fn config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_max_delay(RECONNECT)
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
}

/// One Redis may serve others too.
fn name(kind: &str, key: impl Display) -> String {
    format!("device-flow:{kind}:{key}")
}

/// The digest itself, which need not be read by people.
fn name_of(token: &TokenDigest) -> Vec<u8> {
    let mut name = name("token", "").into_bytes();
    name.extend_from_slice(token.as_bytes());
    name
}

fn written(changed: Result<u8, RedisError>) -> Result<Written, StoreError> {
    Ok(match changed? {
        0 => Written::Lost,
        _ => Written::Won,
    })
}
