//! The tokens that a server granted ([RFC 6749, section 5.1]).
//!
//! [RFC 6749, section 5.1]: https://www.rfc-editor.org/rfc/rfc6749#section-5.1

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::body::{Body, Malformed, Others, Value};
use crate::scope::Scope;
use crate::wire::octets::are_vschars;

/// The tokens that a server granted.
///
/// They are serde in both directions, for a program that keeps its user signed in. What is read back is checked like a response.
///
/// # Security
///
/// **The serde form contains the tokens: keep it like a password, where only this user can read it.** `Debug` shows none of them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Record", try_from = "Record")]
pub struct Tokens {
    access_token: Box<str>,
    token_type: Option<Box<str>>,
    refresh_token: Option<Box<str>>,
    id_token: Option<Box<str>>,
    scope: Option<Box<str>>,
    expires_in: Option<Duration>,
    withheld: Vec<String>,
    others: Others,
}

impl Tokens {
    pub(crate) fn read(body: &Body<'_>) -> Result<Self, Malformed> {
        let members = &body.members;
        let token_type = match members.token_type {
            Value::Absent | Value::Null => None,
            Value::Text(name) => Some(checked(name)?),
            Value::Number(_) | Value::List(_) | Value::Other => return Err(Malformed::Token),
        };
        let optional = |token: Value<'_>| token.text().map(checked).transpose();
        Ok(Self {
            access_token: optional(members.access_token)?.ok_or(Malformed::Empty)?,
            token_type,
            refresh_token: optional(members.refresh_token)?,
            id_token: optional(members.id_token)?,
            scope: members.scope.scope().map(Into::into),
            expires_in: members.expires_in.seconds(),
            withheld: Vec::new(),
            others: body.others(),
        })
    }

    /// Notes which tokens of the requested scope were not granted.
    pub(crate) fn compare(mut self, requested: &Scope) -> Self {
        // "OPTIONAL, if identical to the scope requested by the client; otherwise, REQUIRED." (RFC 6749, section 5.1)
        if let Some(granted) = &self.scope {
            let missing = requested
                .tokens()
                .filter(|own| granted.split(' ').all(|token| token != *own));
            self.withheld = missing.map(ToOwned::to_owned).collect();
        }
        self
    }

    /// Keeps the refresh token that was sent, where the server issued no new one.
    ///
    /// "The authorization server MAY issue a new refresh token, in which case the client MUST discard the old refresh token and
    /// replace it with the new refresh token." (RFC 6749, section 6)
    pub(crate) fn or_refresh_token(mut self, sent: &str) -> Self {
        self.refresh_token.get_or_insert_with(|| sent.into());
        self
    }

    /// Returns the access token if it is a bearer token. A token without a type is taken for one.
    ///
    /// "The client MUST NOT use an access token if it does not understand the token type." ([RFC 6749, section 7.1])
    ///
    /// [RFC 6749, section 7.1]: https://www.rfc-editor.org/rfc/rfc6749#section-7.1
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        self.token_type()
            .eq_ignore_ascii_case(BEARER)
            .then_some(&*self.access_token)
    }

    /// Returns the access token, whatever its type: for a client that has looked at [`Self::token_type`].
    #[must_use]
    pub const fn access_token(&self) -> &str {
        &self.access_token
    }

    /// Returns the type of the access token as the server wrote it, or `Bearer` where it wrote none.
    #[must_use]
    pub fn token_type(&self) -> &str {
        self.token_type.as_deref().unwrap_or(BEARER)
    }

    /// Returns the refresh token. After a refresh without a new one it is the one that was sent.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref()
    }

    /// Returns the ID token of `OpenID` Connect, not verified.
    #[must_use]
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_deref()
    }

    /// Returns the lifetime of the access token, where the server announced one that can be read.
    #[must_use]
    pub const fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// Returns the granted scope, its tokens separated by spaces, where the server announced it. Otherwise it is the one requested,
    /// and after a refresh the one granted before.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// Returns the tokens of the requested scope that were not granted. [`verdict`](super::verdict) reports none, because it does not
    /// know what was requested.
    #[must_use]
    pub fn withheld(&self) -> &[String] {
        &self.withheld
    }

    /// Returns the members that are not of the protocol, as they came; read anew with every call.
    #[must_use]
    pub fn members(&self) -> Map<String, serde_json::Value> {
        self.others.build()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

const BEARER: &str = "Bearer";

fn checked(token: &str) -> Result<Box<str>, Malformed> {
    if !are_vschars(token.as_bytes()) {
        return Err(Malformed::Token);
    }
    Ok(token.into())
}

/// The stored form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: u8,
    access_token: Box<str>,
    token_type: Option<Box<str>>,
    refresh_token: Option<Box<str>>,
    id_token: Option<Box<str>>,
    scope: Option<Box<str>>,
    /// In seconds.
    expires_in: Option<u64>,
    withheld: Vec<String>,
    members: Map<String, serde_json::Value>,
}

/// The version of the stored form.
const VERSION: u8 = 1;

impl From<Tokens> for Record {
    fn from(tokens: Tokens) -> Self {
        Self {
            v: VERSION,
            members: tokens.members(),
            access_token: tokens.access_token,
            token_type: tokens.token_type,
            refresh_token: tokens.refresh_token,
            id_token: tokens.id_token,
            scope: tokens.scope,
            expires_in: tokens.expires_in.map(|span| span.as_secs()),
            withheld: tokens.withheld,
        }
    }
}

impl TryFrom<Record> for Tokens {
    type Error = RecordError;

    fn try_from(record: Record) -> Result<Self, RecordError> {
        if record.v != VERSION {
            return Err(RecordError::Version);
        }
        let is_token = |text: &str| !text.is_empty() && are_vschars(text.as_bytes());
        let optional = [&record.refresh_token, &record.id_token];
        let are_right = is_token(&record.access_token)
            && optional
                .iter()
                .all(|token| token.as_deref().is_none_or(is_token))
            && record
                .token_type
                .iter()
                .all(|name| are_vschars(name.as_bytes()));
        if !are_right {
            return Err(RecordError::Token);
        }
        // What cannot be written has no members.
        let members = serde_json::to_string(&record.members).unwrap_or_default();
        Ok(Self {
            access_token: record.access_token,
            token_type: record.token_type,
            refresh_token: record.refresh_token,
            id_token: record.id_token,
            scope: record.scope,
            expires_in: record.expires_in.map(Duration::from_secs),
            withheld: record.withheld,
            others: Others::from_json(members),
        })
    }
}

/// Why a stored form is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RecordError {
    #[error("the stored tokens are of an unknown version; sign in again")]
    Version,
    #[error("the stored tokens have a value that no token can have; sign in again")]
    Token,
}
