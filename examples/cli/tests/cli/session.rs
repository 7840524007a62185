//! The commands that use the tokens of a login.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use serde_json::json;

use crate::server::{Server, respond};
use crate::tool::{Home, wait_for};

/// Returns a home that is signed in.
pub(crate) fn signed_in(server: &Server) -> Home {
    let home = Home::new(&server.issuer);
    sign_in(server, &home);
    home
}

fn sign_in(server: &Server, home: &Home) {
    let login = home.start(&["login"]);
    server.approve(&login.user_code());
    login.end().with(0);
}

#[test]
fn the_tokens_of_another_user_are_revoked_once_there_are_new_ones() {
    let server = Server::start();
    let home = signed_in(&server);
    let first = home.read("tokens.json");
    assert_eq!(server.revoked().len(), 0);
    server.claim(json!({ "sub": "user_grace" }));
    sign_in(&server, &home);
    let second = home.read("tokens.json");
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    let expected = json!([first["refresh_token"], first["access_token"]]);
    assert_eq!(json!(server.revoked()), expected);
    home.run(&["refresh"]).with(0);
}

/// They are not revoked, because some servers end a whole grant when one of its tokens is revoked.
#[test]
fn the_tokens_of_the_same_user_are_left_to_expire() {
    let server = Server::start();
    let home = signed_in(&server);
    sign_in(&server, &home);
    assert_eq!(server.revoked(), [""; 0]);
    home.run(&["refresh"]).with(0);
}

#[test]
#[cfg(target_os = "linux")] // it has a device that is always full
fn a_result_that_nobody_can_read_is_a_failure() {
    use std::process::Stdio;

    let server = Server::start();
    let home = signed_in(&server);
    let run = |arguments: &[&str], out: Stdio| {
        let mut command = home.command(arguments, &[]);
        let output = command.stdout(out).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let full = || {
        Stdio::from(
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap(),
        )
    };
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    for command in ["token", "whoami", "refresh"] {
        for out in [full(), closed()] {
            let (code, err) = run(&[command], out);
            assert_eq!(code, Some(1), "{command}: {err}");
            assert!(
                err.starts_with("Standard output could not be written: "),
                "{err}"
            );
        }
        assert_eq!(run(&[command, "--json"], full()), (Some(1), String::new()));
    }
    // The command has done its work all the same.
    assert_eq!(run(&["logout"], full()).0, Some(1));
    home.run(&["whoami"]).with(7);
}

#[test]
fn whoami_says_who_signed_in_and_shows_no_token() {
    let server = Server::start();
    let home = signed_in(&server);
    let ended = home.run(&["whoami"]).with(0).without(&server.secrets());
    let said = format!(
        "Signed in to {} as Ada Lovelace (ada@example.com). The access token is good for 4:5",
        server.issuer
    );
    assert!(ended.out.starts_with(&said), "{ended:?}");
    let ended = home
        .run(&["whoami", "--json"])
        .with(0)
        .without(&server.secrets());
    assert_eq!(ended.events()[0]["sub"], "user_ada");
}

#[test]
fn without_a_login_every_command_asks_for_one() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    for command in ["whoami", "token", "refresh", "logout"] {
        let ended = home.run(&[command]).with(7);
        assert!(ended.err.contains("Nobody is signed in"), "{ended:?}");
    }
    assert!(home.is_untouched());
}

#[test]
fn a_hint_names_the_server_and_the_client_where_they_are_not_the_usual_ones() {
    let home = Home::new("http://127.0.0.1:8628");
    let hint = |more: &[&str]| {
        let ended = home.run(&[&["whoami"], more].concat()).with(7);
        let start = "Nobody is signed in: run `example-cli login";
        let hint = ended.err.strip_prefix(start);
        hint.unwrap_or_else(|| panic!("{ended:?}")).to_owned()
    };
    assert_eq!(hint(&[]), "`.\n");
    let issuer = "https://login.example.com/a$b";
    assert_eq!(
        hint(&["--issuer", issuer]),
        format!(" --issuer '{issuer}'`.\n")
    );
    assert_eq!(
        hint(&["--client-id", "client_tv"]),
        " --client-id client_tv`.\n"
    );
    assert_eq!(
        hint(&["--client-id", "it's one"]),
        " --client-id 'it'\\''s one'`.\n"
    );
}

