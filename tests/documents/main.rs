//! What the documents promise: the decision tables, the client of the README, the example that is played as a walkthrough.
//!
//! They stand apart because they need nothing of what the other tests share, and because `cargo mutants` leaves them out: they hold the
//! texts, not the code.

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
