//! The listener: HTTP/1.1 with a limit on everything for which a peer could take too much time or memory.
//!
//! `axum::serve` limits neither the number of connections nor the time for a head, so the loop around `accept` is here.

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

/// How many bytes of a connection are kept at most. A longer head is refused, but the library checks this only when it reads on.
const MAX_HEAD: usize = 32 * 1024;

/// How long `accept` pauses after a failure that may last, such as too many open files.
const REST: Duration = Duration::from_millis(100);

/// Serves until `shutdown`. Then it answers the requests that have begun, but only for a limited time.
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
        .header_read_timeout(None) // the stream has its own
        .half_close(true) // a peer that sends nothing more still waits for the answer
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
        // A peer that does not read its answer would hold the connection for ever.
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
    // No more connections are accepted.
    drop(listener);
    // The longest time that an answer may take.
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
