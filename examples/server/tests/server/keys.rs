//! The keys of a running server are changed. That signs nobody out.

use std::collections::BTreeSet;

use crate::support::server::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use example_server::config::{Config, Hidden};
use reqwest::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

/// Servers that share one store and one issuer.
struct Site {
    config: Config,
    _folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config();
        config.store = format!("sqlite:{}", folder.path().join("server.db").display()).into();
        config.issuer = Some("http://127.0.0.1:8628".to_owned());
        Self {
            config,
            _folder: folder,
        }
    }

    async fn with(&self, change: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.config.clone();
        change(&mut config);
        Running::with(config).await
    }
}

/// Returns the id of the key that signed a token.
fn key_of(tokens: &Value) -> String {
    let header = jsonwebtoken::decode_header(text(tokens, "access_token"));
    header.unwrap().kid.unwrap()
}

/// Returns the ids of the keys that a server publishes.
async fn keys(server: &Running) -> BTreeSet<String> {
    let jwks = json(server.get("/oauth2/jwks").send().await.unwrap()).await;
    let keys = jwks["keys"].as_array().unwrap().iter();
    keys.map(|key| text(key, "kid").to_owned()).collect()
}

/// Returns whether a server accepts an access token.
async fn takes(server: &Running, tokens: &Value) -> bool {
    let request = server.get("/oauth2/userinfo");
    let request = request.bearer_auth(text(tokens, "access_token"));
    request.send().await.unwrap().status() == StatusCode::OK
}

#[tokio::test]
async fn rotating_the_signing_key_invalidates_no_token() {
    let site = Site::new();
    let first = site.with(|_| {}).await;
    let of_first = first.log_in(SCOPE).await;
    let second = site.with(|config| config.tokens.signing_key = 2).await;
    let of_second = second.log_in(SCOPE).await;
    assert_ne!(key_of(&of_first), key_of(&of_second));
    // This must hold while the servers are restarted one after the other, and while somebody still has the old key set.
    for server in [&first, &second] {
        assert!(takes(server, &of_first).await && takes(server, &of_second).await);
        let keys = keys(server).await;
        assert!(keys.contains(&key_of(&of_first)) && keys.contains(&key_of(&of_second)));
    }
    // The next rotation removes the first key.
    let third = site.with(|config| config.tokens.signing_key = 3).await;
    let of_third = third.log_in(SCOPE).await;
    assert!(!takes(&third, &of_first).await && !keys(&third).await.contains(&key_of(&of_first)));
    assert!(takes(&third, &of_second).await && takes(&third, &of_third).await);
    // The keys are the same after a restart, and on a server that did not run before.
    let again = site.with(|config| config.tokens.signing_key = 3).await;
    assert_eq!(keys(&again).await, keys(&third).await);
}

#[tokio::test]
async fn replacing_the_server_key_keeps_codes_and_logins() {
    let key = |octet: u8| {
        let octets: Vec<u8> = (octet..octet + 32).collect();
        Some(Hidden(STANDARD.encode(octets)))
    };
    let site = Site::new();
    let before = site.with(|config| config.server_key = key(0)).await;
    let (codes, others) = (before.codes(SCOPE).await, before.codes(SCOPE).await);
    let tokens = before.log_in(SCOPE).await;

    let after = site.with(|config| {
        config.server_key = key(32);
        config.previous_server_key = key(0);
    });
    let after = after.await;
    after.signed_in().await.approve(&codes).await;
    assert_eq!(after.poll(&codes).await.0, StatusCode::OK);
    let old = text(&tokens, "refresh_token");
    let (status, refreshed) = after.refresh(&[("refresh_token", old)]).await;
    assert_eq!(status, StatusCode::OK);

    // Without the previous key, what was made under it is unknown.
    let later = site.with(|config| config.server_key = key(32)).await;
    let browser = later.signed_in().await;
    let (status, _) = browser.enter(text(&others, "user_code")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (_, body) = later.refresh(&[("refresh_token", old)]).await;
    assert_eq!(body["error"], "invalid_grant");
    let new = text(&refreshed, "refresh_token");
    let (status, _) = later.refresh(&[("refresh_token", new)]).await;
    assert_eq!(status, StatusCode::OK);
}
