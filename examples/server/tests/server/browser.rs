//! The verification page in a real browser, by tests/browser/pages.test.mjs: Debian's Chromium, playwright-core, axe-core.
//!
//! `SCREENSHOTS=1 cargo test -p example-server --test server browser` takes the pictures in `examples/server/screenshots` anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::server::{Running, config};
use crate::support::{missing, node};
use example_server::config::Quota;

/// Where Debian and similar systems have the browser.
const CHROMIUM: [&str; 2] = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];

/// Returns the folder of the scenarios, if all that they need is installed.
fn scenarios() -> Option<PathBuf> {
    if !CHROMIUM.iter().any(|path| Path::new(path).exists()) {
        return missing("Chromium is missing: apt-get install chromium");
    }
    node()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    if !folder.join("node_modules/axe-core").exists() {
        return missing(
            "playwright-core and axe-core are missing: npm ci --prefix examples/server/tests/browser",
        );
    }
    Some(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_use_the_page_in_a_browser() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(folder) = scenarios() else {
        return;
    };
    // Every scenario signs in, asks for codes and enters them from one address, as one user.
    let mut config = config();
    let often = Quota {
        burst: 200,
        period: 60,
    };
    config.quotas.codes = often;
    config.quotas.guesses = often;
    config.quotas.sign_ins = often;
    config.quotas.sign_ins_by_source = often;
    config.policy.expected_sessions = 100;
    config.policy.interval = 1;
    config.policy.verification_uri_complete = true;
    config.limits.password_checks = 4;
    let mut hasty = config.clone();
    hasty.policy.lifetime = 2;
    hasty.policy.verification_uri_complete = false;
    let (server, hasty) = (Running::with(config).await, Running::with(hasty).await);
    let chromium = CHROMIUM
        .iter()
        .find(|path| Path::new(path).exists())
        .unwrap();
    let mut node = Command::new("node");
    node.arg("--test")
        .arg("pages.test.mjs")
        .current_dir(&folder);
    node.env("SERVER", &server.url)
        .env("HASTY", &hasty.url)
        .env("CHROMIUM", chromium);
    match std::env::var_os("SCREENSHOTS") {
        Some(_) => node.env("SCREENSHOTS", package.join("screenshots")),
        None => node.env_remove("SCREENSHOTS"),
    };
    let output = tokio::task::spawn_blocking(move || node.output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
