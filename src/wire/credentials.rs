//! Client credentials in the `Authorization` header, with the `Basic` scheme as in RFC 6749, section 2.3.1.
//!
//! > The client identifier is encoded using the "application/x-www-form-urlencoded" encoding algorithm per Appendix B, and
//! > the encoded value is used as the username; the client password is encoded using the same algorithm and used as the
//! > password.

use alloc::string::String;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::form::{self, Raw};
use super::octets::are_vschars;

/// The longest `Authorization` header that is read, in bytes.
const MAX_HEADER: usize = 8 * 1024;

/// The content of a `Basic` header: the id, and the secret, which may be empty.
pub(crate) struct Basic {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Basic {
    /// Reads the value of a header. Returns `None` if it cannot be used.
    pub(crate) fn read(header: &[u8]) -> Option<Self> {
        if header.len() > MAX_HEADER {
            return None;
        }
        let (scheme, rest) = header.split_at_checked(b"Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let pair = STANDARD.decode(rest.trim_ascii()).ok()?;
        let colon = memchr::memchr(b':', &pair)?;
        let (id, secret) = pair.split_at_checked(colon)?;
        let id = Raw(id).text()?.into_owned();
        let secret = Raw(secret.get(1..)?).text()?.into_owned();
        let legal = are_vschars(id.as_bytes()) && are_vschars(secret.as_bytes());
        legal.then_some(Self { id, secret })
    }
}

/// Returns the value of an `Authorization` header with `id` and `secret`.
pub(crate) fn basic(id: &str, secret: &str) -> String {
    let mut pair = String::new();
    form::encode(&mut pair, id);
    pair.push(':');
    form::encode(&mut pair, secret);
    let mut header = String::from("Basic ");
    STANDARD.encode_string(pair, &mut header);
    header
}
