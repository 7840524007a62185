//! What the tests share. Every program of `tests/`, and the fuzz targets, compile this module and use a part of it.
//!
//! | file | what it is for |
//! |---|---|
//! | this one | the server half: a default policy, two clients, a user, a moment, requests, and checks of whole responses |
//! | `host` | a host over the embedded store. It answers all questions of an exchange, can be told to fail, and notes what it was asked |
//! | `login` | one login at that host, and what each poll of it wrote |
//! | `client` | the client half: a client, the answers that it gets, and all that it sends and reports |
//! | `oracle` | a model of one login, written from the tables and not from the code |
//! | `world` | lists of operations, played by the crate and by the oracle: for `properties` and the fuzz target `server` |
//! | `pair` | both halves, joined by a network that loses and repeats messages: for `two_ended` and the fuzz target `client_server` |
//!
//! A test runs its exchanges with [`Host`]. Some tests have a loop of their own: those that stop at a question or inspect it
//! (`allocations`, `secrets`, the model, the fuzz targets), and those whose host follows a script (the vectors, `world`).

#![allow(dead_code, reason = "each program uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unchecked_time_subtraction,
    clippy::wildcard_enum_match_arm,
    clippy::std_instead_of_alloc,
    reason = "a panic is how a test fails"
)]

pub(crate) mod client;
pub(crate) mod host;
pub(crate) mod login;
pub(crate) mod oracle;
pub(crate) mod pair;
pub(crate) mod world;

pub(crate) use host::{Host, Question, Says};

use core::fmt::Write as _;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_flow::code::Entropy;
use device_flow::digest::{SecretDigest, SessionKey};
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Policy, PolicyOptions, RefreshOptions, Reply, Request,
    Response, Server, ServerKeys, Subject, Tokens,
};
use time::OffsetDateTime;
use time::macros::datetime;

/// The moment at which tests begin.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-03-21 12:00:00 UTC);

/// The address from which requests come.
pub(crate) const SOURCE: &str = "203.0.113.7";

/// The URL of the page where users enter their codes.
pub(crate) const PAGE: &str = "https://login.example.com/device";

/// The media type of both endpoints.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// The grant type, as a client encodes it.
pub(crate) const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

/// The id of the public client.
pub(crate) const CLI: &str = "client_cli";

/// The id of the confidential client.
pub(crate) const BACKEND: &str = "client_backend";

/// The secret of the confidential client.
pub(crate) const SECRET: &str = "7Fjfp0ZBr1KtDRbnfVdmIw";

/// A device code of the right length that is never issued.
pub(crate) const NO_CODE: &str = "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS00";

/// The access token of [`tokens`].
pub(crate) const ACCESS_TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";

/// Returns the default policy.
pub(crate) fn policy() -> Policy {
    policy_of(PolicyOptions::default())
}

/// Returns a policy with these options and the usual page.
pub(crate) fn policy_of(options: PolicyOptions) -> Policy {
    Policy::new(PAGE, options).unwrap()
}

/// Returns the default options, but with these options for refresh tokens.
pub(crate) fn with_refresh(refresh: RefreshOptions) -> PolicyOptions {
    PolicyOptions {
        refresh: Some(refresh),
        ..PolicyOptions::default()
    }
}

/// Returns a server with the default policy.
pub(crate) fn server() -> Server {
    server_of(policy())
}

/// Returns a server with this policy and the usual keys.
pub(crate) fn server_of(policy: Policy) -> Server {
    Server::new(policy, keys())
}

/// Returns a public client that may ask for `openid profile email`, and asks for `openid` by default.
pub(crate) fn cli() -> Client {
    Client::new(CLI, ClientAuthMethod::None)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile email"))
        .default_scope(scope("openid"))
}

/// Returns a confidential client that may send [`SECRET`] in the header or in the body. It has the scopes of [`cli`].
pub(crate) fn backend() -> Client {
    let method = ClientAuthMethod::secret(SecretDigest::of(SECRET));
    Client::new(BACKEND, method)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile email"))
        .default_scope(scope("openid"))
}

pub(crate) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

pub(crate) fn subject(sub: &str) -> Subject {
    Subject::new(sub).unwrap()
}

/// Returns the user who decides.
pub(crate) fn alice() -> Subject {
    subject("alice")
}

/// Returns the secret keys of the server.
pub(crate) fn keys() -> ServerKeys {
    ServerKeys::new(&key(7)).unwrap()
}

/// Returns a key for the server, a different one for each seed.
pub(crate) fn key(seed: u8) -> [u8; 32] {
    octets(seed)[..32].try_into().unwrap()
}

/// Returns the entropy of one issuance. Each seed gives different codes.
pub(crate) fn entropy(seed: u8) -> Entropy {
    nth_entropy(seed.into())
}

/// Returns the entropy of the draw with this number. For numbers under 256 it is that of [`entropy`].
pub(crate) fn nth_entropy(number: u16) -> Entropy {
    let [low, high] = number.to_le_bytes();
    let mut octets = octets(low);
    for part in [0, 32] {
        octets[part] = octets[part].wrapping_add(high);
    }
    Entropy::from(octets)
}

/// Returns entropy whose device code depends only on `device`, and whose user code depends only on `user`.
pub(crate) fn entropy_of(device: u8, user: u8) -> Entropy {
    let mut octets = octets(device);
    octets[32..].copy_from_slice(&self::octets(user)[32..]);
    Entropy::from(octets)
}

