//! What the tests of the server half share: a default policy, two clients, one user, one moment, and the whole of a response.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a test fails"
)]

use core::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_flow::code::Entropy;
use device_flow::digest::{SecretDigest, SessionKey, UserCodeKey, UserCodeKeys};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Cause, Entered, Entry, Form, Grant, HostValue, Incoming, Inserted, Issuing,
    Policy, PolicyBuilder, Poll, Polled, Registration, Reply, Review, Subject, Written,
};
use device_flow::wire::response::Response;
use device_flow::wire::tokens::Tokens;
use time::OffsetDateTime;
use time::macros::datetime;

/// The moment at which tests begin.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-03-21 12:00:00 UTC);

/// Where users enter their codes.
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

/// A device code that no test is issued: the right length, never drawn.
pub(crate) const NO_CODE: &str = "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS00";

/// The access token of [`tokens`].
pub(crate) const ACCESS_TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";

/// A builder with everything at its default.
pub(crate) fn builder() -> PolicyBuilder {
    Policy::builder(PAGE)
}

/// The default policy.
pub(crate) fn policy() -> Policy {
    builder().build().unwrap()
}

/// A public client that may ask for `openid profile email`, and asks for `openid` by default.
pub(crate) fn cli() -> Registration {
    Registration::new(CLI, Authentication::Public)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile email"))
        .default_scope(scope("openid"))
}

/// A confidential client with [`SECRET`], anywhere; the same scopes.
pub(crate) fn backend() -> Registration {
    let authentication = Authentication::secret(SecretDigest::of(SECRET));
    Registration::new(BACKEND, authentication)
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

/// The user who decides.
pub(crate) fn alice() -> Subject {
    subject("alice")
}

/// The keys for the digests of user codes.
pub(crate) fn keys() -> UserCodeKeys {
    UserCodeKeys::new(key(7))
}

/// A key for the digests of user codes, another one for each seed.
pub(crate) fn key(seed: u8) -> UserCodeKey {
    UserCodeKey::new(&octets(seed)[..32]).unwrap()
}

/// The entropy of one issuance: other codes for each seed.
pub(crate) fn entropy(seed: u8) -> Entropy {
    Entropy::from(octets(seed))
}

/// Entropy with one device code per first and one user code per second argument.
pub(crate) fn entropy_of(device: u8, user: u8) -> Entropy {
    let mut octets = octets(device);
    octets[32..].copy_from_slice(&self::octets(user)[32..]);
    Entropy::from(octets)
}

fn octets(seed: u8) -> [u8; Entropy::OCTETS] {
    let mut octets = [seed; Entropy::OCTETS];
    for (place, octet) in (0_u8..).zip(&mut octets) {
        *octet = octet.wrapping_mul(31).wrapping_add(place);
    }
    octets
}

/// Tokens with an access token alone.
pub(crate) fn tokens() -> Tokens<'static> {
    Tokens::bearer(ACCESS_TOKEN).unwrap()
}

/// A request as a client sends it, without an `Authorization` header.
pub(crate) fn post(body: &(impl AsRef<[u8]> + ?Sized)) -> Incoming<'_> {
    Incoming::new("POST", body.as_ref()).content_type(Some(FORM))
}

/// The value of an `Authorization` header. Give the halves form-encoded (see [`encoded`]) where they need it.
pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Every octet as an escape: no reader may tell it from the plain text.
pub(crate) fn encoded(text: &str) -> String {
    escaped(text.as_bytes())
}

/// The same for octets that are no text.
pub(crate) fn escaped(octets: &[u8]) -> String {
    let mut out = String::new();
    for octet in octets {
        write!(out, "%{octet:02X}").unwrap();
    }
    out
}

/// The `Authorization` header of a client of this module: none for a public one.
pub(crate) fn authorization(client: &Registration) -> Option<String> {
    match client.authentication() {
        Authentication::Public => None,
        Authentication::Secret { .. }
        | Authentication::HostSecret(_)
        | Authentication::Assertion
        | Authentication::MutualTls => Some(basic(client.client_id(), SECRET)),
    }
}

/// The body of a poll that names a client.
pub(crate) fn poll_body(client_id: &str, device_code: &str) -> String {
    format!("grant_type={GRANT}&device_code={device_code}&client_id={client_id}")
}

// Responses.

/// Asserts the whole of a response: the status, every header in order, the body. `headers` are those after the three that
/// every response has.
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

/// Asserts an error with status 400 and no header of its own.
#[track_caller]
pub(crate) fn assert_refused(reply: &Reply, cause: Cause, error: &str, description: &str) {
    assert_reply(reply, cause, 400, &[], &error_body(error, description));
}

