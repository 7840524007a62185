//! The verification page: sign-in, code entry, review, and the decision (RFC 8628, section 3.3).
//!
//! Rules:
//! 1. A GET shows, a POST does. A code in a link only fills in the form, and only where the policy gives such links out. Codes are
//!    looked up on a POST of somebody signed in.
//! 2. A POST counts only with the token of the form's own page, from that page.
//! 3. A wrong, expired or used code is one sentence. The claimant of a request is told what became of it.
//! 4. It works without a script, and nothing on it may run one.

mod guard;
mod login;
mod refusal;
mod sign_in;
mod view;

use std::sync::Arc;

use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use device_flow::digest::SessionKey;
use device_flow::server::{PageError, Session, Unavailable};
use serde::Deserialize;
use time::OffsetDateTime;

pub(crate) use guard::guard;
pub(crate) use sign_in::SignInLimits;

use crate::config::User;
use crate::host::Approved;
use crate::metrics::Endpoint;
use crate::source::Source;
use crate::{App, now};
use login::Login;
use view::{Enter, Frame, Outcome, Page, Problem, SignIn};

/// What stands in the link of a device.
#[derive(Default, Deserialize)]
pub(crate) struct Link {
    #[serde(default)]
    user_code: String,
}

/// What a form of the page sends.
#[derive(Deserialize)]
pub(crate) struct Posted {
    csrf: String,
    #[serde(flatten)]
    step: Step,
}

/// What somebody wants to do.
#[derive(Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Step {
    SignIn {
        email: String,
        password: String,
    },
    Enter {
        user_code: String,
    },
    Approve {
        session: SessionKey,
        #[serde(default)]
        user_code: String,
    },
    Deny {
        session: SessionKey,
        #[serde(default)]
        user_code: String,
    },
    SignOut {
        session: Option<SessionKey>,
    },
}

/// `GET /device`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    link: Result<Query<Link>, QueryRejection>,
) -> Response {
    let (mut login, user) = Login::read(&headers, &app, now());
    if app.server.policy().has_verification_uri_complete()
        && let Ok(Query(Link { user_code })) = link
        && !user_code.is_empty()
    {
        login.remember(&user_code);
    }
    let frame = Frame::new(&login, user);
    let page = match user {
        Some(_) => Page::Enter(Enter::new(frame, login.user_code().to_owned())),
        None => Page::SignIn(SignIn::new(frame)),
    };
    let response = page.send(StatusCode::OK);
    login.kept_with(response, &app)
}

/// `POST /device`
pub(crate) async fn submit(
    State(app): State<Arc<App>>,
    source: Source,
    headers: HeaderMap,
    form: Result<Form<Posted>, FormRejection>,
) -> Response {
    let now = now();
    let (mut login, user) = Login::read(&headers, &app, now);
    let frame = Frame::new(&login, user);
    let (cause, response) = match form {
        Err(rejection) => {
            let page = Page::Problem(Problem::form(frame));
            ("form", page.send(rejection.status()))
        }
        Ok(Form(posted)) if !guard::is_own(&headers) || !login.vouches_for(&posted.csrf) => {
            let page = Page::Problem(Problem::forged(frame));
            ("forged", page.send(StatusCode::FORBIDDEN))
        }
        Ok(Form(posted)) => match (posted.step, user) {
            (Step::SignIn { email, password }, _) => {
                match app.sign_in(&email, password, source, now).await {
                    Ok(user) => {
                        login = login.of(user, now);
                        ("signed_in", Redirect::to("/device").into_response())
                    }
                    Err(refused) => refused.page(frame, email),
                }
            }
            (Step::SignOut { session }, user) => {
                if let (Some(session), Some(user)) = (session, user) {
                    // If that fails, the session stays claimed, and expires.
                    let release = app.server.release(&session, &user.subject, now);
                    let _ = release.run(&*app).await;
                }
                login = Login::anonymous();
                ("signed_out", Redirect::to("/device").into_response())
            }
            // The sign-in has lapsed meanwhile.
            (
                Step::Enter { user_code }
                | Step::Approve { user_code, .. }
                | Step::Deny { user_code, .. },
                None,
            ) => {
                login.remember(&user_code);
                let page = Page::SignIn(SignIn::again(Frame::new(&login, None)));
                ("signed_in_no_more", page.send(StatusCode::FORBIDDEN))
            }
            (Step::Enter { user_code }, Some(user)) => {
                // Guesses are counted by user alone: many people may come from one address.
                let enter = app.server.enter(&user_code, &user.subject, "", now);
                match enter.run(&*app).await {
                    Ok(review) => {
                        let page = view::review(frame, &review, &app, source);
                        let response = page.send(StatusCode::OK);
                        login.remember("");
                        ("entered", response)
                    }
                    Err(error) => refusal::of_entry(frame, user_code, error),
                }
            }
            (Step::Approve { session, .. }, Some(user)) => {
                let approved = app.approve(&session, user, &login, now).await;
                let page = ("approved", Outcome::approved(frame));
                app.decided(frame, &session, page, approved).await
            }
            (Step::Deny { session, .. }, Some(user)) => {
                let deny = app.server.deny(&session, &user.subject, now);
                let page = ("denied", Outcome::denied(frame));
                app.decided(frame, &session, page, deny.run(&*app).await)
                    .await
            }
        },
    };
    app.metrics.count(Endpoint::Page, cause);
    let status = response.status().as_u16();
    tracing::info!(endpoint = "page", cause, status, %source, "answered");
    login.kept_with(response, &app)
}

impl App {
    async fn approve(
        &self,
        session: &SessionKey,
        user: &User,
        login: &Login,
        now: OffsetDateTime,
    ) -> Result<Session, PageError> {
        let auth_time = login.signed_in_at().ok_or(PageError::Unavailable)?;
        let consent = Approved { auth_time }.consent();
        let consent = consent.map_err(|Unavailable| PageError::Unavailable)?;
        let approve = self.server.approve(session, &user.subject, &consent, now);
        approve.run(self).await
    }

    /// The page of a decision that was taken, or why it was not.
    async fn decided(
        &self,
        frame: Frame<'_>,
        session: &SessionKey,
        (cause, page): (&'static str, Outcome<'_>),
        decided: Result<Session, PageError>,
    ) -> (&'static str, Response) {
        match decided {
            Ok(_) => (cause, Page::Outcome(page).send(StatusCode::OK)),
            Err(error) => self.undecided(frame, session, error).await,
        }
    }
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
