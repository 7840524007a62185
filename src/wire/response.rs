//! A finished response: status, headers, body.
//!
//! Rules:
//! 1. Every response of both endpoints, good or bad, is JSON that no cache may keep ([RFC 6749, section 5.1] and 5.2).
//! 2. A refusal is a reference to static bytes. Only a success owns its body; a number in a body is written when it is read.
//! 3. A 401 has a challenge ([RFC 9110, section 15.5.2]), a 405 says what is allowed, a 429 and a 503 say when to come back.
//!
//! [RFC 6749, section 5.1]: https://www.rfc-editor.org/rfc/rfc6749#section-5.1
//! [RFC 9110, section 15.5.2]: https://www.rfc-editor.org/rfc/rfc9110#section-15.5.2

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;

/// A response, ready to send.
///
/// Under the feature `http` it converts into an [`http::Response`] with any body that is made of a `Cow<'static, [u8]>`.
///
/// # Security
///
/// `Debug` shows the status alone. After the conversion that no longer holds: the types of `http` show everything.
#[derive(Clone)]
pub struct Response(Kind);

#[derive(Clone)]
enum Kind {
    /// A refusal that is the same every time.
    Fixed(&'static Fixed),
    /// The same with the seconds after which to come back.
    Later(&'static Fixed, u32),
    /// `slow_down` with the interval now in force.
    SlowDown(u32),
    /// The refusal of a client, with the realm of its challenge.
    Unauthorized(Arc<str>),
    /// A success, with the body made for it.
    Made(String),
    /// A refusal of the host's own.
    Refused(Box<(u16, String)>),
}

/// The constant part of a refusal.
pub(crate) struct Fixed {
    status: u16,
    body: &'static str,
}

/// A refusal's constant part: its status, error code and description.
macro_rules! fixed {
    ($status:literal, $error:literal, $description:literal) => {{
        const FIXED: &$crate::wire::response::Fixed = &$crate::wire::response::Fixed::new(
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

/// Every way of failing to be a client.
pub(crate) const INVALID_CLIENT: &Fixed =
    fixed!(401, "invalid_client", "client authentication failed");

/// When to come back after a 503, in seconds: the default interval of a poll ([RFC 8628, section 3.2]).
///
/// [RFC 8628, section 3.2]: https://www.rfc-editor.org/rfc/rfc8628#section-3.2
const RETRY_AFTER: &str = "5";

impl Fixed {
    pub(crate) const fn new(status: u16, body: &'static str) -> Self {
        Self { status, body }
    }
}

impl Response {
    pub(crate) const fn fixed(fixed: &'static Fixed) -> Self {
        Self(Kind::Fixed(fixed))
    }

    pub(crate) const fn later(fixed: &'static Fixed, seconds: u32) -> Self {
        Self(Kind::Later(fixed, seconds))
    }

    pub(crate) const fn slow_down(interval: u32) -> Self {
        Self(Kind::SlowDown(interval))
    }

    pub(crate) const fn unauthorized(realm: Arc<str>) -> Self {
        Self(Kind::Unauthorized(realm))
    }

    pub(crate) const fn made(body: String) -> Self {
        Self(Kind::Made(body))
    }

    pub(crate) fn refused(status: u16, body: String) -> Self {
        Self(Kind::Refused(Box::new((status, body))))
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match &self.0 {
            Kind::Fixed(fixed) | Kind::Later(fixed, _) => fixed.status,
            Kind::SlowDown(_) => 400,
            Kind::Unauthorized(_) => INVALID_CLIENT.status,
            Kind::Made(_) => 200,
            Kind::Refused(refused) => refused.0,
        }
    }

    /// The headers, each a name in lower case and its value.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, Text<'_>)> {
        // "The authorization server MUST include the HTTP "Cache-Control" response header field with a value of "no-store"
        // in any response containing tokens, credentials, or other sensitive information, as well as the "Pragma" response
        // header field with a value of "no-cache"." (RFC 6749, section 5.1)
        const ALWAYS: [(&str, &str); 3] = [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("pragma", "no-cache"),
        ];
        let own = match &self.0 {
            Kind::Later(_, seconds) | Kind::SlowDown(seconds) => {
                Some(("retry-after", Text::number("", *seconds, "")))
            }
            Kind::Unauthorized(realm) => {
                let challenge = format!("Basic realm=\"{realm}\"");
                Some(("www-authenticate", Text(Repr::Owned(challenge))))
            }
            Kind::Fixed(fixed) if fixed.status == 405 => Some(("allow", Text::borrowed("POST"))),
            Kind::Fixed(fixed) if fixed.status == 503 => {
                Some(("retry-after", Text::borrowed(RETRY_AFTER)))
            }
            Kind::Fixed(_) | Kind::Made(_) | Kind::Refused(_) => None,
        };
        let always = ALWAYS
            .into_iter()
            .map(|(name, value)| (name, Text::borrowed(value)));
        always.chain(own)
    }

    /// The value of the header of this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Text<'_>> {
        let mut headers = self.headers();
        headers.find_map(|(own, value)| (own == name).then_some(value))
    }

    /// The body.
    #[must_use]
    #[inline]
    pub fn body(&self) -> Text<'_> {
        match &self.0 {
            Kind::Fixed(fixed) | Kind::Later(fixed, _) => Text::borrowed(fixed.body),
            Kind::Unauthorized(_) => Text::borrowed(INVALID_CLIENT.body),
            Kind::SlowDown(interval) => Text::number(
                r#"{"error":"slow_down","error_description":"polling too fast","interval":"#,
                *interval,
                "}",
            ),
            Kind::Made(body) => Text::borrowed(body),
            Kind::Refused(refused) => Text::borrowed(&refused.1),
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, redacted)", self.status())
    }
}

#[cfg(feature = "http")]
impl<B: From<alloc::borrow::Cow<'static, [u8]>>> From<Response> for http::Response<B> {
    fn from(response: Response) -> Self {
        use alloc::borrow::{Cow, ToOwned as _};

        let mut headers = http::HeaderMap::new();
        for (name, value) in response.headers() {
            if let Ok(value) = http::HeaderValue::from_str(&value) {
                headers.insert(http::HeaderName::from_static(name), value);
            }
        }
        let status = response.status();
        let body = match response.0 {
            Kind::Fixed(fixed) | Kind::Later(fixed, _) => Cow::Borrowed(fixed.body.as_bytes()),
            Kind::Unauthorized(_) => Cow::Borrowed(INVALID_CLIENT.body.as_bytes()),
            Kind::Made(body) => Cow::Owned(body.into_bytes()),
            Kind::Refused(refused) => Cow::Owned(refused.1.into_bytes()),
            Kind::SlowDown(_) => Cow::Owned(response.body().as_bytes().to_owned()),
        };
        let mut converted = Self::new(body.into());
        *converted.headers_mut() = headers;
        *converted.status_mut() =
            http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        converted
    }
}

/// A header's value or a body: a `&str` that may have been written into place.
///
/// `Debug` shows the length alone; dereference it to see the characters.
pub struct Text<'a>(Repr<'a>);

enum Repr<'a> {
    Borrowed(&'a str),
    Inline(Inline),
    Owned(String),
}

impl<'a> Text<'a> {
    const fn borrowed(text: &'a str) -> Self {
        Self(Repr::Borrowed(text))
    }

