//! No request panics, and each gets the answer that a plain reading of tables A and B gives it.
//! A refusal is one of few constants. If the parameters that were read are encoded again, they are read as the same.
//!
//! An input is a method, headers and a body. It is sent to each endpoint. The plain reading below does not use the crate: it decodes
//! everything at once, copies freely, and finds repeated parameters in a list.

use device_flow::digest::{SecretDigest, SessionKey};
use device_flow::server::{
    Authenticated, Cause, Client, ClientAuthMethod, Exchange, Finish, Found, Inserted, Next,
    PolicyOptions, Reply, Request, Server,
};
use sha2::{Digest as _, Sha256};

use crate::message::{Message, decoded, is_printable, segments};
use crate::support::{self, NOW};

/// The longest body. It is short, so that some inputs are longer.
const MAX_BODY: usize = 3000;

pub(crate) fn run(data: &[u8]) {
    let message = Message::read(data);
    let method = String::from_utf8_lossy(message.first);
    let server = support::server_of(support::policy_of(PolicyOptions {
        max_body: MAX_BODY,
        ..PolicyOptions::default()
    }));
    let types = message.headers("content-type");
    let authorizations = message.headers("authorization");
    let request = Request::new(&method, message.body)
        .content_type(types.iter().copied())
        .authorization(authorizations.iter().copied());
    assert_eq!(format!("{request:?}"), "Request { .. }");

    let parameters = read(&method, &types, message.body);
    let claim = match &parameters {
        Ok(parameters) => claim(parameters, &authorizations),
        Err(cause) => Err(*cause),
    };
    for endpoint in [
        Endpoint::Token,
        Endpoint::Codes,
        Endpoint::Revocation,
        Endpoint::Own,
    ] {
        let requested = Requested {
            server: &server,
            endpoint,
            request,
            parameters: parameters.as_deref().unwrap_or_default(),
        };
        let wanted = parameters.as_ref().map_err(|cause| *cause);
        match wanted.and_then(|_| requested.claim(claim.clone())) {
            Ok(claim) => each_client(&claim, |found, wanted| {
                requested.serve(&claim, found, wanted);
            }),
            Err(cause) => requested.refuse(cause),
        }
    }
    if let (Ok(parameters), Ok(claim)) = (&parameters, &claim) {
        read_again(parameters, &authorizations, claim, &server);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Token,
    Codes,
    Revocation,
    /// An endpoint of the host itself.
    Own,
}

/// A request to an endpoint.
struct Requested<'r> {
    server: &'r Server,
    endpoint: Endpoint,
    request: Request<'r>,
    parameters: &'r [(String, String)],
}

