//! The loops that run a login, or send one request until it is answered.
//!
//! Rule: the caller supplies everything that sends, waits, shows or reads the clock.

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
    /// - `send` sends a request. **It must not follow redirects.** With the feature `http` it may take an `http::Request` and return an
    ///   `http::Response`.
    /// - `show` shows the code to the user, once.
    /// - `wait` waits for this long or longer. It may tell the user why the login waits. It returns [`ControlFlow::Break`] if the user has
    ///   given up; the login then ends with [`LoginError::Cancelled`].
    ///
    /// If the future is dropped, the login can be run again. A poll that was in flight counts as lost.
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

    /// Runs the login to its end, like [`run`](Self::run), but with functions that block.
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

/// Runs a future that never has to wait.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(end) = future.as_mut().poll(&mut context) {
            return end;
        }
    }
}

/// The pauses before the second, third and fourth request. They are short, because a server accepts a used refresh token only for a short
/// time. This crate's server half does so for 30 s by default.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The longest `Retry-After` that is waited for here. If it is longer, the caller decides.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Sends a request until `answer` returns `Ok`, or until it must not be sent again. `retry` returns the least time to wait after an error,
/// or `None` if the request must not be sent again. If `wait` returns [`ControlFlow::Break`], the last error is returned.
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
