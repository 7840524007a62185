//! What an absolute URI of this protocol looks like, as far as both halves must know ([RFC 3986]).
//!
//! [RFC 3986]: https://www.rfc-editor.org/rfc/rfc3986

/// The parts of an absolute `http` or `https` URI without userinfo, all of visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uri<'a> {
    /// Whether the scheme is `https`.
    pub(crate) is_https: bool,
    /// Host and port.
    pub(crate) authority: &'a str,
    /// What follows the authority up to a query or fragment; empty or beginning with a slash.
    pub(crate) path: &'a str,
    /// A query or a fragment with its mark; empty where there is neither.
    pub(crate) rest: &'a str,
}

impl<'a> Uri<'a> {
    /// Divides `text`; none where it is not such a URI.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        // Quote, backslash, angle brackets and the like are not in the grammar of RFC 3986, and would need an escape in JSON.
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
        (!uri.host().is_empty() && !authority.contains('@')).then_some(uri)
    }

    /// The host without its port; an IPv6 address keeps its brackets.
    pub(crate) fn host(&self) -> &'a str {
        let end = match self.authority.find(']') {
            Some(bracket) => bracket.saturating_add(1),
            None => self.authority.find(':').unwrap_or(self.authority.len()),
        };
        self.authority.get(..end).unwrap_or_default()
    }

    /// Whether the host is this machine: `localhost`, 127.0.0.0/8 or `[::1]`.
    pub(crate) fn is_loopback(&self) -> bool {
        let host = self.host();
        host.eq_ignore_ascii_case("localhost")
            || host == "[::1]"
            || host
                .parse()
                .is_ok_and(|address: core::net::Ipv4Addr| address.is_loopback())
    }

    /// Whether nobody on the way can read along: `https`, or this machine.
    pub(crate) fn is_private(&self) -> bool {
        self.is_https || self.is_loopback()
    }
}
