//! Quotas, taken by compare-and-swap: of issuing, of wrong secrets, of signing in.

use device_flow::digest::QuotaKey;
use device_flow::server::{Limit, Policy, Reply, Spent, Unauthenticated, Written};
use sha2::{Digest as _, Sha256};
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

/// The quota of wrong secrets of a request, if it presented one: checked before the secret is compared, charged if it was wrong.
pub(crate) struct Secrets<'a> {
    store: &'a Store,
    policy: &'a Policy,
    key: Option<QuotaKey>,
    now: OffsetDateTime,
}

impl<'a> Secrets<'a> {
    /// Refuses where this client has presented too many wrong secrets from this source.
    pub(crate) async fn check<T>(
        request: &Unauthenticated<'_, T>,
        source: &str,
        store: &'a Store,
        policy: &'a Policy,
        now: OffsetDateTime,
    ) -> Result<Self, Reply> {
        let key = request.secret_quota_key(source);
        if let Some(key) = &key {
            let stored = store.load_quota(key).await.map_err(crate::unavailable)?;
            request.check_secret_quota(stored, now)?;
        }
        Ok(Self {
            store,
            policy,
            key,
            now,
        })
    }

    /// Charges the quota where `refusal` is one of a wrong secret, and hands it on.
    pub(crate) async fn charge(self, refusal: Reply) -> Reply {
        if let Some(key) = self.key.filter(|_| refusal.cause().is_wrong_secret()) {
            // Where nothing is left to take the next request is refused; where the store fails, one secret goes uncounted.
            let _ = take(self.store, self.policy.secret_limit(), key, self.now).await;
        }
        refusal
    }
}

/// A key for a limit of this server's own.
pub(crate) fn key(what: &str, whose: &[&str]) -> QuotaKey {
    let mut sha = Sha256::new();
    for part in std::iter::once(&what).chain(whose) {
        sha.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        sha.update(part);
    }
    QuotaKey::from_bytes(sha.finalize().into())
}
