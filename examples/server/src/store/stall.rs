//! Operations that were broken off in the middle: because they took too long, or because nobody waits for them any more. The
//! connection of one may be dead without having said so, and must not go back to its pool untried.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// After so long without use a connection is doubtful, too.
pub(super) const IDLE: Duration = Duration::from_secs(1);

/// How long a doubtful connection is tried.
pub(super) const TRIAL: Duration = Duration::from_secs(1);

/// Long enough for a connection to be on its way back to the pool.
const WINDOW: Duration = Duration::from_secs(1);

/// When an operation was last broken off, in milliseconds since [`START`]; zero for never.
#[derive(Clone, Debug, Default)]
pub(super) struct BrokenOff(Arc<AtomicU64>);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl BrokenOff {
    /// Carries an operation out, and notices where it is dropped before its end.
    pub(super) async fn watch<T>(&self, operation: Pin<Box<impl Future<Output = T>>>) -> T {
        let mut operation = operation;
        // Dropped before the operation is, and so before the connection is on its way.
        let unfinished = Unfinished(self);
        let outcome = (&mut operation).await;
        std::mem::forget(unfinished);
        outcome
    }

    /// Whether one was broken off just now.
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
