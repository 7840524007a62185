//! The listener: HTTP/1.1 with a bound on everything that a peer may take its time with.
//!
//! `axum::serve` has neither a bound on connections nor a limit on the time for a head, so the loop around `accept` is here.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::authority;
use crate::config::Limits;
use crate::source::Peer;
use crate::stream::{Stream, Turns};

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// The most bytes that are kept of a connection: a longer head is refused, though the library looks only as it reads on.
const MAX_HEAD: usize = 32 * 1024;

/// How long `accept` rests after a failure that may last, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Serves until `shutdown`, then answers what has begun, but not for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    shutdown: impl Future<Output = ()>,
) {
    let most = usize::try_from(limits.connections).unwrap_or(usize::MAX);
    let permits = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let open = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(None) // the stream has one of its own
        .half_close(true) // one who has nothing more to ask still waits for the answer
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        // A connection waits in the kernel's queue until another one has gone.
        let accepted = async {
            let permit = permits.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        // One who asks and does not read what is answered would hold the connection for ever.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(Duration::from_secs(limits.request_timeout)));
        let turns = Turns::default();
        let stream = Stream::new(Box::pin(stream), limits, turns.clone());
        let router = router.clone();
        let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            let (router, turns) = (router.clone(), turns.clone());
            async move {
                turns.advance();
                let response = answer(router, request.map(Body::new)).await;
                turns.advance();
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
            drop(permit);
        });
    }
    // No further ones are accepted.
    drop(listener);
    // As long as an answer may take.
    let patience = Duration::from_secs(limits.request_timeout.saturating_add(2));
    tracing::info!(connections = open.count(), "shutting down");
    if tokio::time::timeout(patience, open.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some connections did not end in time");
    }
}

async fn answer(mut router: Router, request: Request<Body>) -> Response {
    use tower_service::Service as _;
    if !authority::is_named(request.version(), request.headers()) {
        return authority::missing();
    }
    let response = router.call(request).await;
    response.unwrap_or_else(|never| match never {})
}
