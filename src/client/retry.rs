//! Sending a request again that may be repeated: how often, and how soon.

use core::ops::ControlFlow;
use core::time::Duration;

use super::request::Request;
use super::response::{Response, TransportError};

/// The pauses before the second request and the next ones. Together with the requests they stay within the 30 s for which this
/// crate's server half, like others, accepts a refresh token that was used.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The longest `Retry-After` that is waited for here. A longer one is for the caller to decide about.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Sends a request until `answer` accepts what came, or until the error is not to be tried again. `retry` returns when that may be:
/// `None` if not at all, else no sooner than after this time. If `wait` returns [`ControlFlow::Break`], the last error is returned.
pub(crate) async fn repeat<Q, R, B, S, W, T, E>(
    request: &Request,
    mut send: impl FnMut(Q) -> S,
    mut wait: impl FnMut(Duration) -> W,
    mut answer: impl FnMut(Result<Response<B>, TransportError>) -> Result<T, E>,
    retry: impl Fn(&E) -> Option<Duration>,
) -> Result<T, E>
where
    S: Future<Output = Result<R, TransportError>>,
    W: Future<Output = ControlFlow<()>>,
    Q: From<Request>,
    R: Into<Response<B>>,
{
    let mut pauses = PAUSES.into_iter();
    loop {
        let error = match answer(send(request.clone().into()).await.map(Into::into)) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let pause = pauses.next().zip(retry(&error));
        let pause = pause.map(|(least, announced)| least.max(announced));
        match pause.filter(|pause| *pause <= MAX_PAUSE) {
            Some(pause) if wait(pause).await.is_continue() => {}
            Some(_) | None => return Err(error),
        }
    }
}
