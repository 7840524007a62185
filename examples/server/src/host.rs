//! What the crate asks of this server: the clients, the generator and the tokens. The store is in `store`.

use std::error::Error;
use std::sync::Arc;

use device_flow::code::Entropy;
use device_flow::server::{
    Claim, Client, Found, Grant, GrantRefusal, Host, HostValue, Tokens, Unavailable,
};
use serde::{Deserialize, Serialize};

use crate::config::User;
use crate::store::Store;
use crate::{App, random};

impl Host for App {
    type Client = Arc<Client>;
    type Store = Store;

    fn store(&self) -> &Store {
        &self.store
    }

    async fn client(&self, claim: Claim<'_>) -> Result<Found<Arc<Client>>, Unavailable> {
        let known = claim.client_id().and_then(|id| self.clients.get(id));
        Ok(known.cloned().into())
    }

    fn entropy(&self) -> Result<Entropy, Unavailable> {
        Ok(random::<{ Entropy::OCTETS }>().into())
    }

    async fn mint(&self, grant: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
        // A user whose account is gone or locked gets no tokens, not even by a refresh.
        let user = self.user(grant.subject());
        let user = user.ok_or(GrantRefusal::consent_gone())?;
        self.tokens(grant, user).await.map_err(|error| {
            tracing::error!(error, "no token was minted");
            GrantRefusal::failed()
        })
    }
}

impl App {
    async fn tokens(
        &self,
        grant: Grant<'_>,
        user: &User,
    ) -> Result<Tokens<'static>, Box<dyn Error + Send + Sync>> {
        let approved: Approved = serde_json::from_slice(grant.host_value().as_bytes())?;
        let claims = self.minter.claims(grant, user, approved.auth_time)?;
        // A signature takes about a millisecond of a processor.
        let minter = Arc::clone(&self.minter);
        tokio::task::spawn_blocking(move || minter.sign(&claims)).await?
    }
}

/// What this server stores with an approval. The crate stores it as one opaque value, and returns it with each grant.
#[derive(Serialize, Deserialize)]
pub(crate) struct Approved {
    /// When the user signed in, in seconds since the Unix epoch.
    pub(crate) auth_time: i64,
}

impl Approved {
    /// Returns the value for the crate.
    pub(crate) fn value(&self) -> Result<HostValue, Unavailable> {
        Ok(HostValue::new(serde_json::to_vec(self)?)?)
    }
}
