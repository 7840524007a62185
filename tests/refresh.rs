//! Table R of the server half: the refresh and the revocation of a login.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use core::time::Duration;

use device_flow::server::{Cause, Status};
use support::{Host, NOW, alice, cli, refresh_token, scope, server};

#[test]
fn r10_the_token_in_force_is_rotated() {
    let server = server();
    let client = cli().allow_scope(scope("openid profile email offline_access"));
    let mut host = Host::new([client.clone()]);
    let codes = host.issue_for(&server, &client, 1, "openid+offline_access", NOW);
    assert_eq!(
        host.poll(&server, &client, &codes.device_code, NOW).cause(),
        Cause::Pending
    );
    host.approve(&server, &alice(), &codes, NOW);
    let granted = host.poll(&server, &client, &codes.device_code, NOW);
    assert_eq!(granted.cause(), Cause::Granted);
    let first = refresh_token(&granted);
    let refreshed = host.refresh(&server, &client, &first, NOW);
    assert_eq!(refreshed.cause(), Cause::Refreshed);
    let second = refresh_token(&refreshed);
    // R7
    let again = host.refresh(&server, &client, &first, NOW + Duration::from_secs(29));
    assert_eq!(again.cause(), Cause::Refreshed);
    let third = refresh_token(&again);
    assert_eq!(
        host.refresh(&server, &client, &third, NOW).cause(),
        Cause::Refreshed
    );
    let reuse = host.refresh(&server, &client, &second, NOW);
    assert_eq!(reuse.cause(), Cause::Reuse);
    assert_eq!(host.session(&codes.key).unwrap().status(), Status::Ended);
    let form = serde_json::to_string(host.session(&codes.key).unwrap()).unwrap();
    assert!(serde_json::from_str::<device_flow::server::Session>(&form).is_ok());
}
