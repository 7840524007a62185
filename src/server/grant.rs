//! What tokens are minted for, and how a host refuses to mint them.

use alloc::format;

use time::OffsetDateTime;

use super::machine::Prepared;
use super::reply::Cause;
use super::response::Response;
use super::session::{Login, Status};
use super::subject::{HostValue, InvalidText, Subject};
use crate::digest::SessionKey;
use crate::scope::Scope;
use crate::wire::debug_shows;

/// An approved session for which tokens are to be minted: at the redemption of the device code, and at each refresh of the login.
///
/// Only this crate makes one, so a grant always comes from an approval.
#[derive(Clone, Copy)]
pub struct Grant<'x> {
    prepared: &'x Prepared,
    login: &'x Login,
    now: &'x OffsetDateTime,
}

impl<'x> Grant<'x> {
    pub(super) fn new(prepared: &'x Prepared, now: &'x OffsetDateTime) -> Option<Self> {
        let login = prepared.session.login()?;
        Some(Self {
            prepared,
            login,
            now,
        })
    }

    /// Returns the key of the session. It is the id of the login, and stays the same over all refreshes.
    pub const fn session_key(&self) -> &'x SessionKey {
        &self.prepared.session.key
    }

    /// Returns the client that gets the tokens.
    pub fn client_id(&self) -> &'x str {
        &self.prepared.session.client_id
    }

    /// Returns the user who approved.
    pub fn subject(&self) -> &'x Subject {
        &self.login.approval.subject
    }

    /// Returns the scope that the tokens are for. It may be narrower than what the user approved, because a refresh may ask for less, and
    /// because the client may no longer be allowed a part of it.
    pub fn scope(&self) -> &'x Scope {
        self.prepared
            .scope
            .as_ref()
            .unwrap_or(&self.login.approval.scope)
    }

    /// Returns the value that the host gave with [`Consent::with_value`](super::Consent::with_value), or an empty one.
    pub fn host_value(&self) -> &'x HostValue {
        &self.login.approval.value
    }

    /// Returns the time of this request, as it was given to the exchange: `iat` of a token.
    pub const fn now(&self) -> OffsetDateTime {
        *self.now
    }

    /// Returns when the user approved.
    pub fn approved_at(&self) -> OffsetDateTime {
        self.login.approval.approved_at.to_offset()
    }

    /// Returns when the device code was redeemed. Unless this is a refresh, that is now.
    pub fn redeemed_at(&self) -> OffsetDateTime {
        self.login.redeemed_at.to_offset()
    }

    /// Returns whether this is a refresh of a login whose device has had tokens before.
    pub const fn is_refresh(&self) -> bool {
        matches!(self.prepared.from, Status::Active)
    }
}

debug_shows!(Grant<'_>: session_key(), subject(), scope());

/// Why a host mints no tokens.
///
/// Every error converts into [`GrantRefusal::failed`], so that `?` works where tokens are minted. The error itself is dropped: **log
/// it where it happens.**
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantRefusal(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ConsentGone,
    Failed,
    Error {
        status: u16,
        error: &'static str,
        description: &'static str,
    },
}

impl GrantRefusal {
    /// The subject or the consent is no longer valid. The login ends for good, and the client is told `invalid_grant`
    /// ([C15](crate::tables#c15), [R11](crate::tables#r11)).
    pub const fn consent_gone() -> Self {
        Self(Kind::ConsentGone)
    }

    /// Minting failed. The client is told 503 and can try again, because nothing is written ([C16](crate::tables#c16),
    /// [R12](crate::tables#r12)).
    pub const fn failed() -> Self {
        Self(Kind::Failed)
    }

    /// A check by the host failed, for example of `DPoP` or of `resource`. The client is told this error with status 400, and nothing is
    /// written ([C14](crate::tables#c14)). Do this check before you return [`GrantRefusal::consent_gone`], because that ends the login, and
    /// a caller without the proof must not end it.
    ///
    /// # Errors
    ///
    /// [`InvalidText::ErrorText`] if the code is empty, or a character is not one that
    /// [RFC 6749, section 5.2](https://www.rfc-editor.org/rfc/rfc6749#section-5.2) allows: "Values for the "error" parameter MUST NOT
    /// include characters outside the set %x20-21 / %x23-5B / %x5D-7E."
    pub fn error(error: &'static str, description: &'static str) -> Result<Self, InvalidText> {
        let legal = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        if error.is_empty() || !error.bytes().chain(description.bytes()).all(legal) {
            return Err(InvalidText::ErrorText);
        }
        Ok(Self(Kind::Error {
            status: 400,
            error,
            description,
        }))
    }

    /// Changes the status of an error to 401, which some extensions require. **Add the `WWW-Authenticate` header to the
    /// response.**
    #[must_use]
    pub const fn unauthorized(mut self) -> Self {
        if let Kind::Error { status, .. } = &mut self.0 {
            *status = 401;
        }
        self
    }

    /// Returns the cause, and the response if it differs from the usual one for this cause.
    pub(super) fn outcome(self) -> (Cause, Option<Response>) {
        match self.0 {
            Kind::ConsentGone => (Cause::ConsentGone, None),
            Kind::Failed => (Cause::MintingFailed, None),
            Kind::Error {
                status,
                error,
                description,
            } => {
                let body = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
                (Cause::HostCheck, Some(Response::refused(status, body)))
            }
        }
    }
}

impl<E: core::error::Error> From<E> for GrantRefusal {
    fn from(_: E) -> Self {
        Self::failed()
    }
}

/// Returns the part of a granted scope that the client may ask for now. `None` stands for all of it, and [`Cause::ConsentGone`] for
/// nothing.
pub(super) fn allowed_now(granted: &Scope, allowed: &Scope) -> Result<Option<Scope>, Cause> {
    if granted.is_within(allowed) {
        return Ok(None);
    }
    let part = allowed.allow(granted.as_str()).ok().flatten();
    part.map(Some).ok_or(Cause::ConsentGone)
}
