//! The keys that sign tokens. Each has a number. The store keeps a key from its first use on, so every server with that store has the same
//! keys.
//!
//! Rules:
//! 1. The configuration names the key that signs (`tokens.signing_key`). To rotate the keys, raise that number by one.
//! 2. The key before it stays published, because tokens that it signed are still in use.
//! 3. The key after it is already published. So a client that caches the JWKS knows it before it signs, and servers may be restarted one
//!    after the other.

use std::collections::HashMap;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};

use crate::StartError;
use crate::store::Store;

/// The keys.
pub(crate) struct SigningKeys {
    /// The key that signs.
    current: EncodingKey,
    current_id: String,
    /// The published keys, by their ids.
    public: HashMap<String, DecodingKey>,
    jwks: String,
}

impl SigningKeys {
    /// Fetches the key with this number and its neighbours from the store. The store keeps new keys for those that it does not have.
    pub(crate) async fn new(store: &Store, number: u32) -> Result<Self, StartError> {
        let first = number.saturating_sub(1).max(1);
        let mut keys = JwkSet { keys: Vec::new() };
        let mut public = HashMap::new();
        let mut signing = None;
        for each in first..=number.saturating_add(1) {
            let key = fetched(store, each).await?;
            let jwk = jwk(&key).ok_or_else(unusable)?;
            let id = jwk.common.key_id.clone().unwrap_or_default();
            let decoding = DecodingKey::from_jwk(&jwk).map_err(|_| unusable())?;
            public.insert(id.clone(), decoding);
            if each == number {
                // The signing key comes first, for clients that read only the first one.
                keys.keys.insert(0, jwk);
                signing = Some((key, id));
            } else {
                keys.keys.push(jwk);
            }
        }
        let (current, current_id) = signing.ok_or_else(unusable)?;
        Ok(Self {
            current,
            current_id,
            public,
            jwks: serde_json::to_string(&keys).map_err(|_| unusable())?,
        })
    }

    /// Returns the key that signs, and its id.
    pub(crate) fn current(&self) -> (&EncodingKey, &str) {
        (&self.current, &self.current_id)
    }

    /// Returns the public key with this id.
    pub(crate) fn public(&self, id: &str) -> Option<&DecodingKey> {
        self.public.get(id)
    }

    /// Returns the public keys as a JWK set.
    pub(crate) fn jwks(&self) -> &str {
        &self.jwks
    }
}

const fn unusable() -> StartError {
    StartError::Key("signing key")
}

async fn fetched(store: &Store, number: u32) -> Result<EncodingKey, StartError> {
    let name = match number {
        1 => "signing-key".to_owned(),
        number => format!("signing-key-{number}"),
    };
    let pem = if let Some(kept) = store.find_secret(&name).await? {
        kept
    } else {
        // Making a key takes a processor some time.
        let candidate = tokio::task::spawn_blocking(generate).await;
        let candidate = candidate.ok().flatten().ok_or_else(unusable)?;
        store.secret(&name, candidate.as_bytes()).await?
    };
    EncodingKey::from_rsa_pem(&pem).map_err(|_| unusable())
}

/// Returns a new key, as PKCS #8 in PEM.
fn generate() -> Option<String> {
    let key = KeyPair::generate(KeySize::Rsa2048).ok()?;
    let der = key.as_der().ok()?;
    Some(pem::encode(&pem::Pem::new("PRIVATE KEY", der.as_ref())))
}

/// Returns the public key, with its thumbprint as its id.
fn jwk(key: &EncodingKey) -> Option<Jwk> {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::RS256).ok()?;
    jwk.common.key_id = Some(jwk.thumbprint(ThumbprintHash::SHA256).ok()?);
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    Some(jwk)
}
