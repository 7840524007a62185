//! Ctrl-C, at every stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::server::{Asked, Server};
use crate::session::signed_in;
use crate::tool::{Home, Tool, wait_for};

/// A server that holds some answers back.
struct Holding {
    server: Server,
    path: &'static str,
    holds: Arc<AtomicBool>,
}

impl Holding {
    /// Starts a server that holds back the answers to requests for `path`, once [`hold`](Self::hold) was called.
    fn at(path: &'static str) -> Self {
        let holds = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&holds);
        let server = Server::with_trouble(move |asked: &Asked, _| {
            if asked.path == path {
                wait_for("the release", || {
                    (!seen.load(Ordering::SeqCst)).then_some(())
                });
            }
            false
        });
        Self {
            server,
            path,
            holds,
        }
    }

    fn hold(&self) {
        self.holds.store(true, Ordering::SeqCst);
    }

    fn release(&self) {
        self.holds.store(false, Ordering::SeqCst);
    }

    /// Starts the tool, and interrupts it while the answer is held back.
    fn interrupt(&self, home: &Home, arguments: &[&str]) -> Tool {
        let before = self.server.requests(self.path);
        self.hold();
        let tool = home.start(arguments);
        if arguments.contains(&"login") && self.path != METADATA {
            self.server.approve(&tool.user_code());
        }
        wait_for("the request", || {
            (self.server.requests(self.path) > before).then_some(())
        });
        tool.signal("INT");
        tool
    }
}

const METADATA: &str = "/.well-known/oauth-authorization-server";

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let server = Server::start();
    let home = Home::new(&server.issuer);
    let login = home.start(&["login", "--json"]);
    login.user_code();
    login.signal("INT");
    let ended = login.end().with(130).without(&server.secrets());
    assert_eq!(ended.events().last().unwrap()["outcome"], "cancelled");
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn while_nothing_is_at_stake_ctrl_c_ends_the_command_at_once() {
    let holding = Holding::at(METADATA);
    let home = signed_in(&holding.server);
    let before = home.read("tokens.json");
    for command in ["login", "refresh", "logout"] {
        let ended = holding
            .interrupt(&home, &[command, "--json"])
            .end()
            .with(130);
        let events = ended.events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0]["outcome"], "cancelled");
        assert_eq!(events[0]["exit_code"], 130);
    }
    assert_eq!(home.read("tokens.json"), before);
    holding.release();
}

#[test]
fn tokens_that_arrive_after_ctrl_c_are_revoked() {
    let holding = Holding::at("/token");
    let server = &holding.server;
    let home = Home::new(&server.issuer);
    let login = holding.interrupt(&home, &["login"]);
    login.says("Cancelling.");
    holding.release();
    login.end().with(130).without(&server.secrets());
    let revoked = server.revoked();
    assert_eq!(revoked.len(), 2, "the refresh token and the access token");
    assert!(revoked.iter().all(|token| server.secrets().contains(token)));
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn tokens_that_are_not_verified_yet_are_revoked_at_ctrl_c() {
    let holding = Holding::at("/jwks");
    let server = &holding.server;
    let home = Home::new(&server.issuer);
    let login = holding.interrupt(&home, &["login"]);
    login.says("Press Ctrl-C again to stop at once");
    holding.release();
    let ended = login.end().with(130).without(&server.secrets());
    assert!(ended.err.ends_with("\nCancelled.\n"), "{ended:?}");
    assert_eq!(server.revoked().len(), 2);
    assert_eq!(home.names(), [""; 0]);
}

#[test]
fn ctrl_c_again_does_not_wait_and_leaves_nothing_to_go_on_with() {
    for (path, said) in [
        ("/token", "Cancelling."),
        ("/jwks", "Press Ctrl-C again to stop at once"),
    ] {
        let holding = Holding::at(path);
        let home = Home::new(&holding.server.issuer);
        let login = holding.interrupt(&home, &["login"]);
        login.says(said);
        login.signal("INT");
        login.end().with(130).without(&holding.server.secrets());
        assert_eq!(home.names(), [""; 0], "{path}");
        holding.release();
    }
}

#[test]
fn renewed_tokens_are_kept_before_ctrl_c_ends_the_command() {
    for (path, command) in [
        ("/token", "refresh"),
        ("/jwks", "refresh"),
        ("/token", "token"),
    ] {
        let holding = Holding::at(path);
        let home = signed_in(&holding.server);
        let mut before = home.read("tokens.json");
        before["expires_at"] = 1_700_000_000.into();
        home.write("tokens.json", &before);
        let tool = holding.interrupt(&home, &[command, "--json"]);
        tool.says("Press Ctrl-C again to stop at once");
        holding.release();
        let ended = tool.end().with(130).without(&holding.server.secrets());
        assert_eq!(ended.events().last().unwrap()["outcome"], "cancelled");
        let renewed = home.read("tokens.json");
        assert_ne!(renewed["refresh_token"], before["refresh_token"]);
        assert_eq!(holding.server.revoked(), [""; 0]);
        home.run(&["refresh"]).with(0);
    }
}

#[test]
fn a_logout_that_has_begun_is_brought_to_its_end() {
    let holding = Holding::at("/revoke");
    let home = signed_in(&holding.server);
    let logout = holding.interrupt(&home, &["logout"]);
    logout.says("Press Ctrl-C again to stop at once");
    holding.release();
    logout.end().with(0);
    assert_eq!(holding.server.revoked().len(), 2);
    assert_eq!(home.names(), [""; 0]);
}
