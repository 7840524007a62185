//! What the documents promise: the decision tables, the client of the README, the example that is played as a walkthrough.
//!
//! One program, apart from the tests of the two halves because it needs nothing that these share.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a test fails"
)]

extern crate alloc;

mod readme;
mod tables;
mod walkthrough;
