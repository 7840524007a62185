//! The minting of tokens: RS256 JWTs and opaque refresh tokens, in memory, without a trace until the store has written.
//!
//! Rules:
//! 1. `openid` yields the ID token, `offline_access` the refresh token, `profile` and `email` their claims.
//! 2. The signing key is made at the first start and kept in the store: every server on that store signs with the same one.

use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::scope::Scope;
use device_flow::wire::tokens::{TokenError, Tokens};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::{TokenNumbers, User, UserEntry};
use crate::store::{Family, RefreshToken, Store, TokenDigest};
use crate::{StartError, random};

/// Mints.
pub(crate) struct Minter {
    issuer: String,
    audience: String,
    access_lifetime: Duration,
    refresh_lifetime: Duration,
    key: EncodingKey,
    public: DecodingKey,
    key_id: String,
    jwks: String,
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
    /// The consent that it descends from.
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
    iat: i64,
    exp: i64,
    auth_time: i64,
    #[serde(flatten)]
    about: About<'a>,
}

/// What the scopes `profile` and `email` tell.
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
            // Whoever configured the user vouches for it.
            about.email_verified = Some(true);
        }
        about
    }
}

/// Tokens that were minted and not yet sent.
pub(crate) struct Minted {
    access: String,
    id: Option<String>,
    pub(crate) refresh: Option<Refresh>,
    access_lifetime: Duration,
}

/// A refresh token, and what the store keeps of it.
pub(crate) struct Refresh {
    token: String,
    pub(crate) stored: RefreshToken,
}

/// The response of a refresh (RFC 6749, section 5.1).
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<&'a str>,
    scope: &'a str,
}

impl Minted {
    /// As the core wants them.
    pub(crate) fn tokens(&self) -> Result<Tokens<'_>, TokenError> {
        let mut tokens = Tokens::bearer(&self.access)?.expires_in(self.access_lifetime);
        if let Some(refresh) = &self.refresh {
            tokens = tokens.refresh_token(&refresh.token)?;
        }
        if let Some(id) = &self.id {
            tokens = tokens.id_token(id)?;
        }
        Ok(tokens)
    }

    /// As a refresh answers them.
    pub(crate) fn body<'a>(&'a self, scope: &'a Scope) -> Body<'a> {
        Body {
            access_token: &self.access,
            token_type: "Bearer",
            expires_in: self.access_lifetime.as_secs(),
            refresh_token: self.refresh.as_ref().map(|refresh| refresh.token.as_str()),
            id_token: self.id.as_deref(),
            scope: scope.as_str(),
        }
    }
}

impl Minter {
    /// Fetches the signing key from the store, which keeps a new one if it has none.
    pub(crate) async fn new(
        store: &Store,
        numbers: &TokenNumbers,
        issuer: &str,
    ) -> Result<Self, StartError> {
        let unusable = || StartError::Key("signing key");
        let candidate = tokio::task::spawn_blocking(generate).await;
        let candidate = candidate.ok().flatten().ok_or_else(unusable)?;
        let pem = store.secret("signing-key", candidate.as_bytes()).await?;
        let key = EncodingKey::from_rsa_pem(&pem).map_err(|_| unusable())?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256).map_err(|_| unusable())?;
        let key_id = jwk
            .thumbprint(ThumbprintHash::SHA256)
            .map_err(|_| unusable())?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let public = DecodingKey::from_jwk(&jwk).map_err(|_| unusable())?;
        let jwks = JwkSet { keys: vec![jwk] };
        Ok(Self {
            issuer: issuer.to_owned(),
            audience: numbers
                .audience
                .clone()
                .unwrap_or_else(|| issuer.to_owned()),
            access_lifetime: Duration::from_secs(numbers.access_lifetime.into()),
            refresh_lifetime: Duration::from_secs(numbers.refresh_lifetime.into()),
            key,
            public,
            key_id,
            jwks: serde_json::to_string(&jwks).map_err(|_| unusable())?,
        })
    }

    /// The public key, as a JWK set.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }

    /// Mints for `scope`, which is that of `family` or less.
    pub(crate) fn mint(
        &self,
        family: &Family,
        scope: &Scope,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<Minted, jsonwebtoken::errors::Error> {
        let issued_at = now.unix_timestamp();
        let expires_at = issued_at.saturating_add_unsigned(self.access_lifetime.as_secs());
        let access = AccessClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: family.subject.as_str().to_owned(),
            client_id: family.client_id.clone(),
            org_id: user.entry.org_id.clone(),
            sid: format!("app_consent_{}", family.key),
            scope: scope.as_str().to_owned(),
            jti: text::<16>(),
            iat: issued_at,
            exp: expires_at,
        };
        let id = IdClaims {
            iss: &self.issuer,
            aud: &family.client_id,
            sub: family.subject.as_str(),
            iat: issued_at,
            exp: expires_at,
            auth_time: family.auth_time.unix_timestamp(),
            about: About::of(&user.entry, scope),
        };
        let is_openid = scope.contains("openid");
        // What was granted to the family, not what is asked for this time.
        let is_offline = family.scope.contains("offline_access");
        Ok(Minted {
            access: self.sign("at+jwt", &access)?,
            id: is_openid.then(|| self.sign("JWT", &id)).transpose()?,
            refresh: is_offline.then(|| self.refresh_token(now)),
            access_lifetime: self.access_lifetime,
        })
    }

    /// The claims of an access token of ours that is still good; none of any other.
    pub(crate) fn verify(&self, token: &str) -> Option<AccessClaims> {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.leeway = 0;
        let data = jsonwebtoken::decode::<AccessClaims>(token, &self.public, &validation).ok()?;
        // An ID token is none.
        (data.header.typ.as_deref() == Some("at+jwt")).then_some(data.claims)
    }

    fn sign(
        &self,
        kind: &str,
        claims: &impl Serialize,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let mut header = Header::new(Algorithm::RS256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.key_id.clone());
        jsonwebtoken::encode(&header, claims, &self.key)
    }

    fn refresh_token(&self, now: OffsetDateTime) -> Refresh {
        let token = text::<32>();
        let digest = TokenDigest::of(&token);
        let expires_at = now.saturating_add(self.refresh_lifetime.try_into().unwrap_or_default());
        let stored = RefreshToken { digest, expires_at };
        Refresh { token, stored }
    }
}

/// A new signing key, as PKCS #8 in PEM.
fn generate() -> Option<String> {
    let key = KeyPair::generate(KeySize::Rsa2048).ok()?;
    let der = key.as_der().ok()?;
    Some(pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref())))
}

/// Random characters for `N` octets.
fn text<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(random::<N>())
}
