//! The client of the README logs in.

use core::cell::Cell;

// The file is included, so that `rustfmt` does not change its layout, which is the one of the README.
include!("readme/login.rs");

const EXAMPLE: &str = include_str!("readme/login.rs");

#[test]
fn the_readme_has_this_very_client_in_twenty_lines() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&format!("```rust\n{EXAMPLE}```")));
    assert!(EXAMPLE.lines().count() <= 20);
}

#[test]
fn the_client_of_the_readme_logs_in() {
    let mut script = [
        r#"{"device_code":"d","user_code":"WDJB-MJHT","verification_uri":"https://login.example.com/device","expires_in":300}"#,
        r#"{"error":"authorization_pending"}"#,
        r#"{"error":"slow_down"}"#,
        r#"{"access_token":"a","scope":"openid offline_access"}"#,
    ]
    .into_iter();
    let mut bodies = Vec::new();
    let send = |request: Request| {
        bodies.push(request.body().to_owned());
        Ok(Response::new(200, script.next().unwrap().into()))
    };
    let clock = Cell::new(Duration::ZERO);
    let sleep = |span| clock.set(clock.get() + span);
    let tokens = login(send, || clock.get(), sleep).unwrap();
    assert_eq!(tokens.bearer(), Some("a"));
    assert_eq!(clock.get(), Duration::from_secs(5 + 5 + 10));
    assert_eq!(
        bodies[0],
        "client_id=client_cli&scope=openid+offline_access"
    );
    assert_eq!(bodies.len(), 4);
}
