//! A finished response: its status, headers and body.
//!
//! Rules:
//! 1. A response is JSON, or empty after a revocation. Caches must not store it
//!    ([RFC 6749, section 5.1](https://www.rfc-editor.org/rfc/rfc6749#section-5.1) and 5.2).
//! 2. Most refusals are references to static bytes. A success, `slow_down` and a refusal by the host have a body of their own.
//! 3. The 401 to a refused client has a challenge ([RFC 9110, section 15.5.2](https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2)), a
//!    405 says which method is allowed, a 429 and a 503 say when to try again.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use crate::wire::debug_shows;

/// A response, ready to send.
///
/// With the feature `http` it converts into an `http::Response` with any body that can be made from a `Cow<'static, [u8]>`, for example a
/// `Vec<u8>`.
///
/// # Security
///
/// `Debug` shows only the status. After the conversion this is no longer so, because the types of `http` show everything.
#[derive(Clone)]
pub struct Response {
    fixed: &'static Fixed,
    own: Own,
}

/// The part that differs between responses.
#[derive(Clone)]
enum Own {
    Nothing,
    /// When to try again, in seconds.
    RetryAfter(Digits),
    /// `slow_down` with the interval now in force.
    SlowDown(Arc<SlowDown>),
    /// The challenge to a client that was refused.
    Challenge(Arc<str>),
    /// The body of a success, or of a refusal by the host.
    Body(String),
}

/// The constant part of a response.
pub(crate) struct Fixed {
    status: u16,
    body: &'static str,
    header: Option<(&'static str, &'static str)>,
}

/// A refusal's constant part: its status, error code and description.
macro_rules! fixed {
    ($status:literal, $error:literal, $description:literal) => {{
        const FIXED: &$crate::server::response::Fixed = &$crate::server::response::Fixed::new(
            $status,
            concat!(
                r#"{"error":""#,
                $error,
                r#"","error_description":""#,
                $description,
                r#""}"#
            ),
        );
        FIXED
    }};
}
pub(crate) use fixed;

/// The refusal of a client, the same for every reason.
const INVALID_CLIENT: &Fixed = fixed!(401, "invalid_client", "client authentication failed");

/// The statuses of responses that have a body of their own.
pub(crate) const OK: &Fixed = &Fixed::new(200, "");
const BAD_REQUEST: &Fixed = &Fixed::new(400, "");
const UNAUTHORIZED: &Fixed = &Fixed::new(401, "");

/// The refusal of a client that sends too many requests, at any endpoint.
const TOO_MANY: &Fixed = fixed!(429, "temporarily_unavailable", "too many requests");

/// When to try again after a 503, in seconds: the default interval of a poll
/// ([RFC 8628, section 3.2](https://www.rfc-editor.org/rfc/rfc8628#section-3.2)).
const RETRY_AFTER: &str = "5";

impl Fixed {
    pub(crate) const fn new(status: u16, body: &'static str) -> Self {
        Self {
            status,
            body,
            header: match status {
                405 => Some(("allow", "POST")),
                503 => Some(("retry-after", RETRY_AFTER)),
                _ => None,
            },
        }
    }
}

impl Response {
    #[inline(always)]
    pub(crate) const fn fixed(fixed: &'static Fixed) -> Self {
        Self::new(fixed, Own::Nothing)
    }

    pub(crate) fn too_many(seconds: u32) -> Self {
        Self::new(TOO_MANY, Own::RetryAfter(Digits::of(seconds)))
    }

    #[inline(always)]
    pub(crate) const fn slow_down(body: Arc<SlowDown>) -> Self {
        Self::new(BAD_REQUEST, Own::SlowDown(body))
    }

    pub(crate) const fn unauthorized(challenge: Arc<str>) -> Self {
        Self::new(INVALID_CLIENT, Own::Challenge(challenge))
    }

    pub(crate) const fn made(body: String) -> Self {
        Self::new(OK, Own::Body(body))
    }

    /// Returns a refusal by the host. Its status is 401 or 400.
    pub(crate) const fn refused(status: u16, body: String) -> Self {
        let fixed = if status == UNAUTHORIZED.status {
            UNAUTHORIZED
        } else {
            BAD_REQUEST
        };
        Self::new(fixed, Own::Body(body))
    }

