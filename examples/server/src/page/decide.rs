//! Deciding: approve, deny, and giving back.

use axum::http::StatusCode;
use axum::response::Response;
use device_flow::digest::SessionKey;
use device_flow::server::{Change, DecisionError, HostValue, Session, Status, Written};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::login::Login;
use super::view::{Frame, Outcome, Page};
use crate::config::User;
use crate::store::StoreError;
use crate::{ATTEMPTS, App, store_failed};

/// What is kept with an approval: one opaque value to the core, returned when the device redeems it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Consent {
    /// When the user signed in, in seconds.
    auth_time: i64,
}

impl Consent {
    /// The one of an approval; none where another program wrote it.
    pub(crate) fn read(value: &HostValue) -> Option<Self> {
        serde_json::from_slice(value.as_bytes()).ok()
    }

    pub(crate) fn auth_time(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.auth_time).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    fn value(&self) -> Result<HostValue, Undecided> {
        let octets = serde_json::to_vec(self).map_err(|_| Undecided::Store)?;
        HostValue::new(octets).map_err(|_| Undecided::Store)
    }
}

/// What somebody wants.
#[derive(Clone, Copy)]
pub(crate) enum Decision {
    Approve,
    Deny,
}

/// Why it is not as they want.
pub(crate) enum Undecided {
    /// The core, with the state in which the session is.
    Refused(DecisionError, Status),
    /// The session was purged.
    Gone,
    Store,
}

impl From<StoreError> for Undecided {
    fn from(error: StoreError) -> Self {
        store_failed(&error);
        Self::Store
    }
}

impl App {
    pub(crate) async fn approve(
        &self,
        session: &SessionKey,
        user: &User,
        login: &Login,
        now: OffsetDateTime,
    ) -> Result<(), Undecided> {
        let auth_time = login.signed_in_at().ok_or(Undecided::Store)?;
        let consent = Consent { auth_time }.value()?;
        let approve = |session: &Session| {
            let scope = session.scope();
            session.approve(&user.subject, scope, consent.clone(), &self.policy, now)
        };
        self.decide(session, approve).await
    }

    pub(crate) async fn deny(
        &self,
        session: &SessionKey,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<(), Undecided> {
        let deny = |session: &Session| session.deny(&user.subject, now);
        self.decide(session, deny).await
    }

    /// Gives a session back, for another account of the same person. Where that fails it stays claimed, and expires.
    pub(crate) async fn release(&self, session: &SessionKey, user: &User) {
        let release = |session: &Session| session.release(&user.subject).map(Some);
        let _ = self.decide(session, release).await;
    }

    /// Loads, decides, writes; and again where the write did not win.
    async fn decide(
        &self,
        key: &SessionKey,
        decision: impl Fn(&Session) -> Result<Option<Change>, DecisionError>,
    ) -> Result<(), Undecided> {
        for _ in 0..ATTEMPTS {
            let stored = self.store.load(key).await?.ok_or(Undecided::Gone)?;
            let session = stored.session;
            let decided = decision(&session);
            let decided = decided.map_err(|error| Undecided::Refused(error, session.status()));
            // The same decision stands already, from a form that was sent twice.
            let Some(change) = decided? else {
                return Ok(());
            };
            match self.store.change(&session, &change).await {
                Written::Won => return Ok(()),
                Written::Lost | Written::Unknown => {}
            }
        }
        Err(Undecided::Store)
    }
}

/// What became of it, for the claimant, who is told which; and its name.
pub(crate) fn page(
    frame: Frame<'_>,
    decision: Decision,
    result: Result<(), Undecided>,
) -> (&'static str, Response) {
    let (name, status, outcome) = match (decision, result) {
        (Decision::Approve, Ok(())) => ("approved", StatusCode::OK, Outcome::approved(frame)),
        (Decision::Deny, Ok(())) => ("denied", StatusCode::OK, Outcome::denied(frame)),
        (_, Err(Undecided::Refused(DecisionError::Expired, _))) => (
            "decision_expired",
            StatusCode::GONE,
            Outcome::expired(frame),
        ),
        // The claimant's, long ago; or nobody's ever, which is no one's business.
        (_, Err(Undecided::Gone)) => ("decision_gone", StatusCode::GONE, Outcome::expired(frame)),
        (_, Err(Undecided::Refused(DecisionError::NotYours, _))) => (
            "decision_not_yours",
            StatusCode::FORBIDDEN,
            Outcome::not_yours(frame),
        ),
        (_, Err(Undecided::Refused(_, status))) => (
            "decision_stands",
            StatusCode::CONFLICT,
            Outcome::stands(frame, status),
        ),
        (_, Err(Undecided::Store)) => (
            "busy",
            StatusCode::SERVICE_UNAVAILABLE,
            Outcome::busy(frame),
        ),
    };
    (name, Page::Outcome(outcome).send(status))
}
