//! A database that is lost, or whose connections fall silent. What is asked meanwhile ends in time, and then the server recovers by itself.

use std::time::{Duration, Instant};

use crate::support::server::{Running, config};
use crate::support::services::Service;
use crate::support::site::Site;
use device_flow::digest::QuotaKey;
use device_flow::server::{Cause, Next, RateLimit, Store as _, Unavailable};
use example_server::store::Store;
use time::OffsetDateTime;
use tokio::task::JoinSet;

/// More requests than the server has connections to its database.
const REQUESTS: usize = 24;

/// What was begun on a silent connection ends within five seconds. This is twice that, and some more.
const BOUND: Duration = Duration::from_secs(15);

/// Asserts that the server recovers from silent connections. `request_timeout` is in seconds, and may be shorter than the time that the
/// store has.
async fn recovers(service: Option<Service>, request_timeout: u64) {
    let Some(service) = service else { return };
    let folder = tempfile::tempdir().unwrap();
    let (url, cable) = service.through(folder.path());
    let mut config = config();
    config.store = url.into();
    config.limits.request_timeout = request_timeout;
    let server = Running::with(config).await;
    // These requests use all connections.
    assert_eq!(statuses(&server).await, [200; REQUESTS]);
    cable.silence();
    let silenced = Instant::now();
    for status in statuses(&server).await {
        assert!([200, 503].contains(&status), "{status}");
    }
    while statuses(&server).await != [200; REQUESTS] {
        assert!(silenced.elapsed() < BOUND, "it does not recover");
    }
}

/// Sends requests at once, and returns their statuses.
async fn statuses(server: &Running) -> Vec<u16> {
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        requests.spawn(server.get_as_operator("/healthz").send());
    }
    let answers = requests.join_all().await.into_iter();
    answers
        .map(|answer| answer.unwrap().status().as_u16())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_silent_connections_to_postgres_the_server_recovers() {
    recovers(Service::postgres(), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_silent_connections_to_postgres_it_recovers_where_nobody_waits_long() {
    recovers(Service::postgres(), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_silent_connections_to_redis_the_server_recovers() {
    recovers(Service::redis(), 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_silent_connections_to_redis_it_recovers_where_nobody_waits_long() {
    recovers(Service::redis(), 2).await;
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

async fn says_that_it_does_not_know(url: &str, end: impl FnOnce()) {
    let site = Site::new(Store::open(url, None).await.unwrap());
    let codes = site.issue().await;
    site.enter(&codes, now()).await;
    let read = site.store.load(&codes.session).await.unwrap();
    end();
    let started = Instant::now();
    let mut deny = site.server.deny(&codes.session, &codes.user, now());
    if let Next::Load(_, ask) = deny.next() {
        ask.answer(Ok(read.as_ref()));
    }
    let Next::Change(change, _) = deny.next() else {
        panic!("the claimant denies");
    };
    assert_eq!(site.store.change(change).await, Err(Unavailable));
    assert!(site.store.load(&codes.session).await.is_err());
    let limit = RateLimit::new(1, Duration::from_secs(1)).unwrap();
    let take = limit.take(QuotaKey::of_host("test", &[]), now());
    assert_eq!(site.store.take(take).await, Err(Unavailable));
    assert_eq!(site.poll(&codes, now()).await.0, Cause::StoreFailed);
    assert!(site.store.ping().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(25), "it waits");
}

#[tokio::test]
async fn a_write_to_a_lost_postgres_is_unknown() {
    if let Some(service) = Service::postgres() {
        let url = service.url();
        says_that_it_does_not_know(&url, || drop(service)).await;
    }
}

#[tokio::test]
async fn a_write_to_a_lost_redis_is_unknown() {
    if let Some(service) = Service::redis() {
        let url = service.url();
        says_that_it_does_not_know(&url, || drop(service)).await;
    }
}
