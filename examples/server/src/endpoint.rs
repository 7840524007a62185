//! The endpoints of the protocol. Each reads a request and sends an answer within a time limit.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{self, HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use device_flow::digest::SessionKey;
use device_flow::server::{Cause, Exchange, Reply, Request};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::source::Source;
use crate::{App, now};

/// `POST /oauth2/device_authorization`: a device requests codes (RFC 8628, section 3.1).
pub(crate) async fn device_authorization(
    State(app): State<Arc<App>>,
    source: Source,
    request: http::Request<Body>,
) -> Response {
    let (key, shown) = (source.key(), source.to_string());
    let reply = async |request: Request<'_>| {
        let exchange = app
            .server
            .device_authorization(request, &key, Some(&shown), now());
        run(&app, exchange).await
    };
    serve(&app, Endpoint::DeviceAuthorization, source, request, reply).await
}

/// `POST /oauth2/token`: a device polls (RFC 8628, section 3.4), or refreshes its tokens (RFC 6749, section 6).
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    source: Source,
    request: http::Request<Body>,
) -> Response {
    let key = source.key();
    let reply =
        async |request: Request<'_>| run(&app, app.server.token(request, &key, now())).await;
    serve(&app, Endpoint::Token, source, request, reply).await
}

/// `POST /oauth2/revoke`: a device revokes its tokens (RFC 7009).
pub(crate) async fn revocation(
    State(app): State<Arc<App>>,
    source: Source,
    request: http::Request<Body>,
) -> Response {
    let key = source.key();
    let reply =
        async |request: Request<'_>| run(&app, app.server.revocation(request, &key, now())).await;
    serve(&app, Endpoint::Revocation, source, request, reply).await
}

/// Runs an exchange. Returns the reply, and the session that the request was about.
async fn run(app: &App, mut exchange: Exchange<'_, Reply>) -> (Reply, Option<SessionKey>) {
    let reply = exchange.run(app).await;
    (reply, exchange.session_key().copied())
}

/// Reads the request and sends the answer, within one deadline. If the exchange takes longer, the client gets a 503 and does not learn how
/// it ends.
async fn serve(
    app: &App,
    endpoint: Endpoint,
    source: Source,
    request: http::Request<Body>,
    reply: impl AsyncFnOnce(Request<'_>) -> (Reply, Option<SessionKey>),
) -> Response {
    let deadline = Instant::now() + app.request_timeout;
    let body = timeout_at(
        deadline,
        read(request, app.server.policy().options().max_body),
    )
    .await;
    let refused = |cause, status, error| Answer::refused(endpoint, cause, status, error);
    let answer = match body {
        Ok(Some(request)) => {
            let reply = timeout_at(deadline, reply(Request::from(&request))).await;
            let late = |_| {
                let later = ("temporarily_unavailable", "try again later");
                refused("timed_out", StatusCode::SERVICE_UNAVAILABLE, later)
                    .header(header::RETRY_AFTER, crate::RETRY_AFTER)
            };
            match (reply, described(request.headers(), request.uri())) {
                (Err(elapsed), _) => late(elapsed),
                (Ok((reply, _)), Some(what)) if reply.cause() == Cause::MediaType => {
                    let cause = reply.cause().as_str();
                    refused(cause, StatusCode::BAD_REQUEST, ("invalid_request", what))
                }
                (Ok((reply, login)), _) => Answer::of(endpoint, reply, login, source),
            }
        }
        Ok(None) => {
            let invalid = ("invalid_request", "the body breaks off");
            refused("body_broken", StatusCode::BAD_REQUEST, invalid)
        }
        Err(_) => {
            let invalid = ("invalid_request", "the body did not come in time");
            refused("body_too_slow", StatusCode::REQUEST_TIMEOUT, invalid)
        }
    };
    answer.send(app, source)
}

/// Returns the error description for a body that is not a form: what the body is, and what to send instead.
fn described(headers: &HeaderMap, uri: &Uri) -> Option<&'static str> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let media_type = match (types.next(), types.next()) {
        (None, _) if uri.query().is_some() => {
            return Some(
                "the parameters are in the URL; send them in the body, as application/x-www-form-urlencoded",
            );
        }
        (None, _) => {
            return Some(
                "the body has no Content-Type; send the parameters as application/x-www-form-urlencoded",
            );
        }
        (Some(media_type), None) => media_type.to_str().ok()?.to_ascii_lowercase(),
        (Some(_), Some(_)) => return None,
    };
    let kinds = [
        (
            "json",
            "the body is JSON; send the parameters as application/x-www-form-urlencoded",
        ),
        (
            "multipart/",
            "the body is multipart; send the parameters as application/x-www-form-urlencoded",
        ),
        (
            "text/plain",
            "the body is plain text; send the parameters as application/x-www-form-urlencoded",
        ),
    ];
    let mut kinds = kinds.iter();
    let kind = kinds.find(|(kind, _)| media_type.contains(kind))?;
    Some(kind.1)
}

/// Collects at most one octet more than `limit` of a body, so that the crate sees that it is too large. Returns `None` if the body breaks
/// off.
async fn read(request: http::Request<Body>, limit: usize) -> Option<http::Request<Vec<u8>>> {
    let (parts, mut body) = request.into_parts();
    let most = limit.saturating_add(1);
    let mut read = Vec::new();
    while read.len() < most {
        let Some(frame) = body.frame().await else {
            break;
        };
        if let Ok(data) = frame.ok()?.into_data() {
            let room = most.saturating_sub(read.len()).min(data.len());
            read.extend_from_slice(&Bytes::slice(&data, ..room));
        }
    }
    Some(http::Request::from_parts(parts, read))
}
