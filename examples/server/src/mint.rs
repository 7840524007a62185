//! Minting tokens: RS256 JWTs, made in memory and not stored. The crate sends them after the store has written the change, and adds the
//! refresh token.
//!
//! Rule: with the scope `openid` there is an ID token; `profile` and `email` add their claims to it.

use std::error::Error;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::scope::Scope;
use device_flow::server::Grant;
use device_flow::server::Tokens;
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::config::{TokenNumbers, User, UserEntry};
use crate::random;
use crate::signing_keys::SigningKeys;

/// Mints tokens.
pub(crate) struct Minter {
    issuer: String,
    audience: String,
    access_lifetime: Duration,
    keys: SigningKeys,
}

/// The claims of an access token (RFC 9068).
#[derive(Serialize, Deserialize)]
pub(crate) struct AccessClaims {
    iss: String,
    aud: String,
    pub(crate) sub: String,
    client_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_id: Option<String>,
    /// The login of the token. `WorkOS` calls it the consent.
    sid: String,
    pub(crate) scope: String,
    jti: String,
    iat: i64,
    exp: i64,
}

/// The claims of an ID token (`OpenID` Connect Core, section 2).
#[derive(Serialize)]
struct IdClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    /// The login, as in the access token.
    sid: &'a str,
    jti: String,
    iat: i64,
    exp: i64,
    auth_time: i64,
    #[serde(flatten)]
    about: About<'a>,
}

/// The claims of the scopes `profile` and `email`.
#[derive(Default, Serialize)]
pub(crate) struct About<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    given_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    family_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_verified: Option<bool>,
}

impl<'a> About<'a> {
    pub(crate) fn of(user: &'a UserEntry, scope: &Scope) -> Self {
        let mut about = Self::default();
        if scope.contains("profile") {
            about.name = Some(&user.name);
            about.given_name = user.given_name.as_deref();
            about.family_name = user.family_name.as_deref();
        }
        if scope.contains("email") {
            about.email = Some(&user.email);
            // The operator who configured the user has verified the address.
            about.email_verified = Some(true);
        }
        about
    }
}

/// The claims of the tokens of a grant, to be signed.
pub(crate) struct Claims {
    access: AccessClaims,
    id: Option<serde_json::Value>,
}

impl Minter {
    pub(crate) fn new(keys: SigningKeys, numbers: &TokenNumbers, issuer: &str) -> Self {
        let audience = numbers.audience.clone();
        Self {
            issuer: issuer.to_owned(),
            audience: audience.unwrap_or_else(|| issuer.to_owned()),
            access_lifetime: Duration::from_secs(numbers.access_lifetime.into()),
            keys,
        }
    }

    /// Returns for how long an access token is valid.
    pub(crate) const fn access_lifetime(&self) -> Duration {
        self.access_lifetime
    }

    /// Returns the public keys as a JWK set.
    pub(crate) fn jwks(&self) -> &str {
        self.keys.jwks()
    }

    /// Returns the claims of the tokens of a grant.
    pub(crate) fn claims(
        &self,
        grant: Grant<'_>,
        user: &User,
        auth_time: i64,
    ) -> Result<Claims, serde_json::Error> {
        let scope = grant.scope();
        let issued_at = grant.now().unix_timestamp();
        let expires_at = issued_at.saturating_add_unsigned(self.access_lifetime.as_secs());
        let access = AccessClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: grant.subject().as_str().to_owned(),
            client_id: grant.client_id().to_owned(),
            org_id: user.entry.org_id.clone(),
            sid: format!("app_consent_{}", grant.session_key()),
            scope: scope.as_str().to_owned(),
            jti: text::<16>(),
            iat: issued_at,
            exp: expires_at,
        };
        let id = IdClaims {
            iss: &self.issuer,
            aud: grant.client_id(),
            sub: grant.subject().as_str(),
            sid: &access.sid,
            jti: text::<16>(),
            iat: issued_at,
            exp: expires_at,
            auth_time,
            about: About::of(&user.entry, scope),
        };
        let id = scope.contains("openid").then(|| serde_json::to_value(&id));
        Ok(Claims {
            access,
            id: id.transpose()?,
        })
    }

    /// Signs tokens with these claims.
    pub(crate) fn sign(
        &self,
        claims: &Claims,
    ) -> Result<Tokens<'static>, Box<dyn Error + Send + Sync>> {
        let tokens = Tokens::bearer(self.jwt("at+jwt", &claims.access)?)?;
        let tokens = tokens.expires_in(self.access_lifetime);
        Ok(match &claims.id {
            Some(id) => tokens.id_token(self.jwt("JWT", id)?)?,
            None => tokens,
        })
    }

    /// Returns the claims of a valid access token of this server, or `None` for any other token.
    pub(crate) fn verify(&self, token: &str) -> Option<AccessClaims> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.leeway = 0;
        let key_id = jsonwebtoken::decode_header(token).ok()?.kid?;
        let key = self.keys.public(&key_id)?;
        let data = jsonwebtoken::decode::<AccessClaims>(token, key, &validation).ok()?;
        // An ID token is not an access token.
        (data.header.typ.as_deref() == Some("at+jwt")).then_some(data.claims)
    }

    fn jwt(
        &self,
        kind: &str,
        claims: &impl Serialize,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::RS256);
        header.typ = Some(kind.to_owned());
        let (key, id) = self.keys.current();
        header.kid = Some(id.to_owned());
        jsonwebtoken::encode(&header, claims, key)
    }
}

/// Returns `N` random octets as text.
fn text<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(random::<N>())
}
