//! The access token response that the host minted ([RFC 6749, section 5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1)).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::time::Duration;

use super::response::Digits;
use crate::wire::debug_shows;
use crate::wire::octets::{are_vschars, stand_for_themselves};

/// The tokens that the host minted for a [`Grant`](super::Grant). The crate adds the granted scope and its own refresh token. It
/// returns the response only after the store has written the change.
///
/// ```
/// use core::time::Duration;
/// use device_flow::server::Tokens;
///
/// let tokens = Tokens::bearer("eyJhbGciOiJSUzI1NiJ9.e30.c2ln")?
///     .expires_in(Duration::from_secs(300))
///     .id_token("eyJhbGciOiJSUzI1NiJ9.e30.c2ln")?;
/// # Ok::<(), device_flow::server::TokenError>(())
/// ```
#[derive(Clone)]
pub struct Tokens<'a> {
    access_token: Cow<'a, str>,
    token_type: Cow<'a, str>,
    /// Whether no token needs an escape in JSON.
    needs_no_escape: bool,
    expires_in: Option<u32>,
    refresh_token: Option<Cow<'a, str>>,
    id_token: Option<Cow<'a, str>>,
    members: Vec<(Cow<'a, str>, serde_json::Value)>,
}

impl<'a> Tokens<'a> {
    /// Returns a bearer token ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750)).
    ///
    /// # Errors
    ///
    /// [`TokenError::Character`] if the token is empty, or has a character other than visible ASCII and space.
    #[inline]
    pub fn bearer(access_token: impl Into<Cow<'a, str>>) -> Result<Self, TokenError> {
        Self::of_type("Bearer", access_token)
    }

    /// Returns a token of another type, for example `DPoP` ([RFC 6749, section 7.1](https://www.rfc-editor.org/rfc/rfc6749#section-7.1)).
    ///
    /// # Errors
    ///
    /// [`TokenError::Character`] as for [`Tokens::bearer`].
    #[inline]
    pub fn of_type(
        token_type: impl Into<Cow<'a, str>>,
        access_token: impl Into<Cow<'a, str>>,
    ) -> Result<Self, TokenError> {
        let mut tokens = Self {
            access_token: access_token.into(),
            token_type: token_type.into(),
            needs_no_escape: true,
            expires_in: None,
            refresh_token: None,
            id_token: None,
            members: Vec::new(),
        };
        tokens.needs_no_escape =
            stands_for_itself(&tokens.access_token)? & stands_for_itself(&tokens.token_type)?;
        Ok(tokens)
    }

    /// Sets the lifetime of the access token, which is announced in whole seconds, rounded down.
    #[inline]
    #[must_use]
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX));
        self
    }

    /// Sets a refresh token that the host made. **Call this only if [`PolicyOptions::refresh`](super::PolicyOptions::refresh) is `None`**,
    /// because otherwise the crate replaces it by its own refresh token, and refuses it at a refresh.
    ///
    /// # Errors
    ///
    /// [`TokenError::Character`] as for [`Tokens::bearer`].
    #[inline]
    pub fn refresh_token(mut self, token: impl Into<Cow<'a, str>>) -> Result<Self, TokenError> {
        let token = token.into();
        self.needs_no_escape &= stands_for_itself(&token)?;
        self.refresh_token = Some(token);
        Ok(self)
    }

    /// Sets the ID token of `OpenID` Connect.
    ///
    /// # Errors
    ///
    /// [`TokenError::Character`] as for [`Tokens::bearer`].
    #[inline]
    pub fn id_token(mut self, token: impl Into<Cow<'a, str>>) -> Result<Self, TokenError> {
        let token = token.into();
        self.needs_no_escape &= stands_for_itself(&token)?;
        self.id_token = Some(token);
        Ok(self)
    }

    /// Adds a member to the response.
    ///
    /// # Errors
    ///
    /// [`TokenError::Reserved`] if this type or the protocol writes the member, or if it was given before.
    pub fn member(
        mut self,
        name: impl Into<Cow<'a, str>>,
        value: serde_json::Value,
    ) -> Result<Self, TokenError> {
        const OURS: [&str; 7] = [
            "access_token",
            "token_type",
            "expires_in",
            "refresh_token",
            "id_token",
            "scope",
            "error",
        ];
        let name = name.into();
        if OURS.contains(&&*name) || self.members.iter().any(|(given, _)| *given == name) {
            return Err(TokenError::Reserved);
        }
        self.members.push((name, value));
        Ok(self)
    }

    /// Returns the body, with `scope` unless it is empty. `refresh_token` is the crate's own; it replaces the host's.
    pub(crate) fn body(&self, scope: &str, refresh_token: Option<&str>) -> String {
        let refresh_token = refresh_token.or(self.refresh_token.as_deref());
        let lengths = [
            self.access_token.len(),
            self.token_type.len(),
            refresh_token.map_or(0, str::len),
            self.id_token.as_deref().map_or(0, str::len),
            scope.len(),
        ];
        let length = lengths.into_iter().fold(FRAME_BYTES, usize::saturating_add);
        let mut body = String::with_capacity(length);
        body.push_str(r#"{"access_token":""#);
        self.push(&mut body, &self.access_token);
        body.push_str(r#"","token_type":""#);
        self.push(&mut body, &self.token_type);
        if let Some(token) = refresh_token {
            body.push_str(r#"","refresh_token":""#);
            self.push(&mut body, token);
        }
        if let Some(token) = &self.id_token {
            body.push_str(r#"","id_token":""#);
            self.push(&mut body, token);
        }
        if !scope.is_empty() {
            body.push_str(r#"","scope":""#);
            body.push_str(scope); // a scope needs no escapes
        }
        body.push('"');
        if let Some(seconds) = self.expires_in {
            body.push_str(r#","expires_in":"#);
            body.push_str(Digits::of(seconds).as_str());
        }
        for (name, value) in &self.members {
            let _ = write!(body, ",{}:{value}", serde_json::Value::from(&**name));
        }
        body.push('}');
        body
    }

    #[inline]
    fn push(&self, body: &mut String, text: &str) {
        if self.needs_no_escape {
            return body.push_str(text);
        }
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                body.push('\\');
            }
            body.push(character);
        }
    }
}

/// Returns whether the token needs no escape in JSON, or an error if it is not `1*VSCHAR` (RFC 6749, appendix A.12).
#[inline]
fn stands_for_itself(token: &str) -> Result<bool, TokenError> {
    let plain = stand_for_themselves(token.as_bytes());
    if token.is_empty() || !(plain || are_vschars(token.as_bytes())) {
        return Err(TokenError::Character);
    }
    Ok(plain)
}

/// The room for the names, the punctuation and the number, in bytes. The body grows if it needs more, for example for escapes.
const FRAME_BYTES: usize = 128;

debug_shows!(Tokens<'_>: token_type, expires_in);

/// A mistake in what the host minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A token is empty, or has a character outside `%x20-7E`.
    #[error("a token must not be empty and must have only visible ascii characters and spaces")]
    Character,
    /// The member has its own method, is written only by the protocol, or was given before.
    #[error(
        "this member of the response has its own method, is written by the protocol, or was given before; use that method, or leave it out"
    )]
    Reserved,
}
