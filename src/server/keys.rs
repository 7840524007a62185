//! The secret keys of the server, and the refresh tokens that carry a tag made with them.
//!
//! ```text
//! refresh token = base64url( session key, 32 octets | secret, 32 octets | tag, 16 octets )
//!                            finds the record         is compared         proves that this
//!                                                     by its SHA-256      server made it
//! ```
//!
//! Rules:
//! 1. A store holds no server key and no secret of a refresh token, so a stolen store reveals no user code and no refresh token.
//! 2. A refresh token whose tag this server did not make is refused without a look-up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use super::subject::InvalidText;
use crate::code::UserCode;
use crate::digest::{Digest, SessionKey, UserKey};
use crate::sha256::MacKey;
use crate::wire::debug_shows;

/// The secret keys of a server: the current one, and the previous one for as long as codes or tokens made with it are in use.
///
/// From each of them two keys are derived: one for the digests of user codes, one for the tags of refresh tokens. All servers
/// that share a store need the same keys.
///
/// A user code has some 35 bits, so a thief could find every code in a store of plain hashes within a minute. The digests here need a
/// key that the store does not hold.
///
/// Keep a previous key for as long as refresh tokens made with it may be used. Without refresh tokens, keep it for one
/// [`lifetime`](super::PolicyOptions::lifetime) of a code.
#[derive(Clone)]
pub struct ServerKeys {
    current: Derived,
    previous: Option<Derived>,
}

#[derive(Clone)]
struct Derived {
    user_codes: MacKey,
    refresh_tokens: MacKey,
}

impl Derived {
    fn new(octets: &[u8]) -> Result<Self, InvalidText> {
        let first = octets.first().copied().unwrap_or_default();
        if octets.len() < 32 || octets.iter().all(|&b| b == first) {
            return Err(InvalidText::ServerKey);
        }
        let key = MacKey::new(octets);
        Ok(Self {
            user_codes: MacKey::new(&key.mac(b"user codes")),
            refresh_tokens: MacKey::new(&key.mac(b"refresh tokens")),
        })
    }

    fn user_key(&self, code: &UserCode) -> UserKey {
        let mac = self.user_codes.mac(code.octets());
        UserKey(Digest::from_octets(mac))
    }

    fn tag(&self, marked: &[u8]) -> [u8; TAG] {
        let mac = self.refresh_tokens.mac(marked);
        mac.first_chunk().copied().unwrap_or_default()
    }
}

impl ServerKeys {
    /// Makes the keys from a secret of 32 octets or more, from a secure generator.
    ///
    /// # Errors
    ///
    /// [`InvalidText::ServerKey`] for fewer than 32 octets, or octets that are all the same.
    pub fn new(octets: &[u8]) -> Result<Self, InvalidText> {
        Ok(Self {
            current: Derived::new(octets)?,
            previous: None,
        })
    }

    /// Adds the secret of the previous key.
    ///
    /// # Errors
    ///
    /// As for [`ServerKeys::new`].
    pub fn with_previous(mut self, octets: &[u8]) -> Result<Self, InvalidText> {
        self.previous = Some(Derived::new(octets)?);
        Ok(self)
    }

    /// Returns the key under which a new user code is stored.
    pub(super) fn user_key(&self, code: &UserCode) -> UserKey {
        self.current.user_key(code)
    }

    /// Returns the keys under which a user code may be stored: of the current server key, then of the previous one.
    pub(super) fn user_keys(&self, code: &UserCode) -> (UserKey, Option<UserKey>) {
        let previous = self.previous.as_ref().map(|key| key.user_key(code));
        (self.user_key(code), previous)
    }
}

debug_shows!(ServerKeys);

/// The lengths of a secret and of a tag, in octets.
const SECRET: usize = 32;
const TAG: usize = 16;

/// The length of a refresh token in octets, and in characters of base64url.
const OCTETS: usize = 32 + SECRET + TAG;
const CHARACTERS: usize = (OCTETS * 4).div_ceil(3);

/// The random part of a refresh token.
#[derive(Clone, Copy)]
pub(super) struct RefreshSecret(pub(super) [u8; SECRET]);

impl RefreshSecret {
    /// The digest that the session stores.
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// Returns the refresh token of this login that has this secret.
    pub(super) fn token(&self, login: &SessionKey, keys: &ServerKeys) -> RefreshToken {
        let mut octets = [0; OCTETS];
        let (marked, tag) = octets.split_at_mut(OCTETS - TAG);
        let (of_login, of_secret) = marked.split_at_mut(login.as_bytes().len());
        of_login.copy_from_slice(login.as_bytes());
        of_secret.copy_from_slice(&self.0);
        tag.copy_from_slice(&keys.current.tag(marked));
        let mut characters = [b'A'; CHARACTERS];
        // This cannot fail, because 80 octets always take 107 characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(octets, &mut characters);
        RefreshToken(characters)
    }
}

/// A refresh token as it is sent. It is aligned so that its characters can be read a word at a time.
#[repr(align(8))]
pub(super) struct RefreshToken([u8; CHARACTERS]);

impl RefreshToken {
    pub(super) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Parses a token that a client sent. Returns `None` if this server did not make it (R2).
    pub(super) fn parse(text: &str, keys: &ServerKeys) -> Option<(SessionKey, RefreshSecret)> {
        if text.len() != CHARACTERS {
            return None;
        }
        let mut octets = [0; OCTETS];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut octets) != Ok(OCTETS) {
            return None;
        }
        let (marked, tag) = octets.split_last_chunk::<TAG>()?;
        let is_tag_of = |key: &Derived| key.tag(marked).ct_eq(tag);
        let mut ours = is_tag_of(&keys.current);
        if let Some(previous) = &keys.previous {
            ours |= is_tag_of(previous);
        }
        let (login, secret) = marked.split_first_chunk::<32>()?;
        let secret = secret.try_into().ok()?;
        bool::from(ours).then(|| (SessionKey::from_bytes(*login), RefreshSecret(secret)))
    }
}
