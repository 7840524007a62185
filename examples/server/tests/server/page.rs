//! The verification page over loopback: who may decide, from where, and what each user is told.

use crate::support::server::*;
use device_flow::scope::Scope;
use reqwest::StatusCode;

/// What the page says about every code that it does not accept.
const WRONG_CODE: &str = "That code is wrong, has expired or was already used.";

#[tokio::test]
async fn only_a_post_decides() {
    let mut config = config();
    config.policy.verification_uri_complete = true;
    let server = Running::with(config).await;
    let codes = server.codes("openid").await;
    let user_code = text(&codes, "user_code");
    let mut browser = server.signed_in().await;

    // A link fills in the form, but looks nothing up: there is no session of a review, and no guess is taken.
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
    assert_eq!(request.send().await.unwrap().status(), 303);
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
    let entered = browser.post(&form).send().await.unwrap();
    let review = browser.open(&location(&entered).unwrap()).await;
    assert_eq!(review.status(), StatusCode::OK);
    let unknown = browser.open("/device/request/x").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let first = server.get("/device").send().await.unwrap();
    let wrong = browser.post(&[("x", "")]).send().await.unwrap();
    let put = server
        .http
        .put(format!("{}/device", server.url))
        .send()
        .await
        .unwrap();
    for response in [entered, review, unknown, first, wrong, put] {
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
        // Only the metrics show the reason.
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
    // After another sign-in, it is still the same user.
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
        let shown = format!(r#"<p class="shown">{code}</p>"#);
        assert!(html.contains(&shown), "the code to compare");
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
    // An attacker can ask from the user's own address. So the page must not reassure the user by saying that the addresses are the same.
    assert!(!html.contains("network address"), "{html}");
}

#[tokio::test]
async fn what_a_scope_says_is_text() {
    let mut config = config();
    config.clients[0].scope = "<b>bold</b>&amp;".parse().unwrap();
    config.clients[0].default_scope = None;
    config.clients[0].required_scope = Scope::empty();
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
    // The same decision again is no mistake, but the other one is.
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
    assert!(html.contains("The code can no longer be used"));

    let unknown = "A".repeat(43);
    let (status, html) = alice.decide("approve", &unknown).await;
    assert_eq!(status, StatusCode::GONE);
    assert!(html.contains("The code can no longer be used"));
    assert_eq!(alice.decide("approve", "nonsense").await.0, 422);
}

#[tokio::test]
async fn u14_a_client_that_is_gone_meanwhile_signs_nobody_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.store = format!("sqlite:{}", folder.path().join("server.db").display()).into();
    let mut without = config.clone();
    without.clients.retain(|client| client.id != "client_cli");
    let before = Running::with(config).await;
    let (entered, other) = (before.codes("email").await, before.codes("email").await);
    let mut browser = before.signed_in().await;
    let session = browser.review(&entered).await;
    // Another server on the same store knows already that the client is gone.
    let after = Running::with(without).await;
    browser.url = format!("{}/device", after.url);
    let approve = [
        ("step", "approve"),
        ("session", &session),
        ("scope:email", "on"),
    ];
    let (status, html) = browser.submit(&approve).await;
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
async fn what_was_done_leads_on_to_a_get_that_shows_what_stands() {
    let server = Running::new().await;
    for (step, title) in [("approve", "Access allowed"), ("deny", "Access denied")] {
        let codes = server.codes("openid").await;
        let browser = server.signed_in().await;
        let csrf = ("csrf", browser.csrf.as_str());
        let enter = [
            csrf,
            ("step", "enter"),
            ("user_code", text(&codes, "user_code")),
        ];
        let entered = browser.post(&enter).send().await.unwrap();
        assert_eq!(entered.status(), StatusCode::SEE_OTHER);
        let request = location(&entered).unwrap();
        let html = browser.open(&request).await.text().await.unwrap();
        let session = field(&html, "session").unwrap();
        assert!(html.contains(text(&codes, "user_code")));
        // It is not shown to a browser that has not entered the code, or that is not signed in.
        let other = server.signed_in().await;
        assert_eq!(location(&other.open(&request).await).unwrap(), "/device");
        let nobody = server.browser().await;
        assert_eq!(location(&nobody.open(&request).await).unwrap(), "/device");

        let decide = [csrf, ("step", step), ("session", &session)];
        let decided = browser.post(&decide).send().await.unwrap();
        assert_eq!(decided.status(), StatusCode::SEE_OTHER);
        assert_eq!(location(&decided).unwrap(), request);
        let html = browser.open(&request).await.text().await.unwrap();
        assert!(html.contains(title), "{html}");
    }
}
