//! An endpoint of the protocol: the octets of a request in, an answer out, each in its time.

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use device_flow::server::{Incoming, Reply};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::App;
use crate::answer::Answer;
use crate::metrics::Endpoint;
use crate::source::Source;

/// Reads the request and sends the answer, within one deadline. What an answer that comes too late still does, nobody is told.
pub(crate) async fn serve(
    app: &App,
    endpoint: Endpoint,
    source: Source,
    request: Request<Body>,
    answer: impl AsyncFnOnce(Incoming<'_>) -> Answer,
) -> Response {
    let deadline = Instant::now() + app.request_timeout;
    let read = timeout_at(deadline, read(request, app.policy.max_body())).await;
    let answer = match read {
        Ok(Some(request)) => {
            let answer = timeout_at(deadline, answer(Incoming::from(&request))).await;
            answer.unwrap_or_else(|_| Answer::of(endpoint, Reply::store_failed()))
        }
        Ok(None) => {
            let invalid = ("invalid_request", "the body breaks off");
            Answer::refused(endpoint, "body_broken", StatusCode::BAD_REQUEST, invalid)
        }
        Err(_) => {
            let invalid = ("invalid_request", "the body did not come in time");
            Answer::refused(
                endpoint,
                "body_too_slow",
                StatusCode::REQUEST_TIMEOUT,
                invalid,
            )
        }
    };
    answer.send(app, source)
}

/// Collects a body up to one octet more than `limit`, and no more: the core says that it is too large. None where the peer breaks
/// off.
async fn read(request: Request<Body>, limit: usize) -> Option<Request<Vec<u8>>> {
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
