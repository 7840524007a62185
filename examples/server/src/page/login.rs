//! Who is signed in to the page. An encrypted cookie holds it, so every server with the same store knows it.
//!
//! Rules:
//! 1. A sign-in makes a new cookie with a new token for its forms, so a cookie that was planted before does not become signed in.
//! 2. `SameSite=Lax`: a link or a QR code opens the page signed in, but a form of another site does not send the cookie.
//! 3. The cookie holds when its user signed in, and the server checks whether the sign-in has expired. A sign-out is noted in the store, so
//!    that a copy of the cookie becomes useless, too.
//! 4. The code that the user typed, or that was in the link, is kept in the cookie during the sign-in and the review, never in a URL.

use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum_extra::extract::PrivateCookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::MAX_USER_CODE_ENTRY;
use device_flow::digest::SessionKey;
use device_flow::server::{Subject, Unavailable};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::User;
use crate::{App, random};

/// By how many seconds the clock of another server may be ahead. Otherwise a user whom that server signed in just now would count as signed
/// in in the future, and would be refused.
const CLOCKS_APART: i64 = 60;

/// The cookie's content.
#[derive(Serialize, Deserialize)]
pub(crate) struct Login {
    /// The token that forms must send.
    csrf: String,
    user: Option<SignedIn>,
    /// The code that the form is filled in with, or that the user compares.
    #[serde(default)]
    user_code: String,
    /// The session of that code, once the code was entered.
    #[serde(default)]
    session: Option<SessionKey>,
    /// Whether the browser does not yet have the cookie with this content.
    #[serde(skip)]
    is_new: bool,
}

#[derive(Serialize, Deserialize)]
struct SignedIn {
    /// The id of this sign-in.
    id: String,
    sub: Subject,
    /// When the user signed in, in seconds since the Unix epoch.
    at: i64,
}

impl Login {
    /// Returns the login of nobody.
    pub(crate) fn anonymous() -> Self {
        Self {
            csrf: URL_SAFE_NO_PAD.encode(random::<32>()),
            user: None,
            user_code: String::new(),
            session: None,
            is_new: true,
        }
    }

    /// Returns the login of a user who has just signed in. `self` is the login before that.
    pub(crate) fn of(&self, user: &User, now: OffsetDateTime) -> Self {
        Self {
            user: Some(SignedIn {
                id: URL_SAFE_NO_PAD.encode(random::<16>()),
                sub: user.subject.clone(),
                at: now.unix_timestamp(),
            }),
            user_code: self.user_code.clone(),
            ..Self::anonymous()
        }
    }

    /// Returns the login that the cookie holds, and its user as the configuration has them now.
    pub(crate) async fn read<'a>(
        headers: &HeaderMap,
        app: &'a App,
        now: OffsetDateTime,
    ) -> Result<(Self, Option<&'a User>), Unavailable> {
        let cookie = app.jar(headers).get(app.cookie_name());
        let read = cookie.and_then(|cookie| serde_json::from_str::<Self>(cookie.value()).ok());
        let mut login = read.unwrap_or_else(Self::anonymous);
        login.user = login
            .user
            .filter(|user| user.at <= now.unix_timestamp().saturating_add(CLOCKS_APART))
            .filter(|user| now < app.end_of(user));
        if let Some(user) = &login.user
            && app.store.is_signed_out(&user.id).await?
        {
            login.user = None;
        }
        let user = login.user.as_ref().and_then(|user| app.user(&user.sub));
        Ok((login, user))
    }

    /// Returns the code to fill in the form with.
    pub(crate) fn typed(&self) -> &str {
        match self.session {
            Some(_) => "",
            None => &self.user_code,
        }
    }

    /// Remembers a code that was not entered yet.
    pub(crate) fn remember(&mut self, user_code: &str) {
        if user_code.len() <= MAX_USER_CODE_ENTRY {
            self.keep(user_code, None);
        }
    }

    /// Remembers the code that was entered, because the user compares it on the next page.
    pub(crate) fn entered(&mut self, user_code: &str, session: &SessionKey) {
        self.keep(user_code, Some(*session));
    }

    /// Lets the user enter the same code again.
    pub(crate) fn enter_again(&mut self) {
        self.keep(&self.user_code.clone(), None);
    }

    /// Forgets the code.
    pub(crate) fn forget(&mut self) {
        self.keep("", None);
    }

    fn keep(&mut self, user_code: &str, session: Option<SessionKey>) {
        if self.user_code != user_code || self.session != session {
            user_code.clone_into(&mut self.user_code);
            self.session = session;
            self.is_new = true;
        }
    }

    /// Returns the code of a session, if it is the last one that was entered in this browser.
    pub(crate) fn code_of(&self, session: &SessionKey) -> Option<&str> {
        (self.session.as_ref() == Some(session)).then_some(&self.user_code)
    }

    /// Returns the token that forms of this login must send.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Returns whether a form comes from a page of this login.
    pub(crate) fn vouches_for(&self, csrf: &str) -> bool {
        let (own, sent) = (self.csrf.as_bytes(), csrf.as_bytes());
        aws_lc_rs::constant_time::verify_slices_are_equal(own, sent).is_ok()
    }

    /// Returns when the user signed in, in seconds since the Unix epoch.
    pub(crate) fn signed_in_at(&self) -> Option<i64> {
        self.user.as_ref().map(|user| user.at)
    }

    /// Ends the login on all servers, and for every copy of the cookie.
    pub(crate) async fn sign_out(&mut self, app: &App) -> Result<(), Unavailable> {
        if let Some(user) = &self.user {
            app.store.sign_out(&user.id, app.end_of(user)).await?;
        }
        *self = Self::anonymous();
        Ok(())
    }

    /// Returns the response, with the cookie unless the browser already has it with this content.
    pub(crate) fn kept_with(&self, response: Response, app: &App) -> Response {
        if self.is_new {
            return (self.cookie(app), response).into_response();
        }
        response
    }

    fn cookie(&self, app: &App) -> PrivateCookieJar {
        let value = serde_json::to_string(self).unwrap_or_default();
        let mut cookie = Cookie::new(app.cookie_name(), value);
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_same_site(SameSite::Lax);
        cookie.set_secure(app.is_https());
        app.jar(&HeaderMap::new()).add(cookie)
    }
}

impl App {
    pub(crate) fn is_https(&self) -> bool {
        self.issuer.starts_with("https://")
    }

    /// Returns when a sign-in expires.
    fn end_of(&self, user: &SignedIn) -> OffsetDateTime {
        let at = OffsetDateTime::from_unix_timestamp(user.at);
        let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        at.saturating_add(time::Duration::seconds(self.session_lifetime))
    }

    fn jar(&self, headers: &HeaderMap) -> PrivateCookieJar {
        PrivateCookieJar::from_headers(headers, self.cookie_key.clone())
    }

    /// Returns the name of the cookie. With https it has a prefix: then a browser accepts the cookie only from this host and only over TLS.
    fn cookie_name(&self) -> &'static str {
        if self.is_https() {
            "__Host-device-login"
        } else {
            "device-login"
        }
    }
}
