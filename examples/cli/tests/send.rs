//! The functions that the documentation gives for `ureq` and `reqwest` send as it says.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::as_conversions,
    clippy::wildcard_enum_match_arm,
    clippy::needless_pass_by_value,
    unreachable_pub,
    reason = "in tests, and as it stands in the documentation"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use device_flow::client::{DeviceFlow, Endpoints, MAX_BODY, Next, Request, TransportError};

#[path = "../../send/reqwest.rs"]
mod with_reqwest;
#[path = "../../send/ureq.rs"]
mod with_ureq;

/// The result of sending a request, as a login takes it.
type Answer = Result<http::Response<Vec<u8>>, TransportError>;

/// Both ways to send.
const WAYS: [fn(Request) -> Answer; 2] = [
    |request| with_ureq::send(&with_ureq::agent(), request),
    |request| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(with_reqwest::send(with_reqwest::client().unwrap(), request))
    },
];

/// Returns a request for codes at this origin.
fn request(origin: &str) -> Request {
    let at = |path| format!("{origin}/{path}");
    let endpoints = Endpoints::new(at("device"), at("token")).unwrap();
    let mut login = DeviceFlow::new(endpoints, "cli")
        .secret_basic("s")
        .login()
        .unwrap();
    match login.next(Duration::ZERO) {
        Next::Send(ask) => ask.request().clone(),
        other => panic!("{other:?}"),
    }
}

/// Starts a server that gives this answer to each request, and returns its address.
fn server(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 4096];
            let count = stream.read(&mut asked).unwrap_or_default();
            answer(&String::from_utf8_lossy(&asked[..count]), &mut stream);
        }
    });
    origin
}

#[test]
fn the_request_arrives_as_it_is_and_the_response_with_its_head() {
    let origin = server(|asked, stream| {
        let asked = asked.to_ascii_lowercase();
        let is_right = asked.starts_with("post /device http/1.1\r\n")
            && asked.contains("\r\naccept: application/json\r\n")
            && asked.contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n")
            && asked.contains("\r\nauthorization: basic y2xponm=\r\n");
        let status = if is_right { 429 } else { 400 };
        let head =
            format!("HTTP/1.1 {status} X\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbody");
        stream.write_all(head.as_bytes()).unwrap();
    });
    for send in WAYS {
        let answer = send(request(&format!("http://{origin}"))).unwrap();
        assert_eq!(answer.status(), 429);
        assert_eq!(answer.headers()["retry-after"], "7");
        assert_eq!(answer.body(), b"body");
    }
}

#[test]
fn no_redirect_is_followed() {
    let origin = server(|asked, stream| {
        assert!(asked.starts_with("POST /device "), "{asked}");
        let head = "HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
    });
    for send in WAYS {
        let answer = send(request(&format!("http://{origin}"))).unwrap();
        assert_eq!(answer.status(), 307);
    }
}

#[test]
fn a_body_without_an_end_is_read_to_the_limit() {
    let origin = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
        while stream.write_all(&[b' '; 8192]).is_ok() {}
    });
    for send in WAYS {
        let answer = send(request(&format!("http://{origin}"))).unwrap();
        assert!((MAX_BODY + 1..MAX_BODY + 1_000_000).contains(&answer.body().len()));
    }
}

#[test]
fn a_temporary_failure_is_told_from_one_that_does_not() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let silent = server(|_, _| ());
    let cut_short = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
    });
    let plain = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    for send in WAYS {
        let failure = |origin: &str| send(request(origin)).unwrap_err();
        assert_eq!(failure("http://127.0.0.1:1"), TransportError::Other);
        assert_eq!(failure(&format!("http://{silent}")), TransportError::Other);
        assert_eq!(
            failure(&format!("http://{cut_short}")),
            TransportError::Other
        );
        // The connection cannot be trusted, because the server does not speak TLS.
        assert_eq!(
            failure(&format!("https://{plain}")),
            TransportError::Permanent
        );
    }
}
