//! The store in Redis leaves it to Redis to remove everything at its time. These tests look at the expiry of each key.

use std::time::Duration;

use crate::support::services::Service;
use crate::support::site::{Codes, Site};
use ::redis::aio::MultiplexedConnection;
use device_flow::digest::QuotaKey;
use device_flow::server::{Cause, RateLimit, Store as _};
use example_server::store::Store;
use time::OffsetDateTime;

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// A Redis of its own. The tests look at its keys, because each write must set an expiry, and nothing else removes anything.
struct Expiring {
    site: Site,
    service: Service,
    connection: MultiplexedConnection,
}

impl Expiring {
    async fn new() -> Option<Self> {
        let service = Service::redis()?;
        let client = ::redis::Client::open(service.url()).unwrap();
        Some(Self {
            site: Site::new(Store::open(&service.url(), None).await.unwrap()),
            connection: client.get_multiplexed_async_connection().await.unwrap(),
            service,
        })
    }

    /// Returns when each key of a kind expires, in milliseconds; -1 for never.
    async fn of(&self, kind: &str) -> Vec<i128> {
        let mut connection = self.connection.clone();
        let mut keys = ::redis::cmd("KEYS");
        let keys = keys.arg(format!("device-flow:{kind}:*"));
        let keys: Vec<Vec<u8>> = keys.query_async(&mut connection).await.unwrap();
        let mut expiries = Vec::new();
        for key in keys {
            let mut expiry = ::redis::cmd("PEXPIRETIME");
            let expiry = expiry.arg(key).query_async::<i64>(&mut connection);
            expiries.push(expiry.await.unwrap().into());
        }
        expiries.sort_unstable();
        expiries
    }

    async fn the_one_of(&self, kind: &str) -> i128 {
        let expiries = self.of(kind).await;
        assert_eq!(expiries.len(), 1, "{kind}");
        expiries[0]
    }

    /// Returns when the store may remove the only session. Asserts that Redis removes it then.
    async fn purge_time(&self, codes: &Codes) -> i128 {
        let stored = self.site.store.load(&codes.session).await.unwrap().unwrap();
        let purge_at = millis(stored.session.purge_at());
        assert_eq!(self.of("2:session").await, [purge_at]);
        purge_at
    }
}

fn millis(moment: OffsetDateTime) -> i128 {
    moment.unix_timestamp_nanos() / 1_000_000
}

#[tokio::test]
async fn in_redis_a_session_expires_with_its_user_code_whenever_it_changes() {
    let Some(redis) = Expiring::new().await else {
        return;
    };
    let site = &redis.site;
    let codes = site.issue().await;
    let issued = redis.purge_time(&codes).await;
    assert_eq!(redis.of("2:user").await, [issued]);
    site.enter(&codes, now()).await;
    assert_eq!(redis.of("2:user").await, [redis.purge_time(&codes).await]);
    // The approval comes in the last second. So the session must be kept longer, because the device needs time to redeem it.
    let late = now() + Site::LIFETIME - time::Duration::SECOND;
    site.approve(&codes, late).await;
    let approved = redis.purge_time(&codes).await;
    assert!(approved > issued, "it moves");
    assert_eq!(redis.of("2:user").await, [approved]);
    // The user code is no longer needed, and the login lives as long as its refresh token.
    let (_, token) = site.poll(&codes, late).await;
    let redeemed = redis.purge_time(&codes).await;
    assert!(redeemed > approved, "it moves");
    assert!(redis.of("2:user").await.is_empty());
    let later = late + time::Duration::MINUTE;
    let (cause, _) = site.refresh(&token.unwrap(), later).await;
    assert_eq!(cause, Cause::Refreshed);
    assert_eq!(redis.purge_time(&codes).await, redeemed + 60_000);
}

#[tokio::test]
async fn in_redis_quotas_and_paces_expire_and_the_servers_keys_stay() {
    let Some(redis) = Expiring::new().await else {
        return;
    };
    let limit = RateLimit::new(3, Duration::from_hours(1)).unwrap();
    let take = limit.take(QuotaKey::of_host("test", &[]), now());
    redis.site.store.take(take).await.unwrap().unwrap();
    // The quota must not expire too early, because then it would limit nobody. A little too late does no harm.
    let purge_at = take.apply(None).unwrap().unwrap().purge_at();
    let latest = purge_at + time::Duration::minutes(2);
    let expiry = redis.the_one_of("2:quota").await;
    assert!((millis(purge_at)..=millis(latest)).contains(&expiry));

    // A pace without its session is kept for an hour.
    let apart = Store::open("memory:", Some(&redis.service.url())).await;
    let apart = Site::new(apart.unwrap());
    let codes = apart.issue().await;
    let (hour, slack) = (time::Duration::HOUR, time::Duration::SECOND);
    let begun = now();
    assert_eq!(apart.poll(&codes, now()).await.0, Cause::Pending);
    let expiry = redis.the_one_of("2:pace").await;
    let expected = millis(begun + hour - slack)..=millis(now() + hour + slack);
    assert!(expected.contains(&expiry));

    redis.site.store.secret("key", &[7; 32]).await.unwrap();
    assert_eq!(redis.of("secret").await, [-1]);
}
