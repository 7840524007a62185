//! The tokens that a server granted ([RFC 6749, section 5.1]).
//!
//! [RFC 6749, section 5.1]: https://www.rfc-editor.org/rfc/rfc6749#section-5.1

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde_json::Map;

use super::answer::Malformed;
use super::body::{Body, Others, Value};
use crate::scope::Scope;
use crate::wire::octets::are_vschars;

/// The tokens that a server granted.
///
/// # Security
///
/// `Debug` shows none of them. Keep them where only this user can read them.
#[derive(Clone, PartialEq)]
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
            access_token: members
                .access_token
                .text()
                .ok_or(Malformed::Empty)
                .and_then(checked)?,
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

    /// The access token where it is a bearer token, as one without a type is taken to be.
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

    /// The access token, whatever its type: for a client that has looked at [`Self::token_type`].
    #[must_use]
    pub const fn access_token(&self) -> &str {
        &self.access_token
    }

    /// The type of the access token as the server wrote it; `Bearer` where it wrote none.
    #[must_use]
    pub fn token_type(&self) -> &str {
        self.token_type.as_deref().unwrap_or(BEARER)
    }

    /// The refresh token.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&str> {
        self.refresh_token.as_deref()
    }

    /// The ID token of `OpenID` Connect, not verified.
    #[must_use]
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_deref()
    }

    /// The lifetime of the access token, where the server told one that can be read.
    #[must_use]
    pub const fn expires_in(&self) -> Option<Duration> {
        self.expires_in
    }

    /// The granted scope, its tokens separated by spaces, where the server told it: else it is the one requested.
    #[must_use]
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// The tokens of the requested scope that were not granted. None are reported for [`verdict`](super::verdict), which does
    /// not know what was requested.
    #[must_use]
    pub fn withheld(&self) -> &[String] {
        &self.withheld
    }

    /// The members that are not of the protocol, as they came; read anew with every call.
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
