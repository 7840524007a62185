//! The bodies of the fuzz targets, a module for each. `tests/fuzz_seeds.rs` includes the same files, and replays the seeds
//! on the stable toolchain.

#[path = "../../tests/support/mod.rs"]
mod support;

mod client_server;
mod form;
mod message;
mod questions;
mod server;
mod stored;
mod user_code;
mod verdict;

/// Reads requests.
pub fn form(data: &[u8]) {
    form::run(data);
}

/// Reads user codes.
pub fn user_code(data: &[u8]) {
    user_code::run(data);
}

/// Reads answers.
pub fn verdict(data: &[u8]) {
    verdict::run(data);
}

/// Reads stored forms.
pub fn stored(data: &[u8]) {
    stored::run(data);
}

/// Answers the questions of an exchange with nonsense.
pub fn questions(data: &[u8]) {
    questions::run(data);
}

/// Plays the server half against the oracle.
pub fn server(data: &[u8]) {
    server::run(data);
}

/// Plays both halves against each other.
pub fn client_server(data: &[u8]) {
    client_server::run(data);
}
