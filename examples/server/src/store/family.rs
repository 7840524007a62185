//! Refresh tokens, by family: all tokens that descend from one redeemed session.
//!
//! Rules:
//! 1. A family has one newest token. The others are remembered until they expire, so that their use is noticed: whoever uses
//!    one has stolen it, or was stolen from.
//! 2. A family is revoked by removing it; its tokens are then unknown.

use std::fmt;

use device_flow::digest::SessionKey;
use device_flow::scope::Scope;
use device_flow::server::Subject;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::serde::timestamp;

/// What the tokens of a family are about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Family {
    /// The session it descends from: a family per redeemed session.
    pub key: SessionKey,
    /// The user.
    pub subject: Subject,
    /// The client that alone may use its tokens.
    pub client_id: String,
    /// What the user granted.
    pub scope: Scope,
    /// When the user signed in, in whole seconds.
    #[serde(with = "timestamp")]
    pub auth_time: OffsetDateTime,
    /// When the session was redeemed, in whole seconds.
    #[serde(with = "timestamp")]
    pub issued_at: OffsetDateTime,
}

/// A refresh token as it is stored.
#[derive(Clone, Copy, Debug)]
pub struct RefreshToken {
    /// Its digest.
    pub digest: TokenDigest,
    /// From when on it is unknown.
    pub expires_at: OffsetDateTime,
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Rotation {
    /// The new token is stored and is the newest.
    Rotated,
    /// The token had been rotated away before. The whole family is revoked.
    Reused,
    /// There is no such token: it never was, has expired, or is revoked.
    Unknown,
}

/// The SHA-256 of a refresh token. A plain digest is enough for a token of 128 random bits and more.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The octets.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenDigest(redacted)")
    }
}
