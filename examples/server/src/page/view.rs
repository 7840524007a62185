//! The pages as HTML. The templates escape everything, so text from a peer or a device is never markup.

use askama::Template;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use device_flow::server::{Client, RateLimited, Session, Status};
use time::{Duration, OffsetDateTime};

use super::consent::BOX;
use super::login::Login;
use crate::config::User;
use crate::source::Source;
use crate::{App, RETRY_AFTER};

/// The parts that every page has.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// The token that its forms must send.
    csrf: &'a str,
    /// Who is signed in.
    email: Option<&'a str>,
}

impl<'a> Frame<'a> {
    /// The parts of a page that is the same for all.
    const NOBODY: Self = Self {
        csrf: "",
        email: None,
    };

    pub(crate) fn new(login: &'a Login, user: Option<&'a User>) -> Self {
        Self {
            csrf: login.csrf(),
            email: user.map(|user| user.entry.email.as_str()),
        }
    }
}

/// A page.
pub(crate) enum Page<'a> {
    SignIn(SignIn<'a>),
    Enter(Enter<'a>),
    Review(Box<ReviewPage<'a>>),
    Outcome(Outcome<'a>),
    Logins(Logins<'a>),
    Problem(Problem<'a>),
}

impl Page<'_> {
    /// Returns the page as a 429, with the time after which to try again.
    pub(crate) fn send_too_many(self, limited: RateLimited) -> Response {
        let mut response = self.send(StatusCode::TOO_MANY_REQUESTS);
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, limited.seconds().into());
        response
    }

    /// Returns the page with this status. A 503 also says when to try again.
    pub(crate) fn send(self, status: StatusCode) -> Response {
        let html = match &self {
            Self::SignIn(page) => page.render(),
            Self::Enter(page) => page.render(),
            Self::Review(page) => page.render(),
            Self::Outcome(page) => page.render(),
            Self::Logins(page) => page.render(),
            Self::Problem(page) => page.render(),
        };
        let mut response = match html {
            Ok(html) => (status, Html(html)).into_response(),
            Err(error) => {
                tracing::error!(%error, "a page cannot be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        };
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, RETRY_AFTER.into());
        }
        response
    }
}

#[derive(Template)]
#[template(path = "sign_in.html")]
pub(crate) struct SignIn<'a> {
    frame: Frame<'a>,
    email: String,
    problem: Option<String>,
}

impl<'a> SignIn<'a> {
    pub(crate) fn new(frame: Frame<'a>) -> Self {
        Self {
            frame,
            email: String::new(),
            problem: None,
        }
    }

    /// Returns the form for a user whose sign-in has expired.
    pub(crate) fn again(frame: Frame<'a>) -> Self {
        let problem = "You were signed out after a while. Sign in again.";
        Self::new(frame).refused(String::new(), problem.to_owned())
    }

    pub(crate) fn refused(self, email: String, problem: String) -> Self {
        Self {
            email,
            problem: Some(problem),
            ..self
        }
    }
}

#[derive(Template)]
#[template(path = "enter.html")]
pub(crate) struct Enter<'a> {
    frame: Frame<'a>,
    user_code: String,
    problem: Option<String>,
}

impl<'a> Enter<'a> {
    pub(crate) fn new(frame: Frame<'a>, user_code: String) -> Self {
        Self {
            frame,
            user_code,
            problem: None,
        }
    }

    pub(crate) fn refused(self, problem: String) -> Self {
        Self {
            problem: Some(problem),
            ..self
        }
    }
}

#[derive(Template)]
#[template(path = "review.html")]
pub(crate) struct ReviewPage<'a> {
    frame: Frame<'a>,
    session: String,
    code: String,
    client: String,
    is_public: bool,
    age: String,
    left: String,
    origin: String,
    /// Whether the request came from another network than the user's.
    is_elsewhere: bool,
    scopes: Vec<Asked>,
    problem: Option<&'static str>,
}

/// A requested scope token.
struct Asked {
    /// The name of its box.
    name: String,
    /// Whether the user cannot untick it.
    is_required: bool,
    /// Its meaning, or the token itself if the configuration gives no meaning.
    text: String,
    /// Whether `text` is the token itself.
    is_token: bool,
}

impl<'a> ReviewPage<'a> {
    /// Returns the page on which the user decides.
    pub(crate) fn new(
        frame: Frame<'a>,
        session: &Session,
        client: &Client,
        code: &str,
        app: &App,
        source: Source,
        now: OffsetDateTime,
    ) -> Self {
        let origin = session.shown_source();
        let scopes = session.scope().tokens();
        Self {
            frame,
            session: session.key().to_string(),
            code: code.to_owned(),
            client: client.name().unwrap_or(client.id()).to_owned(),
            is_public: client.is_public(),
            age: ago(now - session.issued_at()),
            left: spoken(session.expires_at() - now),
            origin: origin.unwrap_or("an unknown address").to_owned(),
            is_elsewhere: origin.is_some_and(|origin| source.is_far_from(origin)),
            scopes: scopes
                .map(|token| app.asked(session.client_id(), token))
                .collect(),
            problem: None,
        }
    }

    /// Returns the page with this problem, after a form that could not be accepted.
    pub(crate) fn refused(self, problem: Option<&'static str>) -> Self {
        Self { problem, ..self }
    }
}

impl App {
    fn asked(&self, client_id: &str, token: &str) -> Asked {
        let meaning = match token {
            "openid" => Some("Know who you are"),
            "profile" => Some("Read your name"),
            "email" => Some("Read your e-mail address"),
            "offline_access" => Some("Stay signed in until you sign the device out"),
            _ => self.scopes.get(token).map(String::as_str),
        };
        Asked {
            name: format!("{BOX}{token}"),
            is_required: self.is_required(client_id, token),
            text: meaning.unwrap_or(token).to_owned(),
            is_token: meaning.is_none(),
        }
    }
}

/// The outcome of a decision, or the reason why nothing was decided.
#[derive(Template)]
#[template(path = "outcome.html")]
pub(crate) struct Outcome<'a> {
    frame: Frame<'a>,
    kind: &'static str,
    title: &'static str,
    text: &'static str,
    /// Whether to offer to enter another code.
    goes_on: bool,
}

