//! Clients that nobody of this project wrote sign in through this server: the crates `oauth2` and `openidconnect`;
//! `openid-client` and `oauth4webapi` in JavaScript; Authlib, `oauthlib` and `requests_oauth2client` in Python. And one that sends what
//! Go's `golang.org/x/oauth2` sends.
//!
//! Each signs in three times: approved, denied, and left alone until the code expires. After an approval it refreshes its tokens, revokes
//! the refresh token, and tries it again. A client in another language prints the user code, and then the result. A browser without a
//! screen decides.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::server::{DEVICE_GRANT, EMAIL, Running, client, config, text};
use crate::support::{missing, node};
use example_server::config::Quota;
use oauth2::basic::BasicClient;
use oauth2::{
    AuthType, ClientId, DeviceAuthorizationUrl, ErrorResponseType, HttpRequest, HttpResponse,
    RequestTokenError, RevocationUrl, Scope, StandardDeviceAuthorizationResponse,
    StandardErrorResponse, StandardRevocableToken, TokenResponse as _, TokenUrl,
};
use openidconnect::core::{
    CoreClient, CoreDeviceAuthorizationResponse, CoreProviderMetadata, CoreResponseType,
    CoreRevocableToken,
};
use openidconnect::{IssuerUrl, Nonce};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long any of them may take. They take far less.
const PATIENCE: Duration = Duration::from_secs(30);

/// The lifetime of the codes that nobody enters, in seconds. A client polls three times before it hears that its code has expired.
const BRIEF: u64 = 3;

/// The scopes that a client asks for.
const SCOPE: &str = "openid email offline_access";

/// What the user does about a code.
#[derive(Clone, Copy, Debug)]
enum Decision {
    Approve,
    Deny,
    Ignore,
}

/// Returns a server that may be polled every second.
async fn server(lifetime: Option<u64>) -> Running {
    let mut config = config();
    config.policy.interval = 1;
    config.policy.lifetime = lifetime.unwrap_or(config.policy.lifetime);
    config.quotas.sign_ins = Quota {
        burst: 100,
        period: 60,
    };
    Running::with(config).await
}

/// Lets a client sign in three times at once, and checks the results.
async fn sign_in(client: impl AsyncFn(&Running, Decision) -> Value) {
    let (server, brief) = (server(None).await, server(Some(BRIEF)).await);
    let (approved, denied, ignored) = tokio::join!(
        client(&server, Decision::Approve),
        client(&server, Decision::Deny),
        client(&brief, Decision::Ignore),
    );
    assert_eq!(approved, granted(EMAIL, true, "invalid_grant"));
    assert_eq!(denied, json!({ "outcome": "access_denied" }));
    assert_eq!(ignored, json!({ "outcome": "expired_token" }));
    for server in [server, brief] {
        assert_eq!(server.count("token", "too_fast").await, 0);
        server.stopped().await;
    }
}

/// Returns what a client says after it got its tokens: the user's e-mail address, whether a refresh gave it another access token, and the
/// error of a refresh after the revocation.
fn granted(email: &str, renewed: bool, after_revocation: &str) -> Value {
    json!({
        "outcome": "granted", "email": email, "renewed": renewed, "after_revocation": after_revocation
    })
}

/// Decides on a code, as the user.
async fn decide(server: &Running, user_code: &str, decision: Decision) {
    let codes = json!({ "user_code": user_code });
    match decision {
        Decision::Approve => {
            server.signed_in().await.approve(&codes).await;
        }
        Decision::Deny => {
            let browser = server.signed_in().await;
            let session = browser.review(&codes).await;
            browser.decide("deny", &session).await;
        }
        Decision::Ignore => {}
    }
}

/// Returns the e-mail address of the user whose access token this is.
async fn email(server: &Running, access_token: &str) -> String {
    let asked = server.get("/oauth2/userinfo").bearer_auth(access_token);
    let user: Value = asked.send().await.unwrap().json().await.unwrap();
    text(&user, "email").to_owned()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign_clients")
}

/// Returns the path of what was installed in the folder. If it is missing, says so and returns `None`.
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

/// Signs in with a client in another language.
async fn sign_in_with(program: &Path, script: &str) {
    let client = async |server: &Running, decision| {
        let mut foreign = Foreign::start(program, script, &server.url);
        let said = foreign.says().await;
        decide(server, text(&said, "user_code"), decision).await;
        foreign.says().await
    };
    sign_in(client).await;
}

