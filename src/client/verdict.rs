//! What a response of the token endpoint means.
//!
//! Rules:
//! 1. The meaning depends only on the response. What the login does next also depends on its state.
//! 2. A known error code decides, whatever the status, because providers send the same code with 200, 400, 401, 403, 428 and 429. Only the
//!    body of a redirect is not read.
//! 3. Nothing but a 2xx with an access token is a success.
//! 4. An unknown error code ends the polling, unless the status is 408, 429 or 5xx.

use alloc::borrow::Cow;
use core::time::Duration;

use super::body::{Body, Format, Malformed, Members};
use super::refusal::{Meaning, Refusal};
use super::response::Response;
use super::tokens::Tokens;

/// What a response of the token endpoint means.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "each has another consequence")]
pub enum Verdict {
    /// `authorization_pending`, with the `interval` of the body if it has one.
    Pending(Option<Duration>),
    /// `slow_down`, with the `interval` of the body if it has one.
    SlowDown(Option<Duration>),
    /// The user denied the request.
    Denied(Refusal),
    /// The server says that the code or the token has expired.
    Expired(Refusal),
    /// `invalid_grant`, or another name for it: the code is unknown, of another client, redeemed or expired. A [`Login`](super::Login) and
    /// a [`Refresh`](super::Refresh) also know what happened before: see [`Refusal::possibly_redeemed`].
    InvalidGrant(Refusal),
    /// The server could not answer. Send the request again later.
    Transient,
    /// Another refusal. Do not send the request again.
    Rejected(Refusal),
    /// The tokens.
    Tokens(Tokens),
    /// A redirect, with its status. It is not followed, because the device code would go elsewhere.
    Redirected(u16),
    /// The response could not be used.
    Malformed(Malformed),
}

/// Returns what the response to a poll or a refresh means ([RFC 8628, section 3.5](https://www.rfc-editor.org/rfc/rfc8628#section-3.5)).
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
            // A captive portal answers every request with its own page. It goes away once the user has signed in there.
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

/// Returns whether the server may have done what was asked, although the response does not say so. It may have failed after its write, a
/// gateway may have answered for it, or a success may have been cut short.
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

/// Returns the error code of a body, if it has one.
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

/// Returns whether the status alone says that the same request may succeed later.
pub(crate) const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}
