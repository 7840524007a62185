//! The floor: the unavoidable work alone, honestly written. What a careful programmer would write for exactly these requests if
//! nothing else had to work.
//!
//! Nothing is checked here that these requests do not need: no other order of authentication, no repeated or encoded
//! parameters, no limits, no escapes in tokens, no lost writes. What is needed is here in full, on the same crates for
//! the same work: memchr, sha2, hmac, base64, subtle, `serde_json`, and hashbrown for the same two maps.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::std_instead_of_alloc,
    reason = "every number and length here is known"
)]

pub(crate) mod client;
pub(crate) mod server;
