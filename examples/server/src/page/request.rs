//! `GET /device/request/{session}`: the request whose code was entered, to decide about; and what became of it.
//!
//! Rules:
//! 1. The claimant alone sees it. The key of the session in the URL is no secret.
//! 2. It is undecided only with the code beside it, which the cookie keeps: without the code there is nothing to compare.
//! 3. A decision leads here, too: "back" and a reload show what stands, and send nothing again.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use device_flow::digest::SessionKey;
use device_flow::server::{Session, Status, Store as _, Unavailable};
use time::OffsetDateTime;

use super::login::Login;
use super::view::{Frame, Outcome, Page, Problem, ReviewPage};
use crate::source::Source;
use crate::{App, now};

/// Leads to a request.
pub(crate) fn redirect_to(session: &SessionKey) -> Response {
    Redirect::to(&format!("/device/request/{session}")).into_response()
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    source: Source,
    headers: HeaderMap,
    session: Result<Path<SessionKey>, PathRejection>,
) -> Response {
    let Ok(Path(key)) = session else {
        return super::unknown().await;
    };
    let now = now();
    let Ok((mut login, user)) = Login::read(&headers, &app, now).await else {
        return Page::Problem(Problem::busy()).send(StatusCode::SERVICE_UNAVAILABLE);
    };
    let frame = Frame::new(&login, user);
    let is_own = |session: &Session| session.claimant() == user.map(|user| &user.subject);
    let stored = match (app.store.load(&key).await, user) {
        (Err(Unavailable), _) => {
            return Page::Problem(Problem::busy()).send(StatusCode::SERVICE_UNAVAILABLE);
        }
        (Ok(_), None) => {
            login.enter_again();
            return login.kept_with(Redirect::to("/device").into_response(), &app);
        }
        (Ok(stored), Some(_)) => stored.map(|stored| stored.session).filter(is_own),
    };
    let Some(session) = stored else {
        return Page::Outcome(Outcome::expired(frame)).send(StatusCode::GONE);
    };
    match session.status() {
        Status::Pending | Status::Claimed => match login.code_of(&key) {
            None => Redirect::to("/device").into_response(),
            Some(code) => app.review(frame, &session, code, source, now),
        },
        Status::Denied => Page::Outcome(Outcome::denied(frame)).send(StatusCode::OK),
        Status::Approved | Status::Active => {
            Page::Outcome(Outcome::approved(frame)).send(StatusCode::OK)
        }
        Status::Ended => Page::Outcome(Outcome::stands(frame, Status::Ended)).send(StatusCode::OK),
    }
}

impl App {
    /// What the user is shown before deciding. The core asks again at the decision.
    fn review(
        &self,
        frame: Frame<'_>,
        session: &Session,
        code: &str,
        source: Source,
        now: OffsetDateTime,
    ) -> Response {
        if now >= session.expires_at() {
            return Page::Outcome(Outcome::expired(frame)).send(StatusCode::GONE);
        }
        let Some(client) = self.clients.get(session.client_id()) else {
            return Page::Outcome(Outcome::client_gone(frame)).send(StatusCode::FORBIDDEN);
        };
        let page = ReviewPage::new(frame, session, client, code, self, source, now);
        Page::Review(Box::new(page)).send(StatusCode::OK)
    }
}
