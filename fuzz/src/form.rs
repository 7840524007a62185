//! No request panics; each gets what a plain reading of tables A and B gives it, a refusal is one of few constants, and what is read re-encodes to the same.
//!
//! An input is a method, headers and a body. The plain reading below knows nothing of the crate: it decodes everything at
//! once, copies as it likes, and finds repeated parameters in a list.

use device_flow::digest::{SecretDigest, SessionKey};
use device_flow::server::SecretPlacement::{Anywhere, BasicOnly};
use device_flow::server::{
    Authentication, Cause, Form, Grant, HostVerdict, Incoming, Issuing, Policy, Poll, Polled,
    Presented, Registration, Reply, SecretPlacement, Unauthenticated,
};
use sha2::{Digest as _, Sha256};

use crate::message::{Message, decoded, is_printable, segments};
use crate::support::{self, NOW};

/// Small, so that inputs pass it.
const MAX_BODY: usize = 3000;

pub(crate) fn run(data: &[u8]) {
    let message = Message::read(data);
    let method = String::from_utf8_lossy(message.first);
    let policy = support::builder().max_body(MAX_BODY).build().unwrap();
    let types = message.headers("content-type");
    let authorizations = message.headers("authorization");
    let incoming = Incoming::new(&method, message.body)
        .content_type(types.iter().copied())
        .authorization(authorizations.iter().copied());
    let redacted = format!("Incoming({} bytes, redacted)", message.body.len());
    assert_eq!(format!("{incoming:?}"), redacted);

    let wanted = read(&method, &types, message.body);
    let form = match (Form::read(incoming, &policy), &wanted) {
        (Ok(form), Ok(_)) => form,
        (Err(reply), Err(cause)) => return refused(&reply, *cause),
        (Ok(_), Err(cause)) => panic!("accepted in spite of {cause}"),
        (Err(reply), Ok(_)) => panic!("refused for {}", reply.cause()),
    };
    let parameters = wanted.unwrap();
    parameters_are(&form, &parameters);
    read_again(&parameters, &policy);
    refused(&form.unsupported_grant(), Cause::GrantTypeUnsupported);

    let claim = claim(&parameters, &authorizations);
    let grant_type = value(&parameters, "grant_type");
    match (form.grant(), grant_type) {
        (Err(reply), None) => refused(&reply, Cause::GrantTypeMissing),
        (Ok(Grant::Other(_)), Some(other)) => assert_ne!(other, DEVICE_GRANT),
        (grant, Some(DEVICE_GRANT)) => {
            let code = value(&parameters, "device_code");
            let claim = claim.clone().and_then(|claim| match code {
                Some(code) => Ok((claim, code)),
                None => Err(Cause::DeviceCodeMissing),
            });
            match (grant, claim) {
                (Ok(Grant::DeviceCode(request)), Ok((claim, code))) => {
                    claims(&request, &claim);
                    drop(request);
                    each_registration(&claim, |registration, host| {
                        let Ok(Grant::DeviceCode(request)) = form.grant() else {
                            panic!("not the same twice")
                        };
                        let polls = match host {
                            None => request.authenticate(registration),
                            Some(verdict) => request.authenticate_by(verdict),
                        };
                        polls.map(|poll| looks_up(poll, code))
                    });
                }
                (Err(reply), Err(cause)) => refused(&reply, cause),
                (Ok(_), Err(cause)) => panic!("accepted in spite of {cause}"),
                (grant, _) => panic!("refused: {grant:?}"),
            }
        }
        (grant, grant_type) => panic!("{grant:?} for {grant_type:?}"),
    }
    match (form.device_authorization(), claim) {
        (Ok(request), Ok(claim)) => {
            claims(&request, &claim);
            drop(request);
            let scope = value(&parameters, "scope");
            each_registration(&claim, |registration, host| {
                let request = form.device_authorization().unwrap();
                let own = form.client().unwrap();
                let (issuing, own) = match host {
                    None => (
                        request.authenticate(registration),
                        own.authenticate(registration),
                    ),
                    Some(verdict) => (
                        request.authenticate_by(verdict),
                        own.authenticate_by(verdict),
                    ),
                };
                // The same for a grant of the host's own, but that the device grant need not be allowed.
                match (&issuing, &own) {
                    (Err(reply), Err(other)) => assert_eq!(reply.cause(), other.cause()),
                    (Err(reply), Ok(_)) => assert_eq!(reply.cause(), Cause::GrantNotAllowed),
                    (issuing, own) => assert!(own.is_ok(), "{issuing:?} and {own:?}"),
                }
                issuing.map(|issuing| issues(issuing, scope))
            });
        }
        (Err(reply), Err(cause)) => refused(&reply, cause),
        (Ok(_), Err(cause)) => panic!("accepted in spite of {cause}"),
        (Err(reply), Ok(_)) => panic!("refused for {}", reply.cause()),
    }
}

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

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
    // No work in proportion to the excess: what stands after the limit is not looked at.
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

