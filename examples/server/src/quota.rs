//! Quotas, taken by compare-and-swap: of issuing, of wrong secrets, of signing in.

use device_flow::digest::QuotaKey;
use device_flow::server::{Limit, Spent, Written};
use time::OffsetDateTime;

use crate::ATTEMPTS;
use crate::store::{Store, StoreError};

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

/// Takes one.
pub(crate) async fn take(
    store: &Store,
    limit: Limit,
    key: QuotaKey,
    now: OffsetDateTime,
) -> Result<(), Refused> {
    for _ in 0..ATTEMPTS {
        let stored = store.load_quota(&key).await?;
        let change = limit.take(key, stored, now).map_err(Refused::Spent)?;
        match store.change_quota(&change).await {
            Written::Won => return Ok(()),
            Written::Lost | Written::Unknown => {}
        }
    }
    Err(Refused::Store)
}