impl Requested<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        value(self.parameters, name)
    }

    fn is_refresh(&self) -> bool {
        self.value("grant_type") == Some(REFRESH_GRANT)
    }

    /// Returns who asks, or the cause if the request is refused whoever asks (A8 to A16, R1, R15).
    fn claim(&self, claim: Result<Claim, Cause>) -> Result<Claim, Cause> {
        let (name, missing) = match (self.endpoint, self.value("grant_type")) {
            (Endpoint::Token, Some(DEVICE_GRANT)) => ("device_code", Cause::DeviceCodeMissing),
            (Endpoint::Token, Some(REFRESH_GRANT)) => ("refresh_token", Cause::RefreshTokenMissing),
            (Endpoint::Token, Some(_)) => return Err(Cause::GrantTypeUnsupported),
            (Endpoint::Token, None) => return Err(Cause::GrantTypeMissing),
            (Endpoint::Revocation, _) => ("token", Cause::TokenMissing),
            (Endpoint::Codes | Endpoint::Own, _) => return claim,
        };
        let claim = claim?;
        self.value(name).ok_or(missing)?;
        Ok(claim)
    }

    fn run(&self, claim: Option<&Claim>, found: Found<&Client>) -> (Result<String, Reply>, Asked) {
        let (server, request) = (self.server, self.request);
        match self.endpoint {
            Endpoint::Token => replied(drive(server.token(request, "", NOW), claim, found)),
            Endpoint::Codes => {
                let exchange = server.device_authorization(request, "", None, NOW);
                replied(drive(exchange, claim, found))
            }
            Endpoint::Revocation => {
                replied(drive(server.revocation(request, "", NOW), claim, found))
            }
            Endpoint::Own => {
                let (client, asked) = drive(server.authenticate(request, "", NOW), claim, found);
                let client = client.map(|client| {
                    parameters_are(&client, self.parameters);
                    client.client_id().to_owned()
                });
                (client, asked)
            }
        }
    }

    /// Asserts that the request is refused, and that nothing was asked for.
    fn refuse(&self, cause: Cause) {
        let (end, asked) = self.run(None, Found::Unknown);
        refused(&end.unwrap_err(), cause);
        assert_eq!(asked, Asked::default());
    }

    /// Asserts that the request is refused because of its client, or is served.
    fn serve(&self, claim: &Claim, found: Found<&Client>, wanted: Result<(), Cause>) {
        let (end, asked) = self.run(Some(claim), found);
        assert_eq!(asked.looked, usize::from(claim.secret.is_some()));
        // At its own endpoints, the host decides which grants a client has.
        let is_own = self.endpoint == Endpoint::Own;
        let wanted = wanted.or_else(|cause| {
            let is_served = is_own && cause == Cause::GrantNotAllowed;
            is_served.then_some(()).ok_or(cause)
        });
        if let Err(cause) = wanted {
            refused(&end.unwrap_err(), cause);
            let is_guess = matches!(cause, Cause::WrongSecret | Cause::HostRefused);
            let is_counted = is_guess && claim.secret.is_some();
            assert_eq!(asked.taken, usize::from(is_counted));
            assert!(asked.loaded.is_none() && asked.scope.is_none());
            return;
        }
        match self.endpoint {
            Endpoint::Token if self.is_refresh() => {
                refused(&end.unwrap_err(), Cause::MalformedRefreshToken);
            }
            Endpoint::Token => {
                // A17 and C2
                let code = self.value("device_code").unwrap();
                let octets = Sha256::digest(code.as_bytes()).into();
                let key = (code.len() == 43).then(|| SessionKey::from_bytes(octets));
                assert_eq!(asked.loaded, key);
                let cause = match key {
                    Some(_) => Cause::UnknownCode,
                    None => Cause::MalformedCode,
                };
                refused(&end.unwrap_err(), cause);
            }
            Endpoint::Codes => match (asked.scope, granted(self.value("scope"))) {
                // D3 to D6
                (Some(scope), Ok(wanted)) => {
                    assert_eq!(scope, wanted);
                    let body = end.unwrap();
                    assert!(body.starts_with(r#"{"device_code":""#) && !body.contains("scope"));
                    assert_eq!(asked.taken, 1);
                }
                (None, Err(cause)) => {
                    refused(&end.unwrap_err(), cause);
                    assert_eq!(asked.taken, 0);
                }
                (scope, wanted) => panic!("{scope:?} and not {wanted:?}"),
            },
            // R16: no token of an input is by chance one that this server made.
            Endpoint::Revocation => {
                assert_eq!(end.unwrap(), "");
                assert!(asked.loaded.is_none());
            }
            Endpoint::Own => {
                let client_id = end.unwrap();
                assert!(claim.id.as_ref().is_none_or(|own| *own == client_id));
            }
        }
    }
}

/// Returns the body of a success, or the reply.
#[allow(clippy::wildcard_enum_match_arm, reason = "nothing else succeeds here")]
fn replied((reply, asked): (Reply, Asked)) -> (Result<String, Reply>, Asked) {
    let end = match reply.cause() {
        Cause::NothingToRevoke => Ok(String::new()),
        Cause::Issued => Ok(reply.response().body().to_owned()),
        _ => Err(reply),
    };
    (end, asked)
}

/// What an exchange asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// How many quotas it asked for before it asked for the client. `taken` is how many after that.
    looked: usize,
    taken: usize,
    loaded: Option<SessionKey>,
    /// The scope of the session that was inserted.
    scope: Option<String>,
}

