//! The page with the devices that are signed in. Only their user sees them and can end them.

use crate::support::server::*;
use reqwest::StatusCode;

const LIST: &str = "/device/logins";

/// Returns the page.
async fn list(browser: &Browser) -> String {
    let response = browser.open(LIST).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.text().await.unwrap()
}

/// Ends a login, and returns where the response leads.
async fn end(browser: &Browser, session: &str) -> String {
    let csrf = browser.csrf.as_str();
    let form = [("csrf", csrf), ("step", "end"), ("session", session)];
    let response = browser.post(&form).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    location(&response).unwrap()
}

#[tokio::test]
async fn a_user_sees_the_logins_of_their_devices_and_ends_one() {
    let server = Running::new().await;
    let mut browser = server.signed_in().await;
    assert!(list(&browser).await.contains("No device is signed in"));
    let codes = server.codes(SCOPE).await;
    let session = browser.approve(&codes).await;
    // An approval can also be taken back before the device fetches its tokens.
    assert!(list(&browser).await.contains("has not fetched its access"));
    let (_, tokens) = server.poll(&codes).await;
    let another = server.codes(SCOPE).await;
    browser.approve(&another).await;
    let (_, others) = server.poll(&another).await;
    let (_, others) = server
        .refresh(&[("refresh_token", text(&others, "refresh_token"))])
        .await;

    let html = list(&browser).await;
    assert_eq!(html.matches("Example CLI").count(), 2);
    assert_eq!(html.matches("Sign this device").count(), 2);
    for shown in ["127.0.0.1", "Just now", "Not yet"] {
        assert!(html.contains(shown), "{shown}: {html}");
    }
    assert!(!html.contains("has not fetched its access"));

    let ended = end(&browser, &session).await;
    assert_eq!(ended, format!("{LIST}?ended={session}"));
    let response = browser.open(&ended).await;
    let html = response.text().await.unwrap();
    assert!(html.contains("Example CLI was signed out."), "{html}");
    assert!(html.contains("within 5 minutes"), "as long as a token");
    assert_eq!(html.matches("Sign this device").count(), 1);
    let (_, body) = server
        .refresh(&[("refresh_token", text(&tokens, "refresh_token"))])
        .await;
    assert_eq!(body["error"], "invalid_grant");
    // The other one stays signed in.
    let (status, _) = server
        .refresh(&[("refresh_token", text(&others, "refresh_token"))])
        .await;
    assert_eq!(status, StatusCode::OK);
    // To end it again is no mistake.
    assert_eq!(end(&browser, &session).await, ended);
    assert_eq!(server.count("page", "withdrawn").await, 2);
}

#[tokio::test]
async fn nobody_sees_or_ends_the_logins_of_another() {
    let mut config = config();
    let mut bob = config.users[0].clone();
    bob.sub = "user_bob".to_owned();
    bob.email = "bob@example.com".to_owned();
    config.users.push(bob);
    let server = Running::with(config).await;
    let codes = server.codes(SCOPE).await;
    let session = server.signed_in().await.approve(&codes).await;
    let (_, tokens) = server.poll(&codes).await;

    let mut bob = server.browser().await;
    assert_eq!(location(&bob.open(LIST).await).unwrap(), "/device");
    bob.sign_in("bob@example.com", PASSWORD).await;
    bob.show("").await;
    assert!(list(&bob).await.contains("No device is signed in"));
    assert_eq!(end(&bob, &session).await, LIST);
    let unknown = "A".repeat(43);
    assert_eq!(end(&bob, &unknown).await, LIST);
    let (status, _) = server
        .refresh(&[("refresh_token", text(&tokens, "refresh_token"))])
        .await;
    assert_eq!(status, StatusCode::OK);
    // A link that says that a login has ended does not end it, and does not make the page say so.
    for ended in [session.as_str(), &unknown, "x"] {
        let response = bob.open(&format!("{LIST}?ended={ended}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let html = response.text().await.unwrap();
        assert!(!html.contains("was signed out"));
    }
}
