//! The tool signs in through a server that nobody of this project wrote: node-oidc-provider, over loopback.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

#[allow(dead_code, reason = "each test uses some of it")]
#[path = "cli/tool.rs"]
mod tool;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tool::Home;

/// The server, and its user, who does what the test writes to the input of the server.
struct Foreign {
    child: Child,
    lines: BufReader<ChildStdout>,
    issuer: String,
}

impl Foreign {
    /// Starts the server. If something is missing, says so and returns `None`.
    fn start() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_server");
        let node = Command::new("node").arg("--version").output();
        if node.is_err() {
            return missing("Node.js is missing: install version 20 or later");
        }
        if !folder.join("node_modules/oidc-provider").exists() {
            return missing(
                "oidc-provider is missing: npm ci --prefix examples/cli/tests/foreign_server",
            );
        }
        let mut child = Command::new("node")
            .arg(folder.join("server.js"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut foreign = Self {
            child,
            lines,
            issuer: String::new(),
        };
        foreign.issuer = foreign.line("http://");
        Some(foreign)
    }

    /// Returns the next line that begins like this. Panics if the server ends before that.
    fn line(&mut self, beginning: &str) -> String {
        for line in self.lines.by_ref().lines() {
            let line = line.unwrap();
            assert!(!line.starts_with("failed"), "{line}");
            if line.starts_with(beginning) {
                return line;
            }
        }
        panic!("the server has ended");
    }

    /// Lets the user decide, in a program that acts as a browser.
    fn decide(&mut self, decision: &str, user_code: &str) -> String {
        let mut input = self.child.stdin.as_ref().unwrap();
        writeln!(input, "{decision} {user_code}").unwrap();
        self.line(decision)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says what is missing, and returns `None`. It writes to stderr itself, because a test captures its output. With `REQUIRE_ALL` set, it
/// fails instead.
fn missing<T>(what: &str) -> Option<T> {
    assert!(std::env::var_os("REQUIRE_ALL").is_none(), "{what}");
    let _ = writeln!(std::io::stderr(), "skipped, {what}");
    None
}

#[test]
fn a_login_through_a_foreign_server_is_approved() {
    let Some(mut foreign) = Foreign::start() else {
        return;
    };
    let home = Home::new(&foreign.issuer);
    let login = home.start(&["login"]);
    let said = foreign.decide("approve", &login.user_code());
    assert_eq!(said, "approve: Sign-in Success");
    let ended = login.end().with(0);
    let tokens = home.read("tokens.json");
    let secrets = ["access_token", "refresh_token"];
    let secrets = secrets.map(|name| tokens[name].as_str().unwrap().to_owned());
    let ended = ended.without(&secrets);
    assert!(
        ended.out.contains("as Ada Lovelace (ada@example.com)"),
        "{ended:?}"
    );

    home.run(&["refresh"]).with(0).without(&secrets);
    let renewed = home.read("tokens.json");
    assert_ne!(renewed["access_token"], tokens["access_token"]);
    let ended = home.run(&["logout", "--json"]).with(0);
    assert_eq!(ended.events()[0]["revoked"], true);
}

#[test]
fn a_login_through_a_foreign_server_is_denied() {
    let Some(mut foreign) = Foreign::start() else {
        return;
    };
    let home = Home::new(&foreign.issuer);
    let login = home.start(&["login"]);
    foreign.decide("deny", &login.user_code());
    let ended = login.end().with(3);
    assert!(
        ended
            .err
            .contains("\nThe sign-in was denied (access_denied: "),
        "{ended:?}"
    );
    assert_eq!(home.names(), [""; 0]);
}