/// Asserts the one 401 of the rows A11 and B2 to B7.
#[track_caller]
pub(crate) fn assert_invalid_client(reply: &Reply, cause: Cause) {
    let challenge = [("www-authenticate", r#"Basic realm="oauth""#)];
    let body = error_body("invalid_client", "client authentication failed");
    assert_reply(reply, cause, 401, &challenge, &body);
}

/// Asserts the 503, which says when to come back.
#[track_caller]
pub(crate) fn assert_unavailable(reply: &Reply, cause: Cause) {
    let body = error_body("temporarily_unavailable", "try again later");
    assert_reply(reply, cause, 503, &[("retry-after", "5")], &body);
}

/// The body of an error.
pub(crate) fn error_body(error: &str, description: &str) -> String {
    format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
}

// Steps.

/// Takes a request through the form and authentication to a poll, with the registration that the host found.
pub(crate) fn with_poll<T>(
    policy: &Policy,
    incoming: Incoming<'_>,
    found: Option<&Registration>,
    then: impl FnOnce(&mut Poll<'_>) -> T,
) -> Result<T, Reply> {
    let form = Form::read(incoming, policy)?;
    match form.grant()? {
        Grant::DeviceCode(request) => request.authenticate(found).map(|mut poll| then(&mut poll)),
        Grant::Other(form) => Err(form.unsupported_grant()),
    }
}

/// Takes a request through the form and authentication to an issuance.
pub(crate) fn with_issuing<T>(
    policy: &Policy,
    incoming: Incoming<'_>,
    found: Option<&Registration>,
    then: impl FnOnce(&mut Issuing<'_>) -> T,
) -> Result<T, Reply> {
    let form = Form::read(incoming, policy)?;
    let mut issuing = form.device_authorization()?.authenticate(found)?;
    Ok(then(&mut issuing))
}

/// The refusal of a request at the token endpoint.
#[track_caller]
pub(crate) fn refusal<T>(outcome: Result<T, Reply>) -> Reply {
    match outcome {
        Ok(_) => panic!("not refused"),
        Err(reply) => reply,
    }
}

/// The codes that a device was given, and the key of its session.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) key: SessionKey,
}

/// Issues a session for `client` into the store, with the codes of `seed` and the scope `openid profile`.
pub(crate) fn issue(
    store: &mut Memory,
    policy: &Policy,
    client: &Registration,
    seed: u8,
    now: OffsetDateTime,
) -> Codes {
    let body = format!("client_id={}&scope=openid+profile", client.client_id());
    let header = authorization(client);
    let incoming = post(&body).authorization(header.as_ref());
    let issued = with_issuing(policy, incoming, Some(client), |issuing| {
        let issuance = issuing.draw(entropy(seed), &keys(), now).unwrap();
        let key = *issuance.session().key();
        let inserted = store.insert(issuance.session());
        assert_eq!(inserted, Inserted::New);
        (key, issuance.settle(inserted).unwrap())
    });
    let (key, reply) = issued.unwrap();
    assert_eq!(reply.cause(), Cause::Issued);
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    Codes {
        device_code: body["device_code"].as_str().unwrap().to_owned(),
        user_code: body["user_code"].as_str().unwrap().to_owned(),
        key,
    }
}

/// `user` enters a code, pays for it and claims its session.
pub(crate) fn claim(
    store: &mut Memory,
    policy: &Policy,
    user: &Subject,
    user_code: &str,
    now: OffsetDateTime,
) -> Review {
    let keys = keys();
    let mut entry = Entry::new(user_code, user, &keys, policy);
    let stored = store.load_quota(entry.quota_key());
    let guess = entry.pay(stored, now).unwrap();
    let written = store.change_quota(guess.change());
    let paid = guess.settle(written).unwrap();
    let mut user_keys = paid.user_keys();
    let stored = user_keys.find_map(|key| store.load_by_user_key(&key));
    match paid
        .enter(stored.map(|stored| &stored.session), now)
        .unwrap()
    {
        Entered::Review(review) => review,
        Entered::Claim(claim) => {
            let written = store.change(claim.change());
            claim.settle(written).unwrap()
        }
    }
}

/// `user` claims and approves, with all of the scope and an empty value.
pub(crate) fn approve(
    store: &mut Memory,
    policy: &Policy,
    user: &Subject,
    codes: &Codes,
    now: OffsetDateTime,
) {
    claim(store, policy, user, &codes.user_code, now);
    let session = &store.load(&codes.key).unwrap().session;
    let scope = session.scope().clone();
    let change = session.approve(user, &scope, HostValue::default(), policy, now);
    let change = change.unwrap().unwrap();
    assert_eq!(store.change(&change), Written::Won);
}

/// `user` claims and denies.
pub(crate) fn deny(
    store: &mut Memory,
    policy: &Policy,
    user: &Subject,
    codes: &Codes,
    now: OffsetDateTime,
) {
    claim(store, policy, user, &codes.user_code, now);
    let session = &store.load(&codes.key).unwrap().session;
    let change = session.deny(user, now).unwrap().unwrap();
    assert_eq!(store.change(&change), Written::Won);
}

/// One poll of `client`, as a host runs it: the pace saved, an approval redeemed with [`tokens`].
pub(crate) fn poll(
    store: &mut Memory,
    policy: &Policy,
    client: &Registration,
    device_code: &str,
    now: OffsetDateTime,
) -> Reply {
    let body = poll_body(client.client_id(), device_code);
    let header = authorization(client);
    let incoming = post(&body).authorization(header.as_ref());
    let polled = with_poll(policy, incoming, Some(client), |poll| {
        let key = poll.session_key().copied();
        let stored = key.and_then(|key| store.load(&key)).cloned();
        match poll.decide(stored.as_ref(), now) {
            Polled::Reply(reply) => reply,
            Polled::Paced(_, pace, reply) => {
                store.save_pace(&key.unwrap(), pace);
                reply
            }
            Polled::Redeem(redemption) => {
                let written = store.change(redemption.change());
                redemption.settle(written, &tokens()).unwrap()
            }
        }
    });
    polled.unwrap_or_else(|reply| reply)
}
