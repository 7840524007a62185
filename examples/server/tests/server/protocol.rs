//! The endpoints over loopback: every grant, and what can go wrong with it.

use std::collections::BTreeSet;

use crate::support::server::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

const ISSUE: &str = "/oauth2/device_authorization";
const TOKEN: &str = "/oauth2/token";

/// `client_backend` with the right secret.
const RIGHT: &str = "Basic Y2xpZW50X2JhY2tlbmQ6YmFja2VuZC1zZWNyZXQtZm9yLWRldmVsb3BtZW50LW9ubHk=";

#[tokio::test]
async fn a_login_yields_tokens_that_the_published_key_verifies() {
    let server = Running::new().await;
    let codes = server.codes(SCOPE).await;
    assert_eq!(codes["verification_uri"], format!("{}/device", server.url));
    assert_eq!(codes["expires_in"], 300);
    assert_eq!(codes["interval"], 5);
    let (status, body) = server.poll(&codes).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("authorization_pending"))
    );
    // A poll at once counts as the same request, sent twice on the way (C20). A poll after a second is too early (C12).
    let (_, body) = server.poll(&codes).await;
    assert_eq!(body["error"], "authorization_pending");
    assert_eq!(server.count("token", "repeated").await, 1);
    let slowed_down = eventually(async || {
        let (_, body) = server.poll(&codes).await;
        body["error"] == "slow_down" && body["interval"] == 10
    });
    assert!(slowed_down.await);

    server.signed_in().await.approve(&codes).await;
    let (status, tokens) = server.poll(&codes).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(tokens["token_type"], "Bearer");
    assert_eq!(tokens["expires_in"], 300);
    assert_eq!(tokens["scope"], SCOPE);

    let metadata = "/.well-known/openid-configuration";
    let metadata = json(server.get(metadata).send().await.unwrap()).await;
    let same = "/.well-known/oauth-authorization-server";
    assert_eq!(metadata, json(server.get(same).send().await.unwrap()).await);
    assert_eq!(metadata["issuer"], server.url);
    let jwks = server
        .http
        .get(text(&metadata, "jwks_uri"))
        .send()
        .await
        .unwrap();
    let jwks: JwkSet = serde_json::from_str(&jwks.text().await.unwrap()).unwrap();

    let access = verified(
        &jwks,
        text(&tokens, "access_token"),
        &server.url,
        &server.url,
    );
    for (name, value) in [
        ("sub", "user_01ALICE0000000000000000000"),
        ("client_id", "client_cli"),
        ("org_id", "org_01EXAMPLE000000000000000000"),
        ("scope", SCOPE),
    ] {
        assert_eq!(access[name], value);
    }
    assert!(text(&access, "sid").starts_with("app_consent_"));
    assert!(access["jti"].is_string());
    let lifetime = access["exp"].as_i64().unwrap() - access["iat"].as_i64().unwrap();
    assert_eq!(lifetime, 300);

    let id = verified(&jwks, text(&tokens, "id_token"), &server.url, "client_cli");
    for (name, value) in [
        ("sub", json!("user_01ALICE0000000000000000000")),
        ("name", json!("Alice Example")),
        ("given_name", json!("Alice")),
        ("family_name", json!("Example")),
        ("email", json!(EMAIL)),
        ("email_verified", json!(true)),
    ] {
        assert_eq!(id[name], value);
    }
    assert!(id["auth_time"].as_i64().unwrap() <= id["iat"].as_i64().unwrap());
    // Both tokens are of one login.
    assert_eq!(id["sid"], access["sid"]);
    assert!(id["jti"].is_string() && id["jti"] != access["jti"]);

    let (status, body) = server.poll(&codes).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("invalid_grant"))
    );
    assert_eq!(server.count("token", "duplicate").await, 1);
    assert_eq!(server.count("token", "granted").await, 1);
}

/// Returns the claims of a token for `audience`. Asserts that the key set verifies it.
fn verified(jwks: &JwkSet, token: &str, issuer: &str, audience: &str) -> Value {
    let key_id = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(jwks.find(&key_id).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[issuer]);
    jsonwebtoken::decode::<Value>(token, &key, &validation)
        .unwrap()
        .claims
}

