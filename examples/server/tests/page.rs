//! The verification page over loopback: who may decide, from where, and what is told to whom.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "in tests")]

mod support;

use device_flow::digest::SessionKey;
use reqwest::StatusCode;
use support::server::*;

/// What stands on the page for every code that does not lead on.
const WRONG_CODE: &str = "That code is wrong, has expired or was already used.";

#[tokio::test]
async fn only_a_post_decides() {
    let mut config = config();
    config.policy.verification_uri_complete = true;
    let server = Running::with(config).await;
    let codes = server.codes("openid").await;
    let user_code = text(&codes, "user_code");
    let mut browser = server.signed_in().await;

    // A link fills in the form and looks nothing up: no session of a review, no guess paid.
    let html = browser.show(&format!("?user_code={user_code}")).await;
    assert_eq!(field(&html, "user_code").as_deref(), Some(user_code));
    assert_eq!(field(&html, "session"), None);
    let html = browser.show("?user_code=%3Cscript%3E").await;
    assert!(
        html.contains("&#60;script&#62;"),
        "what a link says is text"
    );
    for query in ["?user_code=a&user_code=b", "?user_code=%ff", "?%%%"] {
        browser.show(query).await;
    }

    let session = browser.review(&codes).await;
    for step in ["approve", "deny"] {
        let query = format!("?csrf={}&step={step}&session={session}", browser.csrf);
        browser.show(&query).await;
    }
    let (_, body) = server.poll(&codes).await;
    assert_eq!(body["error"], "authorization_pending");
    let (status, _) = browser.decide("approve", &session).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = server.poll(&codes).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn a_form_counts_with_its_token_from_its_own_page_alone() {
    let server = Running::new().await;
    let codes = server.codes("openid").await;
    let browser = server.signed_in().await;
    let session = browser.review(&codes).await;
    let approve = [("step", "approve"), ("session", session.as_str())];
    let csrf = [("csrf", browser.csrf.as_str())];
    let all = [&approve[..], &csrf[..]].concat();

    let without = browser.post(&approve).send().await.unwrap();
    assert_eq!(without.status(), 422, "no token: the form cannot be read");
    let other = server.signed_in().await;
    let foreign = [&approve[..], &[("csrf", other.csrf.as_str())]].concat();
    assert_eq!(browser.post(&foreign).send().await.unwrap().status(), 403);
    let empty = [&approve[..], &[("csrf", "")]].concat();
    assert_eq!(browser.post(&empty).send().await.unwrap().status(), 403);
    for site in ["cross-site", "same-site"] {
        let request = browser.post(&all).header("sec-fetch-site", site);
        assert_eq!(request.send().await.unwrap().status(), 403, "{site}");
    }
    let elsewhere = client().post(&browser.url).form(&all).send().await.unwrap();
    assert_eq!(elsewhere.status(), 403, "no cookie");
    let twice = [&all[..], &[("step", "deny")]].concat();
    assert_eq!(browser.post(&twice).send().await.unwrap().status(), 422);
    let json = browser
        .http
        .post(&browser.url)
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(json.status(), 415);
    let large = format!(
        "csrf={}&step=enter&user_code={}",
        browser.csrf,
        "x".repeat(9000)
    );
    let large = browser.http.post(&browser.url).body(large);
    let large = large.header("content-type", "application/x-www-form-urlencoded");
    assert_eq!(large.send().await.unwrap().status(), 413);

    let (_, body) = server.poll(&codes).await;
    assert_eq!(body["error"], "authorization_pending");
    let request = browser.post(&all).header("sec-fetch-site", "same-origin");
    assert_eq!(request.send().await.unwrap().status(), 200);
}

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
    // The token of before the sign-in is worth nothing after it.
    let mut browser = server.browser().await;
    let before = browser.csrf.clone();
    browser.sign_in(EMAIL, PASSWORD).await;
    browser.show("").await;
    assert_ne!(browser.csrf, before);
    browser.csrf = before;
    assert_eq!(browser.enter("BCDFGHJK").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn no_other_page_can_use_this_one() {
    let server = Running::new().await;
    let codes = server.codes("openid").await;
    let browser = server.signed_in().await;
    let user_code = text(&codes, "user_code");
    let form = [
        ("csrf", browser.csrf.as_str()),
        ("step", "enter"),
        ("user_code", user_code),
    ];
    let review = browser.post(&form).send().await.unwrap();
    let first = server.get("/device").send().await.unwrap();
    let wrong = browser.post(&[("x", "")]).send().await.unwrap();
    let put = server
        .http
        .put(format!("{}/device", server.url))
        .send()
        .await
        .unwrap();
    for response in [review, first, wrong, put] {
        let headers = response.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "form-action 'self'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("script"), "scripts fall back to none");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn the_cookie_is_for_this_server_and_no_script() {
    let cookie = async |issuer: Option<&str>| {
        let mut config = config();
        config.issuer = issuer.map(str::to_owned);
        // Not the ones that everybody can read.
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
async fn u2_u3_wrong_expired_and_used_codes_are_one_sentence() {
    let mut config = config();
    let mut bob = config.users[0].clone();
    bob.sub = "user_bob".to_owned();
    bob.email = "bob@example.com".to_owned();
    config.users.push(bob);
    let (server, brief, _folder) = Running::beside_a_brief_one(config, 2).await;
    let (approved, denied, claimed, expired) = (
        server.codes("openid").await,
        server.codes("openid").await,
        server.codes("openid").await,
        brief.codes("openid").await,
    );
    let mut alice = server.signed_in().await;
    alice.approve(&approved).await;
    let session = alice.review(&denied).await;
    alice.decide("deny", &session).await;
    alice.review(&claimed).await;

    let mut bob = server.browser().await;
    bob.sign_in("bob@example.com", PASSWORD).await;
    bob.show("").await;
    let mut pages = Vec::new();
    for (cause, code) in [
        ("code_unknown", "ZZZZ-ZZZZ"),
        ("code_malformed", "no code at all"),
        ("code_decided", text(&approved, "user_code")),
        ("code_claimed_by_another", text(&claimed, "user_code")),
    ] {
        let (status, html) = bob.enter(code).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{cause}");
        pages.push(html.replace(code, ""));
        // The reason is for the metrics.
        assert_eq!(server.count("page", cause).await, 1, "{cause}");
    }
    let waiting = eventually(async || brief.poll(&expired).await.1["error"] == "expired_token");
    assert!(waiting.await);
    let code = text(&expired, "user_code");
    let (_, html) = alice.enter(code).await;
    assert_eq!(server.count("page", "code_expired").await, 1);
    let theirs = html.replace(code, "").replace(EMAIL, "bob@example.com");
    pages.push(theirs.replace(&alice.csrf, &bob.csrf));
    assert!(pages[0].contains(WRONG_CODE));
    assert!(pages.iter().all(|page| *page == pages[0]));
}

#[tokio::test]
async fn u1_guesses_are_counted_by_user_right_or_wrong() {
    let mut config = config();
    config.quotas.guesses = quota(5);
    let server = Running::with(config).await;
    let codes = server.codes("openid").await;
    let browser = server.signed_in().await;
    for _ in 0..5 {
        assert_eq!(browser.enter("BCDF-GHJK").await.0, StatusCode::BAD_REQUEST);
    }
    let (status, html) = browser.enter(text(&codes, "user_code")).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(html.contains("Too many codes were entered. Try again in"));
    // Another sign-in of the same user is the same user.
    let again = server.signed_in().await;
    assert_eq!(
        again.enter("BCDF-GHJK").await.0,
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[tokio::test]
async fn a_code_is_read_forgivingly() {
    let server = Running::new().await;
    let browser = server.signed_in().await;
    let codes = server.codes("openid").await;
    let code = text(&codes, "user_code");
    for typed in [
        code.to_lowercase(),
        code.replace('-', " "),
        format!(" {} ", code.replace('-', "")),
    ] {
        let (status, html) = browser.enter(&typed).await;
        assert_eq!(status, StatusCode::OK, "{typed}");
        assert!(html.contains(code), "the code to compare");
        assert_eq!(field(&html, "user_code").as_deref(), Some(code));
    }
}

#[tokio::test]
async fn the_review_shows_who_asks_for_what_from_where_and_since_when() {
    let server = Running::new().await;
    let codes = server.codes("openid offline_access reports:read").await;
    let browser = server.signed_in().await;
    let (_, html) = browser.enter(text(&codes, "user_code")).await;
    for shown in [
        "Example CLI",
        "It says so itself",
        "127.0.0.1",
        "The same network address as yours",
        "Just now",
        "Read your reports",
        "Stay signed in",
        text(&codes, "user_code"),
        "Did somebody send you here?",
    ] {
        assert!(html.contains(shown), "{shown}");
    }
    assert!(
        !html.contains("Create and change your reports"),
        "not asked for"
    );
    assert!(!html.contains("<script"));
}

#[tokio::test]
async fn what_a_scope_says_is_text() {
    let mut config = config();
    config.clients[0].scope = "<b>bold</b>&amp;".parse().unwrap();
    config.clients[0].default_scope = None;
    config.clients[0].name = "<i>CLI</i>".to_owned();
    let server = Running::with(config).await;
    let codes = server.codes("<b>bold</b>&amp;").await;
    let (_, html) = server
        .signed_in()
        .await
        .enter(text(&codes, "user_code"))
        .await;
    assert!(
        html.contains("&#60;b&#62;bold&#60;/b&#62;&#38;amp;"),
        "{html}"
    );
    assert!(!html.contains("<b>") && !html.contains("<i>"));
}

#[tokio::test]
async fn u5_to_u10_the_claimant_alone_decides_and_is_told_what_stands() {
    let mut config = config();
    let mut bob = config.users[0].clone();
    bob.sub = "user_bob".to_owned();
    bob.email = "bob@example.com".to_owned();
    config.users.push(bob);
    let (server, brief, _folder) = Running::beside_a_brief_one(config, 5).await;
    let alice = server.signed_in().await;
    let mut bob = server.browser().await;
    bob.sign_in("bob@example.com", PASSWORD).await;
    bob.show("").await;

    let codes = server.codes("openid").await;
    let session = alice.review(&codes).await;
    let (status, html) = bob.decide("approve", &session).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(html.contains("Enter the code first"));
    let (status, html) = alice.decide("deny", &session).await;
    assert!(status == StatusCode::OK && html.contains("Access denied"));
    // The same again is no mistake; the other one is.
    let (status, html) = alice.decide("deny", &session).await;
    assert!(status == StatusCode::OK && html.contains("Access denied"));
    let (status, html) = alice.decide("approve", &session).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(html.contains("You denied this request before"));

    let codes = brief.codes("openid").await;
    let session = alice.review(&codes).await;
    let expired = eventually(async || brief.poll(&codes).await.1["error"] == "expired_token");
    assert!(expired.await);
    let (status, html) = alice.decide("approve", &session).await;
    assert_eq!(status, StatusCode::GONE);
    assert!(html.contains("The code has expired"));

    let unknown = "A".repeat(43);
    let (status, html) = alice.decide("approve", &unknown).await;
    assert_eq!(status, StatusCode::GONE);
    assert!(html.contains("The code has expired"));
    assert_eq!(alice.decide("approve", "nonsense").await.0, 422);
}

#[tokio::test]
async fn u14_a_client_that_is_gone_meanwhile_signs_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.store = format!("sqlite:{}", folder.path().join("server.db").display());
    let mut without = config.clone();
    without.clients.retain(|client| client.id != "client_cli");
    let before = Running::with(config).await;
    let (entered, other) = (before.codes("openid").await, before.codes("openid").await);
    let mut browser = before.signed_in().await;
    let session = browser.review(&entered).await;
    // Another server on the same store knows already.
    let after = Running::with(without).await;
    browser.url = format!("{}/device", after.url);
    let (status, html) = browser.decide("approve", &session).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(html.contains("The application is gone"));
    let (status, html) = browser.enter(text(&other, "user_code")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(html.contains("That application can no longer sign in here."));
    assert_eq!(after.count("page", "client_gone").await, 2);
    // Nothing is granted, and it can still be denied.
    let (_, body) = before.poll(&entered).await;
    assert_eq!(body["error"], "authorization_pending");
    let (status, _) = browser.decide("deny", &session).await;
    assert_eq!(status, StatusCode::OK);
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
    // Capital letters in an address are no matter.
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
    // One that is too long for a code is not kept.
    let long = format!("?user_code={}", "x".repeat(65));
    browser.show(&long).await;
    assert_eq!(signed_in_again(&mut browser).await, "BCDF-GHJK");
    // Once it was entered, it is forgotten.
    let codes = server.codes("openid").await;
    browser.review(&codes).await;
    let html = browser.show("").await;
    assert_eq!(field(&html, "user_code").as_deref(), Some(""));
}

/// Signs in: the code that is then in the form.
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

/// Waits until the sign-in has lapsed.
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
    // From the review as well.
    let session = SessionKey::from_bytes([7; 32]).to_string();
    for step in ["approve", "deny"] {
        assert!(lapses(&mut browser).await);
        let form = [
            ("step", step),
            ("session", &session),
            ("user_code", "GHJK-BCDF"),
        ];
        let (status, _) = browser.submit(&form).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(signed_in_again(&mut browser).await, "GHJK-BCDF");
    }
}
