//! SHA-256 and HMAC-SHA-256 of a message that is one slice.
//!
//! Codes, secrets and the texts from which the keys of quotas are made usually fit one or two blocks. The general interface of `sha2`
//! copies such a message into a buffer of its own. For each HMAC under the same key, it also copies that buffer and the state. This file
//! copies only the last block, because the padding has to follow it:
//!
//! ```text
//! message:   |<--- 64 octets --->|<--- 64 octets --->|<- rest ->|
//! hashed:    |     in place      |     in place      |   rest   | 80 | 00 .. | length in bits |
//!                                                    |<------ one block, or two ------------->|
//! ```
//!
//! The crate `sha2` provides the compression function.

use sha2::block_api::compress256;

const BLOCK: usize = 64;

/// How many octets hold the length at the end of a padded message ([FIPS 180-4](https://csrc.nist.gov/pubs/fips/180-4/upd1/final), section
/// 5.1.1).
const LENGTH: usize = 8;

/// The initial state (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

#[inline]
pub(crate) fn digest(message: &[u8]) -> [u8; 32] {
    finish(INITIAL, 0, message)
}

/// Hashes the message and its padding. `state` already holds `before` octets, which are whole blocks.
#[inline]
fn finish(mut state: [u32; 8], before: usize, message: &[u8]) -> [u8; 32] {
    let (whole, rest) = message.as_chunks::<BLOCK>();
    if !whole.is_empty() {
        compress256(&mut state, whole);
    }
    let mut last = [[0; BLOCK]; 2];
    if let Some(start) = last.as_flattened_mut().get_mut(..rest.len()) {
        start.copy_from_slice(rest);
    }
    if let Some(end) = last.as_flattened_mut().get_mut(rest.len()) {
        *end = 0x80;
    }
    let octets = u64::try_from(message.len().saturating_add(before)).unwrap_or(u64::MAX);
    let bits = octets.saturating_mul(8).to_be_bytes();
    let used = if rest.len() < BLOCK.saturating_sub(LENGTH) {
        1
    } else {
        2
    };
    let used = last.get_mut(..used).unwrap_or_default();
    if let Some(length) = used.as_flattened_mut().last_chunk_mut() {
        *length = bits;
    }
    compress256(&mut state, used);
    let mut digest = [0; 32];
    let (words, _) = digest.as_chunks_mut();
    for (octets, word) in words.iter_mut().zip(state) {
        *octets = word.to_be_bytes();
    }
    digest
}

/// A key for HMAC-SHA-256 ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104)), kept as the two states that result from hashing it.
#[derive(Clone)]
pub(crate) struct MacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl MacKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut block = [0; BLOCK];
        let digest = digest(key);
        let short = if key.len() > BLOCK { &digest } else { key };
        for (slot, octet) in block.iter_mut().zip(short) {
            *slot = *octet;
        }
        let state = |pad: u8| {
            let mut state = INITIAL;
            compress256(&mut state, &[block.map(|octet| octet ^ pad)]);
            state
        };
        Self {
            inner: state(0x36),
            outer: state(0x5c),
        }
    }

    pub(crate) fn mac(&self, message: &[u8]) -> [u8; 32] {
        let inner = finish(self.inner, BLOCK, message);
        finish(self.outer, BLOCK, &inner)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::{Digest as _, Sha256};

    use super::{MacKey, digest};

    /// Returns a message of every length up to five blocks, so that every kind of padding occurs.
    fn messages() -> impl Iterator<Item = Vec<u8>> {
        (0..=320_u16).map(|length| (0..length).map(|n| n.to_le_bytes()[0]).collect())
    }

    #[test]
    fn a_digest_is_that_of_the_general_interface() {
        for message in messages() {
            let expected: [u8; 32] = Sha256::digest(&message).into();
            assert_eq!(digest(&message), expected, "{} octets", message.len());
        }
    }

    #[test]
    fn a_mac_is_that_of_the_general_interface() {
        for key in messages().filter(|key| !key.is_empty()) {
            for message in [&key[..], b"", b"user codes"] {
                let mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length will do");
                let expected: [u8; 32] = mac.chain_update(message).finalize().into_bytes().into();
                assert_eq!(MacKey::new(&key).mac(message), expected, "{}", key.len());
            }
        }
    }
}