    #[inline(always)]
    const fn new(fixed: &'static Fixed, own: Own) -> Self {
        Self { fixed, own }
    }

    /// Returns the status code.
    #[inline]
    pub const fn status(&self) -> u16 {
        self.fixed.status
    }

    /// Returns the headers, each as a name in lower case and a value.
    #[inline]
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // "The authorization server MUST include the HTTP "Cache-Control" response header field with a value of "no-store"
        // in any response containing tokens, credentials, or other sensitive information, as well as the "Pragma" response
        // header field with a value of "no-cache"." (RFC 6749, section 5.1)
        const ALWAYS: &[(&str, &str)] = &[
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("pragma", "no-cache"),
        ];
        let own: Option<(_, &str)> = match &self.own {
            Own::Nothing => self.fixed.header,
            Own::RetryAfter(seconds) => Some(("retry-after", seconds.as_str())),
            Own::SlowDown(slow_down) => Some(("retry-after", slow_down.retry_after.as_str())),
            Own::Challenge(challenge) => Some(("www-authenticate", challenge)),
            Own::Body(_) => None,
        };
        // The array is used by reference. If it were moved into the iterator, the processor would have to finish the copy before it could
        // read it.
        ALWAYS.iter().copied().chain(own)
    }

    /// Returns the value of the header with this name. Pass the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers();
        headers.find_map(|(own, value)| (own == name).then_some(value))
    }

    /// Returns the body.
    #[inline]
    pub fn body(&self) -> &str {
        match &self.own {
            Own::Nothing | Own::RetryAfter(_) | Own::Challenge(_) => self.fixed.body,
            Own::SlowDown(slow_down) => &slow_down.body,
            Own::Body(body) => body,
        }
    }
}

/// The body of `slow_down`, and the interval in force that it announces.
pub(crate) struct SlowDown {
    pub(crate) interval: u32,
    retry_after: Digits,
    body: String,
}

impl SlowDown {
    pub(crate) fn new(interval: u32) -> Self {
        let body = format!(
            r#"{{"error":"slow_down","error_description":"polling too fast","interval":{interval}}}"#
        );
        Self {
            interval,
            retry_after: Digits::of(interval),
            body,
        }
    }
}

debug_shows!(SlowDown: interval);

debug_shows!(Response: status());

#[cfg(feature = "http")]
impl<B: From<alloc::borrow::Cow<'static, [u8]>>> From<Response> for http::Response<B> {
    fn from(response: Response) -> Self {
        use alloc::borrow::Cow;

        let mut headers = http::HeaderMap::new();
        for (name, value) in response.headers() {
            if let Ok(value) = http::HeaderValue::from_str(value) {
                headers.insert(http::HeaderName::from_static(name), value);
            }
        }
        let status = response.status();
        let body = match response.own {
            Own::Nothing | Own::RetryAfter(_) | Own::Challenge(_) => {
                Cow::Borrowed(response.fixed.body.as_bytes())
            }
            Own::SlowDown(slow_down) => Cow::Owned(slow_down.body.clone().into_bytes()),
            Own::Body(body) => Cow::Owned(body.into_bytes()),
        };
        let mut converted = Self::new(body.into());
        *converted.headers_mut() = headers;
        *converted.status_mut() =
            http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        converted
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Digits {
    octets: [u8; Self::MOST],
    /// How many of the last octets are used.
    used: u8,
}

impl Digits {
    /// How many digits the largest number has.
    const MOST: usize = 10;

    pub(crate) fn of(number: u32) -> Self {
        let mut digits = Self {
            octets: [b'0'; Self::MOST],
            used: 0,
        };
        let mut rest = number;
        for octet in digits.octets.iter_mut().rev() {
            *octet |= u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
            digits.used = digits.used.saturating_add(1);
            if rest == 0 {
                break;
            }
        }
        digits
    }

    #[inline]
    pub(crate) fn as_str(&self) -> &str {
        let unused = Self::MOST.saturating_sub(self.used.into());
        let digits = self.octets.get(unused..).unwrap_or_default();
        core::str::from_utf8(digits).unwrap_or_default()
    }
}
