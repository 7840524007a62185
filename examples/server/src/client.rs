//! Who the client is: its registration, and the quota of wrong secrets around the comparison.

use device_flow::server::{Registration, Reply, Unauthenticated};
use time::OffsetDateTime;

use crate::source::Source;
use crate::{App, quota, unavailable};

impl App {
    /// Looks the client up and has it authenticated. A secret costs nothing where it is right; where this client has presented
    /// too many wrong ones from this source, none is compared.
    pub(crate) async fn authenticate<'a, T: Send>(
        &'a self,
        request: Unauthenticated<'a, T>,
        source: Source,
        now: OffsetDateTime,
        authenticate: impl FnOnce(Unauthenticated<'a, T>, Option<&'a Registration>) -> Result<T, Reply>,
    ) -> Result<T, Reply> {
        let key = request.secret_quota_key(&source.key());
        if let Some(key) = &key {
            let stored = self.store.load_quota(key).await.map_err(unavailable)?;
            request.check_secret_quota(stored, now)?;
        }
        let client = self.registration(request.client_id());
        let refusal = match authenticate(request, client) {
            Ok(authenticated) => return Ok(authenticated),
            Err(refusal) => refusal,
        };
        if let Some(key) = key.filter(|_| refusal.cause().is_wrong_secret()) {
            // Where nothing is left to take the next request is refused; where the store fails, one secret goes uncounted.
            let _ = quota::take(&self.store, self.policy.secret_limit(), key, now).await;
        }
        Err(refusal)
    }
}
