//! The rules of URLs, and an absolute URI divided into its parts as far as both halves need them (RFC 3986).
//!
//! Rules:
//! 1. A URL is http or https, without user information.
//! 2. A URL to which codes are sent has no fragment, and is https, or http on loopback.

use core::net::{Ipv4Addr, Ipv6Addr};

/// The longest URL, in bytes. Browsers and proxies accept URLs of this length.
pub const MAX_URL: usize = 2048;

/// The parts of an absolute `http` or `https` URI without userinfo, all of visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uri<'a> {
    pub(crate) is_https: bool,
    /// Host and port.
    pub(crate) authority: &'a str,
    /// What follows the authority up to a query or fragment. It is empty or begins with a slash.
    pub(crate) path: &'a str,
    /// The query and the fragment, with their marks. It is empty if there is neither.
    pub(crate) rest: &'a str,
}

impl<'a> Uri<'a> {
    /// Returns the parts of `text`, or `None` if it is not such a URI.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        // The grammar of RFC 3986 does not have double quotes, backslashes, angle brackets and the like. The first two would also need an
        // escape in JSON.
        let legal = |b: u8| b.is_ascii_graphic() && !br#""\<>^`{|}"#.contains(&b);
        if !text.bytes().all(legal) {
            return None;
        }
        let (scheme, after) = text.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, after) = after.split_at_checked(end)?;
        let end = after.find(['?', '#']).unwrap_or(after.len());
        let (path, rest) = after.split_at_checked(end)?;
        let uri = Self {
            is_https,
            authority,
            path,
            rest,
        };
        uri.has_host().then_some(uri)
    }

    /// Returns whether the authority is a host, with or without a port. Others are refused, because libraries read them differently.
    fn has_host(&self) -> bool {
        let host = self.host();
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_host = if let Some(address) = bracketed {
            address.parse::<Ipv6Addr>().is_ok()
        } else {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            !host.is_empty() && host.bytes().all(legal)
        };
        let port = self.authority.strip_prefix(host).unwrap_or_default();
        let is_port = |digits: &str| digits.parse::<u16>().is_ok() && !digits.starts_with('+');
        is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
    }

    /// Returns the host without its port. An IPv6 address keeps its brackets.
    pub(crate) fn host(&self) -> &'a str {
        let end = match self.authority.find(']') {
            Some(bracket) => bracket.saturating_add(1),
            None => self.authority.find(':').unwrap_or(self.authority.len()),
        };
        self.authority.get(..end).unwrap_or_default()
    }

    /// Returns whether the host is this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host();
        host.eq_ignore_ascii_case("localhost")
            || host == "[::1]"
            || host
                .parse::<Ipv4Addr>()
                .is_ok_and(|address| address.is_loopback())
    }

    /// Returns whether nobody on the network can read the traffic: it is `https`, or stays on this machine.
    pub(crate) fn is_private(&self) -> bool {
        self.is_https || self.is_loopback()
    }
}

/// Checks a URL to which codes are sent.
pub(crate) fn endpoint(url: &str) -> Result<Uri<'_>, UrlError> {
    let uri = showable(url, PlainHttp::Refused)?;
    // "The endpoint URI MUST NOT include a fragment component." (RFC 6749, section 3.2)
    if uri.rest.contains('#') {
        return Err(UrlError::Fragment);
    }
    Ok(uri)
}

/// Checks the URL of an endpoint of this issuer.
pub(super) fn endpoint_of<'a>(issuer: &str, url: &'a str) -> Result<Uri<'a>, UrlError> {
    let uri = endpoint(url)?;
    if !uri.is_https && !Uri::read(issuer).is_some_and(|issuer| issuer.is_loopback()) {
        return Err(UrlError::Loopback);
    }
    Ok(uri)
}

/// Checks the URL of an issuer or of the page like that of an endpoint. It must also have no query.
pub(crate) fn bare(url: &str) -> Result<Uri<'_>, UrlError> {
    let uri = endpoint(url)?;
    // "a URL that uses the "https" scheme and has no query or fragment components" (RFC 8414, section 2)
    if !uri.rest.is_empty() {
        return Err(UrlError::Query);
    }
    Ok(uri)
}

/// Checks a URL that is shown to people.
pub(crate) fn showable(url: &str, plain: PlainHttp) -> Result<Uri<'_>, UrlError> {
    if url.len() > MAX_URL {
        return Err(UrlError::TooLong);
    }
    let uri = Uri::read(url).ok_or(UrlError::Malformed)?;
    match plain {
        PlainHttp::Refused if !uri.is_private() => Err(UrlError::Plain),
        PlainHttp::Refused | PlainHttp::Allowed => Ok(uri),
    }
}

/// Whether plain http to another machine is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    Refused,
    Allowed,
}

/// Why a URL cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The URL has more than [`MAX_URL`] bytes.
    #[error("the URL must have at most {MAX_URL} bytes")]
    TooLong,
    /// The URL is not absolute, is neither http nor https, has user information, or has a character that a URL may not contain.
    #[error(
        "the URL must be absolute, be http or https, have a host and no `user:password@` part, and have only characters that a URL may contain"
    )]
    Malformed,
    /// The URL is plain http to another machine.
    #[error("the URL must be https, or http on loopback")]
    Plain,
    /// The URL is plain http on loopback, but the issuer is not on loopback.
    #[error("the URL must be https, because the server's issuer is not on loopback")]
    Loopback,
    /// The URL of an endpoint has a fragment.
    #[error("the URL must not have a fragment")]
    Fragment,
    /// The URL of an issuer has a query.
    #[error("the URL of an issuer must not have a query")]
    Query,
}
