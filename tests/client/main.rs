//! The tests of the client half, in one program. Each file has the name of the file of `src/client/` or `src/wire/` that it tests.
//!
//! Two files have names of their own: `lessons` has what went wrong in other clients, and `providers` has what real servers answer.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unchecked_time_subtraction,
    clippy::wildcard_enum_match_arm,
    clippy::std_instead_of_alloc,
    reason = "a panic is how a test fails"
)]

mod codes;
mod endpoints;
mod lessons;
mod login;
mod metadata;
mod prompt;
mod providers;
mod refresh;
mod request;
mod revocation;
mod run;
mod snapshot;
#[path = "../support/client.rs"]
mod support;
mod verdict;
