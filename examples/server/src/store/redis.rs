//! The store in Redis, for any number of servers.
//!
//! Rules:
//! 1. Every guarded change, and every take from a quota, is one script. Redis runs nothing else at the same time.
//! 2. Redis itself removes expired records by its own clock, so keep that clock in step with the servers' clocks.
//! 3. The settings of Redis decide what survives. With `appendonly yes` nothing is lost if Redis is killed; with `appendfsync always`
//!    nothing is lost in a power cut either. A failover to a replica may lose acknowledged writes, for example that a code was redeemed.
//!    `WAIT` would make this less likely, but not impossible. If that is not good enough, use Postgres.
//! 4. It works with one Redis, or with one primary and its replicas. A cluster refuses the scripts, because they use keys of several slots.

use std::fmt::Display;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use device_flow::digest::{SessionKey, UserKey};
use device_flow::server::{
    Change, Inserted, Pace, RateLimited, RateState, Session, Stored, Subject, Take, Write,
};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    AsyncCommands as _, Client, ExistenceCheck, RedisError, Script, SetExpiry, SetOptions,
};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::warn;

use super::pace::lock;
use super::stall::{BrokenOff, IDLE, TRIAL};
use super::{
    MOST_LOGINS, OpenError, PATIENCE, Purged, StoreError, listed_of, millis, quota_kept, stored,
};

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
        f.write_str("Redis(..)") // the client would show the password
    }
}

/// The longest time between two attempts to connect again.
const RECONNECT: Duration = Duration::from_millis(500);

/// How long a separate pace is kept after its last poll, in seconds: longer than any interval.
const PACE_LIFETIME_SECONDS: u64 = 3600;

/// KEYS: the session; the user code if there is one. ARGV: version, body, purge time, session key.
static INSERT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
        if KEYS[2] then
            if redis.call('EXISTS', KEYS[2]) == 1 then return 2 end
            redis.call('SET', KEYS[2], ARGV[4], 'PXAT', ARGV[3])
            redis.call('HSET', KEYS[1], 'user', KEYS[2])
        end
        redis.call('HSET', KEYS[1], 'version', ARGV[1], 'body', ARGV[2])
        redis.call('PEXPIREAT', KEYS[1], ARGV[3])
        return 0",
    )
});

/// KEYS: the session; the logins of its user, if there is one. ARGV: expected version, version, body, purge time, whether the user code
/// still finds the session, its key, whether it is one of the logins. The set of the logins is kept until the last of them is purged.
static CHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
        redis.call('HSET', KEYS[1], 'version', ARGV[2], 'body', ARGV[3])
        redis.call('PEXPIREAT', KEYS[1], ARGV[4])
        local user = redis.call('HGET', KEYS[1], 'user')
        if user and ARGV[5] == '1' then
            redis.call('PEXPIREAT', user, ARGV[4])
        elseif user then
            redis.call('DEL', user)
            redis.call('HDEL', KEYS[1], 'user')
        end
        if KEYS[2] and ARGV[7] == '1' then
            redis.call('ZADD', KEYS[2], ARGV[4], ARGV[6])
        elseif KEYS[2] then
            redis.call('ZREM', KEYS[2], ARGV[6])
        end
        local last = KEYS[2] and redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
        if last then
            redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', last))
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

