//! The verification page: sign-in, code entry, review, and the decision (RFC 8628, section 3.3).
//!
//! Rules:
//! 1. A GET only shows a page, and only a POST changes something. A code in a link only fills in the form, and only if the policy has such
//!    links on. A code is looked up only by a POST of a signed-in user.
//! 2. A POST is accepted only with the token that the page put into its form, and only if no other site sent it.
//! 3. A wrong, an expired and a used code get the same sentence. The user who claimed a request is told its outcome.
//! 4. After an action the page redirects to a GET, so that "back" and a reload send no form again.
//! 5. The page works without scripts, and no script can run on it.

mod consent;
mod guard;
mod login;
pub(crate) mod logins;
mod posted;
mod refusal;
pub(crate) mod request;
mod sign_in;
mod view;

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Form, FromRequest as _, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use device_flow::digest::SessionKey;
use device_flow::server::{PageError, Session, Unavailable};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::time::timeout;

pub(crate) use guard::guard;
pub(crate) use sign_in::SignInLimits;

use crate::config::User;
use crate::metrics::Endpoint;
use crate::source::Source;
use crate::{App, now};
use consent::Ticked;
use login::Login;
use posted::{Posted, Step};
use view::{Enter, Frame, Page, Problem, SignIn};

/// The answer to a form: a name for the metrics, and the response.
type Answered = (&'static str, Response);

/// The parameters in the link of a device.
#[derive(Default, Deserialize)]
pub(crate) struct Link {
    #[serde(default)]
    user_code: String,
}

/// `GET /device`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    link: Result<Query<Link>, QueryRejection>,
) -> Response {
    let Ok((mut login, user)) = Login::read(&headers, &app, now()).await else {
        return Page::Problem(Problem::busy()).send(StatusCode::SERVICE_UNAVAILABLE);
    };
    if app.server.policy().options().verification_uri_complete
        && let Ok(Query(Link { user_code })) = link
        && !user_code.is_empty()
    {
        login.remember(&user_code);
    }
    let frame = Frame::new(&login, user);
    let page = match user {
        Some(_) => Page::Enter(Enter::new(frame, login.typed().to_owned())),
        None => Page::SignIn(SignIn::new(frame)),
    };
    let response = page.send(StatusCode::OK);
    login.kept_with(response, &app)
}

/// `POST /device`
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    source: Source,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let form = timeout(app.request_timeout, Form::from_request(request, &app)).await;
    let now = now();
    let (login, (cause, response)) = match Login::read(&headers, &app, now).await {
        Err(Unavailable) => (None, busy()),
        Ok((mut login, user)) => {
            let frame = Frame::new(&login, user);
            let answered = match form {
                Err(_) => {
                    let page = Page::Problem(Problem::slow(frame));
                    ("form_too_slow", page.send(StatusCode::REQUEST_TIMEOUT))
                }
                Ok(Err(rejection)) => {
                    let page = Page::Problem(Problem::form(frame));
                    ("form", page.send(rejection.status()))
                }
                Ok(Ok(Form::<Posted>(posted)))
                    if !guard::is_own(&headers) || !login.vouches_for(&posted.csrf) =>
                {
                    let page = Page::Problem(Problem::forged(frame));
                    ("forged", page.send(StatusCode::FORBIDDEN))
                }
                Ok(Ok(Form(posted))) => app.act(posted.step, &mut login, user, source, now).await,
            };
            (Some(login), answered)
        }
    };
    app.metrics.count(Endpoint::Page, cause);
    let status = response.status().as_u16();
    tracing::info!(endpoint = "page", cause, status, %source, "answered");
    match login {
        Some(login) => login.kept_with(response, &app),
        None => response,
    }
}

fn busy() -> Answered {
    let page = Page::Problem(Problem::busy());
    ("busy", page.send(StatusCode::SERVICE_UNAVAILABLE))
}