#[test]
fn what_a_crash_left_does_not_open_the_tokens_to_others() {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    let server = Server::start();
    let home = signed_in(&server);
    let tokens = home.file("tokens.json");
    let beside = tokens.with_file_name("tokens.json.new");
    std::fs::write(&beside, "{").unwrap();
    std::fs::set_permissions(&beside, Permissions::from_mode(0o644)).unwrap();
    home.run(&["refresh"]).with(0);
    let mode = std::fs::metadata(&tokens).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(home.names(), ["tokens.json"]);
}

#[test]
fn a_damaged_file_is_replaced_by_login_and_removed_by_logout() {
    let server = Server::start();
    let home = signed_in(&server);
    let mut newer = home.read("tokens.json");
    newer["v"] = json!(2);
    let tokens = home.file("tokens.json");
    for damaged in ["garbage", r#"{"v":2}"#, &newer.to_string()] {
        std::fs::write(&tokens, damaged).unwrap();
        for command in ["whoami", "token", "refresh"] {
            let ended = home.run(&[command]).with(1).without(&server.secrets());
            assert!(
                ended.err.contains("damaged, or of another version"),
                "{ended:?}"
            );
            let hint = format!("`example-cli login --issuer {}`", server.issuer);
            assert!(ended.err.contains(&hint), "{ended:?}");
        }
        let ended = home.run(&["logout"]).with(0);
        assert!(ended.out.contains("could not be read"), "{ended:?}");
        assert_eq!(home.names(), [""; 0]);
    }
    std::fs::write(&tokens, "garbage").unwrap();
    sign_in(&server, &home);
    home.run(&["whoami"]).with(0);
}

#[test]
fn refresh_replaces_the_tokens_and_keeps_the_refresh_token_where_none_comes() {
    let server = Server::start();
    let home = signed_in(&server);
    let before = home.read("tokens.json");
    home.run(&["refresh"]).with(0).without(&server.secrets());
    let rotated = home.read("tokens.json");
    assert_ne!(rotated["access_token"], before["access_token"]);
    assert_ne!(rotated["refresh_token"], before["refresh_token"]);

    server.stop_rotating();
    home.run(&["refresh"]).with(0);
    let kept = home.read("tokens.json");
    assert_ne!(kept["access_token"], rotated["access_token"]);
    assert_eq!(kept["refresh_token"], rotated["refresh_token"]);
    assert_eq!(kept["identity"], before["identity"]);
}

#[test]
fn a_refused_refresh_token_asks_for_a_new_login() {
    let server = Server::start();
    let home = signed_in(&server);
    server.forget_refresh_tokens();
    let ended = home.run(&["refresh"]).with(7);
    assert!(
        ended.err.contains("run `example-cli login --issuer "),
        "{ended:?}"
    );
    assert_eq!(server.requests("/token"), 2);
    // The refused token is not sent again.
    home.run(&["refresh"]).with(7);
    assert_eq!(server.requests("/token"), 2);
    home.run(&["whoami"]).with(0);
}

