//! A database whose connections fall silent: what is asked meanwhile has an end, and then the server is well again by itself.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in tests")]

mod support;

use std::time::{Duration, Instant};

use support::server::{Running, config};
use support::services::Service;
use tokio::task::JoinSet;

/// More than the server has connections to its database.
const REQUESTS: usize = 24;

/// What was begun on a silent connection ends within five seconds; twice that, and some.
const BOUND: Duration = Duration::from_secs(15);

/// Requests have so many seconds, which may be fewer than the store has.
async fn recovers(service: Option<Service>, request_timeout: u64) {
    let Some(service) = service else { return };
    let folder = tempfile::tempdir().unwrap();
    let (url, cable) = service.through(folder.path());
    let mut config = config();
    config.store = url.into();
    config.limits.request_timeout = request_timeout;
    let server = Running::with(config).await;
    // All connections are in use.
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

/// What requests at once are answered.
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