    /// A short text of ours around a number.
    fn number(before: &str, number: u32, after: &str) -> Self {
        let mut inline = Inline {
            octets: [0; Inline::CAPACITY],
            length: 0,
        };
        inline.push(before.as_bytes());
        let mut digits = [0; 10];
        let mut rest = number;
        let mut used = 0_usize;
        for slot in digits.iter_mut().rev() {
            *slot = u8::try_from(rest % 10).unwrap_or_default() | b'0';
            rest /= 10;
            used = used.saturating_add(1);
            if rest == 0 {
                break;
            }
        }
        inline.push(
            digits
                .get(digits.len().saturating_sub(used)..)
                .unwrap_or_default(),
        );
        inline.push(after.as_bytes());
        Self(Repr::Inline(inline))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match &self.0 {
            Repr::Borrowed(text) => text,
            Repr::Inline(inline) => inline.as_str(),
            Repr::Owned(text) => text,
        }
    }
}

impl AsRef<[u8]> for Text<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.len())
    }
}

/// A short text without an allocation.
struct Inline {
    octets: [u8; Self::CAPACITY],
    length: usize,
}

impl Inline {
    /// Enough for the body of `slow_down` with the largest interval: 84 octets.
    const CAPACITY: usize = 96;

    fn as_str(&self) -> &str {
        let used = self.octets.get(..self.length).unwrap_or_default();
        core::str::from_utf8(used).unwrap_or_default()
    }

    /// Appends what fits; all of ours does.
    fn push(&mut self, text: &[u8]) {
        let free = self.octets.get_mut(self.length..).unwrap_or_default();
        for (slot, &octet) in free.iter_mut().zip(text) {
            *slot = octet;
        }
        self.length = self.length.saturating_add(text.len()).min(Self::CAPACITY);
    }
}
