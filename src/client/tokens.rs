//! The tokens that a server granted (RFC 6749, section 5.1).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::body::{Body, Malformed, Value};
use crate::scope::Scope;
use crate::wire::debug_shows;
use crate::wire::octets::are_vschars;
use crate::wire::version::Version;

/// The tokens that a server granted.
///
/// They implement `Serialize` and `Deserialize`, so that a program can keep its user signed in. Deserializing checks them like a response.
/// Keep the time of the response beside them, because [`Tokens::expires_in`] counts from it.
///
/// # Security
///
/// **The serde form contains the tokens: keep it like a password, where only this user can read it.** `Debug` shows none of them.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Record")]
pub struct Tokens(Record);

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: Version<1>,
    access_token: Box<str>,
    token_type: Option<Box<str>>,
    refresh_token: Option<Box<str>>,
    id_token: Option<Box<str>>,
    scope: Option<Box<str>>,
    /// The lifetime of the access token in seconds.
    expires_in: Option<u64>,
    withheld: Vec<String>,
    members: Map<String, serde_json::Value>,
}

impl Tokens {
    pub(crate) fn read(body: &Body<'_>) -> Result<Self, Malformed> {
        let members = &body.members;
        let text = |token: Value<'_>| token.text().map(Into::into);
        let token_type = members.token_type.string();
        let token_type = token_type.filter(|name| are_vschars(name.as_bytes()));
        if token_type.is_none() && members.token_type.is_given() {
            return Err(Malformed::Token);
        }
        let record = Record {
            v: Version,
            access_token: text(members.access_token).ok_or(Malformed::Empty)?,
            token_type: token_type.map(Into::into),
            refresh_token: text(members.refresh_token),
            id_token: text(members.id_token),
            scope: members.scope.scope().map(Into::into),
            expires_in: members.expires_in.seconds().map(|span| span.as_secs()),
            withheld: Vec::new(),
            members: body.others(),
        };
        if !record.is_safe() {
            return Err(Malformed::Token);
        }
        Ok(Self(record))
    }

    /// Notes which tokens of the requested scope were not granted.
    pub(crate) fn compare(mut self, requested: &Scope) -> Self {
        // "OPTIONAL, if identical to the scope requested by the client; otherwise, REQUIRED." (RFC 6749, section 5.1)
        if let Some(granted) = &self.0.scope {
            let missing = requested
                .tokens()
                .filter(|own| granted.split(' ').all(|token| token != *own));
            self.0.withheld = missing.map(ToOwned::to_owned).collect();
        }
        self
    }

    /// Keeps the refresh token that was sent, if the server issued no new one.
    ///
    /// "The authorization server MAY issue a new refresh token, in which case the client MUST discard the old refresh token and
    /// replace it with the new refresh token." (RFC 6749, section 6)
    pub(crate) fn or_refresh_token(mut self, sent: &str) -> Self {
        self.0.refresh_token.get_or_insert_with(|| sent.into());
        self
    }

    /// Returns the access token if it is a bearer token. A token without a type counts as a bearer token.
    ///
    /// "The client MUST NOT use an access token if it does not understand the token type."
    /// ([RFC 6749, section 7.1](https://www.rfc-editor.org/rfc/rfc6749#section-7.1))
    pub fn bearer(&self) -> Option<&str> {
        self.token_type()
            .eq_ignore_ascii_case(BEARER)
            .then_some(&*self.0.access_token)
    }

    /// Returns the access token, whatever its type. Look at [`Self::token_type`] first.
    pub const fn access_token(&self) -> &str {
        &self.0.access_token
    }

    /// Returns the type of the access token as the server wrote it, or `Bearer` if it wrote none.
    pub fn token_type(&self) -> &str {
        self.0.token_type.as_deref().unwrap_or(BEARER)
    }

    /// Returns the refresh token. After a refresh without a new token it is the token that was sent.
    pub fn refresh_token(&self) -> Option<&str> {
        self.0.refresh_token.as_deref()
    }

    /// Returns the ID token of `OpenID` Connect, not verified.
    pub fn id_token(&self) -> Option<&str> {
        self.0.id_token.as_deref()
    }

    /// Returns the lifetime of the access token, counted from the response, if the server announced it.
    pub fn expires_in(&self) -> Option<Duration> {
        self.0.expires_in.map(Duration::from_secs)
    }

    /// Returns the granted scope, its tokens separated by spaces, if the server announced it. `None` means that the server granted the
    /// requested scope, or, after a refresh that requested no scope, the scope that was granted before.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// Returns the scope tokens that were requested and not granted. After [`verdict`](super::verdict) it is empty, because that function
    /// does not know what was requested.
    pub fn withheld(&self) -> &[String] {
        &self.0.withheld
    }

    /// Returns the members that the protocol does not define, unchanged.
    pub const fn members(&self) -> &Map<String, serde_json::Value> {
        &self.0.members
    }
}

const BEARER: &str = "Bearer";

impl Record {
    /// Returns whether every token can be sent in a header.
    fn is_safe(&self) -> bool {
        let tokens = [
            Some(&self.access_token),
            self.refresh_token.as_ref(),
            self.id_token.as_ref(),
        ];
        let is_printable = |text: &str| are_vschars(text.as_bytes());
        tokens
            .into_iter()
            .flatten()
            .all(|token| !token.is_empty() && is_printable(token))
            && self.token_type.as_deref().is_none_or(is_printable)
    }
}

impl TryFrom<Record> for Tokens {
    type Error = &'static str;

    fn try_from(record: Record) -> Result<Self, Self::Error> {
        if !record.is_safe() {
            return Err("the stored tokens have a value that no token can have; sign in again");
        }
        Ok(Self(record))
    }
}

debug_shows!(Tokens: expires_in());
