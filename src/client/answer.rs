//! What an answer to a poll means.
//!
//! Rules:
//! 1. The meaning depends on the answer alone; what follows from it depends on the poller.
//! 2. The error code decides, whatever the status: providers send the same code with 200, 400, 401, 403, 428 and 429.
//! 3. Nothing but a 2xx with an access token is a success.
//! 4. What stays unclear is no reason to go on: an unknown error code stops the poller, unless the status says "later".

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::body::{Body, Format, Kept, Members};
use super::prose::Prose;
use super::tokens::Tokens;

/// The largest body that is read. Real ones have a few kilobytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// An answer as it was received: the status, the header `Retry-After` if there was one, and the body.
///
/// Read no more of a body than [`MAX_BODY`] and one byte. Under the feature `http` it is made from an `http::Response`.
#[derive(Clone)]
pub struct Received<B> {
    status: u16,
    retry_after: Option<Duration>,
    body: B,
}

impl<B: AsRef<[u8]>> Received<B> {
    /// An answer without `Retry-After`.
    pub const fn new(status: u16, body: B) -> Self {
        Self {
            status,
            retry_after: None,
            body,
        }
    }

    /// The same with the value of `Retry-After`. What is not a number of seconds is ignored.
    #[must_use]
    pub fn retry_after(mut self, value: &str) -> Self {
        let value = value.trim_ascii();
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than a number holds are a long time.
        let seconds = digits.then(|| value.parse().unwrap_or(u64::MAX));
        self.retry_after = seconds.map(Duration::from_secs);
        self
    }

    pub(crate) const fn status(&self) -> u16 {
        self.status
    }

    pub(crate) const fn pause(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) fn octets(&self) -> &[u8] {
        self.body.as_ref()
    }
}

impl<B> fmt::Debug for Received<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({}, redacted)", self.status)
    }
}

