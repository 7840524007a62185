//! Consent over loopback: what a user unticks on the review, the device does not get.

use crate::support::server::*;
use reqwest::StatusCode;
use serde_json::Value;

/// Approves with these boxes ticked. Returns the status and the page, and the status and the body that the device gets.
async fn approve(
    server: &Running,
    scope: &str,
    ticked: &[&str],
) -> (StatusCode, String, StatusCode, Value) {
    let codes = server.codes(scope).await;
    let browser = server.signed_in().await;
    let session = browser.review(&codes).await;
    let mut form = vec![("step", "approve"), ("session", &session)];
    form.extend(ticked.iter().map(|&name| (name, "on")));
    let (status, html) = browser.submit(&form).await;
    let (polled, body) = server.poll(&codes).await;
    (status, html, polled, body)
}

#[tokio::test]
async fn what_is_unticked_is_not_granted() {
    let server = Running::new().await;
    let asked = "openid profile offline_access reports:read";
    let ticked = ["scope:profile", "scope:reports:read"];
    let (status, html, polled, tokens) = approve(&server, asked, &ticked).await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("Access allowed"));
    assert_eq!(polled, StatusCode::OK);
    // The client does not work without openid.
    assert_eq!(tokens["scope"], "openid profile reports:read");
    assert!(tokens.get("refresh_token").is_none());
}

#[tokio::test]
async fn what_was_not_asked_for_cannot_be_ticked() {
    let server = Running::new().await;
    let ticked = [
        "scope:reports:read",
        "scope:reports:write",
        "scope:admin",
        "x",
    ];
    let (_, _, _, tokens) = approve(&server, "openid reports:read", &ticked).await;
    assert_eq!(tokens["scope"], "openid reports:read");
}

#[tokio::test]
async fn nothing_is_no_answer() {
    let server = Running::new().await;
    let (status, html, polled, body) = approve(&server, "profile email", &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(html.contains("Leave something ticked, or choose Deny."));
    assert!(html.contains("scope:email"), "it can be answered at once");
    assert_eq!(polled, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"], "authorization_pending");
    assert_eq!(server.count("page", "nothing_ticked").await, 1);
}

#[tokio::test]
async fn what_the_client_needs_is_said_and_cannot_be_unticked() {
    let server = Running::new().await;
    let codes = server.codes("openid email").await;
    let browser = server.signed_in().await;
    let session = browser.review(&codes).await;
    assert_eq!(browser.boxes(&session).await, ["scope:email"]);
    let (_, html) = browser.enter(text(&codes, "user_code")).await;
    assert_eq!(html.matches("It does not work without this.").count(), 1);
}