#[test]
fn renewed_tokens_are_kept_where_the_keys_cannot_be_had() {
    let status = Arc::new(AtomicU16::new(200));
    let seen = Arc::clone(&status);
    let server = Server::with_trouble(move |asked, stream| {
        let status = seen.load(Ordering::SeqCst);
        let mine = asked.path == "/jwks" && status != 200;
        if mine {
            respond(stream, status, "", "");
        }
        mine
    });
    let home = signed_in(&server);
    let mut before = home.read("tokens.json");
    for away in [408, 429, 500, 503] {
        status.store(away, Ordering::SeqCst);
        home.run(&["refresh"]).with(0).without(&server.secrets());
        let renewed = home.read("tokens.json");
        assert_ne!(renewed["refresh_token"], before["refresh_token"]);
        assert_eq!(
            renewed["identity"], before["identity"],
            "who signed in is known"
        );
        before = renewed;
    }
    assert_eq!(server.revoked(), [""; 0]);
    // With a 404, the keys are not just away for a while, so the tokens are not kept.
    status.store(404, Ordering::SeqCst);
    home.run(&["refresh"]).with(9);
    assert_eq!(server.revoked().len(), 2);
}

/// Returns a server, and a flag. Once the flag is set, the metadata name only these endpoints.
fn with_only(endpoints: &'static [&str]) -> (Server, Arc<AtomicBool>) {
    let withdrawn = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&withdrawn);
    let server = Server::with_trouble(move |asked, stream| {
        let mine = asked.path.starts_with("/.well-known/") && seen.load(Ordering::SeqCst);
        if mine {
            let issuer = format!("http://{}", stream.local_addr().unwrap());
            let mut metadata = json!({ "issuer": issuer });
            for name in endpoints {
                let (path, _) = name.split_once('_').unwrap();
                metadata[*name] =
                    json!(format!("{issuer}/{}", path.replace("revocation", "revoke")));
            }
            respond(stream, 200, "", &metadata.to_string());
        }
        mine
    });
    (server, withdrawn)
}

#[test]
fn a_server_that_withdrew_login_with_a_code_still_renews_and_revokes() {
    let (server, withdrawn) = with_only(&["token_endpoint", "revocation_endpoint", "jwks_uri"]);
    let home = signed_in(&server);
    withdrawn.store(true, Ordering::SeqCst);
    home.run(&["refresh"]).with(0);
    home.run(&["logout"]).with(0);
    assert_eq!(server.revoked().len(), 2);
    let ended = home.run(&["login"]).with(5);
    assert!(
        ended.err.contains("does not support login with a code"),
        "{ended:?}"
    );
}

#[test]
fn a_server_without_a_token_endpoint_is_not_asked_to_renew() {
    let (server, withdrawn) = with_only(&["revocation_endpoint"]);
    let home = signed_in(&server);
    withdrawn.store(true, Ordering::SeqCst);
    let ended = home.run(&["refresh"]).with(5);
    assert!(ended.err.contains("does not renew tokens"), "{ended:?}");
    home.run(&["logout"]).with(0);
    assert_eq!(server.revoked().len(), 2);
}

#[test]
fn tokens_of_another_user_are_refused() {
    let server = Server::start();
    let home = signed_in(&server);
    let before = home.read("tokens.json");
    server.claim(json!({ "sub": "user_eve" }));
    home.run(&["refresh"]).with(9).without(&server.secrets());
    assert_eq!(home.read("tokens.json"), before);
    assert_eq!(server.revoked().len(), 2);
}

#[test]
#[cfg(target_os = "linux")] // the kernel tells who waits for a lock
fn of_two_refreshes_at_once_one_asks_the_server() {
    let released = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&released);
    let server = Server::with_trouble(move |asked, _| {
        if asked.body.contains("grant_type=refresh_token") {
            wait_for("the other", || seen.load(Ordering::SeqCst).then_some(()));
        }
        false
    });
    let home = signed_in(&server);
    let before = server.requests("/token");
    let first = home.start(&["refresh"]);
    wait_for("the first", || {
        (server.requests("/token") > before).then_some(())
    });
    let second = home.start(&["refresh"]);
    second.waits_for_a_lock();
    released.store(true, Ordering::SeqCst);
    first.end().with(0);
    second.end().with(0);
    assert_eq!(server.requests("/token"), before + 1);
}

