//! The scope that the user allows: the requested scope without the tokens that were unticked on the review.
//!
//! Rule: the scope that the client needs to work (`required_scope`) is always allowed, whatever the form says. A user who does not want
//! that can deny.

use std::collections::BTreeMap;

use device_flow::digest::SessionKey;
use device_flow::scope::Scope;
use device_flow::server::{Consent, Session, Store as _, Unavailable};

use crate::App;
use crate::host::Approved;

/// The names of the boxes that were ticked. The boxes of scope tokens begin with [`BOX`].
pub(crate) type Ticked = BTreeMap<String, String>;

/// The beginning of the name of a scope token's box.
pub(crate) const BOX: &str = "scope:";

impl App {
    /// Returns the consent of a user who ticked these boxes. The crate refuses a scope that is wider than the requested one. It also
    /// refuses an empty scope, unless the requested scope is empty.
    pub(crate) async fn consent(
        &self,
        session: &SessionKey,
        ticked: &Ticked,
        auth_time: i64,
    ) -> Result<Consent, Unavailable> {
        let consent = match self.store.load(session).await? {
            Some(stored) => Consent::to(self.allowed(&stored.session, ticked)?),
            None => Consent::to_all(), // there is no session
        };
        Ok(consent.with_value(Approved { auth_time }.value()?))
    }

    fn allowed(&self, session: &Session, ticked: &Ticked) -> Result<Scope, Unavailable> {
        let is_allowed = |token: &&str| {
            self.is_required(session.client_id(), token)
                || ticked.contains_key(&format!("{BOX}{token}"))
        };
        let tokens = session.scope().tokens().filter(is_allowed);
        let tokens = tokens.collect::<Vec<_>>();
        if tokens.is_empty() {
            return Ok(Scope::empty());
        }
        Ok(tokens.join(" ").parse()?)
    }

    /// Returns whether a client needs this scope token to work.
    pub(crate) fn is_required(&self, client_id: &str, token: &str) -> bool {
        let required = self.required_scopes.get(client_id);
        required.is_some_and(|required| required.contains(token))
    }
}
