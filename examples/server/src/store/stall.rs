//! Watches for operations that end in the middle, because they took too long or nobody waits for them any more. The connection of such an
//! operation may be dead, so it must be tested before it is used again.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// After this time without use, a connection must be tested, too.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// How long a test of a connection may take.
pub(super) const TRIAL: Duration = Duration::from_secs(1);

/// For how long connections are tested after an operation ended in the middle. By then its connection is back in the pool.
const WINDOW: Duration = Duration::from_secs(1);

/// When an operation last ended in the middle, in milliseconds since [`START`]. Zero means never.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokenOff(Arc<AtomicU64>);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl BrokenOff {
    /// Runs an operation, and notes if it is dropped before its end.
    pub(super) async fn watch<T>(&self, operation: Pin<Box<impl Future<Output = T>>>) -> T {
        let mut operation = operation;
        // This is dropped before the operation, and so before the connection returns to the pool.
        let unfinished = Unfinished(self);
        let outcome = (&mut operation).await;
        std::mem::forget(unfinished);
        outcome
    }

    /// Returns whether an operation ended in the middle just now.
    pub(super) fn lately(&self) -> bool {
        let last = self.0.load(Ordering::Acquire);
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        last != 0 && millis().saturating_sub(last) <= window
    }
}

struct Unfinished<'a>(&'a BrokenOff);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.0.store(millis().max(1), Ordering::Release);
    }
}

fn millis() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
