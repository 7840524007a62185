//! `/oauth2/authorize`: an authorization endpoint. `OpenID` Connect Discovery requires one, but this server does not need it.
//!
//! Rule: it refuses every request of a user or a client, and never redirects. No client has registered a redirection URI, and "the
//! authorization server [...] MUST NOT automatically redirect the user-agent to the invalid redirection URI" (RFC 6749, section 4.1.2.1).

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use crate::App;
use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::page;
use crate::source::Source;

const REFUSAL: (&str, &str) = (
    "unsupported_response_type",
    "this server signs devices in: ask at the device_authorization_endpoint (RFC 8628)",
);

pub(crate) async fn handle(
    State(app): State<Arc<App>>,
    source: Source,
    headers: HeaderMap,
) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    let (endpoint, cause) = (Endpoint::Authorization, "response_type_unsupported");
    let answer = if accepted.any(|types| types.contains("text/html")) {
        Answer::page(endpoint, cause, page::devices_alone())
    } else {
        Answer::refused(endpoint, cause, StatusCode::BAD_REQUEST, REFUSAL)
    };
    answer.send(&app, source)
}
