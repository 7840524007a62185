//! How far this crate is from the floor: one line per operation, with its name and the ratio of the medians.
//!
//! ```sh
//! cargo bench --bench ratios             # every line, as in the README
//! cargo bench --bench ratios -- pending  # one of them, or of the other operations, with the nanoseconds beside it
//! ```
//!
//! Batches of both sides alternate in one run, and each side is first as often as second. The preparation of a batch is not measured. The
//! figure is the median of our batches divided by the median of the floor's. Other programs on the machine slow down both sides.
//!
//! `memory` compares the bytes per session of our store with those of the floor, as the allocator counts them with [`MEMORY_SESSIONS`]
//! sessions. Both indexes are included. The sessions have no text that says where they come from. Maps grow by doubling, so the bytes
//! depend on that number, but their ratio hardly does.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "a bench counts its own numbers"
)]

mod floor;
#[path = "operations/mod.rs"]
mod operations;

use core::time::Duration;

use floor::server::Floor;
use operations::host::{Host, Ours, PUBLIC, Request};
use operations::{Moment, Operation, Out, Random, server, time};

/// How many batches each side runs.
const BATCHES: usize = 2_001;

/// How many sessions there are when their bytes are counted.
const MEMORY_SESSIONS: u32 = 100_000;

/// The names of the lines, in their order.
const LINES: [&str; 11] = [
    "issue",
    "pending",
    "too_soon",
    "unknown",
    "pending_million",
    "success",
    "refresh",
    "malformed",
    "client_pending",
    "client_success",
    "memory",
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let names: Vec<&str> = match &wanted[..] {
        [] => LINES.to_vec(),
        some => some.iter().map(String::as_str).collect(),
    };
    for name in names {
        let (mut ours, mut floor) = (0.0, 0.0);
        if name == "memory" {
            (ours, floor) = (bytes::<Ours>(), bytes::<Floor>());
        } else {
            // The allocator must not count here, because that would cost more on the side that allocates more.
            allocation_counter::opt_out(|| (ours, floor) = medians(name));
        }
        print!("{name} {:.2}", ours / floor);
        if !wanted.is_empty() {
            print!(" ({ours:.1} over {floor:.1})");
        }
        println!();
    }
}

/// Returns the median time of a turn in nanoseconds, on our side and on the floor's.
fn medians(name: &str) -> (f64, f64) {
    let Operation {
        turns,
        mut ours,
        mut floor,
    } = operations::named(name);
    let mut our_times = Vec::new();
    let mut floor_times = Vec::new();
    for batch in 0..BATCHES {
        if batch % 2 == 0 {
            our_times.push(time(&mut *ours, turns));
            floor_times.push(time(&mut *floor, turns));
        } else {
            floor_times.push(time(&mut *floor, turns));
            our_times.push(time(&mut *ours, turns));
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_nanos() as f64 / turns as f64
    };
    (median(our_times), median(floor_times))
}

/// Returns the bytes per session of a store.
fn bytes<H: Host>() -> f64 {
    let mut host = H::new(MEMORY_SESSIONS.into());
    let mut random = Random(6);
    let mut out = Out {
        body: Vec::with_capacity(4096),
        ..Out::default()
    };
    let body = server::issuing(PUBLIC);
    let info = allocation_counter::measure(|| {
        for _ in 0..MEMORY_SESSIONS {
            let request = Request::new(&body);
            host.device_authorization(request, || random.entropy(), Moment::after(0), &mut out);
        }
    });
    info.bytes_current as f64 / f64::from(MEMORY_SESSIONS)
}
