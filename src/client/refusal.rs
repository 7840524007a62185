//! A refusal by the server: what it said, and what to do about it.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde_json::Map;

use super::body::Body;
use super::display_text::DisplayText;
use super::response::Response;
use crate::wire::debug_shows;

/// A refusal by the server.
///
/// `Display` shows the error code, the description and the status, in a printable form. `Debug` shows no text, because a server may echo a
/// secret.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The status of the response.
    pub status: u16,
    /// The description that the server gave.
    pub description: Option<DisplayText>,
    /// For `invalid_grant`: whether an earlier response that may have had tokens was lost. If so, this device may already have used the
    /// device code or the refresh token.
    pub possibly_redeemed: bool,
    /// How long to wait, if the header `Retry-After` said so.
    pub retry_after: Option<Duration>,
    code: Option<DisplayText>,
    /// The members that the protocol does not define, unchanged: they are not safe to print.
    pub members: Map<String, serde_json::Value>,
}

impl Refusal {
    pub(crate) fn new(response: &Response<&[u8]>, code: Option<&str>, body: &Body<'_>) -> Self {
        let members = &body.members;
        let description = members.error_description.text();
        let description = description.or_else(|| members.message.text());
        Self {
            status: response.status,
            code: code.map(DisplayText::new),
            description: description.map(|text| DisplayText::new(&text)),
            possibly_redeemed: false,
            retry_after: response.retry_after,
            members: body.others(),
        }
    }

    /// Returns the error code, known or not, if the body had one. It is printable like a [`DisplayText`].
    pub fn code(&self) -> Option<&str> {
        self.code.as_ref().map(DisplayText::as_str)
    }

    pub(crate) fn advice(&self) -> &'static str {
        match self.code() {
            Some("invalid_client" | "incorrect_client_credentials") => {
                "check the client id, the secret, and whether the server wants the secret in the header or in the body"
            }
            Some("invalid_scope") => {
                "ask for a scope that the server knows and that this client is allowed to request"
            }
            Some("device_flow_disabled") => {
                "allow the device grant for this client in the server's settings"
            }
            Some("unauthorized_client" | "access_denied") => {
                "allow this request for this client in the server's settings"
            }
            Some("unsupported_grant_type") => {
                "check the endpoint's URL, and whether the server supports this grant"
            }
            Some(code) if Meaning::of(code) == Some(Meaning::InvalidGrant) => "sign in again",
            Some("unsupported_token_type") => "revoke the refresh token instead",
            Some("invalid_request") => "check which parameters this server requires",
            Some(_) => "look the error up in the server's documentation",
            None => "check the endpoint's URL and the client's settings at the server",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.code, &self.description) {
            (Some(code), Some(text)) => write!(f, "{code}: {text} (status {})", self.status),
            (Some(said), None) | (None, Some(said)) => write!(f, "{said} (status {})", self.status),
            (None, None) => write!(f, "status {} without an error code", self.status),
        }
    }
}

debug_shows!(Refusal: status, possibly_redeemed);

/// What a known error code means, under all the names that servers give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Pending,
    SlowDown,
    Denied,
    Expired,
    InvalidGrant,
    Transient,
}

impl Meaning {
    /// Returns `None` if the code is unknown.
    pub(crate) fn of(code: &str) -> Option<Self> {
        Some(match code {
            "authorization_pending" => Self::Pending,
            "slow_down" => Self::SlowDown,
            // Entra ID sends `authorization_declined`.
            "access_denied" | "authorization_declined" => Self::Denied,
            // GitHub has used several names.
            "expired_token" | "token_expired" | "code_expired" => Self::Expired,
            "invalid_grant" | "bad_verification_code" | "incorrect_device_code" => {
                Self::InvalidGrant
            }
            "temporarily_unavailable" | "server_error" | "too_many_requests" => Self::Transient,
            _ => return None,
        })
    }
}
