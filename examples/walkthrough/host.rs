//! What the crate asks of its host: a store, the registered clients, a random generator, and minting tokens.
//!
//! A real host has a database, a registry, a secure generator and signing keys instead.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::Entropy;
use device_flow::memory::Memory;
use device_flow::server::{
    Claim, Client, Found, Grant, GrantRefusal, Host, Subject, Tokens, Unavailable,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// The issuer: the domain of a `WorkOS` `AuthKit`.
pub(crate) const ISSUER: &str = "https://acme.authkit.app";

/// How long an access token is valid.
const ACCESS_LIFETIME: Duration = Duration::from_mins(5);

/// The host.
pub(crate) struct DemoHost {
    pub(crate) store: Mutex<Memory>,
    pub(crate) clients: Vec<Arc<Client>>,
    pub(crate) users: Vec<User>,
    pub(crate) dice: Dice,
    /// The time of day on the simulated clock.
    pub(crate) now: OffsetDateTime,
}

/// A user with an account.
pub(crate) struct User {
    pub(crate) subject: Subject,
    pub(crate) name: &'static str,
    pub(crate) email: &'static str,
}

/// What this host stores with an approval. The crate stores it as one opaque value, and returns it with each grant.
#[derive(Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) org_id: String,
    pub(crate) sid: String,
}

impl Host for DemoHost {
    type Client = Arc<Client>;
    type Store = Mutex<Memory>;

    fn store(&self) -> &Mutex<Memory> {
        &self.store
    }

    async fn client(&self, claim: Claim<'_>) -> Result<Found<Arc<Client>>, Unavailable> {
        let mut clients = self.clients.iter();
        let known = clients.find(|client| Some(client.id()) == claim.client_id());
        Ok(known.cloned().into())
    }

    fn entropy(&self) -> Result<Entropy, Unavailable> {
        Ok(self.dice.octets().into())
    }

    async fn mint(&self, grant: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
        let mut users = self.users.iter();
        let user = users.find(|user| user.subject == *grant.subject());
        // A user whose account was closed gets no tokens, not even by a refresh.
        let user = user.ok_or(GrantRefusal::consent_gone())?;
        let member: Membership = serde_json::from_slice(grant.host_value().as_bytes())?;
        let scope = grant.scope();
        let issued_at = self.now.unix_timestamp();
        let expires_at = issued_at.saturating_add_unsigned(ACCESS_LIFETIME.as_secs());
        let access = json!({
            "iss": ISSUER, "aud": ISSUER, "sub": user.subject, "client_id": grant.client_id(),
            "org_id": member.org_id, "sid": member.sid, "scope": scope.as_str(),
            "jti": self.dice.text::<9>(), "iat": issued_at, "exp": expires_at,
        });
        let tokens = Tokens::bearer(jwt(&access))?.expires_in(ACCESS_LIFETIME);
        if !scope.contains("openid") {
            return Ok(tokens);
        }
        let mut claims = json!({
            "iss": ISSUER, "aud": grant.client_id(), "sub": user.subject,
            "iat": issued_at, "exp": expires_at,
        });
        let more = [
            ("profile", "name", user.name),
            ("email", "email", user.email),
        ];
        for (token, claim, value) in more {
            if let (true, Some(claims)) = (scope.contains(token), claims.as_object_mut()) {
                claims.insert(claim.to_owned(), value.into());
            }
        }
        Ok(tokens.id_token(jwt(&claims))?)
    }
}

/// Returns a text in the form of a JWT. **It has no real signature**: a real host signs it with its key.
fn jwt(claims: &Value) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signature = URL_SAFE_NO_PAD.encode("no signature: a demonstration");
    format!("{}.{}.{signature}", part(&header), part(claims))
}

/// A source of octets that look random, but are the same in every run. **A real host asks its operating system.**
pub(crate) struct Dice {
    seed: u64,
    drawn: AtomicU64,
}

impl Dice {
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            seed,
            drawn: AtomicU64::new(0),
        }
    }

    pub(crate) fn octets<const N: usize>(&self) -> [u8; N] {
        let mut octets = [0; N];
        for chunk in octets.chunks_mut(32) {
            let drawn = self.drawn.fetch_add(1, Ordering::Relaxed);
            let numbers = [self.seed.to_be_bytes(), drawn.to_be_bytes()];
            let block = Sha256::digest(numbers.concat());
            for (octet, random) in chunk.iter_mut().zip(block) {
                *octet = random;
            }
        }
        octets
    }

    fn text<const N: usize>(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.octets::<N>())
    }
}