#[cfg(feature = "http")]
impl<B: AsRef<[u8]>> From<http::Response<B>> for Received<B> {
    fn from(response: http::Response<B>) -> Self {
        let (head, body) = response.into_parts();
        let received = Self::new(head.status.as_u16(), body);
        let pause = head.headers.get(http::header::RETRY_AFTER);
        match pause.and_then(|value| value.to_str().ok()) {
            Some(value) => received.retry_after(value),
            None => received,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Failure {
    /// The connection, or the answer, did not come in time.
    ConnectionTimeout,
    /// Another failure that may pass: no network, a name that does not resolve, a connection reset.
    Other,
    /// A failure that will not pass by itself: a certificate that does not verify.
    Permanent,
}

/// What an answer to a poll means.
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
    /// The server says that the device code has expired.
    Expired(Refusal),
    /// `invalid_grant` and its like: an unknown, foreign, redeemed or expired code, which only the poller can tell apart.
    InvalidGrant(Refusal),
    /// The server could not answer; it may be asked again.
    Transient,
    /// Another refusal: do not ask again.
    Rejected(Refusal),
    /// The tokens.
    Tokens(Tokens),
    /// A redirect, with its status. It is not followed: the device code would go elsewhere.
    Redirected(u16),
    /// An answer that is none.
    Malformed(Malformed),
}

/// Reads an answer to a poll ([RFC 8628, section 3.5]).
///
/// ```
/// use device_flow::client::{Received, Verdict, verdict};
///
/// let github = Received::new(200, r#"{"error":"slow_down","interval":10}"#);
/// assert_eq!(verdict(&github), Verdict::SlowDown(Some(core::time::Duration::from_secs(10))));
/// ```
///
/// [RFC 8628, section 3.5]: https://www.rfc-editor.org/rfc/rfc8628#section-3.5
#[must_use]
pub fn verdict<B: AsRef<[u8]>>(received: &Received<B>) -> Verdict {
    read(received.status, received.octets())
}

fn read(status: u16, octets: &[u8]) -> Verdict {
    let kept = Kept::default();
    let mut body = Body::new(&kept);
    let format = match open(status, octets, &mut body) {
        Ok(format) => format,
        Err(Unread::Redirected) => return Verdict::Redirected(status),
        Err(Unread::Malformed(why)) => return Verdict::Malformed(why),
    };
    let members = &body.members;
    let Some(code) = code(status, members) else {
        return match status {
            // A captive portal answers everything, with a page of its own; it goes away.
            200..=299 if format == Format::Unknown => Verdict::Transient,
            200..=299 => Tokens::read(&body).map_or_else(Verdict::Malformed, Verdict::Tokens),
            _ if is_transient(status) => Verdict::Transient,
            400..=499 => Verdict::Rejected(Refusal::of(status, None, &body)),
            _ => Verdict::Malformed(Malformed::Status),
        };
    };
    if members.access_token.text().is_some() && members.error.text().is_some() {
        return Verdict::Malformed(Malformed::Contradiction);
    }
    let refusal = || Refusal::of(status, Some(code), &body);
    match Meaning::of(code) {
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

/// What is done with an answer of either endpoint before anything else.
pub(crate) fn open<'a>(
    status: u16,
    octets: &'a [u8],
    body: &mut Body<'a>,
) -> Result<Format, Unread> {
    if octets.len() > MAX_BODY {
        return Err(Unread::Malformed(Malformed::TooLarge));
    }
    if matches!(status, 300..=399) {
        return Err(Unread::Redirected);
    }
    let format = body.read(octets);
    // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
    if body.repeated {
        return Err(Unread::Malformed(Malformed::Repeated));
    }
    Ok(format)
}

/// Why an answer's body is not looked at.
pub(crate) enum Unread {
    Redirected,
    Malformed(Malformed),
}

/// The error code of a body.
pub(crate) fn code<'a>(status: u16, members: &Members<'a>) -> Option<&'a str> {
    members.error.text().or_else(|| {
        if matches!(status, 200..=299) {
            return None;
        }
        let known = |text: &&str| Meaning::of(text).is_some();
        members
            .code
            .text()
            .or_else(|| members.message.text().filter(known))
    })
}

/// Whether a status alone says that the same request may be answered later.
pub(crate) const fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// What an error code means to a poller.
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
    /// The meaning of a code; none of an unknown one.
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

/// A refusal by the server.
///
/// `Debug` shows the status alone: a server may echo what it was sent.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The status of the response.
    pub status: u16,
    /// The description that the server gave.
    pub description: Option<Prose>,
    /// Whether the answer to an earlier poll was lost and may have carried tokens: then `invalid_grant` may mean that the
    /// code was redeemed by this very device.
    pub possibly_redeemed: bool,
    code: Option<Prose>,
    /// The members that are not of the protocol, as they came: not safe to print.
    pub members: Map<String, serde_json::Value>,
}

impl Refusal {
    pub(crate) fn of(status: u16, code: Option<&str>, body: &Body<'_>) -> Self {
        let members = &body.members;
        let description = members.error_description.text().or(members.message.text());
        Self {
            code: code.map(Prose::of),
            description: description.map(Prose::of),
            members: body.others().build(),
            ..Self::bare(status)
        }
    }

    /// A refusal that was said by the status alone.
    pub(crate) fn bare(status: u16) -> Self {
        Self {
            status,
            code: None,
            description: None,
            possibly_redeemed: false,
            members: Map::new(),
        }
    }

    /// The error code, known or not, if the body had one; as printable as [`Prose`].
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.code.as_ref().map(Prose::as_str)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("possibly_redeemed", &self.possibly_redeemed)
            .finish_non_exhaustive()
    }
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A body of more than [`MAX_BODY`] bytes.
    #[error("the body of the answer is too large")]
    TooLarge,
    /// A body that is neither JSON nor a form.
    #[error("the body of the answer cannot be read")]
    Unreadable,
    /// A member of the protocol that comes twice.
    #[error("a member of the answer is repeated")]
    Repeated,
    /// A token and an error in one.
    #[error("the answer has both a token and an error")]
    Contradiction,
    /// A 2xx without a token and without an error.
    #[error("the answer has neither a token nor an error")]
    Empty,
    /// A token with a character outside `%x20-7E`, which would break the header it is sent in.
    #[error("a token consists of visible ascii and spaces")]
    Token,
    /// A status that no final answer has.
    #[error("the status of the answer is none of http")]
    Status,
}
