//! The body of a request, up to a limit.

use axum::body::{Body, Bytes};
use axum::http::Request;
use http_body_util::BodyExt as _;

/// The peer went away, or broke HTTP.
#[derive(Debug)]
pub(crate) struct Broken;

/// Collects a body up to one octet more than `limit`, and no more: the core says that it is too large.
pub(crate) async fn read(request: Request<Body>, limit: usize) -> Result<Request<Vec<u8>>, Broken> {
    let (parts, mut body) = request.into_parts();
    let most = limit.saturating_add(1);
    let mut read = Vec::new();
    while read.len() < most {
        let Some(frame) = body.frame().await else {
            break;
        };
        if let Ok(data) = frame.map_err(|_| Broken)?.into_data() {
            let room = most.saturating_sub(read.len()).min(data.len());
            read.extend_from_slice(&Bytes::slice(&data, ..room));
        }
    }
    Ok(Request::from_parts(parts, read))
}
