//! The tests of the server half, one program: each file is named as the file of `src/` or `src/server/` whose behaviour it holds.
//!
//! `code`, `scope` and `memory` are here because the host of these tests shows what they do. Three are named as no file: `lessons` is
//! what went wrong in other servers, `secrets` that nothing shows a secret, `http` the conversions of the feature of that name.

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
