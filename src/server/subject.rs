//! What the host says about a login: the user, a value to keep with the approval, the source of the request.
//!
//! Rule: each value is checked and bounded when it is made, so nobody needs to check it again.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::wire::debug_shows;
use crate::wire::octets::is_hidden;

/// The `sub` that the host gives a signed-in user
/// ([OpenID Connect Core, section 2](https://openid.net/specs/openid-connect-core-1_0.html#IDToken)): 1 to 255 bytes without control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(Box<str>);

impl Subject {
    /// Makes a subject from its identifier.
    ///
    /// # Errors
    ///
    /// [`InvalidText::Subject`] if it is empty, too long, or has control characters.
    pub fn new(sub: impl Into<Box<str>>) -> Result<Self, InvalidText> {
        let sub = sub.into();
        if sub.is_empty() || sub.len() > 255 || sub.chars().any(char::is_control) {
            return Err(InvalidText::Subject);
        }
        Ok(Self(sub))
    }

    /// Returns the identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Subject {
    type Error = InvalidText;

    fn try_from(sub: String) -> Result<Self, Self::Error> {
        Self::new(sub)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0.into()
    }
}

/// A value of the host, at most 1 KiB, which is kept with the approval and returned with each grant. It can hold an organization, a web
/// session or a time of authentication, for example.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct HostValue(Box<[u8]>);

impl HostValue {
    /// The most bytes that a value may have.
    pub const MAX_BYTES: usize = 1024;

    /// Makes a value from its bytes.
    ///
    /// # Errors
    ///
    /// [`InvalidText::HostValue`] if there are more than [`HostValue::MAX_BYTES`].
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, InvalidText> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_BYTES {
            return Err(InvalidText::HostValue);
        }
        Ok(Self(bytes))
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for HostValue {
    type Error = InvalidText;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<HostValue> for Vec<u8> {
    fn from(value: HostValue) -> Self {
        value.0.into()
    }
}

debug_shows!(HostValue);

/// Why a value that the host gave is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidText {
    /// A client id that [`Client::new`](super::Client::new) refuses.
    #[error("a client id must have at least one character, and only visible ascii and space")]
    ClientId,
    /// A subject that [`Subject::new`] refuses.
    #[error("a subject must have from 1 to 255 bytes and no control characters")]
    Subject,
    /// A value that [`HostValue::new`] refuses.
    #[error(
        "the host's value may have at most 1024 bytes; store more elsewhere and keep its key here"
    )]
    HostValue,
    /// An error code or description that [`GrantRefusal::error`](super::GrantRefusal::error) refuses.
    #[error(
        "an error code must not be empty; code and description must be printable ascii without double quotes and backslashes"
    )]
    ErrorText,
    /// A key that [`ServerKeys::new`](super::ServerKeys::new) refuses.
    #[error("a server key must be at least 32 octets from a secure generator")]
    ServerKey,
    /// A limit that [`RateLimit::new`](super::RateLimit::new) refuses.
    #[error(
        "a rate limit must have a burst of at least one and a period from a millisecond to a day"
    )]
    RateLimit,
}

/// Where a request for codes came from. The text is cut, and control and format characters are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(super) struct RequestSource(Box<str>);

impl RequestSource {
    /// The most bytes that are kept.
    const MAX_BYTES: usize = 256;

    pub(super) fn new(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(Self::MAX_BYTES));
        for character in text.chars() {
            let shown = if is_hidden(character) {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            };
            if kept.len().saturating_add(shown.len_utf8()) > Self::MAX_BYTES {
                break;
            }
            kept.push(shown);
        }
        Self(kept.into())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for RequestSource {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<RequestSource> for String {
    fn from(source: RequestSource) -> Self {
        source.0.into()
    }
}
