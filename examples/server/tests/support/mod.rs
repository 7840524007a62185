//! What the tests share.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each test file uses a part"
)]

pub(crate) mod home;
pub(crate) mod processes;
pub(crate) mod program;
pub(crate) mod server;
pub(crate) mod services;
pub(crate) mod site;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;

/// Says once what is missing and how to get it, and returns `None`. It writes to stderr itself, because a test captures its output. Where
/// nothing may be missing (`REQUIRE_ALL`), it fails instead.
pub(crate) fn missing<T>(sentence: &'static str) -> Option<T> {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    assert!(std::env::var_os("REQUIRE_ALL").is_none(), "{sentence}");
    if SAID.lock().is_ok_and(|mut said| said.insert(sentence)) {
        let _ = writeln!(std::io::stderr(), "skipped, {sentence}");
    }
    None
}

/// Returns the program `node`, if it is installed.
pub(crate) fn node() -> Option<&'static str> {
    match Command::new("node").arg("--version").output() {
        Ok(_) => Some("node"),
        Err(_) => missing("Node is missing: apt-get install nodejs npm, version 20 or later"),
    }
}