impl<'a> Outcome<'a> {
    pub(crate) fn approved(frame: Frame<'a>) -> Self {
        Self {
            frame,
            kind: "good",
            title: "Access allowed",
            text: "Your device can sign in now. You can close this page and go back to it.",
            goes_on: false,
        }
    }

    pub(crate) fn denied(frame: Frame<'a>) -> Self {
        Self {
            frame,
            kind: "quiet",
            title: "Access denied",
            text: "The device gets no access to your account. There is nothing more to do.",
            goes_on: false,
        }
    }

    pub(crate) fn expired(frame: Frame<'a>) -> Self {
        let text = "It has expired, or the request was answered before. Start again on your device: it shows you a new code.";
        Self::bad(frame, "The code can no longer be used", text)
    }

    pub(crate) fn client_gone(frame: Frame<'a>) -> Self {
        let text = "Nothing was allowed: this application can no longer sign in here.";
        Self::bad(frame, "The application is gone", text)
    }

    pub(crate) fn not_yours(frame: Frame<'a>) -> Self {
        let text = "Nothing was allowed. Enter the code that your device shows.";
        Self::bad(frame, "Enter the code first", text)
    }

    /// Returns the page for a request that was decided before in another way.
    pub(crate) fn stands(frame: Frame<'a>, status: Status) -> Self {
        let text = match status {
            Status::Denied => {
                "You denied this request before, and that is final. To sign the device in, start again there."
            }
            Status::Approved => {
                "You allowed this request before, and the device is about to be signed in."
            }
            Status::Active => "You allowed this request before, and the device is signed in.",
            Status::Ended => {
                "You allowed this request before, and the login has ended. To sign the device in, start again there."
            }
            Status::Pending | Status::Claimed => {
                "Your decision could not be accepted. Enter the code again."
            }
        };
        Self::bad(frame, "Already answered", text)
    }

    pub(crate) fn busy(frame: Frame<'a>) -> Self {
        let text = "Your answer may not have been kept. Enter the code again in a moment.";
        Self::bad(frame, "The server is busy", text)
    }

