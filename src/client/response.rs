//! What came back from the server: a response, or the reason why no response came.

use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// The largest body that is read, in bytes. Real bodies have a few kilobytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// A response as it was received: the status, the header `Retry-After` if there was one, and the body.
///
/// A body over [`MAX_BODY`] is refused, so read at most one byte more than that. With the feature `http`, an `http::Response` converts into
/// this type.
#[derive(Clone)]
pub struct Response<B> {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: B,
}

impl<B: AsRef<[u8]>> Response<B> {
    /// Returns a response without `Retry-After`.
    pub const fn new(status: u16, body: B) -> Self {
        Self {
            status,
            retry_after: None,
            body,
        }
    }

    /// Adds the value of the header `Retry-After`. A value that is not a number of seconds is ignored.
    #[must_use]
    pub fn retry_after(mut self, value: &str) -> Self {
        let value = value.trim_ascii();
        let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        // A number that does not fit means a long time.
        let seconds = digits.then(|| value.parse().unwrap_or(u64::MAX));
        self.retry_after = seconds.map(Duration::from_secs);
        self
    }

    pub(crate) fn by_ref(&self) -> Response<&[u8]> {
        Response {
            status: self.status,
            retry_after: self.retry_after,
            body: self.body.as_ref(),
        }
    }
}

impl<B> fmt::Debug for Response<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, redacted)", self.status)
    }
}

#[cfg(feature = "http")]
impl<B: AsRef<[u8]>> From<http::Response<B>> for Response<B> {
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

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TransportError {
    /// The connection or the response did not come in time.
    #[error(
        "the server did not answer in time; check the network connection, then try again later"
    )]
    ConnectionTimeout,
    /// Another temporary failure: no network, a name that does not resolve, a connection reset, a body cut short.
    #[error("the server could not be reached; check the network connection, then try again")]
    Other,
    /// A failure that does not pass by itself, for example a certificate that does not verify.
    #[error(
        "no trusted connection to the server can be made, and trying again will not help; check its URL and its certificate"
    )]
    Permanent,
}

impl TransportError {
    /// Returns whether the same request may succeed later.
    pub(crate) const fn is_temporary(self) -> bool {
        match self {
            Self::ConnectionTimeout | Self::Other => true,
            Self::Permanent => false,
        }
    }
}
