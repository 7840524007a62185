//! Many requests at once: nobody is refused because others ask at the same time, and nobody gets more because of it. Also peers that stop
//! in the middle: the server answers them, or gives them up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::server::{Running, SECRET, config, quota};
use crate::support::services::Service;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const ISSUE: &str = "/oauth2/device_authorization";

/// How many requests are sent at once.
const CROWD: usize = 40;

/// Sends a crowd of requests with this secret. Returns how many got each status.
async fn statuses(server: &Running, secret: &str) -> BTreeMap<u16, usize> {
    let form = [("client_id", "client_backend"), ("client_secret", secret)];
    let mut requests = JoinSet::new();
    for _ in 0..CROWD {
        requests.spawn(server.post(ISSUE, &form).send());
    }
    let mut statuses = BTreeMap::new();
    for answer in requests.join_all().await {
        *statuses
            .entry(answer.unwrap().status().as_u16())
            .or_default() += 1;
    }
    statuses
}

/// Asserts that a crowd gets what the limits of one client allow: codes are counted by client, secrets by client and source.
async fn is_fair(store: String) {
    let mut config = config();
    config.store = store.into();
    config.limits.request_timeout = 60; // a disk may be slow
    config.quotas.codes = quota(30);
    config.quotas.secrets = quota(10);
    let server = Running::with(config).await;
    let codes = statuses(&server, SECRET).await;
    let of = |status| codes.get(&status).copied().unwrap_or_default();
    assert_eq!(of(200) + of(429), CROWD, "{codes:?}");
    // A request that read its clock a moment before the first counted one may come a moment too early for the last code.
    assert!((29..=30).contains(&of(200)), "{codes:?}");
    // Requests that are under way when the last wrong secret is counted are compared, too (B1).
    let secrets = statuses(&server, "wrong").await;
    let of = |status| secrets.get(&status).copied().unwrap_or_default();
    assert_eq!(of(401) + of(429), CROWD, "{secrets:?}");
    assert!(of(401) >= 10, "{secrets:?}");
    // For the same reason as with the codes, one may be left.
    let form = [("client_id", "client_backend"), ("client_secret", "wrong")];
    let last = server.post(ISSUE, &form).send().await.unwrap();
    assert!([401, 429].contains(&last.status().as_u16()));
    let after = BTreeMap::from([(429, CROWD)]);
    assert_eq!(statuses(&server, "wrong").await, after);
    assert_eq!(statuses(&server, SECRET).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory_a_crowd_gets_what_is_there() {
    is_fair("memory:".to_owned()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_sqlite_a_crowd_gets_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    is_fair(format!("sqlite:{}", folder.path().join("db").display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_postgres_a_crowd_gets_what_is_there() {
    if let Some(service) = Service::postgres() {
        is_fair(service.url()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_redis_a_crowd_gets_what_is_there() {
    if let Some(service) = Service::redis() {
        is_fair(service.url()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_nobody_knows_has_no_secret_to_guess() {
    let mut config = config();
    config.quotas.secrets = quota(1);
    let server = Running::with(config).await;
    let form = [("client_id", "client_gone"), ("client_secret", "wrong")];
    for _ in 0..3 {
        let answer = server.post(ISSUE, &form).send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_does_not_keep_others_out() {
    let mut config = config();
    config.limits.connections = 2;
    config.limits.request_timeout = 1;
    let server = Running::with(config).await;
    let mut deaf = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let get = "GET /device/style.css HTTP/1.1\r\nHost: x\r\n\r\n".repeat(4000);
        // The server may give the connection up before all of it is written.
        let write = stream.write_all(get.as_bytes());
        let _ = tokio::time::timeout(Duration::from_secs(1), write).await;
        deaf.push(stream);
    }
    let jwks = server.get("/oauth2/jwks").timeout(Duration::from_secs(20));
    assert_eq!(jwks.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_or_does_not_come_is_answered_in_json() {
    let mut config = config();
    config.limits.request_timeout = 1;
    let server = Running::with(config).await;
    for (breaks_off, status, cause) in [
        (true, "400 Bad Request", "body_broken"),
        (false, "408 Request Timeout", "body_too_slow"),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head =
            "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\ngrant_type=";
        stream.write_all(head.as_bytes()).await.unwrap();
        if breaks_off {
            stream.shutdown().await.unwrap();
        }
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert!(answer.contains(&status.to_lowercase()), "{answer}");
        assert!(
            answer.contains("content-type: application/json"),
            "{answer}"
        );
        assert!(answer.contains("cache-control: no-store"), "{answer}");
        assert!(answer.contains("invalid_request"), "{answer}");
        assert_eq!(server.count("token", cause).await, 1);
    }
}
