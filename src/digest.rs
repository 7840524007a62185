//! The digests under which codes and secrets are stored.
//!
//! Rules:
//! 1. A store holds codes and secrets only as digests, so a thief of the store has nothing to present to an endpoint.
//! 2. Each digest has its own type, so one cannot be looked up as another.
//! 3. The digests of secrets are compared in constant time. The other digests are keys of a map. Even if the time of a look-up reveals
//!    such a key, no code can be found from it.

use alloc::string::String;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::sha256;
use crate::wire::debug_shows;

/// Thirty-two octets, aligned so that they can be hashed and compared a word at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[repr(C, align(8))]
pub(crate) struct Digest([u8; 32]);

/// The first word of a digest is as good as any hash of it.
impl core::hash::Hash for Digest {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.prefix());
    }
}

impl Digest {
    /// SHA-256 of `text`.
    #[inline]
    pub(crate) fn of(text: &[u8]) -> Self {
        Self(sha256::digest(text))
    }

    /// SHA-256 of `parts`, each preceded by its length, so that different lists of parts give different octets.
    pub(crate) fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut sha = Sha256::new();
        for part in parts {
            sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            sha.update(part);
        }
        Self(sha.finalize().into())
    }

    /// SHA-256 of a head and two texts, one after the other.
    pub(crate) fn of_all(head: [u8; 5], first: &[u8], second: &[u8]) -> Self {
        let mut room = [0; ROOM];
        if let Some(message) = join(head, first, second, &mut room) {
            return Self::of(message);
        }
        Self::of(&[&head, first, second].concat())
    }

    /// The first eight octets. They can serve as a hash if nobody can choose what is digested.
    #[inline]
    pub(crate) fn prefix(&self) -> u64 {
        self.0
            .first_chunk()
            .map_or(0, |head| u64::from_le_bytes(*head))
    }

    pub(crate) const fn from_octets(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    pub(crate) const fn octets(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares in constant time.
    pub(crate) fn ct_eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The size of the buffer for the parts of a quota key, in octets: two blocks of SHA-256 without the padding.
const ROOM: usize = 119;

#[inline]
fn join<'r>(
    head: [u8; 5],
    first: &[u8],
    second: &[u8],
    room: &'r mut [u8; ROOM],
) -> Option<&'r [u8]> {
    let (start, rest) = room.split_first_chunk_mut()?;
    *start = head;
    let (of_first, rest) = rest.split_at_mut_checked(first.len())?;
    of_first.copy_from_slice(first);
    rest.get_mut(..second.len())?.copy_from_slice(second);
    let length = head
        .len()
        .checked_add(first.len())?
        .checked_add(second.len())?;
    room.get(..length)
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut octets = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut octets) {
            Ok(32) => Ok(Self(octets)),
            Ok(_) | Err(_) => Err(DigestError),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        URL_SAFE_NO_PAD.encode(digest.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from(*self))
    }
}

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest must be 43 characters of base64url without padding, for 32 octets")]
#[non_exhaustive]
pub struct DigestError;

/// Declares a key: a digest of its own type that can be stored, looked up and logged.
macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub(crate) Digest);

        impl $name {
            /// Makes the key from the octets that a store returned.
            pub const fn from_bytes(octets: [u8; 32]) -> Self {
                Self(Digest::from_octets(octets))
            }

            /// Returns the octets, for a store.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                self.0.octets()
            }
        }

        /// Writes the key as base64url without padding.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        /// Parses a key from base64url without padding.
        impl core::str::FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Digest::try_from(String::from(text)).map(Self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

key! {
    /// The key of a session, and its id: the SHA-256 of its device code.
    ///
    /// It may be logged and stored beside the tokens. The code cannot be found from it, because the code has 256 random bits.
    SessionKey
}

key! {
    /// The second key of a session: the HMAC-SHA-256 of its user code under a key of the
    /// [server](crate::server::ServerKeys).
    UserKey
}

key! {
    /// The key of a [`RateState`](crate::server::RateState): a digest of what is limited and for whom.
    QuotaKey
}

/// The SHA-256 of a client secret.
///
/// # Security
///
/// A plain hash protects a generated secret of 128 random bits or more. It does not protect a password. The comparison takes the same
/// time wherever the digests differ.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretDigest(Digest);

impl SecretDigest {
    /// Returns the digest of a secret.
    pub fn of(secret: &str) -> Self {
        Self(Digest::of(secret.as_bytes()))
    }

    /// Makes the digest from the octets that a store returned.
    pub const fn from_bytes(octets: [u8; 32]) -> Self {
        Self(Digest(octets))
    }

    /// Returns the octets, for a store.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0.0
    }

    pub(crate) fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.0.0.ct_eq(&other.0.0)
    }
}

debug_shows!(SecretDigest);