async fn sign_in_with_node(package: &str, script: &str) {
    let package = installed(
        package,
        "openid-client and oauth4webapi are missing: npm ci --prefix examples/server/tests/foreign_clients",
    );
    if let (Some(node), Some(_)) = (node(), package) {
        sign_in_with(Path::new(node), script).await;
    }
}

async fn sign_in_with_python(script: &str) {
    let python = installed(
        ".venv/bin/python",
        "Authlib, oauthlib and requests_oauth2client are missing: cd examples/server/tests/foreign_clients && python3 -m venv .venv \
        && .venv/bin/pip install -r requirements.txt",
    );
    if let Some(python) = python {
        sign_in_with(&python, script).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client_signs_in_and_verifies_the_id_token() {
    sign_in_with_node("node_modules/openid-client", "with_openid_client.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth4webapi_signs_in_and_verifies_the_id_token() {
    sign_in_with_node("node_modules/oauth4webapi", "with_oauth4webapi.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib_signs_in_and_verifies_the_id_token() {
    sign_in_with_python("with_authlib.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauthlib_signs_in() {
    sign_in_with_python("with_oauthlib.py").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_oauth2client_signs_in_and_verifies_the_id_token() {
    sign_in_with_python("with_requests_oauth2client.py").await;
}

/// Sends the requests of both crates. They revoke only over TLS, even on loopback, so their URL of the revocation endpoint says https. This
/// function acts as the proxy that removes the TLS.
async fn carry(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let mut request: reqwest::Request = request.try_into()?;
    let _ = request.url_mut().set_scheme("http");
    let response = client().execute(request).await?;
    let mut carried = HttpResponse::new(Vec::new());
    *carried.status_mut() = response.status();
    *carried.headers_mut() = response.headers().clone();
    *carried.body_mut() = response.bytes().await?.to_vec();
    Ok(carried)
}

/// Returns the URL of the revocation endpoint, with https because the crates demand it.
fn revocation_url(server: &Running) -> RevocationUrl {
    let url = format!("{}/oauth2/revoke", server.url);
    RevocationUrl::new(url.replacen("http:", "https:", 1)).unwrap()
}

/// Returns the error with which the server refused a request of either crate.
fn refused<E: std::error::Error, T: ErrorResponseType + std::fmt::Display>(
    error: RequestTokenError<E, StandardErrorResponse<T>>,
) -> String {
    let RequestTokenError::ServerResponse(refused) = error else {
        panic!("it was not the server that refused: {error}");
    };
    refused.error().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_oauth2_signs_in() {
    sign_in(with_oauth2).await;
}

async fn with_oauth2(server: &Running, decision: Decision) -> Value {
    let at = |path: &str| format!("{}{path}", server.url);
    let client = BasicClient::new(ClientId::new("client_cli".to_owned()))
        .set_auth_type(AuthType::RequestBody)
        .set_device_authorization_url(
            DeviceAuthorizationUrl::new(at("/oauth2/device_authorization")).unwrap(),
        )
        .set_token_uri(TokenUrl::new(at("/oauth2/token")).unwrap())
        .set_revocation_url(revocation_url(server));
    let codes: StandardDeviceAuthorizationResponse = client
        .exchange_device_code()
        .add_scope(Scope::new(SCOPE.to_owned()))
        .request_async(&carry)
        .await
        .unwrap();
    decide(server, codes.user_code().secret(), decision).await;
    let polled = client
        .exchange_device_access_token(&codes)
        .request_async(&carry, tokio::time::sleep, Some(PATIENCE))
        .await;
    let tokens = match polled {
        Ok(tokens) => tokens,
        Err(error) => return json!({ "outcome": refused(error) }),
    };
    let refresh = async |token| {
        client
            .exchange_refresh_token(token)
            .request_async(&carry)
            .await
    };
    let renewed = refresh(tokens.refresh_token().unwrap()).await.unwrap();
    let token = renewed.refresh_token().unwrap();
    let revoked = StandardRevocableToken::from(token.clone());
    let revoke = client.revoke_token(revoked).unwrap();
    revoke.request_async(&carry).await.unwrap();
    granted(
        &email(server, tokens.access_token().secret()).await,
        renewed.access_token().secret() != tokens.access_token().secret(),
        &refused(refresh(token).await.unwrap_err()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_crate_openidconnect_reads_the_metadata_signs_in_and_verifies_the_id_token() {
    Box::pin(sign_in(with_openidconnect)).await;
}

async fn with_openidconnect(server: &Running, decision: Decision) -> Value {
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
        .set_revocation_url(revocation_url(server))
        .set_auth_type(AuthType::RequestBody);
    let codes: CoreDeviceAuthorizationResponse = client
        .exchange_device_code()
        .add_scope(Scope::new(SCOPE.to_owned()))
        .request_async(&carry)
        .await
        .unwrap();
    decide(server, codes.user_code().secret(), decision).await;
    let polled = client
        .exchange_device_access_token(&codes)
        .unwrap()
        .request_async(&carry, tokio::time::sleep, Some(PATIENCE))
        .await;
    let tokens = match polled {
        Ok(tokens) => tokens,
        Err(error) => return json!({ "outcome": refused(error) }),
    };
    let id_token = tokens.extra_fields().id_token().unwrap();
    // There is no nonce in a device login.
    let verified = id_token.claims(&client.id_token_verifier(), |_: Option<&Nonce>| Ok(()));
    let email = verified.unwrap().email().unwrap();
    let refresh = async |token| {
        let refresh = client.exchange_refresh_token(token).unwrap();
        refresh.request_async(&carry).await
    };
    let renewed = refresh(tokens.refresh_token().unwrap()).await.unwrap();
    let token = renewed.refresh_token().unwrap();
    let revoke = client.revoke_token(CoreRevocableToken::from(token.clone()));
    revoke.unwrap().request_async(&carry).await.unwrap();
    granted(
        email,
        renewed.access_token().secret() != tokens.access_token().secret(),
        &refused(refresh(token).await.unwrap_err()),
    )
}

/// Unless its user says how the server authenticates clients, `golang.org/x/oauth2` does not know it until a first success. Until then it
/// sends every request twice: first with HTTP Basic and an empty secret, and after an error with the id in the body. The second request
/// comes within a second, so it counts as the same request, and the client is never slowed down ([C20](../../../docs/tables.md#c20)).
#[tokio::test(flavor = "multi_thread")]
async fn what_go_sends_twice_for_each_poll_is_never_slowed_down() {
    sign_in(as_go_does).await;
}

async fn as_go_does(server: &Running, decision: Decision) -> Value {
    let send = async |form: &[(&str, &str)], is_basic| {
        let mut request = server.post("/oauth2/token", form);
        if is_basic {
            request = request.basic_auth("client_cli", Some(""));
        }
        let response = request.send().await.unwrap();
        let is_success = response.status() == StatusCode::OK;
        let answer: Value = response.json().await.unwrap();
        if is_success { Ok(answer) } else { Err(answer) }
    };
    let codes = server.codes(SCOPE).await;
    let form = [
        ("client_id", "client_cli"),
        ("grant_type", DEVICE_GRANT),
        ("device_code", text(&codes, "device_code")),
        ("scope", SCOPE),
    ];
    let mut polls = 0;
    let polled = loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        polls += 1;
        let polled = match send(&form, true).await {
            Ok(tokens) => Ok(tokens),
            Err(_) => send(&form, false).await,
        };
        match polled {
            Err(refused) if text(&refused, "error") == "authorization_pending" => {}
            polled @ (Ok(_) | Err(_)) => break polled,
        }
        // The user decides only now, after several polls that were sent twice.
        if polls == 2 {
            decide(server, text(&codes, "user_code"), decision).await;
        }
    };
    let tokens = match polled {
        Ok(tokens) => tokens,
        Err(refused) => return json!({ "outcome": refused["error"] }),
    };
    let refresh = async |token: &str| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
        send(&form, true).await
    };
    let renewed = refresh(text(&tokens, "refresh_token")).await.unwrap();
    let token = text(&renewed, "refresh_token");
    // Go's package cannot revoke. Whoever uses it sends the request by hand.
    let form = [("client_id", "client_cli"), ("token", token)];
    let revoked = server.post("/oauth2/revoke", &form).send().await.unwrap();
    assert_eq!(revoked.status(), StatusCode::OK);
    granted(
        &email(server, text(&tokens, "access_token")).await,
        renewed["access_token"] != tokens["access_token"],
        text(&refresh(token).await.unwrap_err(), "error"),
    )
}
