//! Who is signed in on the page: an encrypted cookie, so that every server with the same store knows.
//!
//! Rules:
//! 1. A sign-in is a new cookie with a new token for its forms: what was there before is worth nothing.
//! 2. `SameSite=Lax`: a link or a QR code opens the page signed in, no other site's form comes with the cookie.
//! 3. The cookie tells when its user signed in, and lapses here, not in the browser.
//! 4. A code that was typed, or came in a link that the policy allows, survives the sign-in in the cookie, never in a URL.

use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum_extra::extract::PrivateCookieJar;
use axum_extra::extract::cookie::{Cookie, SameSite};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::MAX_USER_CODE_ENTRY;
use device_flow::server::Subject;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::User;
use crate::{App, random};

/// Another server, whose clock is ahead by so many seconds at most, may have signed somebody in just now.
const CLOCKS_APART: i64 = 60;

/// The cookie's content.
#[derive(Serialize, Deserialize)]
pub(crate) struct Login {
    /// What forms must say.
    csrf: String,
    user: Option<SignedIn>,
    /// The code that is entered next.
    #[serde(default)]
    user_code: String,
    /// Whether the browser does not have it like this yet.
    #[serde(skip)]
    is_new: bool,
}

#[derive(Serialize, Deserialize)]
struct SignedIn {
    sub: Subject,
    /// When, in seconds.
    at: i64,
}

impl Login {
    /// Nobody's.
    pub(crate) fn anonymous() -> Self {
        Self {
            csrf: URL_SAFE_NO_PAD.encode(random::<32>()),
            user: None,
            user_code: String::new(),
            is_new: true,
        }
    }

    /// Of somebody who has just signed in, where this one was before.
    pub(crate) fn of(&self, user: &User, now: OffsetDateTime) -> Self {
        Self {
            user: Some(SignedIn {
                sub: user.subject.clone(),
                at: now.unix_timestamp(),
            }),
            user_code: self.user_code.clone(),
            ..Self::anonymous()
        }
    }

    /// The one of the cookie, and its user as they are known now.
    pub(crate) fn read<'a>(
        headers: &HeaderMap,
        app: &'a App,
        now: OffsetDateTime,
    ) -> (Self, Option<&'a User>) {
        let cookie = app.jar(headers).get(app.cookie_name());
        let read = cookie.and_then(|cookie| serde_json::from_str::<Self>(cookie.value()).ok());
        let mut login = read.unwrap_or_else(Self::anonymous);
        let lifetime = i64::try_from(app.session_lifetime.as_secs()).unwrap_or(i64::MAX);
        let is_fresh = |user: &SignedIn| {
            let age = now.unix_timestamp().saturating_sub(user.at);
            (-CLOCKS_APART..lifetime).contains(&age)
        };
        login.user = login.user.filter(is_fresh);
        let user = login.user.as_ref().and_then(|user| app.user(&user.sub));
        (login, user)
    }

    /// The code that is entered next.
    pub(crate) fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Remembers the code that is entered next.
    pub(crate) fn remember(&mut self, user_code: &str) {
        if user_code != self.user_code && user_code.len() <= MAX_USER_CODE_ENTRY {
            user_code.clone_into(&mut self.user_code);
            self.is_new = true;
        }
    }

    /// What forms of this login's pages say.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whether a form comes from a page of this login.
    pub(crate) fn vouches_for(&self, csrf: &str) -> bool {
        let (own, sent) = (self.csrf.as_bytes(), csrf.as_bytes());
        aws_lc_rs::constant_time::verify_slices_are_equal(own, sent).is_ok()
    }

    /// When the user signed in, in seconds.
    pub(crate) fn signed_in_at(&self) -> Option<i64> {
        self.user.as_ref().map(|user| user.at)
    }

    /// The response, with the cookie if the browser does not have it like this yet.
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

    fn jar(&self, headers: &HeaderMap) -> PrivateCookieJar {
        PrivateCookieJar::from_headers(headers, self.cookie_key.clone())
    }

    /// With the prefix that a browser takes from this very host over TLS alone.
    fn cookie_name(&self) -> &'static str {
        if self.is_https() {
            "__Host-device-login"
        } else {
            "device-login"
        }
    }
}