/// Returns the names of the claims of a token.
fn claims(token: &str) -> BTreeSet<String> {
    let payload = token.split('.').nth(1).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let claims: serde_json::Map<String, Value> = serde_json::from_slice(&payload).unwrap();
    claims.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn scopes_decide_what_there_is() {
    let server = Running::new().await;
    let tokens = server.log_in("reports:read").await;
    assert_eq!(tokens["scope"], "reports:read");
    assert!(tokens.get("id_token").is_none());
    assert!(tokens.get("refresh_token").is_none());
    let tokens = server.log_in("openid").await;
    assert!(tokens.get("refresh_token").is_none());
    // Nothing about the user but the subject, unless it was asked for.
    let of_all = ["iss", "aud", "sub", "sid", "jti", "iat", "exp", "auth_time"];
    let of_profile = ["name", "given_name", "family_name"];
    let of_email = ["email", "email_verified"];
    for (scope, told) in [
        ("openid", &[][..]),
        ("openid profile", &of_profile),
        ("openid email", &of_email),
    ] {
        let tokens = server.log_in(scope).await;
        let expected: BTreeSet<_> = of_all.iter().chain(told).map(|&name| name.into()).collect();
        assert_eq!(claims(text(&tokens, "id_token")), expected, "{scope}");
        let of_access = [
            "iss",
            "aud",
            "sub",
            "iat",
            "exp",
            "client_id",
            "org_id",
            "sid",
            "scope",
            "jti",
        ];
        let expected = BTreeSet::from(of_access.map(str::to_owned));
        assert_eq!(claims(text(&tokens, "access_token")), expected, "{scope}");
    }
    // The part of the scope that is not allowed is left out (D5). Without a scope, the default is used (D3).
    let tokens = server.log_in("openid admin").await;
    assert_eq!(tokens["scope"], "openid");
    let tokens = server.log_in("").await;
    assert_eq!(tokens["scope"], "openid profile email offline_access");
}

#[tokio::test]
async fn a_confidential_client_authenticates_by_basic_or_by_the_body() {
    let server = Running::new().await;
    let by_body = [("client_id", "client_backend"), ("client_secret", SECRET)];
    let response = server.post(ISSUE, &by_body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let request = server.post(ISSUE, &[]).header(AUTHORIZATION, RIGHT);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let codes = json(response).await;

    let mut browser = server.signed_in().await;
    browser.approve(&codes).await;
    // A client that the code was not issued to learns nothing, and does not use the code up (C3).
    let (_, body) = server.poll(&codes).await;
    assert_eq!(body["error"], "invalid_grant");
    let form = [
        ("grant_type", DEVICE_GRANT),
        ("device_code", text(&codes, "device_code")),
    ];
    let request = server.post(TOKEN, &form).header(AUTHORIZATION, RIGHT);
    let tokens = json(request.send().await.unwrap()).await;
    // The refresh token does not serve another client either.
    let token = text(&tokens, "refresh_token");
    let (_, body) = server.refresh(&[("refresh_token", token)]).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(server.count("token", "foreign_client").await, 2);
    let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let request = server.post(TOKEN, &form).header(AUTHORIZATION, RIGHT);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn d2_codes_are_counted_by_client_and_source() {
    let mut config = config();
    config.quotas.codes = quota(20);
    let server = Running::with(config).await;
    for _ in 0..20 {
        // A request that is refused for its scope takes nothing.
        let refused = [("client_id", "client_cli"), ("scope", "admin")];
        let refused = server.post(ISSUE, &refused).send().await.unwrap();
        assert_eq!(json(refused).await["error"], "invalid_scope");
        server.codes("openid").await;
    }
    let form = [("client_id", "client_cli")];
    let response = server.post(ISSUE, &form).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(json(response).await["error"], "temporarily_unavailable");
}

#[tokio::test]
async fn r8_a_refresh_rotates_and_a_token_that_comes_back_ends_the_login() {
    let mut config = config();
    config.tokens.refresh_grace = 0; // no answer was lost
    let server = Running::with(config).await;
    let first = server.log_in(SCOPE).await;
    let first = text(&first, "refresh_token");
    let (status, second) = server.refresh(&[("refresh_token", first)]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(second["scope"], SCOPE);
    assert!(second["id_token"].is_string());
    let second = text(&second, "refresh_token");
    assert_ne!(first, second);
    // Somebody still has the first token.
    let (status, body) = server.refresh(&[("refresh_token", first)]).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("invalid_grant"))
    );
    assert_eq!(server.count("token", "reuse").await, 1);
    // Nobody knows which of the two is the thief, so neither token is valid any more.
    let (_, body) = server.refresh(&[("refresh_token", second)]).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(server.count("token", "ended").await, 1);
}

#[tokio::test]
async fn r6_r7_where_an_answer_was_lost_the_same_token_is_good_once_more() {
    let server = Running::new().await;
    let first = server.log_in(SCOPE).await;
    let first = text(&first, "refresh_token");
    let (_, lost) = server.refresh(&[("refresh_token", first)]).await;
    let (status, second) = server.refresh(&[("refresh_token", first)]).await;
    assert_eq!(status, StatusCode::OK);
    // Whoever has the answer that was lost is not the device.
    let lost = text(&lost, "refresh_token");
    let (_, body) = server.refresh(&[("refresh_token", lost)]).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(server.count("token", "reuse").await, 1);
    let second = text(&second, "refresh_token");
    let (_, body) = server.refresh(&[("refresh_token", second)]).await;
    assert_eq!(body["error"], "invalid_grant");
}

#[tokio::test]
async fn refreshes_are_counted_by_login() {
    let mut config = config();
    config.quotas.refreshes = quota(2);
    let server = Running::with(config).await;
    let first = server.log_in(SCOPE).await;
    let another = server.log_in(SCOPE).await;
    let refresh = async |tokens: &Value| {
        let token = text(tokens, "refresh_token").to_owned();
        server.refresh(&[("refresh_token", &token)]).await
    };
    let (_, second) = refresh(&first).await;
    let (_, third) = refresh(&second).await;
    let (status, body) = refresh(&third).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["error"], "temporarily_unavailable");
    assert_eq!(refresh(&another).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_may_narrow_the_scope_and_never_widens_it() {
    let server = Running::new().await;
    let tokens = server.log_in("openid offline_access reports:read").await;
    let token = text(&tokens, "refresh_token");
    for scope in [
        "openid reports:write",
        "a  b",
        "openid offline_access reports:read email",
    ] {
        let (status, body) = server
            .refresh(&[("refresh_token", token), ("scope", scope)])
            .await;
        assert_eq!(
            (status.as_u16(), &body["error"]),
            (400, &json!("invalid_scope"))
        );
    }
    let (_, narrow) = server
        .refresh(&[("refresh_token", token), ("scope", "reports:read")])
        .await;
    assert_eq!(narrow["scope"], "reports:read");
    assert!(narrow.get("id_token").is_none());
    // The login keeps what was granted.
    let token = text(&narrow, "refresh_token");
    let (_, whole) = server.refresh(&[("refresh_token", token)]).await;
    assert_eq!(whole["scope"], "openid offline_access reports:read");
}

#[tokio::test]
async fn r15_to_r17_a_revoked_refresh_token_ends_its_login() {
    let server = Running::new().await;
    let revoke = async |form: &[(&str, &str)]| {
        let response = server.post("/oauth2/revoke", form).send().await.unwrap();
        let status = response.status().as_u16();
        (status, json(response).await["error"].clone())
    };
    let of_cli = ("client_id", "client_cli");
    let tokens = server.log_in(SCOPE).await;
    let first = text(&tokens, "refresh_token");
    let (_, refreshed) = server.refresh(&[("refresh_token", first)]).await;
    let second = text(&refreshed, "refresh_token");

    assert_eq!(
        revoke(&[("token", second)]).await,
        (400, json!("invalid_request"))
    );
    assert_eq!(revoke(&[of_cli]).await, (400, json!("invalid_request")));
    let nobody = [("client_id", "client_gone"), ("token", second)];
    assert_eq!(revoke(&nobody).await, (401, json!("invalid_client")));
    // This client may not use the device grant, so it has no login to end (B9).
    let web = [("client_id", "client_web"), ("token", second)];
    assert_eq!(revoke(&web).await, (400, json!("unauthorized_client")));
    // Everything that is not a refresh token of this client is treated as already revoked. An access token stays valid until it expires.
    let backend = [("client_id", "client_backend"), ("client_secret", SECRET)];
    let foreign = [&backend[..], &[("token", second)]].concat();
    assert_eq!(revoke(&foreign).await, (200, Value::Null));
    for other in [text(&tokens, "access_token"), "none"] {
        assert_eq!(
            revoke(&[of_cli, ("token", other)]).await,
            (200, Value::Null)
        );
    }
    assert_eq!(server.count("revocation", "nothing_to_revoke").await, 3);
    assert_eq!(server.count("revocation", "revoked").await, 0);
    let (status, refreshed) = server.refresh(&[("refresh_token", second)]).await;
    assert_eq!(status, StatusCode::OK);
    let second = text(&refreshed, "refresh_token");

    // A token that was replaced before also ends the login.
    let hinted = [
        of_cli,
        ("token", first),
        ("token_type_hint", "refresh_token"),
    ];
    assert_eq!(revoke(&hinted).await, (200, Value::Null));
    assert_eq!(server.count("revocation", "revoked").await, 1);
    let (_, body) = server.refresh(&[("refresh_token", second)]).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(
        revoke(&[of_cli, ("token", second)]).await,
        (200, Value::Null)
    );
}

#[tokio::test]
async fn c4_a_replayed_code_ends_its_login() {
    let mut config = config();
    config.policy.retry_window = Some(0); // nothing counts as a repeated request
    let server = Running::with(config).await;
    let codes = server.codes(SCOPE).await;
    server.signed_in().await.approve(&codes).await;
    let (_, tokens) = server.poll(&codes).await;
    let (_, body) = server.poll(&codes).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(server.count("token", "replay").await, 1);
    let (_, body) = server
        .refresh(&[("refresh_token", text(&tokens, "refresh_token"))])
        .await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(server.count("token", "ended").await, 1);
    let (_, body) = server.poll(&codes).await;
    assert_eq!(body["error"], "invalid_grant", "for good");
}

#[tokio::test]
async fn c6_c7_the_device_learns_that_it_was_denied_or_has_expired() {
    let (server, brief, _folder) = Running::beside_a_brief_one(config(), 2).await;
    let denied = server.codes("openid").await;
    let expiring = brief.codes("openid").await;
    let browser = server.signed_in().await;
    let session = browser.review(&denied).await;
    let (status, html) = browser.decide("deny", &session).await;
    assert_eq!(status, StatusCode::OK);
    assert!(html.contains("Access denied"));
    let (status, body) = server.poll(&denied).await;
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (400, &json!("access_denied"))
    );
    let expired = eventually(async || {
        let (_, body) = brief.poll(&expiring).await;
        body["error"] == "expired_token"
    });
    assert!(expired.await);
}

#[tokio::test]
async fn c15_an_account_that_is_gone_or_locked_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("server.db").display());
    let mut with_alice = config();
    with_alice.store = store.into();
    let mut without = with_alice.clone();
    without.users[0].locked = true;
    let before = Running::with(with_alice).await;
    let redeemed = before.log_in(SCOPE).await;
    let codes = before.codes(SCOPE).await;
    let mut browser = before.signed_in().await;
    browser.approve(&codes).await;

    // Another server on the same store knows already that the account is locked.
    let after = Running::with(without).await;
    let (_, body) = after.poll(&codes).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(after.count("token", "consent_gone").await, 1);
    let (_, body) = before.poll(&codes).await;
    assert_eq!(body["error"], "invalid_grant", "for good");
    let token = text(&redeemed, "refresh_token");
    let (_, body) = after.refresh(&[("refresh_token", token)]).await;
    assert_eq!(body["error"], "invalid_grant");
    assert_eq!(after.count("token", "consent_gone").await, 2);
    let (_, body) = before.refresh(&[("refresh_token", token)]).await;
    assert_eq!(body["error"], "invalid_grant", "for good");
}

