//! What a [`Store`] of [`device_flow`] must survive: its contract, with the races, as one call.
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
//! An asynchronous store is checked by [`check_store`], on any runtime. Its operations that race are polled side by side, so every
//! place where one of them waits is a place where the others go on. A store that blocks is checked by
//! [`check_store_on_threads`], where operations that race run on threads of their own.
//!
//! A race may go well by luck. Each is therefore repeated, [`Check::rounds`] times with other keys and other starts. The default
//! finds a store in memory that reads and writes under two locks, in every run. A database is slower and its races are longer:
//! there some twenty rounds do, with several connections.
//!
//! Every round has keys of its own, and every [`Check::seed`] has others. Nothing needs to be emptied before or between.

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
    /// Makes the keys those of this run.
    pub seed: String,
    /// When the sessions are issued.
    pub now: OffsetDateTime,
    /// How often each race is run.
    pub rounds: u32,
    /// Whether to leave out the cases that purge at a time of their own. A store with an expiry of its own, such as Redis, must
    /// leave them out and needs the true time as [`Check::now`].
    pub without_purges: bool,
}

impl Default for Check {
    /// The true time, which also makes the seed; 300 rounds; with purges.
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
    /// Sets how often each race is run.
    #[must_use]
    pub const fn rounds(mut self, rounds: u32) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets what makes the keys those of this run.
    #[must_use]
    pub fn seed(mut self, seed: impl Into<String>) -> Self {
        self.seed = seed.into();
        self
    }

    /// Sets when the sessions are issued.
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

/// A store breaks its contract. The text shows keys and versions, and no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{case}: asked {asked}, the store answered {answered}; expected {expected}")]
#[non_exhaustive]
pub struct Violation {
    /// What must hold: the name of the case.
    pub case: &'static str,
    asked: String,
    expected: String,
    answered: String,
}

/// Checks an asynchronous store, on any runtime.
///
/// # Errors
///
/// The first [`Violation`]. [`Unavailable`](device_flow::server::Unavailable) is one: nothing can be said of a store that does not
/// answer.
pub async fn check_store<S: Store>(store: &S, check: &Check) -> Result<(), Violation> {
    run(store, check, &Asynchronous).await
}

/// Checks a store that blocks, with operations that race on threads of their own.
///
/// # Errors
///
/// As for [`check_store`].
///
/// # Panics
///
/// If the store does.
pub fn check_store_on_threads<S: Store>(store: &S, check: &Check) -> Result<(), Violation> {
    block_on(run(store, check, &Threads))
}

async fn run<S: Store>(store: &S, check: &Check, runner: &impl Runner) -> Result<(), Violation> {
    for round in 0..check.rounds.max(1) {
        for (place, case) in (0..).zip(cases::all()) {
            let is_left_out = check.without_purges && case.purges;
            // What does not race is the same in every round.
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
