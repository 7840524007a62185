//! The floor: only the work that cannot be avoided. A careful programmer would write this for exactly these requests, if nothing else had
//! to work.
//!
//! Nothing is checked here that these requests do not need: no other way to authenticate, no repeated or encoded parameters, no limits, no
//! escapes in tokens, no lost writes. What they need is complete, and uses the same crates for the same work: memchr, sha2, hmac, base64,
//! subtle, `serde_json`, and hashbrown for the same two maps.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::std_instead_of_alloc,
    reason = "every number and length here is known"
)]

pub(crate) mod client;
pub(crate) mod server;
