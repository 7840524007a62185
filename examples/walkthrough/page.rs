//! The verification page, without its HTML: what happens when a signed-in user submits it.

use device_flow::digest::SessionKey;
use device_flow::scope::Scope;
use device_flow::server::{
    Change, DecisionError, Entered, Entry, HostValue, Policy, Review, Session, Spent, Subject,
    Written, WrongCode,
};
use time::OffsetDateTime;

use super::host::{ATTEMPTS, Host};

/// Why the page shows something else than what the user came for. `Display` is what it shows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("too many codes; try again in {} s", .0.retry_after.as_millis().div_ceil(1000))]
    TooOften(#[from] Spent),
    #[error(transparent)]
    WrongCode(#[from] WrongCode),
    #[error(transparent)]
    Decision(#[from] DecisionError),
    #[error("something went wrong; try again")]
    Store,
}

impl Refused {
    /// The reason for the log, which may say more than the page.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::TooOften(spent) => format!("too often, for {:?}", spent.retry_after),
            Self::WrongCode(reason) => format!("wrong code, {reason:?}"),
            Self::Decision(reason) => format!("no decision, {reason:?}"),
            Self::Store => "the store failed".to_owned(),
        }
    }
}

impl Host {
    /// `user` submitted a code: pays a guess, looks it up, claims the session, and shows what the device asks for.
    pub(crate) fn enter(
        &mut self,
        user: &Subject,
        typed: &str,
        now: OffsetDateTime,
    ) -> Result<Review, Refused> {
        let store = &mut self.store;
        let mut entry = Entry::new(typed, user, &self.keys, &self.policy);
        // After three lost writes `pay` refuses.
        let paid = loop {
            let stored = store.load_quota(entry.quota_key());
            let guess = entry.pay(stored, now)?;
            let written = store.change_quota(guess.change());
            if let Ok(paid) = guess.settle(written) {
                break paid;
            }
        };
        for _ in 0..ATTEMPTS {
            let mut keys = paid.user_keys();
            let stored = keys.find_map(|key| store.load_by_user_key(&key));
            match paid.enter(stored.map(|stored| &stored.session), now)? {
                Entered::Review(review) => return Ok(review),
                Entered::Claim(claim) => {
                    let written = store.change(claim.change());
                    if let Ok(review) = claim.settle(written) {
                        return Ok(review);
                    }
                }
            }
        }
        Err(Refused::Store)
    }

    /// `user` approved, with some of the scope or all of it.
    pub(crate) fn approve(
        &mut self,
        user: &Subject,
        session: &SessionKey,
        scope: &Scope,
        value: &HostValue,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        self.decide(session, |session, policy| {
            session.approve(user, scope, value.clone(), policy, now)
        })
    }

    /// `user` denied.
    pub(crate) fn deny(
        &mut self,
        user: &Subject,
        session: &SessionKey,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        self.decide(session, |session, _| session.deny(user, now))
    }

    /// Loads, decides, writes; and again where the write lost.
    fn decide(
        &mut self,
        session: &SessionKey,
        decision: impl Fn(&Session, &Policy) -> Result<Option<Change>, DecisionError>,
    ) -> Result<(), Refused> {
        for _ in 0..ATTEMPTS {
            let stored = self.store.load(session).ok_or(Refused::Store)?;
            // The same decision stands already, from a form that was sent twice.
            let Some(change) = decision(&stored.session, &self.policy)? else {
                return Ok(());
            };
            match self.store.change(&change) {
                Written::Won => return Ok(()),
                Written::Lost | Written::Unknown => {}
            }
        }
        Err(Refused::Store)
    }
}
