//! The answer of an endpoint: a response, and its cause. The cause is logged and counted, but not sent.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use device_flow::digest::SessionKey;
use device_flow::server::{Cause, Reply};
use serde::Serialize;
use serde_json::json;

use crate::App;
use crate::metrics::Endpoint;
use crate::source::Source;

/// The causes that show that another party has a code or a token of a device. An operator should look at them.
const ALARMS: [(Cause, &str); 3] = [
    (
        Cause::Replay,
        "a redeemed code came back: its login has been ended",
    ),
    (
        Cause::Reuse,
        "a replaced refresh token came back: its login has been ended",
    ),
    (
        Cause::ForeignClient,
        "a client presented the code or the token of another",
    ),
];

/// An answer to send.
pub(crate) struct Answer {
    endpoint: Endpoint,
    cause: &'static str,
    response: Response,
}

impl Answer {
    /// Returns the answer that the crate decided. `login` is the session that the request was about. An alarm names it.
    pub(crate) fn of(
        endpoint: Endpoint,
        reply: Reply,
        login: Option<SessionKey>,
        source: Source,
    ) -> Self {
        let mut alarms = ALARMS.iter().filter(|(cause, _)| *cause == reply.cause());
        if let Some((_, alarm)) = alarms.next() {
            let login = login.map(tracing::field::display);
            tracing::warn!(%source, login, "{alarm}");
        }
        Self {
            endpoint,
            cause: reply.cause().as_str(),
            response: Response::from(reply),
        }
    }

    /// Returns an answer that this server decided itself: JSON that caches must not store.
    pub(crate) fn json(
        endpoint: Endpoint,
        cause: &'static str,
        status: StatusCode,
        body: &impl Serialize,
    ) -> Self {
        let mut response = serde_json::to_vec(body).unwrap_or_default().into_response();
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        Self {
            endpoint,
            cause,
            response,
        }
    }

    /// Returns a refusal that this server decided itself: an error code and a description (RFC 6749, section 5.2).
    pub(crate) fn refused(
        endpoint: Endpoint,
        cause: &'static str,
        status: StatusCode,
        (error, description): (&str, &str),
    ) -> Self {
        let body = json!({ "error": error, "error_description": description });
        Self::json(endpoint, cause, status, &body)
    }

    /// Returns an answer that is a page.
    pub(crate) const fn page(endpoint: Endpoint, cause: &'static str, response: Response) -> Self {
        Self {
            endpoint,
            cause,
            response,
        }
    }

    /// Adds a header.
    pub(crate) fn header(
        mut self,
        name: header::HeaderName,
        value: impl Into<HeaderValue>,
    ) -> Self {
        self.response.headers_mut().insert(name, value.into());
        self
    }

    /// Counts and logs the answer, and returns its response.
    pub(crate) fn send(self, app: &App, source: Source) -> Response {
        app.metrics.count(self.endpoint, self.cause);
        let status = self.response.status().as_u16();
        let endpoint = self.endpoint.as_str();
        tracing::info!(endpoint, cause = self.cause, status, %source, "answered");
        self.response
    }
}
