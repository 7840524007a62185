//! An endpoint of the protocol: the octets of a request in, an answer out, each in its time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use device_flow::server::{Incoming, Reply};
use http_body_util::BodyExt as _;

use crate::App;
use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::source::Source;

/// Reads the request and sends the answer. One that takes too long is 503: whatever it does then, nobody is told of it.
pub(crate) async fn serve(
    app: &App,
    endpoint: Endpoint,
    source: Source,
    request: Request<Body>,
    answer: impl AsyncFnOnce(Incoming<'_>) -> Answer,
) -> Response {
    let request = read(request, app.policy.max_body(), app.request_timeout).await;
    let request = match request {
        Ok(request) => request,
        Err(status) => return status.into_response(),
    };
    let answer = answer(Incoming::from(&request));
    let answer = tokio::time::timeout(app.request_timeout, answer).await;
    let answer = answer.unwrap_or_else(|_| Answer::of(endpoint, Reply::store_failed()));
    answer.send(app, source)
}

/// Collects a body up to one octet more than `limit`, and no more: the core says that it is too large.
///
/// # Errors
///
/// The response where it does not come in time, or breaks HTTP.
async fn read(
    request: Request<Body>,
    limit: usize,
    patience: Duration,
) -> Result<Request<Vec<u8>>, StatusCode> {
    let reading = tokio::time::timeout(patience, collect(request, limit));
    let read = reading.await.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
    read.ok_or(StatusCode::BAD_REQUEST)
}

/// None where the peer breaks off.
async fn collect(request: Request<Body>, limit: usize) -> Option<Request<Vec<u8>>> {
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
    Some(Request::from_parts(parts, read))
}