/// The first value of a parameter that has one.
fn value<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    let mut named = parameters
        .iter()
        .filter(|(own, value)| own == name && !value.is_empty());
    named.next().map(|(_, value)| value.as_str())
}

fn parameters_are(form: &Form<'_>, parameters: &Parameters) {
    for (name, _) in parameters {
        let given: Vec<_> = form.parameters(name).map(String::from).collect();
        let named = parameters
            .iter()
            .filter(|(own, value)| own == name && !value.is_empty());
        let wanted: Vec<_> = named.map(|(_, value)| value.clone()).collect();
        assert_eq!(given, wanted);
        assert_eq!(
            form.parameter(name).as_deref(),
            wanted.first().map(String::as_str)
        );
        assert_eq!(form.parameter(name).as_deref(), value(parameters, name));
    }
    assert_eq!(form.parameter("nobody sends this"), None);
}

/// What was read is encoded anew, every octet as an escape, and read again.
fn read_again(parameters: &Parameters, policy: &Policy) {
    let encoded = parameters.iter().map(|(name, value)| {
        let (name, value) = (support::encoded(name), support::encoded(value));
        format!("{name}={value}")
    });
    let body = encoded.collect::<Vec<_>>().join("&");
    if body.len() <= MAX_BODY {
        match Form::read(support::post(&body), policy) {
            Ok(form) => parameters_are(&form, parameters),
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
    proof: Proof,
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
    Ok(Claim { id, secret, proof })
}

fn basic_id(header: &[u8]) -> Option<String> {
    basic(header).map(|(id, _)| id)
}

/// Id and secret of a header.
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

/// The standard alphabet, padded, without stray bits at the end.
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

fn claims<T>(request: &Unauthenticated<'_, T>, claim: &Claim) {
    assert_eq!(request.client_id(), claim.id.as_deref());
    match (request.presented(), claim.proof) {
        (Presented::Nothing, Proof::Nothing) | (Presented::Assertion { .. }, Proof::Assertion) => {}
        (Presented::Secret(secret), Proof::Basic | Proof::Body) => {
            assert_eq!(Some(&*secret), claim.secret.as_deref());
        }
        (presented, proof) => panic!("{presented:?} for {proof:?}"),
    }
    let has_quota = request.secret_quota_key("203.0.113.7").is_some();
    assert_eq!(has_quota, claim.secret.is_some());
    assert!(request.check_secret_quota(None, NOW).is_ok());
    let shown = format!("{request:?}");
    let count = shown.strip_prefix("Unauthenticated(Form(");
    let count = count.and_then(|rest| rest.strip_suffix(" bytes, redacted))"));
    assert!(count.is_some_and(|count| count.parse::<usize>().is_ok()));
}

// Table B.

#[derive(Clone, Copy, Debug)]
enum Kind {
    Public,
    Secret(SecretPlacement, bool),
    HostSecret(SecretPlacement),
    Assertion,
    MutualTls,
}

/// What B2 to B7 make of a client of this kind, by the core and by the host's word.
fn decided(kind: Kind, proof: Proof) -> [Result<(), Cause>; 2] {
    let excluded = Err(Cause::MethodExcluded);
    let missing = Err(Cause::CredentialMissing);
    let allowed = |placement| match proof {
        Proof::Basic => true,
        Proof::Body => placement == SecretPlacement::Anywhere,
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

/// Authenticates against every kind of registration there is.
fn each_registration<'f>(
    claim: &Claim,
    authenticate: impl for<'r> Fn(
        Option<&'r Registration>,
        Option<HostVerdict<'r>>,
    ) -> Result<(), Reply>,
) {
    let refuses = |outcome: Result<(), Reply>, wanted: Result<(), Cause>| match (outcome, wanted) {
        (Ok(()), Ok(())) => {}
        (Err(reply), Err(cause)) => refused(&reply, cause),
        (outcome, wanted) => panic!("{:?} and not {wanted:?}", outcome.map_err(|r| r.cause())),
    };
    refuses(authenticate(None, None), Err(Cause::UnknownClient));
    refuses(
        authenticate(None, Some(HostVerdict::Refused)),
        Err(Cause::HostRefused),
    );
    let of = |authentication| {
        let id = claim
            .id
            .clone()
            .unwrap_or_else(|| "by assertion".to_owned());
        Registration::new(id, authentication)
    };
    if claim.id.as_deref() == Some("") || of(Authentication::Public).is_err() {
        return;
    }
    let secret = |text: &str, placement| Authentication::Secret {
        digests: [
            Some(SecretDigest::of("another")),
            Some(SecretDigest::of(text)),
        ],
        placement,
    };
    let presented = claim.secret.clone().unwrap_or_default();
    let is_right = |text: &str| presented == text || presented == "another";
    let kinds = [
        (Kind::Public, Authentication::Public),
        (Kind::Secret(Anywhere, true), secret(&presented, Anywhere)),
        (Kind::Secret(BasicOnly, true), secret(&presented, BasicOnly)),
        (
            Kind::Secret(Anywhere, is_right("wrong")),
            secret("wrong", Anywhere),
        ),
        (
            Kind::HostSecret(Anywhere),
            Authentication::HostSecret(Anywhere),
        ),
        (
            Kind::HostSecret(BasicOnly),
            Authentication::HostSecret(BasicOnly),
        ),
        (Kind::Assertion, Authentication::Assertion),
        (Kind::MutualTls, Authentication::MutualTls),
    ];
    for (kind, authentication) in kinds {
        let [core, host] = decided(kind, claim.proof);
        // Who is named by an assertion alone is nobody to the core.
        let core = if claim.id.is_none() {
            Err(Cause::UnknownClient)
        } else {
            core
        };
        let client = of(authentication).unwrap();
        let scope = |text| support::scope(text);
        let client = client
            .allow_scope(scope(ALLOWED))
            .default_scope(scope(DEFAULT));
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
            refuses(authenticate(Some(&client), None), wanted(core));
            let verdict = HostVerdict::Authenticated(&client);
            refuses(authenticate(None, Some(verdict)), wanted(host));
        }
    }
    let stranger = Registration::new("somebody else", Authentication::Public).unwrap();
    if claim.id.as_deref() != Some("somebody else") {
        refuses(
            authenticate(Some(&stranger.allow_device_grant()), None),
            Err(Cause::UnknownClient),
        );
    }
}

// Rows A17, C2 and D3 to D6.

fn looks_up(mut poll: Poll<'_>, code: &str) {
    let octets = Sha256::digest(code.as_bytes()).into();
    let key = (code.len() == 43).then(|| SessionKey::from_bytes(octets));
    assert_eq!(poll.session_key(), key.as_ref());
    let cause = match key {
        Some(_) => Cause::UnknownCode,
        None => Cause::MalformedCode,
    };
    match poll.decide(None, NOW) {
        Polled::Reply(reply) => refused(&reply, cause),
        other @ (Polled::Paced(..) | Polled::Redeem(_)) => panic!("{other:?}"),
    }
}

const ALLOWED: &str = "openid profile https://api.example/<read>";
const DEFAULT: &str = "openid";

fn issues(mut issuing: Issuing<'_>, scope: Option<&str>) {
    let wanted = match scope {
        None => Ok(DEFAULT.to_owned()),
        Some(scope) => granted(scope),
    };
    let keys = support::keys();
    match (issuing.draw(support::entropy(1), &keys, NOW), wanted) {
        (Ok(issuance), Ok(wanted)) => {
            assert_eq!(issuance.session().scope().as_str(), wanted);
            let reply = issuance.settle(device_flow::server::Inserted::New).unwrap();
            let body = reply.response().body();
            assert!(body.starts_with(r#"{"device_code":""#) && !body.contains("scope"));
        }
        (Err(reply), Err(cause)) => refused(&reply, cause),
        (Ok(issuance), Err(cause)) => panic!("{issuance:?} in spite of {cause}"),
        (Err(reply), Ok(_)) => panic!("refused for {}", reply.cause()),
    }
}

fn granted(scope: &str) -> Result<String, Cause> {
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

/// Every refusal is a constant, so nothing of the peer can be in it.
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
            "the body must be application/x-www-form-urlencoded, said once",
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
            "client_id or client_secret is not visible ASCII",
        ),
        Cause::DeviceCodeMissing => (400, &[], INVALID, "device_code is missing"),
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
        Cause::ScopeNotAllowed => (400, &[], "invalid_scope", "nothing of the scope is allowed"),
        other => panic!("{other} is not for a form to say"),
    };
    let body = support::error_body(error, description);
    support::assert_reply(reply, cause, status, headers, &body);
    let shown = format!("{:?}", reply.response());
    assert_eq!(shown, format!("Response({status}, redacted)"));
}

const INVALID: &str = "invalid_request";
