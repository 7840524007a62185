//! The instructions of every operation of both halves, and of its floor, counted by callgrind. They do not depend on what else
//! the machine does, so a growth of more than 5 % over the numbers below fails the run.
//!
//! ```sh
//! apt-get install valgrind
//! cargo install gungraun-runner --version 0.20.0   # the version of the library
//! cargo bench --bench instructions
//! ```
//!
//! If a number goes down, write the new number here. The run prints it. A new compiler may change all of them. Valgrind does not know the
//! SHA instructions. It counts 3,400 instructions for a block of SHA-256, but a current processor executes some hundred. So ratios are
//! better read from `ratios.rs`.

#![allow(
    missing_docs,
    reason = "gungraun declares what it needs without documentation"
)]

mod floor;
#[path = "operations/mod.rs"]
mod operations;

use core::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig};
use operations::{Operation, Side, named};

/// How many turns run before the one that is counted. After that many turns the allocator is in a steady state.
const BEFORE: usize = 16;

/// Returns a configuration that fails if the count is over this number of instructions and a twentieth of it.
fn about(instructions: u64) -> LibraryBenchmarkConfig {
    let limit = instructions.saturating_add(instructions / 20);
    let callgrind = Callgrind::default()
        .hard_limits([(EventKind::Ir, limit)])
        .to_owned();
    LibraryBenchmarkConfig::default().tool(callgrind).to_owned()
}

/// Returns our side, ready for a turn.
fn our_side(name: &str) -> Box<dyn Side> {
    ready(named(name), |operation| operation.ours)
}

/// Returns the floor's side, ready for a turn.
fn floor_side(name: &str) -> Box<dyn Side> {
    ready(named(name), |operation| operation.floor)
}

fn ready(operation: Operation, side: fn(Operation) -> Box<dyn Side>) -> Box<dyn Side> {
    let mut side = side(operation);
    side.prepare();
    side.run(0..BEFORE);
    side
}

/// Declares the benchmarks: each operation with the instructions of our side.
macro_rules! operations {
    ($($name:ident $instructions:literal)+) => {
        #[library_benchmark]
        $(#[bench::$name(args = (our_side(stringify!($name))), config = about($instructions))])+
        fn this_crate(mut side: Box<dyn Side>) -> Box<dyn Side> {
            black_box(&mut side).run(BEFORE..BEFORE + 1);
            side
        }

        #[library_benchmark]
        $(#[bench::$name(args = (floor_side(stringify!($name))))])+
        fn the_floor(mut side: Box<dyn Side>) -> Box<dyn Side> {
            black_box(&mut side).run(BEFORE..BEFORE + 1);
            side
        }
    };
}

operations! {
    issue 17_857
    pending 5_498
    too_soon 5_548
    success 23_241
    refresh 35_054
    unknown 5_232
    foreign 5_294
    malformed 919
    basic 15_691
    enter 14_129
    approve 2_018
    client_start 17_012
    client_pending 1_738
    client_slow_down 2_031
    client_success 10_721
    client_success_4k 21_106
}

library_benchmark_group!(
    name = turns,
    compare_by_id = true,
    benchmarks = [this_crate, the_floor]
);
main!(library_benchmark_groups = turns);
