//! Quotas, taken by compare-and-swap: of issuing, of wrong secrets, of signing in.
//!
//! Rule: those who come at once for one key stand in line, within this server. Otherwise all would read the same value, and all
//! but one lose. To other servers somebody may lose now and then, and tries again.

use std::time::Duration;

use device_flow::digest::QuotaKey;
use device_flow::server::{Limit, Spent, Written};
use time::OffsetDateTime;
use tokio::sync::{Mutex, MutexGuard};

use crate::store::{Store, StoreError};
use crate::{App, random};

/// How often a write that lost, or whose outcome nobody knows, is tried again.
const TRIES: u64 = 24;

/// The longest pause after the first of them; each further one may be longer by as much.
const PAUSE_MILLIS: u64 = 2;

/// The lines. A key stands in the one of its first octet.
pub(crate) struct Lines([Mutex<()>; 256]);

impl Lines {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    /// Waits until it is this key's turn.
    #[expect(clippy::indexing_slicing, reason = "there is a line for every octet")]
    pub(crate) async fn turn(&self, key: &QuotaKey) -> MutexGuard<'_, ()> {
        let [first, ..] = *key.as_bytes();
        self.0[usize::from(first)].lock().await
    }
}

/// Why nothing was taken.
#[derive(Debug)]
pub(crate) enum Refused {
    Spent(Spent),
    Store,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        crate::store_failed(&error);
        Self::Store
    }
}

impl App {
    /// Takes one, in turn.
    pub(crate) async fn take(
        &self,
        limit: Limit,
        key: QuotaKey,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        let _turn = self.quota_lines.turn(&key).await;
        take(&self.store, limit, key, now).await
    }
}

/// Takes one, for somebody whose turn it is.
pub(crate) async fn take(
    store: &Store,
    limit: Limit,
    key: QuotaKey,
    now: OffsetDateTime,
) -> Result<(), Refused> {
    for number in 1..=TRIES {
        let stored = store.load_quota(&key).await?;
        let change = limit.take(key, stored, now).map_err(Refused::Spent)?;
        match store.change_quota(&change).await {
            Written::Won => return Ok(()),
            Written::Lost | Written::Unknown => pause(number).await,
        }
    }
    tracing::error!("a quota was not written, however often it was tried");
    Err(Refused::Store)
}

/// Out of step with others who lost.
async fn pause(number: u64) {
    let [random] = random();
    let most = PAUSE_MILLIS.saturating_mul(number);
    let micros = most.saturating_mul(1000).saturating_mul(random.into()) / 255;
    tokio::time::sleep(Duration::from_micros(micros)).await;
}
