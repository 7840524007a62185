//! Where a request comes from: the address of the peer, or the one that a trusted proxy reports.
//!
//! Rule: no proxy is trusted by default. `X-Forwarded-For` is read from the right, and only past addresses of proxies that the
//! configuration names, because anybody can write what is further left.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderValue;
use axum::http::request::Parts;

use crate::App;

/// The address of the connection, which the listener adds to each of its requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source(IpAddr);

impl Source {
    fn of(peer: IpAddr, forwarded: &[&[u8]], proxies: &[IpAddr]) -> Self {
        let mut source = peer.to_canonical();
        let hops = forwarded.iter().rev();
        let mut hops = hops.flat_map(|header| header.rsplit(|&octet| octet == b','));
        while proxies.contains(&source) {
            let Some(hop) = hops.next().and_then(address) else {
                break;
            };
            source = hop.to_canonical();
        }
        Self(source)
    }

    /// Returns whether the request and `other` come from different networks, as far as the addresses show it. A private or local address
    /// shows nothing, and an IPv4 address cannot be compared with an IPv6 address.
    pub(crate) fn is_far_from(self, other: &str) -> bool {
        let Ok(other) = other.parse().map(Self) else {
            return false;
        };
        let is_comparable = self.0.is_ipv4() == other.0.is_ipv4();
        is_comparable && self.is_public() && other.is_public() && self.key() != other.key()
    }

    /// Returns whether the address is a public address of the internet.
    fn is_public(self) -> bool {
        match self.0 {
            IpAddr::V4(address) => {
                let [a, b, ..] = address.octets();
                let is_of_carrier = a == 100 && (64..128).contains(&b); // RFC 6598
                let is_local = address.is_private() || address.is_loopback();
                !(is_of_carrier || is_local || address.is_link_local() || address.is_unspecified())
            }
            IpAddr::V6(address) => {
                let is_local = address.is_unique_local() || address.is_loopback();
                !(is_local || address.is_unicast_link_local() || address.is_unspecified())
            }
        }
    }

    /// Returns the key for quotas. For IPv6 it is the network of 64 bits, because one user has all of it.
    pub(crate) fn key(self) -> String {
        match self.0 {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        }
    }
}

/// Returns the address of a hop. Some proxies write it with a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|own| own.ip());
    text.parse().ok().or_else(with_port)
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromRequestParts<Arc<App>> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let peer = parts
            .extensions
            .get::<Peer>()
            .map_or(unknown, |peer| peer.0);
        let forwarded = parts.headers.get_all("x-forwarded-for");
        let forwarded = forwarded.iter().map(HeaderValue::as_bytes);
        let forwarded = forwarded.collect::<Vec<_>>();
        Ok(Self::of(peer.ip(), &forwarded, &app.trusted_proxies))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "in a test")]
mod tests {
    use super::*;

    fn source(peer: &str, forwarded: &[&str], proxies: &[&str]) -> String {
        let proxies = proxies.iter().map(|proxy| proxy.parse().unwrap());
        let proxies = proxies.collect::<Vec<_>>();
        let forwarded = forwarded.iter().map(|header| header.as_bytes());
        let forwarded = forwarded.collect::<Vec<_>>();
        Source::of(peer.parse().unwrap(), &forwarded, &proxies).to_string()
    }

    #[test]
    fn nobody_is_believed_by_default() {
        assert_eq!(
            source("198.51.100.7", &["203.0.113.9"], &[]),
            "198.51.100.7"
        );
    }

    #[test]
    fn a_trusted_proxy_is_believed_for_the_last_hop_before_it() {
        let proxies = ["10.0.0.7", "10.0.0.8"];
        let chain = ["192.0.2.1, 203.0.113.9", "10.0.0.8"];
        assert_eq!(source("10.0.0.7", &chain, &proxies), "203.0.113.9");
        assert_eq!(
            source("::ffff:10.0.0.7", &["203.0.113.9"], &proxies),
            "203.0.113.9"
        );
        for hop in ["203.0.113.9:4711", "\u{e9}, 203.0.113.9", " 203.0.113.9 "] {
            assert_eq!(source("10.0.0.7", &[hop], &proxies), "203.0.113.9");
        }
        let hop = "[2001:db8::1]:4711";
        assert_eq!(source("10.0.0.7", &[hop], &proxies), "2001:db8::1");
        assert_eq!(source("10.0.0.7", &["nonsense"], &proxies), "10.0.0.7");
        assert_eq!(source("10.0.0.7", &[], &proxies), "10.0.0.7");
    }

    #[test]
    fn public_addresses_alone_are_compared() {
        let is_far = |own: &str, other: &str| Source(own.parse().unwrap()).is_far_from(other);
        assert!(is_far("198.51.100.7", "203.0.113.9"));
        assert!(is_far("2001:db8:1::1", "2001:db8:2::1"));
        assert!(!is_far("198.51.100.7", "198.51.100.7"));
        assert!(!is_far("2001:db8:1::1", "2001:db8:1::2"), "one network");
        assert!(!is_far("198.51.100.7", "2001:db8::1"), "two families");
        assert!(!is_far("198.51.100.7", "an unknown address"));
        for local in [
            "10.0.0.7",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.0.1",
            "100.64.0.1",
            "0.0.0.0",
        ] {
            assert!(!is_far("198.51.100.7", local), "{local}");
            assert!(!is_far(local, "198.51.100.7"), "{local}");
        }
        for local in ["::1", "fd00::1", "fe80::1", "::"] {
            assert!(!is_far("2001:db8::1", local), "{local}");
            assert!(!is_far(local, "2001:db8::1"), "{local}");
        }
    }

    #[test]
    fn an_address_of_ipv6_is_limited_with_its_network() {
        let one = Source("2001:db8:1:2:3:4:5:6".parse().unwrap());
        let other = Source("2001:db8:1:2:ffff::1".parse().unwrap());
        assert_eq!(one.key(), other.key());
        assert_ne!(one.key(), Source("2001:db8:1:3::1".parse().unwrap()).key());
    }
}
