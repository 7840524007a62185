//! The tests of the server half, in one program. Each file has the name of the file of `src/` or `src/server/` that it tests.
//!
//! `code`, `scope` and `memory` are tested here, because their tests share the support of the others. Three files have names of their own:
//! `lessons` has what went wrong in other servers, `secrets` tests that nothing shows a secret, and `http` tests the conversions of the
//! feature `http`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm,
    clippy::format_push_string,
    clippy::needless_pass_by_value,
    clippy::std_instead_of_alloc,
    reason = "a panic is how a test fails"
)]

mod authenticate;
mod code;
mod host;
#[cfg(feature = "http")]
mod http;
mod issue;
mod lessons;
mod memory;
mod page;
mod policy;
mod poll;
mod rate_limit;
mod refresh;
mod request;
mod scope;
mod secrets;
mod session;
#[path = "../support/mod.rs"]
mod support;