#[tokio::test]
async fn servers_on_one_store_share_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.store = format!("sqlite:{}", folder.path().join("server.db").display()).into();
    config.issuer = Some("http://127.0.0.1:8628".to_owned());
    let one = Running::with(config.clone()).await;
    let other = Running::with(config).await;
    let jwks = json(one.get("/oauth2/jwks").send().await.unwrap()).await;
    assert_eq!(
        jwks,
        json(other.get("/oauth2/jwks").send().await.unwrap()).await
    );
    // Issued by one, approved on the other by somebody who signed in on the first, redeemed and refreshed on either.
    let codes = one.codes(SCOPE).await;
    let mut browser = one.signed_in().await;
    browser.url = format!("{}/device", other.url);
    browser.approve(&codes).await;
    let (_, tokens) = other.poll(&codes).await;
    let (status, _) = one
        .refresh(&[("refresh_token", text(&tokens, "refresh_token"))])
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn userinfo_tells_what_the_scope_allows() {
    let server = Running::new().await;
    let ask = async |token: &str| {
        let request = server.get("/oauth2/userinfo").bearer_auth(token);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    };
    let tokens = server.log_in("openid email").await;
    let (status, body) = ask(text(&tokens, "access_token")).await;
    assert_eq!(status, 200);
    let expected =
        json!({ "sub": "user_01ALICE0000000000000000000", "email": EMAIL, "email_verified": true });
    assert_eq!(body, expected);
    // An ID token is no access token.
    assert_eq!(ask(text(&tokens, "id_token")).await.0, 401);
    assert_eq!(ask("nonsense").await.0, 401);
    let tokens = server.log_in("reports:read").await;
    assert_eq!(ask(text(&tokens, "access_token")).await.0, 403);
    let response = server.get("/oauth2/userinfo").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
}