/// Runs an exchange over an empty store, with quotas that are never spent.
#[allow(clippy::wildcard_enum_match_arm, reason = "nothing else is asked for")]
fn drive<'r, T: Finish<'r>>(
    mut exchange: Exchange<'r, T>,
    wanted: Option<&Claim>,
    found: Found<&Client>,
) -> (T, Asked) {
    let mut asked = Asked::default();
    let mut is_known = false;
    loop {
        match exchange.next() {
            Next::Client(claim, ask) => {
                let wanted = wanted.expect("the request is refused whoever it is");
                assert!(!is_known, "asked for twice");
                is_known = true;
                claims(&claim, wanted);
                ask.answer(Ok(found));
            }
            Next::Take(_, ask) => {
                if is_known {
                    asked.taken += 1;
                } else {
                    asked.looked += 1;
                }
                ask.answer(Ok(Ok(())));
            }
            Next::Load(key, ask) => {
                asked.loaded = Some(*key);
                ask.answer(Ok(None));
            }
            Next::Draw(ask) => ask.answer(Ok(support::entropy(1))),
            Next::Insert(session, ask) => {
                asked.scope = Some(session.scope().to_string());
                ask.answer(Ok(Inserted::New));
            }
            Next::Done(end) => return (end, asked),
            next => panic!("{next:?}"),
        }
    }
}

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const REFRESH_GRANT: &str = "refresh_token";

// Rows A1 to A7.

type Parameters = Vec<(String, String)>;

fn read(method: &str, types: &[&[u8]], body: &[u8]) -> Result<Parameters, Cause> {
    if method != "POST" {
        return Err(Cause::MethodNotAllowed);
    }
    let is_form = |value: &[u8]| {
        let essence = value.split(|&b| b == b';').next().unwrap_or_default();
        let essence = essence.trim_ascii();
        essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    };
    match types {
        [one] if is_form(one) => {}
        _ => return Err(Cause::MediaType),
    }
    if body.len() > MAX_BODY {
        return Err(Cause::BodyTooLarge);
    }
    let segments = segments(body);
    // Parameters after the limit are not looked at, so that a longer body causes no more work.
    if segments.iter().take(64).any(Option::is_none) {
        return Err(Cause::Encoding);
    }
    if segments.len() > 64 {
        return Err(Cause::TooManyParameters);
    }
    let parameters: Parameters = segments.into_iter().flatten().collect();
    for (place, (name, _)) in parameters.iter().enumerate() {
        let again = parameters
            .iter()
            .skip(place + 1)
            .any(|(own, _)| own == name);
        if again && !["resource", "audience"].contains(&name.as_str()) {
            return Err(Cause::RepeatedParameter);
        }
    }
    Ok(parameters)
}

/// Returns the first value of a parameter that is not empty.
fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut named = parameters
        .iter()
        .filter(|(own, value)| own == name && !value.is_empty());
    named.next().map(|(_, value)| value.as_str())
}

fn parameters_are(client: &Authenticated<'_>, parameters: &[(String, String)]) {
    for (name, _) in parameters {
        let given: Vec<_> = client.parameters(name).map(String::from).collect();
        let named = parameters
            .iter()
            .filter(|(own, value)| own == name && !value.is_empty());
        let wanted: Vec<_> = named.map(|(_, value)| value.clone()).collect();
        assert_eq!(given, wanted);
        assert_eq!(
            client.parameter(name).as_deref(),
            wanted.first().map(String::as_str)
        );
        assert_eq!(client.parameter(name).as_deref(), value(parameters, name));
    }
    assert_eq!(client.parameter("nobody sends this"), None);
}

/// Encodes again what was read, every octet as an escape, and asserts that it is read as the same.
fn read_again(parameters: &Parameters, authorizations: &[&[u8]], claim: &Claim, server: &Server) {
    let encoded = parameters.iter().map(|(name, value)| {
        let (name, value) = (support::encoded(name), support::encoded(value));
        format!("{name}={value}")
    });
    let body = encoded.collect::<Vec<_>>().join("&");
    let method = match claim.proof {
        Proof::Nothing => ClientAuthMethod::MutualTls,
        Proof::Basic | Proof::Body => ClientAuthMethod::HostSecret,
        Proof::Assertion => ClientAuthMethod::Assertion,
    };
    if let Ok(client) = Client::new(claim.named(), method)
        && body.len() <= MAX_BODY
    {
        let request = support::post(&body).authorization(authorizations.iter().copied());
        let found = Found::Verified(&client);
        match drive(server.authenticate(request, "", NOW), Some(claim), found).0 {
            Ok(client) => parameters_are(&client, parameters),
            Err(reply) => panic!("refused when written again: {}", reply.cause()),
        }
    }
}

// Rows A10 to A17.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Nothing,
    Basic,
    Body,
    Assertion,
}

#[derive(Clone, Debug)]
struct Claim {
    id: Option<String>,
    secret: Option<String>,
    assertion: Option<String>,
    proof: Proof,
}

