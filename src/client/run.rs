//! The loops: around a login, and around a request that may be sent again.
//!
//! Rule: they do nothing themselves. What sends, waits, shows and reads the clock is the caller's.

use core::future::ready;
use core::ops::ControlFlow;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use super::login::{Login, LoginError, Next};
use super::prompt::Prompt;
use super::request::Request;
use super::response::{Response, TransportError};
use super::schedule::WaitingFor;
use super::tokens::Tokens;

impl Login {
    /// Runs the login to its end.
    ///
    /// - `now` reads a monotonic clock.
    /// - `send` sends a request. **It must not follow redirects.** Under the feature `http` it may take an `http::Request` and return an
    ///   `http::Response`.
    /// - `show` shows the code to the user, once.
    /// - `wait` waits for this long, or longer, and may say to the user what is waited for. If the user has given up it returns
    ///   [`ControlFlow::Break`]; the login then ends with [`LoginError::Cancelled`].
    ///
    /// Where the future is dropped, the login can be run again: a poll in flight counts as lost.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub async fn run<Q, R, B, S, W>(
        &mut self,
        now: impl Fn() -> Duration,
        mut send: impl FnMut(Q) -> S,
        mut show: impl FnMut(&Prompt),
        mut wait: impl FnMut(Duration, WaitingFor) -> W,
    ) -> Result<Tokens, LoginError>
    where
        S: Future<Output = Result<R, TransportError>>,
        W: Future<Output = ControlFlow<()>>,
        Q: From<Request>,
        R: Into<Response<B>>,
        B: AsRef<[u8]>,
    {
        loop {
            match self.next(now()) {
                Next::Send(ask) => {
                    let answer = send(ask.request().clone().into()).await;
                    ask.answer(answer.map(Into::into), now());
                }
                Next::Show(prompt) => show(&prompt),
                Next::Wait(until) => {
                    let reason = self.waiting_for().unwrap_or(WaitingFor::User);
                    if wait(until.saturating_sub(now()), reason).await.is_break() {
                        self.cancel();
                    }
                }
                Next::Done(outcome) => return outcome,
            }
        }
    }

    /// Runs the login to its end, like [`run`](Self::run), with functions that block.
    ///
    /// # Errors
    ///
    /// [`LoginError`].
    pub fn run_blocking<Q, R, B>(
        &mut self,
        now: impl Fn() -> Duration,
        mut send: impl FnMut(Q) -> Result<R, TransportError>,
        show: impl FnMut(&Prompt),
        mut wait: impl FnMut(Duration, WaitingFor) -> ControlFlow<()>,
    ) -> Result<Tokens, LoginError>
    where
        Q: From<Request>,
        R: Into<Response<B>>,
        B: AsRef<[u8]>,
    {
        block(self.run(
            now,
            |request| ready(send(request)),
            show,
            |span, reason| ready(wait(span, reason)),
        ))
    }
}

/// Runs a future that waits for nothing.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(end) = future.as_mut().poll(&mut context) {
            return end;
        }
    }
}

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
