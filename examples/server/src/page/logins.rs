//! `GET /device/logins`: the devices that are signed in to the user's account. The user can sign each of them out.
//!
//! Rules:
//! 1. A login is listed from its approval to its end. The store finds the logins of a subject.
//! 2. Signing a device out withdraws its approval (table U of the crate), so no refresh succeeds after it. The access token of the device
//!    stays valid until it expires; the page says for how long.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use device_flow::digest::SessionKey;
use device_flow::server::{PageError, Session, Status, Store as _, Unavailable};
use serde::Deserialize;
use time::OffsetDateTime;

use super::login::Login;
use super::view::{Device, Frame, Logins, Page, Problem};
use super::{Answered, busy, refusal};
use crate::config::User;
use crate::{App, now};

/// The parameters of the page.
#[derive(Default, Deserialize)]
pub(crate) struct Asked {
    /// The login that was ended just now.
    ended: Option<SessionKey>,
}

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Response {
    let Query(asked) = asked.unwrap_or_default();
    let now = now();
    let page = match Login::read(&headers, &app, now).await {
        Err(Unavailable) => Err(Unavailable),
        Ok((login, Some(user))) => app.logins(&login, user, asked.ended, now).await,
        Ok((login, None)) => {
            return login.kept_with(Redirect::to("/device").into_response(), &app);
        }
    };
    page.unwrap_or_else(|Unavailable| {
        Page::Problem(Problem::busy()).send(StatusCode::SERVICE_UNAVAILABLE)
    })
}

impl App {
    async fn logins(
        &self,
        login: &Login,
        user: &User,
        ended: Option<SessionKey>,
        now: OffsetDateTime,
    ) -> Result<Response, Unavailable> {
        let mut sessions = self.store.logins(&user.subject, now).await?;
        sessions.sort_by_key(|session| std::cmp::Reverse(session.issued_at()));
        let devices = sessions.iter().map(|session| self.device(session, now));
        let ended = match ended {
            Some(key) => self.store.load(&key).await?,
            None => None,
        };
        // The link alone does not prove that the login has ended, or that it was a login of this user.
        let ended = ended.map(|stored| stored.session).filter(|session| {
            session.status() == Status::Ended && session.claimant() == Some(&user.subject)
        });
        let ended = ended.map(|session| self.name_of(&session));
        let frame = Frame::new(login, Some(user));
        let lifetime = self.minter.access_lifetime();
        let page = Logins::new(frame, devices.collect(), ended, lifetime);
        Ok(Page::Logins(page).send(StatusCode::OK))
    }

    fn device(&self, session: &Session, now: OffsetDateTime) -> Device {
        Device::new(session, self.name_of(session), now)
    }

    fn name_of(&self, session: &Session) -> String {
        let id = session.client_id();
        let client = self.clients.get(id);
        let name = client.and_then(|client| client.name());
        name.unwrap_or(id).to_owned()
    }

    /// Ends a login.
    pub(crate) async fn end(
        &self,
        session: &SessionKey,
        user: &User,
        now: OffsetDateTime,
    ) -> Answered {
        let mut withdraw = self.server.withdraw(session, &user.subject, now);
        match withdraw.run(self).await {
            Ok(_) => {
                let list = format!("/device/logins?ended={session}");
                ("withdrawn", Redirect::to(&list).into_response())
            }
            Err(PageError::Unavailable) => busy(),
            // There is nothing to end. The list shows what there is.
            Err(error) => (
                refusal::name(error),
                Redirect::to("/device/logins").into_response(),
            ),
        }
    }
}