#[test]
fn token_prints_the_access_token_renewed_where_it_has_expired() {
    let server = Server::start();
    let home = signed_in(&server);
    let tokens = home.read("tokens.json");
    let ended = home.run(&["token"]).with(0);
    assert_eq!(ended.out.trim_end(), tokens["access_token"]);

    let mut expired = tokens.clone();
    expired["expires_at"] = json!(1_700_000_000);
    home.write("tokens.json", &expired);
    let ended = home.run(&["whoami"]).with(0);
    assert!(ended.out.contains("has expired"), "{ended:?}");
    let ended = home.run(&["token", "--json"]).with(0);
    let renewed = home.read("tokens.json");
    assert_ne!(renewed["access_token"], tokens["access_token"]);
    assert_eq!(ended.events()[0]["access_token"], renewed["access_token"]);
}

#[test]
fn logout_revokes_the_tokens_and_forgets_them() {
    let server = Server::start();
    let home = signed_in(&server);
    let tokens = home.read("tokens.json");
    let ended = home
        .run(&["logout", "--json"])
        .with(0)
        .without(&server.secrets());
    assert_eq!(
        ended.events(),
        [json!({ "event": "signed_out", "revoked": true, "expires_at": null })]
    );
    assert_eq!(home.names(), [""; 0]);
    assert_eq!(
        json!(server.revoked()),
        json!([tokens["refresh_token"], tokens["access_token"]])
    );
    home.run(&["whoami"]).with(7);
}

#[test]
fn logout_says_what_the_server_does_not_take_back() {
    let server = Server::with_trouble(|asked, stream| {
        let is_of_access_token = asked.parameter("token_type_hint") == Some("access_token");
        if is_of_access_token {
            respond(stream, 400, "", r#"{"error":"unsupported_token_type"}"#);
        }
        is_of_access_token
    });
    let home = signed_in(&server);
    let tokens = home.read("tokens.json");
    let ended = home.run(&["logout", "--json"]).with(0);
    let expires_at = &tokens["expires_at"];
    assert_eq!(
        ended.events(),
        [json!({ "event": "signed_out", "revoked": true, "expires_at": expires_at })]
    );
    assert_eq!(json!(server.revoked()), json!([tokens["refresh_token"]]));

    let home = signed_in(&server);
    let ended = home.run(&["logout"]).with(0);
    assert!(ended.out.contains("stays good for 4:"), "{ended:?}");
}

#[test]
fn logout_forgets_the_tokens_even_where_the_server_does_not_revoke_them() {
    let server = Server::with_trouble(|asked, stream| {
        let is_revocation = asked.path == "/revoke";
        if is_revocation {
            respond(stream, 503, "", "");
        }
        is_revocation
    });
    let home = signed_in(&server);
    let ended = home.run(&["logout"]).with(0);
    assert!(
        ended.out.contains("did not confirm that they are revoked"),
        "{ended:?}"
    );
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn logout_forgets_a_login_that_was_killed() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start(&["login"]);
    login.user_code();
    login.signal("KILL");
    login.end();
    home.file("login.json");
    home.run(&["logout"]).with(7);
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn a_renewal_whose_answer_was_lost_is_sent_again() {
    let losses = Arc::new(AtomicU16::new(0));
    let seen = Arc::clone(&losses);
    let server = Server::with_trouble(move |asked, _| {
        let is_refresh = asked.body.contains("grant_type=refresh_token");
        // The server hangs up without an answer.
        is_refresh && seen.fetch_add(1, Ordering::SeqCst) == 0
    });
    let home = signed_in(&server);
    let before = home.read("tokens.json");
    let ended = home.run(&["refresh"]).with(0).without(&server.secrets());
    assert!(
        ended.err.contains("could not be renewed yet: trying again"),
        "{ended:?}"
    );
    assert_ne!(
        home.read("tokens.json")["access_token"],
        before["access_token"]
    );
    assert_eq!(losses.load(Ordering::SeqCst), 2);
}
