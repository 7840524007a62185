//! Connections over loopback: how long a peer may take, and what a request must contain.

use std::time::Duration;

use crate::support::server::*;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_request_that_has_begun_is_answered_before_the_server_stops() {
    let mut server = Running::new().await;
    let mut open = TcpStream::connect(server.address).await.unwrap();
    let idle = TcpStream::connect(server.address).await.unwrap();
    let body = "client_id=client_cli";
    let head = format!(
        "POST /oauth2/device_authorization HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    open.write_all(head.as_bytes()).await.unwrap();
    // The head was read, because the server asks for the rest.
    let mut read = [0; 64];
    let length = open.read(&mut read).await.unwrap();
    assert!(read[..length].starts_with(b"HTTP/1.1 100"));
    server.stop();
    let refused = eventually(async || TcpStream::connect(server.address).await.is_err());
    assert!(refused.await, "the server still takes new connections");
    open.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    server.stopped().await;
    drop(idle);
}

#[tokio::test]
async fn heads_and_bodies_have_their_time_and_connections_their_number() {
    let mut config = config();
    config.limits.connections = 2;
    config.limits.header_timeout = 1;
    config.limits.request_timeout = 1;
    let server = Running::with(config).await;
    let mut slow_head = TcpStream::connect(server.address).await.unwrap();
    slow_head
        .write_all(b"POST /oauth2/token HTTP/1.1\r\nHost:")
        .await
        .unwrap();
    let mut slow_body = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /oauth2/token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
        Content-Length: 9\r\n\r\ngrant";
    slow_body.write_all(head.as_bytes()).await.unwrap();
    // The third connection waits until one of the others has ended.
    let third = server
        .get("/oauth2/jwks")
        .timeout(Duration::from_secs(9))
        .send();
    let (third, head, body) = tokio::join!(third, ended(slow_head), ended(slow_body));
    assert_eq!(third.unwrap().status(), StatusCode::OK);
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408"),
        "{head}"
    );
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
}

/// Returns what comes until the server closes. Asserts that it closes within some seconds.
async fn ended(mut stream: TcpStream) -> String {
    let mut text = String::new();
    let reading = stream.read_to_string(&mut text);
    let read = timeout(Duration::from_secs(9), reading).await;
    let _ = read.expect("the server closes");
    text
}

#[tokio::test]
async fn a_head_has_its_length_and_its_number_of_headers() {
    let server = Running::new().await;
    let answer = async |headers: String| {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("GET /oauth2/jwks HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        // The server may close before it has read all of it.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        let read = timeout(Duration::from_secs(9), stream.read_exact(&mut answer)).await;
        read.expect("an answer in time").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let long = |length| format!("x: {}\r\n", "x".repeat(length));
    assert_eq!(answer(long(10_000)).await, "HTTP/1.1 200");
    assert_eq!(answer(long(100_000)).await, "HTTP/1.1 431");
    assert_eq!(answer("x: x\r\n".repeat(60)).await, "HTTP/1.1 200");
    assert_eq!(answer("x: x\r\n".repeat(65)).await, "HTTP/1.1 431");
}

#[tokio::test]
async fn a_form_of_the_page_that_comes_too_slowly_gets_408_and_a_page() {
    let mut config = config();
    config.limits.request_timeout = 1;
    let server = Running::with(config).await;
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /device HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
        Content-Length: 9\r\n\r\ncsrf";
    slow.write_all(head.as_bytes()).await.unwrap();
    let answer = ended(slow).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        answer.contains("The form did not arrive in time."),
        "{answer}"
    );
    for name in [
        "content-security-policy",
        "x-frame-options",
        "x-content-type-options",
        "cache-control",
    ] {
        assert!(answer.contains(&format!("\r\n{name}: ")), "{name}");
    }
}

#[tokio::test]
async fn an_unknown_path_gets_a_page() {
    let server = Running::new().await;
    for path in ["/devise", "/oauth2/nothing", "/.well-known/nothing"] {
        let response = server.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(response.headers().contains_key("content-security-policy"));
        let html = response.text().await.unwrap();
        assert!(html.contains("<h1>No such page</h1>"), "{html}");
    }
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Running::new().await;
    let status = async |version: &str, hosts: &[&str]| {
        let hosts = hosts.iter().map(|host| format!("Host: {host}\r\n"));
        let head = format!(
            "GET /oauth2/jwks HTTP/{version}\r\n{}Connection: close\r\n\r\n",
            hosts.collect::<String>()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        ended(stream).await.get(9..12).unwrap().to_owned()
    };
    for hosts in [&[][..], &["x", "x"], &["x", "y"], &[""], &["a b"], &["u@x"]] {
        assert_eq!(status("1.1", hosts).await, "400", "{hosts:?}");
    }
    for host in ["login.example.com", "127.0.0.1:8628", "[::1]:8628"] {
        assert_eq!(status("1.1", &[host]).await, "200", "{host}");
    }
    assert_eq!(status("1.0", &[]).await, "200", "HTTP/1.0 needs no host");
}

#[tokio::test]
async fn whoever_closes_its_half_after_the_request_gets_the_answer() {
    let server = Running::new().await;
    let body = "client_id=client_cli";
    let request = format!(
        "POST /oauth2/device_authorization HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = ended(stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("device_code"));
}

/// Asks on a connection that stays open, and returns the status.
async fn ask(stream: &mut TcpStream) -> String {
    let head = "HEAD /oauth2/jwks HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("\r\n\r\n") {
        let mut read = [0; 1024];
        let reading = timeout(Duration::from_secs(9), stream.read(&mut read));
        let length = reading.await.expect("an answer in time").unwrap();
        assert!(length > 0, "the server has closed");
        answer.push_str(std::str::from_utf8(&read[..length]).unwrap());
    }
    answer[9..12].to_owned()
}

#[tokio::test]
async fn idle_connections_live_longer_than_a_head_may_take() {
    let mut config = config();
    config.limits.header_timeout = 1;
    let server = Running::with(config).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(ask(&mut idle).await, "200");
    // Each of these takes as long as the server waits for a head that does not come.
    for begun in ["", "GET /oauth2/jwks HTTP/1.1\r\nHost:"] {
        let mut slow = TcpStream::connect(server.address).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        assert_eq!(ended(slow).await, "");
        assert_eq!(ask(&mut idle).await, "200");
    }
    // A second head has no more time than the first.
    idle.write_all(b"GET /oauth2/jwks HTTP").await.unwrap();
    assert_eq!(ended(idle).await, "");
}

#[tokio::test]
async fn idle_connections_have_their_time() {
    let mut config = config();
    config.limits.idle_timeout = 1;
    let server = Running::with(config).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(ask(&mut idle).await, "200");
    assert_eq!(ask(&mut idle).await, "200");
    assert_eq!(ended(idle).await, "");
}
