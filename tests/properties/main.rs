//! The invariants of both halves over random inputs, each against an oracle that is written from the tables.
//!
//! They are a program of their own because they take a hundred times as long as the tests of the halves.

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
