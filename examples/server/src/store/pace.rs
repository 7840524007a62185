//! The stores of the pace, if it is not beside the session.
//!
//! Rules:
//! 1. The pace may be lost, so no poll fails because of it. If it cannot be read, the poll has no pace. If it cannot be saved, that is
//!    logged.
//! 2. No poll waits for it for long.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device_flow::digest::SessionKey;
use device_flow::server::Pace;
use tokio::time::timeout;
use tracing::warn;

use super::StoreError;
use super::redis::Redis;
use super::stall::BrokenOff;

#[derive(Debug)]
pub(super) enum Paces {
    /// The paces are kept in this process. Several servers then count separately, so a device that meets them in turn may poll faster.
    Here(Mutex<HashMap<SessionKey, (Pace, Instant)>>),
    Redis(Box<Redis>),
}

/// How long a poll waits for its pace.
const PATIENCE: Duration = Duration::from_millis(250);

/// For how long a pace is kept in this process after its last poll: longer than any interval.
const LIFETIME: Duration = Duration::from_hours(1);

impl Paces {
    pub(super) fn here() -> Self {
        Self::Here(Mutex::default())
    }

    pub(super) async fn load(&self, key: &SessionKey) -> Option<Pace> {
        match self {
            Self::Here(paces) => lock(paces).get(key).map(|(pace, _)| *pace),
            Self::Redis(redis) => {
                let loading = redis.load_pace_apart(key);
                courtesy(&redis.broken_off, loading).await.flatten()
            }
        }
    }

    pub(super) async fn save(&self, key: &SessionKey, pace: Pace) {
        match self {
            Self::Here(paces) => {
                lock(paces).insert(*key, (pace, Instant::now()));
            }
            Self::Redis(redis) => {
                let saving = redis.save_pace_apart(key, pace);
                courtesy(&redis.broken_off, saving).await;
            }
        }
    }

    pub(super) fn purge(&self) {
        match self {
            Self::Here(paces) => lock(paces).retain(|_, (_, at)| at.elapsed() < LIFETIME),
            Self::Redis(_) => {}
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the result of an operation on a pace, or `None` if it failed or took too long.
pub(super) async fn courtesy<T>(
    broken_off: &BrokenOff,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Option<T> {
    let outcome = timeout(PATIENCE, broken_off.watch(Box::pin(operation))).await;
    match outcome.unwrap_or(Err(StoreError::Timeout)) {
        Ok(value) => Some(value),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "a pace was lost");
            None
        }
    }
}