/// Polls a future once. Returns its result, or `None` if it has to wait.
pub(crate) fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    }
}

fn octets(seed: u8) -> [u8; Entropy::OCTETS] {
    let mut octets = [seed; Entropy::OCTETS];
    for (place, octet) in (0_u8..).zip(&mut octets) {
        *octet = octet.wrapping_mul(31).wrapping_add(place);
    }
    octets
}

/// Returns tokens that have only an access token.
pub(crate) fn tokens() -> Tokens<'static> {
    Tokens::bearer(ACCESS_TOKEN).unwrap()
}

/// Returns a request as a client sends it, without an `Authorization` header.
pub(crate) fn post(body: &(impl AsRef<[u8]> + ?Sized)) -> Request<'_> {
    Request::new("POST", body.as_ref()).content_type(Some(FORM))
}

/// Returns a Basic `Authorization` header. If `id` and `secret` need it, the caller must form-encode them (see [`encoded`]).
pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Returns a text with every octet written as a percent escape. A reader must read it as the plain text.
pub(crate) fn encoded(text: &str) -> String {
    escaped(text.as_bytes())
}

/// Returns octets as percent escapes, also octets that are not text.
pub(crate) fn escaped(octets: &[u8]) -> String {
    let mut out = String::new();
    for octet in octets {
        write!(out, "%{octet:02X}").unwrap();
    }
    out
}

/// Returns the `Authorization` header of a client of this module, or `None` for a public client.
pub(crate) fn authorization(client: &Client) -> Option<String> {
    (!client.is_public()).then(|| basic(client.id(), SECRET))
}

/// Returns the body of a poll that names the client.
pub(crate) fn poll_body(client_id: &str, device_code: &str) -> String {
    format!("grant_type={GRANT}&device_code={device_code}&client_id={client_id}")
}

/// Returns the body of a refresh that names the client.
pub(crate) fn refresh_body(client_id: &str, token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}&client_id={client_id}")
}

/// Returns the body of a revocation that names the client.
pub(crate) fn revocation_body(client_id: &str, token: &str) -> String {
    format!("token={token}&client_id={client_id}")
}

/// Calls `then` with a request of this client with this body, and returns the result. The request has an `Authorization` header if the
/// client has a secret.
pub(crate) fn sent_by<T>(client: &Client, body: &str, then: impl FnOnce(Request<'_>) -> T) -> T {
    let header = authorization(client);
    then(post(body).authorization(header.as_ref()))
}

// Responses.

/// Asserts the whole response: the status, every header in order, and the body. `headers` are the headers after the three that every
/// response has.
#[track_caller]
pub(crate) fn assert_response(
    response: &Response,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) {
    // RFC 6749, sections 5.1 and 5.2.
    let always = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
    ];
    let wanted: Vec<_> = always
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let given: Vec<_> = response
        .headers()
        .map(|(name, value)| (name.to_owned(), (*value).to_owned()))
        .collect();
    let given = (response.status(), given, response.body().to_owned());
    assert_eq!(given, (status, wanted, body.to_owned()));
}

/// Asserts the cause and the whole response.
#[track_caller]
pub(crate) fn assert_reply(
    reply: &Reply,
    cause: Cause,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) {
    assert_eq!(reply.cause(), cause);
    assert_response(reply.response(), status, headers, body);
}

/// Asserts an error with status 400 and no further header.
#[track_caller]
pub(crate) fn assert_refused(reply: &Reply, cause: Cause, error: &str, description: &str) {
    assert_reply(reply, cause, 400, &[], &error_body(error, description));
}

/// Asserts the 401 response, which is the same for the rows A11 and B2 to B7.
#[track_caller]
pub(crate) fn assert_invalid_client(reply: &Reply, cause: Cause) {
    let challenge = [("www-authenticate", r#"Basic realm="oauth""#)];
    let body = error_body("invalid_client", "client authentication failed");
    assert_reply(reply, cause, 401, &challenge, &body);
}

/// Asserts the 503 response, which says when to try again.
#[track_caller]
pub(crate) fn assert_unavailable(reply: &Reply, cause: Cause) {
    let body = error_body("temporarily_unavailable", "try again later");
    assert_reply(reply, cause, 503, &[("retry-after", "5")], &body);
}

/// Returns the body of an error response.
pub(crate) fn error_body(error: &str, description: &str) -> String {
    format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
}

// What responses hold.

/// The codes that a device was given, and the key of its session.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) key: SessionKey,
}

impl Codes {
    /// Reads the codes from a response.
    pub(crate) fn of(reply: &Reply) -> Self {
        let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
        let device_code = body["device_code"].as_str().unwrap().to_owned();
        Self {
            key: key_of(&device_code),
            user_code: body["user_code"].as_str().unwrap().to_owned(),
            device_code,
        }
    }
}

/// Returns the key of a session: the SHA-256 of its device code.
pub(crate) fn key_of(device_code: &str) -> SessionKey {
    SessionKey::from_bytes(*SecretDigest::of(device_code).as_bytes())
}

/// Returns the refresh token of a response.
pub(crate) fn refresh_token(reply: &Reply) -> String {
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    body["refresh_token"].as_str().unwrap().to_owned()
}
