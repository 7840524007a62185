//! `GET /device/request/{session}`: the request whose code was entered. The user decides about it here, and later sees the outcome.
//!
//! Rules:
//! 1. Only the user who claimed it sees it. The key of the session in the URL is not a secret.
//! 2. An open request is shown only together with its code, which the cookie keeps, because without the code the user cannot compare it.
//! 3. A decision redirects to this page, too, so "back" and a reload show the present state and send nothing again.

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
use crate::config::User;
use crate::source::Source;
use crate::{App, now};

/// Returns a redirect to a request.
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
    match Login::read(&headers, &app, now).await {
        Err(Unavailable) => Page::Problem(Problem::busy()).send(StatusCode::SERVICE_UNAVAILABLE),
        Ok((login, Some(user))) => app.request(&key, &login, user, source, now, None).await,
        Ok((mut login, None)) => {
            login.enter_again();
            login.kept_with(Redirect::to("/device").into_response(), &app)
        }
    }
}

impl App {
    /// Returns the page of a request. It shows `problem` after a form that could not be accepted.
    pub(crate) async fn request(
        &self,
        key: &SessionKey,
        login: &Login,
        user: &User,
        source: Source,
        now: OffsetDateTime,
        problem: Option<&'static str>,
    ) -> Response {
        let frame = Frame::new(login, Some(user));
        let Ok(stored) = self.store.load(key).await else {
            return Page::Problem(Problem::busy()).send(StatusCode::SERVICE_UNAVAILABLE);
        };
        let is_own = |session: &Session| session.claimant() == Some(&user.subject);
        let session = stored.map(|stored| stored.session).filter(is_own);
        let Some(session) = session else {
            return Page::Outcome(Outcome::expired(frame)).send(StatusCode::GONE);
        };
        let outcome = match session.status() {
            Status::Pending | Status::Claimed => {
                let Some(code) = login.code_of(key) else {
                    return Redirect::to("/device").into_response();
                };
                if now >= session.expires_at() {
                    return Page::Outcome(Outcome::expired(frame)).send(StatusCode::GONE);
                }
                // The crate checks this again when the user decides.
                let Some(client) = self.clients.get(session.client_id()) else {
                    return Page::Outcome(Outcome::client_gone(frame)).send(StatusCode::FORBIDDEN);
                };
                let page = ReviewPage::new(frame, &session, client, code, self, source, now);
                let status = match problem {
                    Some(_) => StatusCode::BAD_REQUEST,
                    None => StatusCode::OK,
                };
                return Page::Review(Box::new(page.refused(problem))).send(status);
            }
            Status::Denied => Outcome::denied(frame),
            Status::Approved | Status::Active => Outcome::approved(frame),
            Status::Ended => Outcome::stands(frame, Status::Ended),
        };
        Page::Outcome(outcome).send(StatusCode::OK)
    }
}
