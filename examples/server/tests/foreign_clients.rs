//! Clients that nobody of this project wrote sign in through this server: the crates `oauth2` and `openidconnect`,
//! openid-client in JavaScript, and Authlib in Python. Each prints the user code and what came of it; a browser without a screen decides.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in tests"
)]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use example_server::config::Quota;
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, DeviceAuthorizationUrl, DeviceCodeErrorResponseType, HttpRequest,
    HttpResponse, RequestTokenError, Scope, StandardDeviceAuthorizationResponse,
    TokenResponse as _, TokenUrl,
};
use openidconnect::core::{
    CoreClient, CoreDeviceAuthorizationResponse, CoreProviderMetadata, CoreResponseType,
};
use openidconnect::{IssuerUrl, Nonce};
use serde_json::{Value, json};
use support::server::{EMAIL, Running, client, config};
use support::{missing, node};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long any of them may take: far more than it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that is polled every second.
async fn server() -> Running {
    let mut config = config();
    config.policy.interval = 1;
    config.quotas.sign_ins = Quota {
        burst: 100,
        period: 60,
    };
    Running::with(config).await
}

/// The user decides on a code.
async fn decide(server: &Running, user_code: &str, approves: bool) {
    let mut browser = server.signed_in().await;
    let codes = json!({ "user_code": user_code });
    if approves {
        browser.approve(&codes).await;
    } else {
        let session = browser.review(&codes).await;
        browser.decide("deny", &session).await;
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_clients")
}

/// What was installed in the folder, where it was.
fn installed(what: &str, otherwise: &'static str) -> Option<PathBuf> {
    let path = folder().join(what);
    path.exists().then_some(path).or_else(|| missing(otherwise))
}

/// A client in another language, running.
struct Foreign {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Foreign {
    fn start(program: &Path, script: &str, issuer: &str) -> Self {
        let mut command = Command::new(program);
        command.arg(folder().join(script)).arg(issuer);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            _child: child,
            lines,
        }
    }

    async fn says(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("in time").unwrap();
        serde_json::from_str(&line.expect("the client has ended")).unwrap()
    }
}

/// Signs in with a client in another language, approved and denied.
async fn sign_in(program: &Path, script: &str) {
    let server = server().await;
    for (approves, expected) in [
        (
            true,
            json!({ "outcome": "granted", "email": EMAIL, "same_user": true, "renewed": true }),
        ),
        (false, json!({ "outcome": "access_denied" })),
    ] {
        let mut foreign = Foreign::start(program, script, &server.url);
        let said = foreign.says().await;
        decide(&server, said["user_code"].as_str().unwrap(), approves).await;
        assert_eq!(foreign.says().await, expected);
    }
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_signs_in_and_verifies_the_id_token() {
    let package = installed(
        "node_modules/openid-client",
        "openid-client is missing: npm ci --prefix examples/server/tests/foreign_clients",
    );
    if let (Some(node), Some(_)) = (node(), package) {
        sign_in(Path::new(node), "client.mjs").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_signs_in_and_verifies_the_id_token() {
    let python = installed(
        ".venv/bin/python",
        "Authlib is missing: cd examples/server/tests/foreign_clients && python3 -m venv .venv && .venv/bin/pip install -r \
        requirements.txt",
    );
    if let Some(python) = python {
        sign_in(&python, "client.py").await;
    }
}

/// What carries the requests of both crates.
async fn carry(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let response = client().execute(request.try_into()?).await?;
    let mut carried = HttpResponse::new(Vec::new());
    *carried.status_mut() = response.status();
    *carried.headers_mut() = response.headers().clone();
    *carried.body_mut() = response.bytes().await?.to_vec();
    Ok(carried)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_oauth2_signs_in() {
    let server = server().await;
    let at = |path: &str| format!("{}{path}", server.url);
    let client = BasicClient::new(ClientId::new("client_cli".to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_device_authorization_url(
            DeviceAuthorizationUrl::new(at("/oauth2/device_authorization")).unwrap(),
        )
        .set_token_uri(TokenUrl::new(at("/oauth2/token")).unwrap());
    for approves in [true, false] {
        let codes: StandardDeviceAuthorizationResponse = client
            .exchange_device_code()
            .add_scope(Scope::new("openid offline_access".to_owned()))
            .request_async(&carry)
            .await
            .unwrap();
        decide(&server, codes.user_code().secret(), approves).await;
        let polled = client
            .exchange_device_access_token(&codes)
            .request_async(&carry, tokio::time::sleep, Some(PATIENCE))
            .await;
        if approves {
            let tokens = polled.unwrap();
            let renewed = client
                .exchange_refresh_token(tokens.refresh_token().unwrap())
                .request_async(&carry)
                .await
                .unwrap();
            assert_ne!(
                renewed.access_token().secret(),
                tokens.access_token().secret()
            );
        } else {
            let RequestTokenError::ServerResponse(refused) = polled.unwrap_err() else {
                panic!("refused by the server");
            };
            assert_eq!(*refused.error(), DeviceCodeErrorResponseType::AccessDenied);
        }
    }
    server.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_openidconnect_reads_the_metadata_signs_in_and_verifies_the_id_token() {
    let server = server().await;
    let issuer = IssuerUrl::new(server.url.clone()).unwrap();
    let metadata = CoreProviderMetadata::discover_async(issuer, &carry);
    let metadata = metadata.await.unwrap();
    assert_eq!(
        metadata.response_types_supported(),
        &Vec::<openidconnect::ResponseTypes<CoreResponseType>>::new()
    );
    let id = ClientId::new("client_cli".to_owned());
    let at = |path: &str| format!("{}{path}", server.url);
    let client = CoreClient::from_provider_metadata(metadata, id, None)
        .set_device_authorization_url(
            DeviceAuthorizationUrl::new(at("/oauth2/device_authorization")).unwrap(),
        )
        .set_auth_type(AuthType::RequestBody);
    for approves in [true, false] {
        let codes: CoreDeviceAuthorizationResponse = client
            .exchange_device_code()
            .add_scope(Scope::new("email".to_owned()))
            .request_async(&carry)
            .await
            .unwrap();
        decide(&server, codes.user_code().secret(), approves).await;
        let polled = client
            .exchange_device_access_token(&codes)
            .unwrap()
            .request_async(&carry, tokio::time::sleep, Some(PATIENCE))
            .await;
        if approves {
            let tokens = polled.unwrap();
            let id_token = tokens.extra_fields().id_token().unwrap();
            // There is no nonce in a device login.
            let verified = id_token.claims(&client.id_token_verifier(), |_: Option<&Nonce>| Ok(()));
            let email = verified.unwrap().email().unwrap();
            assert_eq!(email.as_str(), EMAIL);
        } else {
            let RequestTokenError::ServerResponse(refused) = polled.unwrap_err() else {
                panic!("refused by the server");
            };
            assert_eq!(*refused.error(), DeviceCodeErrorResponseType::AccessDenied);
        }
    }
    server.stopped().await;
}
