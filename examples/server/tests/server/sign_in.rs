//! Signing in to the page and out of it over loopback: the cookie, the code that it keeps, and the limits.

use crate::support::server::*;
use reqwest::StatusCode;

#[tokio::test]
async fn signing_in_to_somebody_elses_account_by_a_forged_form_fails() {
    let server = Running::new().await;
    let form = [
        ("step", "sign_in"),
        ("email", EMAIL),
        ("password", PASSWORD),
        ("csrf", "x"),
    ];
    let response = client().post(format!("{}/device", server.url)).form(&form);
    assert_eq!(response.send().await.unwrap().status(), 403);
    // A token from before the sign-in is worth nothing after it.
    let mut browser = server.browser().await;
    let before = browser.csrf.clone();
    browser.sign_in(EMAIL, PASSWORD).await;
    browser.show("").await;
    assert_ne!(browser.csrf, before);
    browser.csrf = before;
    assert_eq!(browser.enter("BCDFGHJK").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_cookie_is_for_this_server_and_no_script() {
    let cookie = async |issuer: Option<&str>| {
        let mut config = config();
        config.issuer = issuer.map(str::to_owned);
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        // These are without the client and the users whose secrets everybody can read.
        config
            .clients
            .retain(|client| client.secret_sha256.is_empty());
        config.users.clear();
        let server = Running::with(config).await;
        let response = server.get("/device").send().await.unwrap();
        let is_strict = response.headers().contains_key("strict-transport-security");
        assert_eq!(is_strict, issuer.is_some());
        response.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let plain = cookie(None).await;
    assert!(plain.starts_with("device-login="));
    for flag in ["; HttpOnly", "; SameSite=Lax", "; Path=/"] {
        assert!(plain.contains(flag), "{plain}");
    }
    assert!(!plain.contains("Secure") && !plain.contains("Domain"));
    let secure = cookie(Some("https://login.example.com")).await;
    assert!(secure.starts_with("__Host-device-login="));
    for flag in ["; HttpOnly", "; SameSite=Lax", "; Path=/", "; Secure"] {
        assert!(secure.contains(flag), "{secure}");
    }
}

#[tokio::test]
async fn a_cookie_that_was_changed_is_nobodys() {
    let server = Running::new().await;
    let response = server.get("/device").send().await.unwrap();
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let (pair, _) = cookie.split_once(';').unwrap();
    let request = client().get(format!("{}/device", server.url));
    let changed = format!("{pair}x");
    let html = request
        .header("cookie", changed)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(html.contains("<h1>Sign in</h1>"));
    assert_ne!(
        field(&html, "csrf"),
        field(&response.text().await.unwrap(), "csrf")
    );
}

#[tokio::test]
async fn u12_signing_out_gives_the_request_back() {
    let mut config = config();
    let mut bob = config.users[0].clone();
    bob.sub = "user_bob".to_owned();
    bob.email = "bob@example.com".to_owned();
    config.users.push(bob);
    let server = Running::with(config).await;
    let codes = server.codes("openid").await;
    let mut browser = server.signed_in().await;
    let session = browser.review(&codes).await;
    let (status, _) = browser.decide("sign_out", &session).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    let html = browser.show("").await;
    assert!(html.contains("<h1>Sign in</h1>"));
    // The same person has another account.
    browser.sign_in("bob@example.com", PASSWORD).await;
    browser.show("").await;
    browser.approve(&codes).await;
    let (_, tokens) = server.poll(&codes).await;
    assert!(tokens["access_token"].is_string());
}

#[tokio::test]
async fn a_wrong_password_an_unknown_and_a_locked_account_are_one_sentence() {
    let mut config = config();
    let mut locked = config.users[0].clone();
    locked.sub = "user_locked".to_owned();
    locked.email = "locked@example.com".to_owned();
    locked.locked = true;
    config.users.push(locked);
    let server = Running::with(config).await;
    let browser = server.browser().await;
    let mut pages = Vec::new();
    let long = "x".repeat(2000);
    for (email, password) in [
        (EMAIL, "wrong"),
        (EMAIL, long.as_str()),
        ("nobody@example.com", PASSWORD),
        ("locked@example.com", PASSWORD),
    ] {
        let (status, html) = browser.sign_in(email, password).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(html.contains("The e-mail address or the password is wrong."));
        assert!(!html.contains(PASSWORD));
        pages.push(html.replace(email, ""));
    }
    assert!(pages.iter().all(|page| *page == pages[0]));
    // Capital letters in an address do not matter.
    let (status, _) = browser.sign_in(" Alice@Example.COM ", PASSWORD).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn attempts_to_sign_in_are_counted_by_account_and_source() {
    let mut config = config();
    config.quotas.sign_ins = quota(3);
    let server = Running::with(config).await;
    let browser = server.browser().await;
    for _ in 0..3 {
        assert_eq!(
            browser.sign_in(EMAIL, "wrong").await.0,
            StatusCode::FORBIDDEN
        );
    }
    let (status, html) = browser.sign_in(EMAIL, PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(html.contains("Too many attempts. Try again in"));
    let (status, _) = browser.sign_in("ALICE@example.com", PASSWORD).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "the same account");
    let (status, _) = browser.sign_in("bob@example.com", PASSWORD).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "another account");
}

#[tokio::test]
async fn a_code_in_the_url_is_ignored_where_the_policy_gives_no_such_links_out() {
    let server = Running::new().await;
    let codes = server.codes("openid").await;
    let user_code = text(&codes, "user_code");
    let link = format!("?user_code={user_code}");
    let mut browser = server.browser().await;
    let html = browser.show(&link).await;
    assert!(!html.contains(user_code), "{html}");
    browser.sign_in(EMAIL, PASSWORD).await;
    for query in ["", &link] {
        let html = browser.show(query).await;
        assert_eq!(field(&html, "user_code").as_deref(), Some(""), "{query}");
    }
}

#[tokio::test]
async fn a_linked_code_survives_the_sign_in_in_the_cookie_and_not_in_a_url() {
    let mut config = config();
    config.policy.verification_uri_complete = true;
    let server = Running::with(config).await;
    let mut browser = server.browser().await;
    let html = browser.show("?user_code=BCDF-GHJK").await;
    assert!(!html.contains("BCDF-GHJK"), "{html}");
    // A text that is too long for a code is not kept.
    let long = format!("?user_code={}", "x".repeat(65));
    browser.show(&long).await;
    assert_eq!(signed_in_again(&mut browser).await, "BCDF-GHJK");
    // Once another code was entered, the linked one is forgotten.
    let codes = server.codes("openid").await;
    browser.review(&codes).await;
    let html = browser.show("").await;
    assert_eq!(field(&html, "user_code").as_deref(), Some(""));
}

/// Signs in, and returns the code that is then in the form.
async fn signed_in_again(browser: &mut Browser) -> String {
    let form = [
        ("step", "sign_in"),
        ("email", EMAIL),
        ("password", PASSWORD),
        ("csrf", browser.csrf.as_str()),
    ];
    let response = browser.post(&form).send().await.unwrap();
    assert_eq!(response.headers()["location"], "/device");
    field(&browser.show("").await, "user_code").unwrap()
}

/// Waits until the sign-in has lapsed, and returns whether it has.
async fn lapses(browser: &mut Browser) -> bool {
    eventually(async || {
        let html = browser.show("").await;
        html.contains("<h1>Sign in</h1>")
    })
    .await
}

#[tokio::test]
async fn a_sign_in_lapses_and_the_typed_code_survives_in_the_cookie() {
    let mut config = config();
    config.page.session_lifetime = 1;
    let server = Running::with(config).await;
    let mut browser = server.signed_in().await;
    assert!(lapses(&mut browser).await);
    let (status, html) = browser.enter("BCDF-GHJK").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(html.contains("You were signed out after a while."));
    assert!(!html.contains("BCDF-GHJK"), "it is in the cookie");
    assert_eq!(signed_in_again(&mut browser).await, "BCDF-GHJK");
    // A code also survives if the sign-in lapses at the review.
    for step in ["approve", "deny"] {
        let codes = server.codes("openid").await;
        let session = browser.review(&codes).await;
        assert!(lapses(&mut browser).await);
        let (status, _) = browser.decide(step, &session).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        let code = signed_in_again(&mut browser).await;
        assert_eq!(code, text(&codes, "user_code"));
    }
}

#[tokio::test]
async fn a_cookie_that_was_signed_out_is_worth_nothing() {
    let server = Running::new().await;
    let mut browser = server.browser().await;
    let form = [
        ("step", "sign_in"),
        ("email", EMAIL),
        ("password", PASSWORD),
        ("csrf", browser.csrf.as_str()),
    ];
    let response = browser.post(&form).send().await.unwrap();
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let (copy, _) = cookie.split_once(';').unwrap();
    let page_of_copy = async || {
        let page = client().get(format!("{}/device", server.url));
        let response = page.header("cookie", copy).send().await.unwrap();
        response.text().await.unwrap()
    };
    let html = page_of_copy().await;
    assert!(html.contains("<h1>Connect a device</h1>"));
    browser.show("").await;
    let (status, _) = browser.submit(&[("step", "sign_out")]).await;
    assert_eq!(status, StatusCode::SEE_OTHER);
    assert!(page_of_copy().await.contains("<h1>Sign in</h1>"));
    // The forms of that cookie do nothing either.
    let csrf = field(&html, "csrf").unwrap();
    let form = [
        ("csrf", csrf.as_str()),
        ("step", "enter"),
        ("user_code", "BCDF-GHJK"),
    ];
    let enter = client().post(format!("{}/device", server.url)).form(&form);
    let response = enter.header("cookie", copy).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    // Others stay signed in.
    let mut other = server.signed_in().await;
    assert!(other.show("").await.contains("<h1>Connect a device</h1>"));
}

#[tokio::test]
async fn a_link_with_the_code_is_given_where_it_is_configured() {
    let mut config = config();
    config.policy.verification_uri_complete = true;
    let server = Running::with(config).await;
    let codes = server.codes("openid").await;
    let link = format!(
        "{}/device?user_code={}",
        server.url,
        text(&codes, "user_code")
    );
    assert_eq!(codes["verification_uri_complete"], link);
}
