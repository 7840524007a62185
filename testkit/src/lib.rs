//! Checks the contract of a [`Store`] of [`device_flow`], races included, with one call.
//!
//! ```
//! use std::sync::Mutex;
//!
//! use device_flow::memory::Memory;
//! use device_flow_testkit::{Check, check_store_on_threads};
//!
//! let store = Mutex::new(Memory::new());
//! check_store_on_threads(&store, &Check::default())?;
//! # Ok::<(), device_flow_testkit::Violation>(())
//! ```
//!
//! [`check_store`] checks an asynchronous store, on any runtime. It polls racing operations side by side, so whenever one waits, the others
//! go on. [`check_store_on_threads`] checks a store that blocks. It runs racing operations on threads of their own.
//!
//! A faulty store may pass a race by luck, so each race is repeated [`Check::rounds`] times, with other keys and other moments of starting.
//! With the default number, a store in memory that releases its lock between the read and the write always fails. A database is slower and
//! its races are longer, so about twenty rounds are enough there. Use several connections.
//!
//! Every round has keys of its own, and so has every [`Check::seed`]. The store need not be emptied before or between runs.

mod cases;
mod operation;
mod runner;
mod sessions;

use device_flow::server::Store;
use time::OffsetDateTime;

use runner::{Asynchronous, Runner, Threads, block_on};

/// How a store is checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Check {
    /// The keys are derived from this, so another seed gives other keys.
    pub seed: String,
    /// The time at which the sessions are issued.
    pub now: OffsetDateTime,
    /// How many times each race is run.
    pub rounds: u32,
    /// Whether to leave out the cases that purge. Most of them purge at a time in the future, so a store that expires records itself, such
    /// as Redis, cannot pass them. The check of such a store also needs the true time as [`Check::now`].
    pub without_purges: bool,
}

impl Default for Check {
    /// Returns a check with the true time, a seed made from it, 300 rounds, and the purges.
    fn default() -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            seed: now.unix_timestamp_nanos().to_string(),
            now,
            rounds: 300,
            without_purges: false,
        }
    }
}

impl Check {
    /// Sets how many times each race is run.
    #[must_use]
    pub const fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets the seed of the keys.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<String>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets the time at which the sessions are issued.
    #[must_use]
    pub const fn now(mut self, now: OffsetDateTime) -> Self {
        self.now = now;
        self
    }

    /// Leaves out the cases that purge.
    #[must_use]
    pub const fn without_purges(mut self) -> Self {
        self.without_purges = true;
        self
    }
}

/// A violation of the contract by the store. The text shows keys and versions, but no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{case}: asked {asked}, the store answered {answered}; expected {expected}")]
#[non_exhaustive]
pub struct Violation {
    /// The name of the case, which says what must hold.
    pub case: &'static str,
    asked: String,
    expected: String,
    answered: String,
}

/// Checks an asynchronous store, on any runtime.
///
/// # Errors
///
/// The first [`Violation`]. The answer [`Unavailable`](device_flow::server::Unavailable) counts as one, because then nothing can be
/// checked.
pub async fn check_store<S: Store>(store: &S, check: &Check) -> Result<(), Violation> {
    run(store, check, &Asynchronous).await
}

/// Checks a store that blocks. Racing operations run on threads of their own.
///
/// # Errors
///
/// As for [`check_store`].
///
/// # Panics
///
/// If the store panics.
pub fn check_store_on_threads<S: Store>(store: &S, check: &Check) -> Result<(), Violation> {
    block_on(run(store, check, &Threads))
}

async fn run<S: Store>(store: &S, check: &Check, runner: &impl Runner) -> Result<(), Violation> {
    for round in 0..check.rounds.max(1) {
        for (place, case) in (0..).zip(cases::all()) {
            let is_left_out = check.without_purges && case.purges;
            // A case without a race is the same in every round.
            if is_left_out || (round > 0 && !case.races) {
                continue;
            }
            let seed = format!("{} {round} {place}", check.seed);
            for step in (case.steps)(&sessions::Set::new(&seed, check.now)) {
                let answers = runner.all(store, &step.operations, round).await;
                step.check(case.name, &answers)?;
            }
        }
    }
    Ok(())
}
