//! The invariants of both halves over random inputs, one program because each of the two would link the whole of proptest.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unchecked_time_subtraction,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

mod client;
mod server;
#[path = "../support/mod.rs"]
mod support;
