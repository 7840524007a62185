//! The tests of the server, except those of `faults`, which use the whole machine. They are one program, because every further program
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
