//! The tests of the server but those of `faults`, which take all of the machine. They are one program, because every further one
//! links the server again, and because the waits of its tests then overlap.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

mod bad_input;
mod browser;
mod configuration;
mod connections;
mod consent;
mod crowd;
mod expiry;
mod foreign_clients;
mod keys;
mod logins;
mod metadata;
mod operation;
mod outage;
mod page;
mod protocol;
mod sign_in;
mod stores;
#[path = "../support/mod.rs"]
mod support;
