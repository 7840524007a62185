//! The body of a request, up to a limit.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt as _;

/// Collects a body up to one octet more than `limit`, and no more: the core says that it is too large.
///
/// # Errors
///
/// The response where it does not come in time, or breaks HTTP.
pub(crate) async fn read(
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