impl Claim {
    /// Returns the client that the claim names, or a client that an assertion may name.
    fn named(&self) -> &str {
        self.id.as_deref().unwrap_or("by assertion")
    }
}

fn claim(parameters: &Parameters, authorizations: &[&[u8]]) -> Result<Claim, Cause> {
    let secret = value(parameters, "client_secret");
    let assertion = value(parameters, "client_assertion");
    let id = value(parameters, "client_id");
    let basic = match authorizations {
        [] => None,
        [one] => Some(basic(one)),
        _ => Some(None),
    };
    let has_secret = matches!(&basic, Some(Some((_, secret))) if !secret.is_empty());
    let ways = [secret.is_some(), assertion.is_some(), has_secret];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(Cause::SeveralCredentials);
    }
    if basic == Some(None) {
        return Err(Cause::Authorization);
    }
    let basic = basic.flatten();
    if let (Some((own, _)), Some(id)) = (&basic, id)
        && own != id
    {
        return Err(Cause::ClientIdsDiffer);
    }
    // An empty id in a header names nobody.
    let named = id.is_some() || basic.as_ref().is_some_and(|(own, _)| !own.is_empty());
    if !named && (assertion.is_none() || basic.is_some()) {
        return Err(Cause::ClientIdMissing);
    }
    if [id, secret]
        .into_iter()
        .flatten()
        .any(|text| !is_printable(text))
    {
        return Err(Cause::CredentialCharacters);
    }
    let proof = match (has_secret, secret.is_some(), assertion.is_some()) {
        (true, _, _) => Proof::Basic,
        (_, true, _) => Proof::Body,
        (_, _, true) => Proof::Assertion,
        (false, false, false) => Proof::Nothing,
    };
    let of_header = basic
        .filter(|_| has_secret)
        .map(|(id, secret)| (Some(id), secret));
    let (header_id, header_secret) = of_header.unzip();
    let header_id = header_id.flatten();
    let id = id.map(str::to_owned).or(header_id).or_else(|| {
        let header = authorizations.first()?;
        basic_id(header)
    });
    let secret = secret.map(str::to_owned).or(header_secret);
    Ok(Claim {
        id,
        secret,
        assertion: assertion.map(str::to_owned),
        proof,
    })
}

fn basic_id(header: &[u8]) -> Option<String> {
    basic(header).map(|(id, _)| id)
}

/// Returns the id and the secret of a Basic header.
fn basic(header: &[u8]) -> Option<(String, String)> {
    let space = header.iter().position(|&b| b == b' ')?;
    if !header[..space].eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = base64(header[space + 1..].trim_ascii())?;
    let colon = pair.iter().position(|&b| b == b':')?;
    let (id, secret) = (decoded(&pair[..colon])?, decoded(&pair[colon + 1..])?);
    (is_printable(&id) && is_printable(&secret)).then_some((id, secret))
}

/// Decodes base64 in the standard alphabet, with padding and without stray bits at the end.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|&&b| b == b'=')
        .count();
    let bits = text[..text.len() - padding].iter().map(|own| {
        let place = ALPHABET.iter().position(|b| b == own)?;
        Some(format!("{place:06b}"))
    });
    let bits = bits.collect::<Option<String>>()?;
    let (whole, stray) = bits.split_at(bits.len() / 8 * 8);
    if stray.contains('1') || stray.len() != padding * 2 {
        return None;
    }
    let octets = (0..whole.len() / 8).map(|place| {
        let octet = &whole[place * 8..][..8];
        u8::from_str_radix(octet, 2).ok()
    });
    octets.collect()
}

fn claims(given: &device_flow::server::Claim<'_>, claim: &Claim) {
    assert_eq!(given.client_id(), claim.id.as_deref());
    assert_eq!(given.secret(), claim.secret.as_deref().map(Into::into));
    assert_eq!(
        given.assertion(),
        claim.assertion.as_deref().map(Into::into)
    );
    let shown = format!("Claim {{ client_id: {:?}, .. }}", claim.id);
    assert_eq!(format!("{given:?}"), shown);
}

// Table B.

