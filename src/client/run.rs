//! The loop that runs a login.
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
                Next::Wait { until } => {
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
