//! Servers that do not behave as they should.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Server, respond};
use crate::tool::{Ended, Home, PATIENCE};

/// Runs a login at a server where one path answers like this. Returns the server, and how the tool ended.
fn login_where(path: &'static str, answer: fn(&mut TcpStream)) -> (Server, Ended) {
    let server = Server::with_trouble(move |asked, stream| {
        let mine = asked.path == path;
        if mine {
            answer(stream);
        }
        mine
    });
    let home = Home::new(&server.issuer);
    let ended = home.run(&["login", "--timeout", "3"]);
    assert_eq!(home.names(), [""; 0], "{ended:?}");
    (server, ended)
}

#[test]
fn metadata_of_another_issuer_are_not_used() {
    let (server, ended) = login_where("/.well-known/oauth-authorization-server", |stream| {
        let body = json!({
            "issuer": "http://127.0.0.1:1",
            "device_authorization_endpoint": "http://127.0.0.1:1/device",
            "token_endpoint": "http://127.0.0.1:1/token",
        });
        respond(stream, 200, "", &body.to_string());
    });
    let ended = ended.with(9);
    assert!(
        ended.err.contains("another issuer, http://127.0.0.1:1. "),
        "{ended:?}"
    );
    assert_eq!(server.requests("/.well-known/openid-configuration"), 0);
    assert_eq!(server.requests("/device_authorization"), 0);
}

#[test]
fn an_issuer_that_could_steer_a_terminal_is_not_shown() {
    let (_, ended) = login_where("/.well-known/oauth-authorization-server", |stream| {
        let body = json!({ "issuer": "https://evil.example/\u{1b}[2J" });
        respond(stream, 200, "", &body.to_string());
    });
    let ended = ended.with(9);
    assert!(ended.err.contains("another issuer. "), "{ended:?}");
    assert!(!ended.err.contains("evil"), "{ended:?}");

    let (_, ended) = login_where("/.well-known/oauth-authorization-server", |stream| {
        let body = json!({ "issuer": format!("https://evil.example/{}", "a".repeat(1000)) });
        respond(stream, 200, "", &body.to_string());
    });
    assert!(!ended.with(9).err.contains("evil"));
}

#[test]
fn no_redirect_is_followed() {
    for path in [
        "/.well-known/oauth-authorization-server",
        "/device_authorization",
        "/token",
    ] {
        let (server, ended) = login_where(path, |stream| {
            respond(stream, 307, "Location: /elsewhere\r\n", "");
        });
        let ended = ended.with(9);
        assert!(ended.err.contains("redirect"), "{ended:?}");
        assert_eq!(server.requests("/elsewhere"), 0, "{path}");
    }
}

/// Runs a login at a server where one path answers with `head`, and then with `line` for as long as somebody reads. Returns how the tool
/// ended, and how many bytes were taken. Some of them were not read, but are in the buffers of the sockets.
fn flooded(path: &'static str, head: &'static str, line: &[u8]) -> (Ended, usize) {
    let chunk = line.repeat(65_536 / line.len());
    let (sender, taken) = mpsc::channel();
    let server = Server::with_trouble(move |asked, stream| {
        let mine = asked.path == path;
        if mine {
            let mut taken = 0;
            if stream.write_all(head.as_bytes()).is_ok() {
                while taken < ENOUGH && stream.write_all(&chunk).is_ok() {
                    taken += chunk.len();
                }
            }
            sender.send(taken).unwrap();
        }
        mine
    });
    let home = Home::new(&server.issuer);
    let ended = home.run(&["login"]);
    assert_eq!(home.names(), [""; 0], "{ended:?}");
    (ended, taken.recv_timeout(PATIENCE).unwrap())
}

/// More than anybody may read: sixteen times the limit of a body, and more than sockets hold.
const ENOUGH: usize = 16 << 20;

#[test]
fn a_body_without_an_end_is_not_read_to_its_end() {
    for path in [
        "/.well-known/oauth-authorization-server",
        "/device_authorization",
        "/token",
    ] {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
        let (ended, taken) = flooded(path, head, b" ");
        let ended = ended.with(9);
        assert!(ended.err.contains("than 1 MiB"), "{path}: {ended:?}");
        assert!(taken < ENOUGH, "{path}: {taken}");
    }
}

#[test]
fn a_head_without_an_end_is_not_read_to_its_end() {
    let head = "HTTP/1.1 200 OK\r\nx-more: ";
    let (ended, taken) = flooded("/device_authorization", head, b"and more");
    ended.with(6);
    assert!(taken < ENOUGH, "{taken}");
}

#[test]
fn an_answer_that_takes_for_ever_is_given_up() {
    let (_, ended) = login_where("/device_authorization", |stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        // The server sends one byte at a time, so that no single read takes long, and for longer than the tool waits.
        let until = Instant::now() + PATIENCE;
        let drip = Duration::from_millis(50);
        stream.set_read_timeout(Some(drip)).unwrap();
        while Instant::now() < until && stream.write_all(b" ").is_ok() {
            // The tool says nothing more. So this is a pause, which ends when the tool hangs up.
            let _ = stream.read(&mut [0]);
        }
    });
    let ended = ended.with(6);
    assert!(ended.err.contains("in time"), "{ended:?}");
}

