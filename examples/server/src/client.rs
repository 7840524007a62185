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
        let client = self.registration(request.client_id());
        // A client that nobody knows has no secret to guess, and whoever makes ids up would fill the store.
        let key = request.secret_quota_key(&source.key());
        let Some(key) = key.filter(|_| client.is_some()) else {
            return authenticate(request, client);
        };
        // One secret at a time: guesses that come at once are counted one by one.
        let _turn = self.quota_lines.turn(&key).await;
        let stored = self.store.load_quota(&key).await.map_err(unavailable)?;
        request.check_secret_quota(stored, now)?;
        match authenticate(request, client) {
            Err(refusal) if refusal.cause().is_wrong_secret() => {
                let limit = self.policy.secret_limit();
                match quota::take(&self.store, limit, key, now).await {
                    Ok(()) | Err(quota::Refused::Spent(_)) => Err(refusal),
                    Err(quota::Refused::Store) => Err(Reply::store_failed()),
                }
            }
            decided => decided,
        }
    }
}
