//! Entering a code.

use axum::http::StatusCode;
use axum::response::Response;
use device_flow::server::{Entered, Entry, Review, Spent, WrongCode};
use time::OffsetDateTime;

use super::view::{Enter, Frame, Page, later};
use crate::config::User;
use crate::store::StoreError;
use crate::{ATTEMPTS, App, store_failed};

/// Why there is nothing to review.
pub(crate) enum Refused {
    WrongCode(WrongCode),
    TooOften(Spent),
    Store,
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        store_failed(&error);
        Self::Store
    }
}

impl App {
    /// Pays a guess, looks the code up, claims its session for the user.
    pub(crate) async fn enter(
        &self,
        typed: &str,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<Review, Refused> {
        let store = &self.store;
        let mut entry = Entry::new(typed, &user.subject, &self.user_code_keys, &self.policy);
        // Guesses that come at once are paid one by one.
        let turn = self.quota_lines.turn(entry.quota_key()).await;
        let paid = loop {
            let stored = store.load_quota(entry.quota_key()).await?;
            let guess = entry.pay(stored, now).map_err(Refused::TooOften)?; // after three losses, too
            let written = store.change_quota(guess.change()).await;
            if let Ok(paid) = guess.settle(written) {
                break paid;
            }
        };
        drop(turn);
        for _ in 0..ATTEMPTS {
            let mut found = None;
            for key in paid.user_keys() {
                found = store.load_by_user_key(&key).await?;
                if found.is_some() {
                    break;
                }
            }
            let session = found.as_ref().map(|stored| &stored.session);
            match paid.enter(session, now).map_err(Refused::WrongCode)? {
                Entered::Review(review) => return Ok(review),
                Entered::Claim(claim) => {
                    let written = store.change(claim.session(), claim.change()).await;
                    if let Ok(review) = claim.settle(written) {
                        return Ok(review);
                    }
                }
            }
        }
        Err(Refused::Store)
    }
}

impl Refused {
    /// The form again: one sentence for every code that does not lead on; and the reason's name, for the metrics alone.
    pub(crate) fn page(self, frame: Frame<'_>, user_code: String) -> (&'static str, Response) {
        let form = Enter::new(frame, user_code);
        let page = |problem: String| Page::Enter(form.refused(problem));
        match self {
            Self::WrongCode(reason) => {
                let problem = "That code is wrong, has expired or was already used. Check the code on your device, or \
                    start again there.";
                let page = page(problem.to_owned());
                (name(reason), page.send(StatusCode::BAD_REQUEST))
            }
            Self::TooOften(spent) => {
                let when = later(spent);
                let page = page(format!("Too many codes were entered. Try again in {when}."));
                ("guess_quota_spent", page.send_too_many(spent))
            }
            Self::Store => {
                let page = page("The server is busy. Try again in a moment.".to_owned());
                ("busy", page.send(StatusCode::SERVICE_UNAVAILABLE))
            }
        }
    }
}

const fn name(reason: WrongCode) -> &'static str {
    match reason {
        WrongCode::Malformed => "code_malformed",
        WrongCode::Unknown => "code_unknown",
        WrongCode::Expired => "code_expired",
        WrongCode::Decided => "code_decided",
        WrongCode::ClaimedByAnother => "code_claimed_by_another",
        _ => "code_wrong",
    }
}
