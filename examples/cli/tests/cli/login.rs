//! Signing in.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::server::{Server, respond};
use crate::tool::{Home, Tool, wait_for};

#[test]
fn an_approved_login_keeps_the_tokens_for_this_user_alone() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    server.approve(&login.user_code());
    let ended = login.end().with(0).without(&server.secrets());
    assert!(
        ended.err.contains(&format!("{}/device", server.issuer)),
        "{ended:?}"
    );
    assert_eq!(
        ended.out,
        format!(
            "Signed in to {} as Ada Lovelace (ada@example.com).\n",
            server.issuer
        )
    );

    let tokens = home.file("tokens.json");
    assert_eq!(home.names(), ["tokens.json"], "nothing else is left");
    let mode = std::fs::metadata(&tokens).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let folder = tokens.parent().unwrap();
    let mode = std::fs::metadata(folder).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(
        server.secrets().contains(
            &home.read("tokens.json")["access_token"]
                .as_str()
                .unwrap()
                .to_owned()
        )
    );
}

#[test]
fn under_json_every_line_is_an_event() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start(&["login", "--json", "--scope", "openid offline_access"]);
    let code = login.user_code();
    server.approve(&code);
    let ended = login.end().with(0).without(&server.secrets());
    let [prompt, signed_in] = &ended.events()[..] else {
        panic!("{ended:?}");
    };
    let left = prompt["expires_in"].as_u64().unwrap();
    assert!((200..=300).contains(&left), "{left}");
    let page = format!("{}/device", server.issuer);
    assert_eq!(
        *prompt,
        json!({
            "event": "prompt", "user_code": code, "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={code}"),
            "expires_in": left, "resumed": false,
        })
    );
    assert_eq!(signed_in["event"], "signed_in");
    assert_eq!(signed_in["sub"], "user_ada");
    assert_eq!(signed_in["scope"], "openid offline_access");
    assert_eq!(signed_in["has_refresh_token"], true);
}

#[test]
fn a_denied_login_says_so() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    server.deny(&login.user_code());
    let ended = login.end().with(3).without(&server.secrets());
    assert!(
        ended.err.contains("The sign-in was denied (access_denied"),
        "{ended:?}"
    );
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn an_expired_login_says_so() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start(&["login", "--json"]);
    login.user_code();
    server.put_forward(Duration::from_mins(6));
    let ended = login.end().with(4);
    let events = ended.events();
    let last = events.last().unwrap();
    assert_eq!(last["event"], "failed");
    assert_eq!(last["outcome"], "expired");
    assert_eq!(last["exit_code"], 4);
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn a_killed_login_is_resumed() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let first = home.start(&["login"]);
    let code = first.user_code();
    // A login can be killed at any moment. Here it is killed after the first poll.
    wait_for("a poll", || (server.requests("/token") > 0).then_some(()));
    first.signal("KILL");
    assert_eq!(first.end().code, None);
    let unfinished = home.file("login.json");
    let mode = std::fs::metadata(unfinished).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let second = home.start(&["login", "--json"]);
    assert_eq!(second.user_code(), code);
    server.approve(&code);
    let ended = second.end().with(0).without(&server.secrets());
    let events = ended.events();
    assert_eq!(events[0]["event"], "note", "it says so");
    assert_eq!(events[1]["resumed"], true);
    assert_eq!(server.requests("/device_authorization"), 1);
    assert_eq!(home.names(), ["tokens.json"]);
}

#[test]
fn an_expired_login_is_not_resumed_and_neither_is_one_for_another_scope() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let kill = |arguments: &[&str]| {
        let login = home.start(arguments);
        let code = login.user_code();
        login.signal("KILL");
        login.end();
        code
    };
    let first = kill(&["login"]);
    let mut unfinished = home.read("login.json");
    unfinished["expires_at"] = json!(1_700_000_000);
    home.write("login.json", &unfinished);
    let second = kill(&["login"]);
    assert_ne!(first, second);
    let third = kill(&["login", "--scope", "openid"]);
    assert_ne!(second, third);
    // A file that nobody can read is not resumed.
    home.write("login.json", &json!({ "v": 99 }));
    let fourth = kill(&["login", "--scope", "openid"]);
    assert_ne!(third, fourth);
    assert_eq!(server.requests("/device_authorization"), 4);
}

