//! Replays the seeds of the fuzz targets through the functions of these targets. `fuzz/README.md` says what each target asserts.
//!
//! This test is a program of its own, because the published package does not have the folder `fuzz`.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

#[path = "../fuzz/src/client_server.rs"]
mod client_server;
#[path = "../fuzz/src/form.rs"]
mod form;
#[path = "../fuzz/src/message.rs"]
mod message;
#[path = "../fuzz/src/questions.rs"]
mod questions;
#[path = "../fuzz/src/server.rs"]
mod server;
#[path = "../fuzz/src/stored.rs"]
mod stored;
mod support;
#[path = "../fuzz/src/user_code.rs"]
mod user_code;
#[path = "../fuzz/src/verdict.rs"]
mod verdict;

/// Replays every seed of a target. It prints each name first, so the last name is that of a failing seed.
fn replay(target: &str, run: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut count = 0_usize;
    for seed in fs::read_dir(seeds).unwrap() {
        let path = seed.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seeds");
    // This is written directly, because the test harness captures the output of `eprintln!`. The number of seeds is of interest even if all
    // pass.
    let mut err = io::stderr();
    writeln!(err, "{target}: {count} seeds").unwrap();
}

#[test]
fn the_seeds_of_form_hold() {
    replay("form", form::run);
}

#[test]
fn the_seeds_of_user_code_hold() {
    replay("user_code", user_code::run);
}

#[test]
fn the_seeds_of_verdict_hold() {
    replay("verdict", verdict::run);
}

#[test]
fn the_seeds_of_stored_hold() {
    replay("stored", stored::run);
}

#[test]
fn the_seeds_of_questions_hold() {
    replay("questions", questions::run);
}

#[test]
fn the_seeds_of_server_hold() {
    replay("server", server::run);
}

#[test]
fn the_seeds_of_client_server_hold() {
    replay("client_server", client_server::run);
}
