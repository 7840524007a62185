//! Client credentials in the `Authorization` header: the `Basic` scheme as RFC 6749, section 2.3.1 uses it.
//!
//! > The client identifier is encoded using the "application/x-www-form-urlencoded" encoding algorithm per Appendix B, and
//! > the encoded value is used as the username; the client password is encoded using the same algorithm and used as the
//! > password.

use alloc::string::String;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::form::{self, Raw};
use super::octets::are_vschars;

/// The longest `Authorization` header that is read.
const MAX_HEADER: usize = 8 * 1024;

/// What a `Basic` header carried: the id, and the secret, which may be empty.
pub(crate) struct Basic {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Basic {
    /// Reads a header's value; none where it is unusable for whatever reason.
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

/// The value of an `Authorization` header that carries `id` and `secret`.
pub(crate) fn basic(id: &str, secret: &str) -> String {
    let mut pair = String::new();
    form::encode(&mut pair, id);
    pair.push(':');
    form::encode(&mut pair, secret);
    let mut header = String::from("Basic ");
    STANDARD.encode_string(pair, &mut header);
    header
}
