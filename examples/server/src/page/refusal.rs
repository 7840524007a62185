//! What a user is told if an action did nothing, and its name for the metrics.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else there may be, people try again"
)]

use axum::http::StatusCode;
use device_flow::digest::SessionKey;
use device_flow::server::{PageError, Store as _};

use super::Answered;
use super::view::{Enter, Frame, Outcome, Page, later};
use crate::App;

/// Returns the form for a code again. Every code that cannot be used gets the same sentence.
pub(crate) fn of_entry(frame: Frame<'_>, user_code: String, error: PageError) -> Answered {
    let form = Enter::new(frame, user_code);
    let page = |problem: &str| Page::Enter(form.refused(problem.to_owned()));
    let response = match error {
        PageError::RateLimited(limited) => {
            let when = later(limited);
            let page = page(&format!(
                "Too many codes were entered. Try again in {when}."
            ));
            page.send_too_many(limited)
        }
        error if error.is_wrong_code() => {
            let problem = "That code is wrong, has expired or was already used. Check the code on your device, or start \
                again there.";
            page(problem).send(StatusCode::BAD_REQUEST)
        }
        PageError::ClientGone => {
            page("That application can no longer sign in here.").send(StatusCode::FORBIDDEN)
        }
        _ => {
            let problem = "The server is busy. Try again in a moment.";
            page(problem).send(StatusCode::SERVICE_UNAVAILABLE)
        }
    };
    (name(error), response)
}

impl App {
    /// Returns the page for a decision that was not made. Only the user who claimed the session is told the reason.
    pub(crate) async fn undecided(
        &self,
        frame: Frame<'_>,
        session: &SessionKey,
        error: PageError,
    ) -> Answered {
        let (status, outcome) = match error {
            // The session may have been purged, or may never have existed. The user is not told which.
            PageError::Expired => (StatusCode::GONE, Outcome::expired(frame)),
            PageError::NotYours => (StatusCode::FORBIDDEN, Outcome::not_yours(frame)),
            PageError::ClientGone => (StatusCode::FORBIDDEN, Outcome::client_gone(frame)),
            PageError::Decided => match self.store.load(session).await {
                Ok(Some(stored)) => {
                    let status = stored.session.status();
                    (StatusCode::CONFLICT, Outcome::stands(frame, status))
                }
                Ok(None) => (StatusCode::GONE, Outcome::expired(frame)),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Outcome::busy(frame)),
            },
            _ => (StatusCode::SERVICE_UNAVAILABLE, Outcome::busy(frame)),
        };
        (name(error), Page::Outcome(outcome).send(status))
    }
}

pub(crate) const fn name(error: PageError) -> &'static str {
    match error {
        PageError::RateLimited(_) => "guess_quota_spent",
        PageError::MalformedCode => "code_malformed",
        PageError::UnknownCode => "code_unknown",
        PageError::ExpiredCode => "code_expired",
        PageError::UsedCode => "code_decided",
        PageError::ClaimedByAnother => "code_claimed_by_another",
        PageError::AmbiguousCode => "code_ambiguous",
        PageError::ClientGone => "client_gone",
        PageError::NotYours => "decision_not_yours",
        PageError::Expired => "decision_expired",
        PageError::Decided => "decision_stands",
        PageError::Undecided => "decision_missing",
        _ => "busy",
    }
}