#[test]
fn a_login_that_cannot_begin_leaves_no_earlier_one_to_go_on_with() {
    let codes = AtomicUsize::new(0);
    let server = Server::with_trouble(move |asked, stream| {
        let refused =
            asked.path == "/device_authorization" && codes.fetch_add(1, Ordering::SeqCst) > 0;
        if refused {
            respond(stream, 400, "", r#"{"error":"invalid_scope"}"#);
        }
        refused
    });
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    login.user_code();
    login.signal("KILL");
    login.end();
    home.run(&["login", "--scope", "nonsense"]).with(5);
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn a_server_that_is_away_for_a_while_is_waited_for() {
    let polls = AtomicUsize::new(0);
    let server = Server::with_trouble(move |asked, stream| {
        let first = asked.path == "/token" && polls.fetch_add(1, Ordering::SeqCst) == 0;
        if first {
            respond(stream, 503, "", "");
        }
        first
    });
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    server.approve(&login.user_code());
    login.says("The server cannot answer now (status 503), trying again.");
    login.end().with(0);
}

#[test]
fn a_login_is_not_thrown_away_where_the_keys_cannot_be_had_at_once() {
    let fetches = AtomicUsize::new(0);
    let server = Server::with_trouble(move |asked, stream| {
        let away = asked.path == "/jwks" && fetches.fetch_add(1, Ordering::SeqCst) < 2;
        if away {
            respond(stream, 503, "", "");
        }
        away
    });
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    server.approve(&login.user_code());
    let ended = login.end().with(0);
    assert!(
        ended
            .err
            .contains("keys could not be fetched: trying again"),
        "{ended:?}"
    );
    assert!(ended.out.contains("Ada Lovelace"), "{ended:?}");
    assert_eq!(server.revoked().len(), 0);
}

#[test]
#[cfg(target_os = "linux")] // its `script` makes a terminal
fn a_login_in_the_background_is_not_stopped_by_the_terminal() {
    if Command::new("script").arg("--version").output().is_err() {
        let sentence = "skipped, script is missing: apt-get install bsdutils";
        assert!(std::env::var_os("REQUIRE_ALL").is_none(), "{sentence}");
        let _ = writeln!(std::io::stderr(), "{sentence}");
        return;
    }
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let tool = home.command(&[], &[("NO_COLOR", "1"), ("BROWSER", "/bin/true")]);
    let environment = tool
        .get_envs()
        .filter_map(|(name, value)| value.map(|value| (name, value)));
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", r#"set -m; "$TOOL" login & wait"#, "/dev/null"])
        .env_remove("SSH_CONNECTION")
        .envs(environment)
        .env("SHELL", "/bin/sh")
        .env("TOOL", tool.get_program());
    let login = Tool::start(terminal);
    server.approve(&login.user_code());
    let ended = login.end();
    assert!(ended.out.contains("Signed in to"), "{ended:?}");
}

#[test]
fn a_second_login_at_once_is_told_of_the_first() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let first = home.start(&["login"]);
    let code = first.user_code();
    let second = home.run(&["login"]).with(8);
    assert!(second.err.contains("under way"), "{second:?}");
    server.approve(&code);
    first.end().with(0);
}

#[test]
fn a_wrong_command_line_is_told_before_a_code_is_asked_for() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    home.run(&["login", "--issuer", "http://login.example.com"])
        .with(2);
    home.run(&["login", "--timeout", "0"]).with(2);
    home.run(&["login", "--scope", "a  \u{e4}"]).with(2);
    home.run(&["login", "--client-id", ""]).with(2);
    assert_eq!(server.requests("/device_authorization"), 0);
    let help = home.run(&["--help"]).with(0);
    assert!(help.out.contains("Exit codes:"), "{help:?}");
}

