//! What the host says of people: who is signed in, what it keeps with an approval, where a request came from.
//!
//! Rule: each is bounded and checked when it is made; what holds one need not look again.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

/// A signed-in user, by the `sub` of the host ([OpenID Connect Core, section 2]): 1 to 255 bytes without control characters.
///
/// [OpenID Connect Core, section 2]: https://openid.net/specs/openid-connect-core-1_0.html#IDToken
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(Box<str>);

impl Subject {
    /// The user of this identifier.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] where it is empty, too long, or has control characters.
    pub fn new(sub: impl Into<Box<str>>) -> Result<Self, SubjectError> {
        let sub = sub.into();
        if sub.is_empty() || sub.len() > 255 || sub.chars().any(char::is_control) {
            return Err(SubjectError);
        }
        Ok(Self(sub))
    }

    /// The identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(sub: String) -> Result<Self, Self::Error> {
        Self::new(sub)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0.into()
    }
}

/// A text that names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a subject has from 1 to 255 bytes and no control characters")]
#[non_exhaustive]
pub struct SubjectError;

/// One opaque value of the host, kept with the approval and returned with the grant: organization, session, time of
/// authentication, consent. At most 1 KiB.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct HostValue(Box<[u8]>);

impl HostValue {
    /// The most bytes that it may have.
    pub const MAX_BYTES: usize = 1024;

    /// The value of these bytes.
    ///
    /// # Errors
    ///
    /// [`HostValueError`] for more than [`HostValue::MAX_BYTES`].
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, HostValueError> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_BYTES {
            return Err(HostValueError);
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for HostValue {
    type Error = HostValueError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<HostValue> for Vec<u8> {
    fn from(value: HostValue) -> Self {
        value.0.into()
    }
}

impl fmt::Debug for HostValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostValue({} bytes)", self.0.len())
    }
}

/// A value that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's value may have at most 1024 bytes; store more elsewhere and keep its key here")]
#[non_exhaustive]
pub struct HostValueError;

/// Where a request for codes came from, as the host knows it: an address, a place, a user agent.
///
/// It is kept for the review: a user who sees a strange city does not approve. Cut at 256 bytes, control characters
/// replaced; none is left out for an empty text.
///
/// # Security
///
/// Untrusted text: escape it before it is shown in a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Origin(Box<str>);

impl Origin {
    /// The most bytes that are kept.
    pub const MAX_BYTES: usize = 256;

    /// The origin of this text, cut and cleaned.
    pub fn new(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(Self::MAX_BYTES));
        for character in text.chars() {
            let shown = if character.is_control() {
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

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Origin {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0.into()
    }
}
