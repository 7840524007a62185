//! Verifying an ID token, which says who signed in ([OpenID Connect Core 1.0, section 3.1.3.7]).
//!
//! Rules:
//! 1. It is signed with one of the server's published keys, by an algorithm with which only the server can sign.
//! 2. It is from the expected issuer, for this client, and not expired.
//! 3. A name is only for display. Only the subject identifies the user.
//!
//! [OpenID Connect Core 1.0, section 3.1.3.7]: https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation

use device_flow::client::TransportError;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

use crate::Context;
use crate::discovery::Server;
use crate::ending::{Ending, Exit};
use crate::http::is_unavailable;

/// How many keys are tried at most. Servers publish two or three.
const MAX_KEYS: usize = 16;

/// Who signed in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The issuer's permanent id of the user.
    pub(crate) sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
}

/// The claims that this file reads. The library checks `iss`, `aud`, `exp` and `nbf`.
#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    azp: Option<String>,
    #[serde(flatten)]
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

/// Fetches the server's keys and verifies its ID token with them.
pub(crate) fn verify(context: &Context, server: &Server, token: &str) -> Result<Identity, Ending> {
    let untrusted = |why: Fault| {
        Ending::new(
            Exit::Untrusted,
            format!("The server's ID token is not accepted: {why}."),
        )
    };
    let place = server.endpoint("jwks_uri")?;
    let place = place.ok_or_else(|| untrusted(Fault::NoKeys))?;
    let unavailable = || {
        let sentence = "The server's keys could not be fetched: try again later.";
        Ending::new(Exit::Unreachable, sentence)
    };
    let answer = context.http.get(place).map_err(|failure| match failure {
        TransportError::ConnectionTimeout | TransportError::Other => unavailable(),
        TransportError::Permanent | _ => Ending::no_answer(failure),
    })?;
    if is_unavailable(&answer) {
        return Err(unavailable());
    }
    if answer.status().as_u16() != 200 {
        return Err(untrusted(Fault::NoKeys));
    }
    read(token, answer.body(), &context.issuer, &context.client_id).map_err(untrusted)
}

/// Verifies an ID token with a document of keys.
fn read(token: &str, keys: &[u8], issuer: &str, client_id: &str) -> Result<Identity, Fault> {
    let header = decode_header(token).map_err(|_| Fault::Unreadable)?;
    // The library does not know the algorithm "none". With an algorithm whose secret both sides have, a signature would prove nothing.
    if Algorithm::family(header.alg) == AlgorithmFamily::Hmac {
        return Err(Fault::Algorithm);
    }
    let Published { keys } = serde_json::from_slice(keys).map_err(|_| Fault::NoKeys)?;
    let fits = |key: &Jwk| {
        let common = &key.common;
        let named = header.kid.is_none() || header.kid == common.key_id;
        let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        named && signs
    };
    // Keys of an unknown kind are skipped (RFC 7517, section 5).
    let keys = keys
        .into_iter()
        .take(MAX_KEYS)
        .filter_map(|key| serde_json::from_value(key).ok());

    let mut validation = Validation::new(header.alg);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[client_id]);
    validation.set_required_spec_claims(&["iss", "sub", "aud", "exp"]);
    validation.validate_nbf = true;

    let mut fault = Fault::UnknownKey;
    for key in keys.filter(fits) {
        let Ok(key) = DecodingKey::from_jwk(&key) else {
            continue;
        };
        match decode::<Claims>(token, &key, &validation) {
            Ok(token) => return token.claims.accept(client_id),
            Err(error) => fault = Fault::of(&error),
        }
    }
    Err(fault)
}

impl Claims {
    fn accept(self, client_id: &str) -> Result<Identity, Fault> {
        // "If the ID Token contains multiple audiences, the Client SHOULD verify that an azp Claim is present. If an azp
        // (authorized party) Claim is present, the Client SHOULD verify that its client_id is the Claim Value."
        let alone = match &self.aud {
            Audience::One(audience) => audience == client_id,
            Audience::Many(audience) => audience == &[client_id],
        };
        match &self.azp {
            Some(azp) if azp != client_id => Err(Fault::Claims),
            None if !alone => Err(Fault::Claims),
            Some(_) | None => Ok(self.identity),
        }
    }
}

/// Why an ID token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("it cannot be read")]
    Unreadable,
    #[error("the server publishes no keys for it")]
    NoKeys,
    #[error("it is signed by an algorithm that proves nothing")]
    Algorithm,
    #[error("it is signed with a key that the server does not publish")]
    UnknownKey,
    #[error("its signature is wrong")]
    Signature,
    #[error("it has expired, or is not valid yet: check the clock of this machine")]
    Time,
    #[error("it lacks a claim, or is of another issuer or for another client")]
    Claims,
}

impl Fault {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error means that the token cannot be read"
    )]
    fn of(error: &jsonwebtoken::errors::Error) -> Self {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => Self::Time,
            ErrorKind::InvalidAlgorithm => Self::UnknownKey,
            ErrorKind::InvalidIssuer
            | ErrorKind::InvalidAudience
            | ErrorKind::InvalidSubject
            | ErrorKind::MissingRequiredClaim(_) => Self::Claims,
            _ => Self::Unreadable,
        }
    }
}