/// Starts a server that answers the first poll like this.
fn with_a_poll_answered(answer: fn(&mut std::net::TcpStream)) -> Server {
    let polls = AtomicUsize::new(0);
    Server::with_trouble(move |asked, stream| {
        let first = asked.path == "/token" && polls.fetch_add(1, Ordering::SeqCst) == 0;
        if first {
            answer(stream);
        }
        first
    })
}

#[test]
fn a_login_says_why_it_waits() {
    let slow = with_a_poll_answered(|stream| {
        respond(stream, 400, "", r#"{"error":"slow_down"}"#);
    });
    // The server hangs up without an answer.
    let away = with_a_poll_answered(|_| ());
    std::thread::scope(|scope| {
        for (server, said) in [
            (
                slow,
                "Nobody has approved the code yet, and the server asks for fewer requests.",
            ),
            (away, "No connection to the server, trying again."),
        ] {
            scope.spawn(move || {
                let home = Home::new(&server.issuer);
                let login = home.start(&["login"]);
                server.approve(&login.user_code());
                login.says(said);
                login.end().with(0);
            });
        }
    });
}

/// The metadata of django-oauth-toolkit do not have the endpoint.
#[test]
fn an_endpoint_that_the_metadata_lack_is_named_on_the_command_line() {
    let server = Server::with_trouble(|asked, stream| {
        let mine = asked.path.starts_with("/.well-known/");
        if mine {
            let issuer = format!("http://{}", stream.local_addr().unwrap());
            let metadata = json!({
                "issuer": issuer,
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/jwks"),
            });
            respond(stream, 200, "", &metadata.to_string());
        }
        mine
    });
    let home = Home::new(&server.issuer);
    let ended = home.run(&["login"]).with(5);
    assert!(
        ended.err.contains("--device-authorization-endpoint"),
        "{ended:?}"
    );

    let endpoint = format!("{}/device_authorization", server.issuer);
    let login = home.start(&["login", "--device-authorization-endpoint", &endpoint]);
    server.approve(&login.user_code());
    login.end().with(0);

    let plain = [
        "login",
        "--device-authorization-endpoint",
        "http://login.example.com/",
    ];
    let ended = home.run(&plain).with(2);
    assert!(ended.err.contains("the URL must be https"), "{ended:?}");
}

#[test]
fn a_login_whose_file_was_tampered_with_is_not_resumed_and_nothing_of_it_is_shown() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let kill = || {
        let login = home.start(&["login"]);
        let code = login.user_code();
        login.signal("KILL");
        (code, login.end())
    };
    let (first, _) = kill();
    for (name, value) in [
        ("user_code", "WDJB\u{1b}[2J"),
        ("verification_uri", "https://evil.example/\u{1b}[2J"),
        ("verification_uri_complete", "javascript:alert(1)"),
    ] {
        let mut unfinished = home.read("login.json");
        unfinished["prompt"][name] = json!(value);
        home.write("login.json", &unfinished);
        let (code, ended) = kill();
        assert_ne!(code, first, "{name}");
        assert!(
            !ended.err.contains(['\u{1b}']) && !ended.err.contains("evil"),
            "{ended:?}"
        );
    }
    // A wait that no login can have.
    let mut unfinished = home.read("login.json");
    unfinished["snapshot"]["wait"] = json!({"secs": 1_000_000, "nanos": 0});
    home.write("login.json", &unfinished);
    let (code, _) = kill();
    assert_ne!(code, first);
    assert_eq!(server.requests("/device_authorization"), 5);
}

#[test]
fn a_login_without_the_id_token_that_it_was_granted_says_so() {
    let server = Server::with_trouble(|asked, stream| {
        let mine = asked.path == "/token";
        if mine {
            let body = r#"{"access_token":"a","token_type":"Bearer","scope":"openid profile"}"#;
            respond(stream, 200, "", body);
        }
        mine
    });
    let home = Home::new(&server.issuer);
    let ended = home.run(&["login"]).with(0);
    assert!(
        ended.err.contains("granted `openid` but sent no ID token"),
        "{ended:?}"
    );
}