impl App {
    async fn act(
        &self,
        step: Step,
        login: &mut Login,
        user: Option<&User>,
        source: Source,
        now: OffsetDateTime,
    ) -> Answered {
        match (step, user) {
            (Step::SignIn { email, password }, _) => {
                match self.sign_in(&email, password, source, now).await {
                    Ok(user) => {
                        *login = login.of(user, now);
                        ("signed_in", Redirect::to("/device").into_response())
                    }
                    Err(refused) => refused.page(Frame::new(login, user), email),
                }
            }
            (Step::SignOut { session }, user) => {
                if let (Some(session), Some(user)) = (session, user) {
                    // If that fails, the session stays claimed, and expires.
                    let mut release = self.server.release(&session, &user.subject, now);
                    let _ = release.run(self).await;
                }
                match login.sign_out(self).await {
                    Ok(()) => ("signed_out", Redirect::to("/device").into_response()),
                    Err(Unavailable) => busy(),
                }
            }
            // The sign-in has expired meanwhile.
            (step, None) => {
                match step {
                    Step::Enter { user_code } => login.remember(&user_code),
                    Step::Approve { .. } | Step::Deny { .. } => login.enter_again(),
                    Step::End { .. } | Step::SignIn { .. } | Step::SignOut { .. } => {}
                }
                let page = Page::SignIn(SignIn::again(Frame::new(login, None)));
                ("signed_in_no_more", page.send(StatusCode::FORBIDDEN))
            }
            (Step::Enter { user_code }, Some(user)) => {
                // Guesses are counted only by user, because many users may share one address.
                let mut enter = self.server.enter(&user_code, &user.subject, "", now);
                match enter.run(self).await {
                    Ok(review) => {
                        let session = review.session_key();
                        login.entered(&review.user_code().display().to_string(), session);
                        ("entered", request::redirect_to(session))
                    }
                    Err(error) => {
                        refusal::of_entry(Frame::new(login, Some(user)), user_code, error)
                    }
                }
            }
            (Step::Approve { session, ticked }, Some(user)) => {
                let approved = self.approve(&session, &ticked, user, login, now).await;
                if let Err(PageError::Scope) = approved {
                    let problem = Some("Leave something ticked, or choose Deny.");
                    let page = self.request(&session, login, user, source, now, problem);
                    return ("nothing_ticked", page.await);
                }
                self.decided(login, user, &session, "approved", approved)
                    .await
            }
            (Step::End { session }, Some(user)) => self.end(&session, user, now).await,
            (Step::Deny { session }, Some(user)) => {
                let mut deny = self.server.deny(&session, &user.subject, now);
                let denied = deny.run(self).await;
                self.decided(login, user, &session, "denied", denied).await
            }
        }
    }

    async fn approve(
        &self,
        session: &SessionKey,
        ticked: &Ticked,
        user: &User,
        login: &Login,
        now: OffsetDateTime,
    ) -> Result<Session, PageError> {
        let auth_time = login.signed_in_at().ok_or(PageError::Unavailable)?;
        let consent = self.consent(session, ticked, auth_time).await;
        let consent = consent.map_err(|Unavailable| PageError::Unavailable)?;
        let mut approve = self.server.approve(session, &user.subject, &consent, now);
        approve.run(self).await
    }

    /// Redirects to the outcome of a decision, or says why nothing was decided.
    async fn decided(
        &self,
        login: &mut Login,
        user: &User,
        session: &SessionKey,
        cause: &'static str,
        decided: Result<Session, PageError>,
    ) -> Answered {
        match decided {
            Ok(_) => {
                login.forget();
                (cause, request::redirect_to(session))
            }
            Err(error) => {
                self.undecided(Frame::new(login, Some(user)), session, error)
                    .await
            }
        }
    }
}

/// Returns the page for a user whom an application sent here to sign in.
pub(crate) fn devices_alone() -> Response {
    Page::Problem(Problem::devices_alone()).send(StatusCode::BAD_REQUEST)
}

/// Answers every path that this server does not have.
pub(crate) async fn unknown() -> Response {
    Page::Problem(Problem::unknown()).send(StatusCode::NOT_FOUND)
}

/// `GET /device/style.css`
pub(crate) async fn style() -> Response {
    fixed(
        "text/css; charset=utf-8",
        include_str!("../../templates/style.css"),
    )
}

/// `GET /device/icon.svg`
pub(crate) async fn icon() -> Response {
    fixed("image/svg+xml", include_str!("../../templates/icon.svg"))
}

fn fixed(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "public, max-age=300"),
    ];
    (headers, text).into_response()
}
