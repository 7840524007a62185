//! Checking the `Host` header: a request must have exactly one, and it must be well-formed (RFC 9112, section 3.2).

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};

/// Returns whether a request says which host it is for.
///
/// > A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header field
/// > and to any request message that contains more than one Host header field line or a Host header field with an invalid field
/// > value.
pub(crate) fn is_named(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => host.to_str().is_ok_and(is_host),
        (Some(_), Some(_)) => false,
    }
}

/// Returns whether the text is a name or an address, with a port if there is a colon.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let port = text.strip_prefix(host).unwrap_or("@");
    let digits = port.strip_prefix(':').unwrap_or(port);
    !host.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit())
}

/// Returns the answer to a request that does not say it.
pub(crate) fn missing() -> Response {
    let said = "the request must have one Host header: a name or an address, and a port if it is not the usual one\n";
    (StatusCode::BAD_REQUEST, said).into_response()
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "login.example.com",
            "login.example.com:8443",
            "127.0.0.1:8628",
            "[::1]",
            "[::1]:8628",
            "x:",
        ] {
            assert!(is_host(host), "{host}");
        }
        for other in [
            "",
            ":80",
            "a b",
            "user@login.example.com",
            "x:port",
            "x:8:8",
            "x/path",
            "http://x",
            "[::1",
        ] {
            assert!(!is_host(other), "{other}");
        }
    }
}