    const fn bad(frame: Frame<'a>, title: &'static str, text: &'static str) -> Self {
        Self {
            frame,
            kind: "bad",
            title,
            text,
            goes_on: true,
        }
    }
}

/// The devices that are signed in.
#[derive(Template)]
#[template(path = "logins.html")]
pub(crate) struct Logins<'a> {
    frame: Frame<'a>,
    devices: Vec<Device>,
    /// The name of the client whose login was ended just now.
    ended: Option<String>,
    /// For how long its access token is still valid.
    lifetime: String,
}

impl<'a> Logins<'a> {
    pub(crate) fn new(
        frame: Frame<'a>,
        devices: Vec<Device>,
        ended: Option<String>,
        lifetime: std::time::Duration,
    ) -> Self {
        let lifetime = spoken(Duration::try_from(lifetime).unwrap_or(Duration::MAX));
        Self {
            frame,
            devices,
            ended,
            lifetime,
        }
    }
}

/// A device that is signed in.
pub(crate) struct Device {
    session: String,
    client: String,
    since: String,
    origin: String,
    refreshed: String,
    /// Whether it was approved but has not got its tokens yet.
    is_waiting: bool,
}

impl Device {
    pub(crate) fn new(session: &Session, client: String, now: OffsetDateTime) -> Self {
        let origin = session.shown_source().unwrap_or("an unknown address");
        let redeemed = session.redeemed_at();
        // The first refresh token does not come from a refresh.
        let refreshed = session.refreshed_at().filter(|at| Some(*at) != redeemed);
        Self {
            session: session.key().to_string(),
            client,
            since: ago(now - redeemed.unwrap_or(session.issued_at())),
            origin: origin.to_owned(),
            refreshed: refreshed.map_or("Not yet".to_owned(), |at| ago(now - at)),
            is_waiting: redeemed.is_none(),
        }
    }
}

/// The page for something that could not be done or shown.
#[derive(Template)]
#[template(path = "problem.html")]
pub(crate) struct Problem<'a> {
    frame: Frame<'a>,
    title: &'static str,
    text: &'static str,
}

impl<'a> Problem<'a> {
    pub(crate) fn form(frame: Frame<'a>) -> Self {
        Self::new(frame, "The form could not be read. Nothing was changed.")
    }

    pub(crate) fn slow(frame: Frame<'a>) -> Self {
        let text = "The form did not arrive in time. Nothing was changed.";
        Self::new(frame, text)
    }

    pub(crate) fn forged(frame: Frame<'a>) -> Self {
        let text = "The form was too old or did not come from this page, or your browser keeps no cookies. Nothing was \
            changed.";
        Self::new(frame, text)
    }

    pub(crate) fn busy() -> Self {
        let text = "The server is busy, and nothing was changed. Try again in a moment.";
        Self::new(Frame::NOBODY, text)
    }

    pub(crate) fn devices_alone() -> Self {
        let text = "Applications cannot send you here to sign in (unsupported_response_type). If a device shows you a code, go on \
            below.";
        Self {
            title: "This server signs devices in",
            ..Self::new(Frame::NOBODY, text)
        }
    }

    pub(crate) fn unknown() -> Self {
        Self {
            title: "No such page",
            ..Self::new(Frame::NOBODY, "The address is wrong, or the page is gone.")
        }
    }

    const fn new(frame: Frame<'a>, text: &'static str) -> Self {
        let title = "That did not work";
        Self { frame, title, text }
    }
}

/// Returns the time to wait, in words.
pub(crate) fn later(limited: RateLimited) -> String {
    spoken(Duration::seconds(limited.seconds().into()))
}

fn ago(time: Duration) -> String {
    if time < Duration::seconds(5) {
        return "Just now".to_owned();
    }
    format!("{} ago", spoken(time))
}

fn spoken(time: Duration) -> String {
    let (number, unit) = match time.whole_seconds().max(0) {
        seconds @ 0..=90 => (seconds, "second"),
        seconds @ 91..=5400 => (seconds.saturating_add(30) / 60, "minute"),
        seconds @ 5401..=129_600 => (seconds.saturating_add(1800) / 3600, "hour"),
        seconds => (seconds.saturating_add(43_200) / 86_400, "day"),
    };
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{s}")
}
