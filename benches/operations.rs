//! The time of every operation of both halves, from the incoming bytes to the response, beside its floor.
//!
//! ```sh
//! cargo bench --bench operations                                   # all of them, two minutes
//! cargo bench --bench operations -- pending                        # those with this in their name
//! cargo bench --bench operations -- pending/ours --profile-time 10 # one side in a loop, for perf record
//! ```
//!
//! Criterion runs each side by itself, one after the other, and keeps the results, so that the next run can be compared with them. The time
//! between two batches is not measured. In this time, sessions are brought into the state with which the next batch begins. For ratios on a
//! busy machine see `ratios.rs`, which alternates the sides.

mod floor;
#[path = "operations/mod.rs"]
mod operations;

use core::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use operations::{NAMES, Operation, Side, named, time};

fn each(criterion: &mut Criterion) {
    for name in NAMES {
        let Operation {
            turns,
            mut ours,
            mut floor,
        } = named(name);
        let mut group = criterion.benchmark_group(name);
        group.bench_function("ours", |bencher| {
            bencher.iter_custom(|count| in_batches(&mut *ours, turns, count));
        });
        group.bench_function("floor", |bencher| {
            bencher.iter_custom(|count| in_batches(&mut *floor, turns, count));
        });
        group.finish();
    }
}

/// Returns the time of `count` turns.
fn in_batches(side: &mut dyn Side, turns: usize, count: u64) -> Duration {
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    let mut total = Duration::ZERO;
    while left > 0 {
        let batch = left.min(turns);
        total = total.saturating_add(time(side, batch));
        left = left.saturating_sub(batch);
    }
    total
}

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = each
}
criterion_main!(benches);