#[derive(Clone, Copy, Debug)]
enum Kind {
    Public,
    /// The flag says whether the secret is right.
    Secret(Placement, bool),
    HostSecret(Placement),
    Assertion,
    MutualTls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placement {
    Anywhere,
    BasicOnly,
}

/// Returns what B2 to B7 decide about a client of this kind: if the crate verifies it, and if the host has verified it.
fn decided(kind: Kind, proof: Proof) -> [Result<(), Cause>; 2] {
    let excluded = Err(Cause::MethodExcluded);
    let missing = Err(Cause::CredentialMissing);
    let allowed = |placement| match proof {
        Proof::Basic => true,
        Proof::Body => placement == Placement::Anywhere,
        Proof::Nothing | Proof::Assertion => false,
    };
    let core = match (kind, proof) {
        (_, Proof::Assertion) => excluded,
        (Kind::Public, Proof::Nothing) => Ok(()),
        (_, Proof::Nothing) => missing,
        (Kind::Public, Proof::Basic | Proof::Body) => Err(Cause::UnexpectedSecret),
        (Kind::Secret(placement, _), _) if !allowed(placement) => excluded,
        (Kind::Secret(_, true), _) => Ok(()),
        (Kind::Secret(_, false), _) => Err(Cause::WrongSecret),
        (Kind::HostSecret(_) | Kind::Assertion | Kind::MutualTls, _) => excluded,
    };
    let host = match (kind, proof) {
        (Kind::HostSecret(_) | Kind::Assertion, Proof::Nothing) => missing,
        (Kind::HostSecret(placement), _) if allowed(placement) => Ok(()),
        (Kind::Assertion, Proof::Assertion) | (Kind::MutualTls, Proof::Nothing) => Ok(()),
        _ => excluded,
    };
    [core, host]
}

/// Calls `serve` with every kind of client that the host may find, and with the decision that each must get.
fn each_client(claim: &Claim, serve: impl Fn(Found<&Client>, Result<(), Cause>)) {
    serve(Found::Unknown, Err(Cause::UnknownClient));
    serve(Found::Refused, Err(Cause::HostRefused));
    let of = |method| Client::new(claim.named(), method);
    if of(ClientAuthMethod::None).is_err() {
        return;
    }
    let digests = |text: &str| {
        [
            Some(SecretDigest::of("another")),
            Some(SecretDigest::of(text)),
        ]
    };
    let presented = claim.secret.clone().unwrap_or_default();
    let is_right = |text: &str| presented == text || presented == "another";
    let kinds = [
        (Kind::Public, ClientAuthMethod::None),
        (
            Kind::Secret(Placement::Anywhere, true),
            ClientAuthMethod::Secret(digests(&presented)),
        ),
        (
            Kind::Secret(Placement::BasicOnly, true),
            ClientAuthMethod::SecretBasic(digests(&presented)),
        ),
        (
            Kind::Secret(Placement::Anywhere, is_right("wrong")),
            ClientAuthMethod::Secret(digests("wrong")),
        ),
        (
            Kind::HostSecret(Placement::Anywhere),
            ClientAuthMethod::HostSecret,
        ),
        (
            Kind::HostSecret(Placement::BasicOnly),
            ClientAuthMethod::HostSecretBasic,
        ),
        (Kind::Assertion, ClientAuthMethod::Assertion),
        (Kind::MutualTls, ClientAuthMethod::MutualTls),
    ];
    for (kind, method) in kinds {
        let [core, host] = decided(kind, claim.proof);
        // To the crate, a client that only an assertion names is unknown.
        let core = if claim.id.is_none() {
            Err(Cause::UnknownClient)
        } else {
            core
        };
        let client = of(method).unwrap();
        let client = client
            .allow_scope(support::scope(ALLOWED))
            .default_scope(support::scope(DEFAULT));
        for (client, wanted) in [
            (client.clone(), Some(Cause::GrantNotAllowed)),
            (
                client.clone().allow_device_grant().disabled(),
                Some(Cause::ClientDisabled),
            ),
            (client.allow_device_grant(), None),
        ] {
            let wanted = |decided: Result<(), Cause>| match (decided, wanted) {
                (Ok(()), Some(cause)) => Err(cause),
                (decided, _) => decided,
            };
            serve(Found::Registered(&client), wanted(core));
            serve(Found::Verified(&client), wanted(host));
        }
    }
    let stranger = Client::new("somebody else", ClientAuthMethod::None).unwrap();
    let stranger = stranger.allow_device_grant();
    if claim.id.as_deref() != Some("somebody else") {
        serve(Found::Registered(&stranger), Err(Cause::UnknownClient));
        if claim.id.is_some() {
            serve(Found::Verified(&stranger), Err(Cause::HostRefused));
        }
    }
}

// Rows D3 to D6.

const ALLOWED: &str = "openid profile https://api.example/<read>";
const DEFAULT: &str = "openid";

fn granted(scope: Option<&str>) -> Result<String, Cause> {
    let Some(scope) = scope else {
        return Ok(DEFAULT.to_owned());
    };
    let is_token = |token: &str| {
        let legal = |c: char| ('!'..='~').contains(&c) && c != '"' && c != '\\';
        !token.is_empty() && token.chars().all(legal)
    };
    let tokens: Vec<_> = scope.split(' ').collect();
    if scope.len() > 2048 || tokens.len() > 64 || !tokens.iter().all(|token| is_token(token)) {
        return Err(Cause::ScopeMalformed);
    }
    let mut allowed: Vec<&str> = Vec::new();
    for token in tokens {
        if ALLOWED.split(' ').any(|own| own == token) && !allowed.contains(&token) {
            allowed.push(token);
        }
    }
    if allowed.is_empty() {
        return Err(Cause::ScopeNotAllowed);
    }
    Ok(allowed.join(" "))
}

/// Asserts the whole refusal. Every refusal is a constant, so nothing that the peer sent can be in it.
#[allow(clippy::wildcard_enum_match_arm, reason = "no other cause is met here")]
fn refused(reply: &Reply, cause: Cause) {
    let challenge = [("www-authenticate", r#"Basic realm="oauth""#)];
    let (status, headers, error, description): (u16, &[_], _, _) = match cause {
        Cause::MethodNotAllowed => (
            405,
            &[("allow", "POST")],
            INVALID,
            "only POST is allowed here",
        ),
        Cause::MediaType => (
            400,
            &[],
            INVALID,
            "the content type must be application/x-www-form-urlencoded, in one header",
        ),
        Cause::Encoding => (
            400,
            &[],
            INVALID,
            "the body has a broken percent escape or is not UTF-8",
        ),
        Cause::BodyTooLarge => (400, &[], INVALID, "the body is too large"),
        Cause::TooManyParameters => (400, &[], INVALID, "the body has too many parameters"),
        Cause::RepeatedParameter => (400, &[], INVALID, "a parameter is repeated"),
        Cause::GrantTypeMissing => (400, &[], INVALID, "grant_type is missing"),
        Cause::GrantTypeUnsupported => (
            400,
            &[],
            "unsupported_grant_type",
            "this grant type is not supported",
        ),
        Cause::SeveralCredentials => (
            400,
            &[],
            INVALID,
            "the client authenticates in more than one way",
        ),
        Cause::ClientIdsDiffer => (
            400,
            &[],
            INVALID,
            "client_id differs from the one in the authorization header",
        ),
        Cause::ClientIdMissing => (400, &[], INVALID, "client_id is missing"),
        Cause::CredentialCharacters => (
            400,
            &[],
            INVALID,
            "client_id or client_secret is not printable ASCII",
        ),
        Cause::DeviceCodeMissing => (400, &[], INVALID, "device_code is missing"),
        Cause::RefreshTokenMissing => (400, &[], INVALID, "refresh_token is missing"),
        Cause::TokenMissing => (400, &[], INVALID, "token is missing"),
        Cause::MalformedRefreshToken => {
            (400, &[], "invalid_grant", "the refresh token is not valid")
        }
        Cause::Authorization
        | Cause::UnknownClient
        | Cause::WrongSecret
        | Cause::CredentialMissing
        | Cause::UnexpectedSecret
        | Cause::MethodExcluded
        | Cause::ClientDisabled
        | Cause::HostRefused => (
            401,
            &challenge,
            "invalid_client",
            "client authentication failed",
        ),
        Cause::GrantNotAllowed => (
            400,
            &[],
            "unauthorized_client",
            "the client may not use this grant",
        ),
        Cause::UnknownCode | Cause::MalformedCode => {
            (400, &[], "invalid_grant", "the device code is not valid")
        }
        Cause::ScopeMalformed => (400, &[], "invalid_scope", "scope is malformed"),
        Cause::ScopeNotAllowed => (400, &[], "invalid_scope", "the scope is not allowed"),
        other => panic!("{other} is not for a form to say"),
    };
    let body = support::error_body(error, description);
    support::assert_reply(reply, cause, status, headers, &body);
    let shown = format!("{:?}", reply.response());
    assert_eq!(shown, format!("Response {{ status: {status}, .. }}"));
}

const INVALID: &str = "invalid_request";