/// KEYS: the quota. ARGV: the numbers of [`Take`], which are now, latest, room and cost; and for how long the quota is kept. If the quota
/// is spent, it returns the stored value. The numbers have 13 digits, which Lua can represent exactly.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        local now, latest = tonumber(ARGV[1]), tonumber(ARGV[2])
        local room, cost = tonumber(ARGV[3]), tonumber(ARGV[4])
        local at = tonumber(redis.call('GET', KEYS[1]) or now)
        if at > latest then at = now + room end
        if at < now then at = now end
        if at > now + room then return at end
        if cost > 0 then
            at = at + cost
            redis.call('SET', KEYS[1], string.format('%.0f', at), 'PXAT', string.format('%.0f', at + ARGV[5]))
        end
        return false",
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

    /// Warns of settings that can lose acknowledged writes. If the server may not ask Redis for its settings, there is no warning.
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

    /// Returns the connection. If it was idle, or an operation on it was broken off, it is tested for a moment. If it is broken, the next
    /// operation waits for a new one. If it does not answer, it is replaced.
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

    /// Replaces a connection that does not answer, only once for all that find it so.
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
        if let Some(user_key) = session.user_key() {
            insert.key(name("user", user_key));
        }
        insert
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
        let Some(session) = session else {
            return Ok(None);
        };
        // The code may have been redeemed meanwhile.
        let stored = self.stored(name("session", session)).await?;
        Ok(stored.filter(|stored| stored.session.user_key() == Some(key)))
    }

    async fn stored(&self, name: String) -> Result<Option<Stored>, StoreError> {
        let fields = ["body", "pace"];
        let (session, pace): (Option<String>, Option<String>) =
            self.connection().await.hmget(name, &fields).await?;
        session
            .map(|session| stored(&session, pace.as_deref()))
            .transpose()
    }

    pub(super) async fn change(&self, change: Change<'_>) -> Result<Write, StoreError> {
        let next = change.session();
        let mut script = CHANGE.key(name("session", change.key()));
        if let Some(subject) = next.claimant() {
            script.key(name("logins", subject.as_str()));
        }
        script
            .arg(change.expected_version())
            .arg(next.version())
            .arg(serde_json::to_string(next)?)
            .arg(millis(next.purge_at()))
            .arg(u8::from(next.user_key().is_some()))
            .arg(next.key().to_string())
            .arg(u8::from(listed_of(next).is_some()));
        Ok(
            match script.invoke_async(&mut self.connection().await).await? {
                0 => Write::Conflict,
                _ => Write::Committed,
            },
        )
    }

    pub(super) async fn logins(
        &self,
        subject: &Subject,
        now: OffsetDateTime,
    ) -> Result<Vec<Session>, StoreError> {
        let mut connection = self.connection().await;
        let logins = name("logins", subject.as_str());
        // The scores are the purge times.
        let (after, most) = (format!("({}", millis(now)), MOST_LOGINS.try_into());
        let keys = connection.zrevrangebyscore_limit(logins, "+inf", after, 0, most.unwrap_or(1));
        let keys: Vec<String> = keys.await?;
        let mut sessions = Vec::new();
        for key in keys {
            let stored = self.stored(name("session", key)).await?;
            sessions.extend(stored.map(|stored| stored.session));
        }
        Ok(sessions)
    }

    pub(super) async fn save_pace(&self, key: &SessionKey, pace: Pace) -> Result<(), StoreError> {
        let mut save = SAVE_PACE.key(name("session", key));
        save.arg(serde_json::to_string(&pace)?);
        Ok(save.invoke_async(&mut self.connection().await).await?)
    }

    /// Returns the pace of a session that is stored elsewhere.
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

    pub(super) async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, StoreError> {
        let mut script = TAKE.key(name("quota", take.key()));
        script
            .arg(take.now_millis())
            .arg(take.latest_millis())
            .arg(take.room_millis())
            .arg(take.cost_millis())
            .arg(quota_kept());
        let found: Option<i64> = script.invoke_async(&mut self.connection().await).await?;
        Ok(match found {
            None => Ok(()),
            Some(found) => Err(take.refused(RateState::from_millis(found))),
        })
    }

    pub(super) async fn secret(
        &self,
        secret: &str,
        candidate: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let first = SetOptions::default().conditional_set(ExistenceCheck::NX);
        let name = name_of_secret(secret);
        let mut connection = self.connection().await;
        let _: Option<String> = connection.set_options(&name, candidate, first).await?;
        Ok(connection.get(&name).await?)
    }

    pub(super) async fn find_secret(&self, secret: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.connection().await.get(name_of_secret(secret)).await?)
    }

    pub(super) async fn sign_out(&self, id: &str, until: OffsetDateTime) -> Result<(), StoreError> {
        let until = u64::try_from(millis(until)).unwrap_or_default();
        let kept = SetOptions::default().with_expiration(SetExpiry::PXAT(until));
        let mut connection = self.connection().await;
        Ok(connection
            .set_options(name("sign-out", id), "", kept)
            .await?)
    }

    pub(super) async fn is_signed_out(&self, id: &str) -> Result<bool, StoreError> {
        Ok(self.connection().await.exists(name("sign-out", id)).await?)
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        Ok(redis::cmd("PING")
            .query_async(&mut self.connection().await)
            .await?)
    }

    /// Does nothing, because Redis removes expired records itself.
    #[expect(clippy::unused_async, reason = "asked as the other stores are")]
    pub(super) async fn purge(&self, _now: OffsetDateTime) -> Result<Purged, StoreError> {
        Ok(Purged::default())
    }
}

fn config() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_max_delay(RECONNECT)
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
}

/// Returns a name with a number, because the same Redis may serve the first edition of this server, whose names had no number.
fn name(kind: &str, key: impl Display) -> String {
    format!("device-flow:2:{kind}:{key}")
}

/// Returns the name of a secret, which is the same as in the first edition.
fn name_of_secret(secret: &str) -> String {
    format!("device-flow:secret:{secret}")
}
