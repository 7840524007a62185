//! What the documents promise: the decision tables, the client of the README, and the example `walkthrough`.
//!
//! These tests are a program of their own, because they need nothing that the other tests share. Also, `cargo mutants` leaves them out,
//! because they test texts and not code.

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
