//! The tool as a person or a script runs it, over loopback, against a server that is built on the server half.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

mod hostile;
mod interrupt;
mod login;
mod server;
mod session;
mod tool;
