//! What an answer of the token endpoint means.
//!
//! Rules:
//! 1. The meaning depends on the answer alone; what follows from it depends on the machine.
//! 2. The error code decides, whatever the status: providers send the same code with 200, 400, 401, 403, 428 and 429.
//! 3. Nothing but a 2xx with an access token is a success.
//! 4. What stays unclear is no reason to go on: an unknown error code ends the polling, unless the status says "later".

use alloc::borrow::Cow;
use core::time::Duration;

use super::body::{Body, Format, Malformed, Members};
use super::refusal::Refusal;
use super::response::Response;
use super::tokens::Tokens;

/// What an answer of the token endpoint means.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "whoever reads an answer must know every meaning"
)]
pub enum Verdict {
    /// `authorization_pending`, with the interval that the body may have named.
    Pending(Option<Duration>),
    /// `slow_down`, with the interval that the body may have named.
    SlowDown(Option<Duration>),
    /// The user said no.
    Denied(Refusal),
    /// The server says that the code or the token has expired.
    Expired(Refusal),
    /// `invalid_grant` and its like: an unknown, foreign, redeemed or expired code. Only a [`Login`](super::Login), which knows what
    /// happened before, can tell which.
    InvalidGrant(Refusal),
    /// The server could not answer; it may be asked again.
    Transient,
    /// Another refusal: do not ask again.
    Rejected(Refusal),
    /// The tokens.
    Tokens(Tokens),
    /// A redirect, with its status. It is not followed, because the device code would go elsewhere.
    Redirected(u16),
    /// The response could not be used.
    Malformed(Malformed),
}

/// Returns what an answer to a poll means ([RFC 8628, section 3.5](https://www.rfc-editor.org/rfc/rfc8628#section-3.5)).
///
/// ```
/// use device_flow::client::{Response, Verdict, verdict};
///
/// let github = Response::new(200, r#"{"error":"slow_down","interval":10}"#);
/// assert_eq!(verdict(&github), Verdict::SlowDown(Some(core::time::Duration::from_secs(10))));
/// ```
#[must_use]
pub fn verdict<B: AsRef<[u8]>>(response: &Response<B>) -> Verdict {
    read(&response.by_ref())
}

fn read(response: &Response<&[u8]>) -> Verdict {
    let status = response.status;
    let mut body = Body::default();
    if let Err(why) = body.read(response) {
        return Verdict::Malformed(why);
    }
    let members = &body.members;
    let Some(code) = code(status, members) else {
        return match status {
            // A captive portal answers everything, with a page of its own; it goes away.
            200..=299 if body.format == Format::Unknown => Verdict::Transient,
            200..=299 => Tokens::read(&body).map_or_else(Verdict::Malformed, Verdict::Tokens),
            300..=399 => Verdict::Redirected(status),
            _ if is_transient(status) => Verdict::Transient,
            400..=499 => Verdict::Rejected(Refusal::new(response, None, &body)),
            _ => Verdict::Malformed(Malformed::Status),
        };
    };
    if members.access_token.text().is_some() && members.error.text().is_some() {
        return Verdict::Malformed(Malformed::Contradiction);
    }
    let refusal = || Refusal::new(response, Some(&code), &body);
    match Meaning::of(&code) {
        Some(Meaning::Pending) => Verdict::Pending(members.interval.seconds()),
        Some(Meaning::SlowDown) => Verdict::SlowDown(members.interval.seconds()),
        Some(Meaning::Denied) => Verdict::Denied(refusal()),
        Some(Meaning::Expired) => Verdict::Expired(refusal()),
        Some(Meaning::InvalidGrant) => Verdict::InvalidGrant(refusal()),
        Some(Meaning::Transient) => Verdict::Transient,
        None if is_transient(status) => Verdict::Transient,
        // "If the client receives an error response with any other error code, it MUST stop polling" (RFC 8628, section 3.5)
        None => Verdict::Rejected(refusal()),
    }
}

/// Returns whether the server may have done what it was asked for, where its response says that it could not answer: it failed after
/// its write, a gateway answered for it, or a success was cut short.
pub(crate) fn may_hide_success(response: &Response<&[u8]>) -> bool {
    match response.status {
        500..=599 => true,
        200..=299 => {
            let mut body = Body::default();
            body.read(response).is_ok() && body.format == Format::Unknown
        }
        _ => false,
    }
}

/// Returns the error code of a body.
#[inline]
pub(crate) fn code<'a>(status: u16, members: &Members<'a>) -> Option<Cow<'a, str>> {
    let error = members.error.text();
    if error.is_some() || matches!(status, 200..=299) {
        return error;
    }
    let known = |text: &Cow<'_, str>| Meaning::of(text).is_some();
    let message = || members.message.text().filter(known);
    members.code.text().or_else(message)
}

/// Returns whether a status alone says that the same request may be answered later.
pub(crate) const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// What an error code means.
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
    /// Returns the meaning of a code, or `None` if the code is unknown.
    pub(crate) fn of(code: &str) -> Option<Self> {
        Some(match code {
            "authorization_pending" => Self::Pending,
            "slow_down" => Self::SlowDown,
            // Entra ID has its own.
            "access_denied" | "authorization_declined" => Self::Denied,
            // GitHub has had several.
            "expired_token" | "token_expired" | "code_expired" => Self::Expired,
            "invalid_grant" | "bad_verification_code" | "incorrect_device_code" => {
                Self::InvalidGrant
            }
            "temporarily_unavailable" | "server_error" | "too_many_requests" => Self::Transient,
            _ => return None,
        })
    }
}