#[test]
fn no_proxy_gets_what_is_not_encrypted() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let (sender, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in proxy.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = sender.send(line);
            respond(&mut stream, 502, "", "");
        }
    });
    let environment: Vec<_> = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "http_proxy"]
        .map(|name| (name, &*address))
        .to_vec();

    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start_with(&["login"], &environment);
    server.approve(&login.user_code());
    login.end().with(0);
    home.start_with(&["refresh"], &environment).end().with(0);
    home.start_with(&["logout"], &environment).end().with(0);
    assert_eq!(asked.try_recv().ok(), None);

    // What is encrypted may pass through it.
    let issuer = ["login", "--issuer", "https://login.example.com"];
    home.start_with(&issuer, &environment).end().with(6);
    let line = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(line, "CONNECT login.example.com:443 HTTP/1.1\r\n");
}

#[test]
fn nobody_at_the_address_is_told() {
    let home = Home::new("http://127.0.0.1:1");
    let ended = home.run(&["login"]).with(6);
    let said = "The server could not be reached; check the network connection, then try again.\n";
    assert_eq!(ended.err, said);
    let (_, ended) = login_where("/.well-known/oauth-authorization-server", |stream| {
        respond(stream, 404, "", "");
    });
    let ended = ended.with(5);
    assert!(ended.err.contains("no authorization server"), "{ended:?}");
}

#[test]
fn a_refusal_is_told_in_the_words_of_the_server_without_what_steers_a_terminal() {
    let (_, ended) = login_where("/device_authorization", |stream| {
        let body =
            r#"{"error":"unauthorized_client","error_description":"\u001b[2Jno \u202egnp.exe"}"#;
        respond(stream, 400, "", body);
    });
    let ended = ended.with(5);
    assert!(ended.err.contains("[2Jno"), "{ended:?}");
    assert!(!ended.err.contains(['\u{1b}', '\u{202e}']), "{ended:?}");
}

#[test]
fn a_refusal_for_now_says_that_the_server_could_not_answer() {
    let (_, ended) = login_where("/device_authorization", |stream| {
        respond(stream, 503, "", r#"{"error":"temporarily_unavailable"}"#);
    });
    let ended = ended.with(6);
    assert!(ended.err.contains("try again"), "{ended:?}");
}

#[test]
fn a_page_that_must_not_be_opened_is_not_shown() {
    let (_, ended) = login_where("/device_authorization", |stream| {
        let body = json!({
            "device_code": "d", "user_code": "WDJB-MJHT", "expires_in": 300,
            "verification_uri": "javascript:alert(1)",
        });
        respond(stream, 200, "", &body.to_string());
    });
    let ended = ended.with(9);
    assert!(!ended.err.contains("javascript"), "{ended:?}");
}

/// Runs a login for which the ID token is made like this. Returns what the tool says.
fn login_with(prepare: &(dyn Fn(&Server) + Sync)) -> String {
    let server = Server::start();
    prepare(&server);
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    server.approve(&login.user_code());
    let ended = login.end().with(9).without(&server.secrets());
    assert_eq!(home.names(), [""; 0], "no token is kept");
    assert_eq!(server.revoked().len(), 2, "and none stays good");
    ended.err
}

#[test]
fn an_id_token_is_accepted_only_if_all_of_it_is_right() {
    type Case<'a> = (&'a str, &'a (dyn Fn(&Server) + Sync));
    let both = || json!(["client_cli", "client_other"]);
    let cases: [Case<'_>; 9] = [
        ("its signature is wrong", &Server::sign_with_another_key),
        ("proves nothing", &Server::sign_with_a_secret),
        ("of another issuer", &|server| {
            server.claim(json!({ "iss": "https://evil.example" }));
        }),
        ("for another client", &|server| {
            server.claim(json!({ "aud": "client_other" }));
        }),
        ("for another client", &|server| {
            server.claim(json!({ "aud": both() }));
        }),
        ("for another client", &|server| {
            server.claim(json!({ "aud": both(), "azp": "client_other" }));
        }),
        ("has expired", &|server| {
            server.claim(json!({ "exp": 1_700_000_000 }));
        }),
        ("not valid yet", &|server| {
            server.claim(json!({ "nbf": 4_000_000_000_u64 }));
        }),
        ("cannot be read", &|server| {
            server.claim(json!({ "sub": null }));
        }),
    ];
    // Each of them waits for one interval. Side by side they all wait for the same one.
    std::thread::scope(|scope| {
        for (said, prepare) in cases {
            scope.spawn(move || {
                let err = login_with(prepare);
                assert!(err.contains(said), "{said}: {err}");
            });
        }
    });
}

#[test]
fn a_name_cannot_steer_the_terminal() {
    let server = Server::start();
    server.claim(
        json!({ "name": "Ada\u{1b}[2J\u{202e}", "aud": ["client_cli"], "azp": "client_cli" }),
    );
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    server.approve(&login.user_code());
    let ended = login.end().with(0);
    assert!(ended.out.contains("Ada\u{fffd}[2J\u{fffd}"), "{ended:?}");
}
