//! A refresh or a revocation is one request, which is sent again if its answer was lost.
//!
//! Rules:
//! 1. The same request may be sent up to four times, with growing pauses.
//! 2. The caller supplies everything that sends or waits.

use core::ops::ControlFlow;
use core::time::Duration;

use super::body::Malformed;
use super::codes::later;
use super::refusal::Refusal;
use super::request::Request;
use super::response::{Response, TransportError};

/// Implements `run` and `run_blocking` for a type that has `request` and `answer`.
macro_rules! repeatable {
    ($type:ty, $output:ty) => {
        impl $type {
            /// Sends the request. If the answer was lost, or the server could not answer, it is sent again up to three times, unless the
            /// server asks for a wait of more than ten seconds.
            ///
            /// `send` and `wait` are as for [`Login::run`](super::Login::run), but `wait` gets only the time. If `wait` returns
            /// [`ControlFlow::Break`](core::ops::ControlFlow::Break), the last error is returned.
            ///
            /// # Errors
            ///
            /// [`RequestError`].
            pub async fn run<Q, R, B, S, W>(
                &mut self,
                send: impl FnMut(Q) -> S,
                wait: impl FnMut(core::time::Duration) -> W,
            ) -> Result<$output, RequestError>
            where
                S: Future<Output = Result<R, TransportError>>,
                W: Future<Output = core::ops::ControlFlow<()>>,
                Q: From<Request>,
                R: Into<Response<B>>,
                B: AsRef<[u8]>,
            {
                let request = self.request().clone();
                super::repeat::repeat(&request, send, wait, |answer| self.answer(answer)).await
            }

            /// Sends the request, like [`run`](Self::run), with functions that block.
            ///
            /// # Errors
            ///
            /// [`RequestError`].
            pub fn run_blocking<Q, R, B>(
                &mut self,
                mut send: impl FnMut(Q) -> Result<R, TransportError>,
                mut wait: impl FnMut(core::time::Duration) -> core::ops::ControlFlow<()>,
            ) -> Result<$output, RequestError>
            where
                Q: From<Request>,
                R: Into<Response<B>>,
                B: AsRef<[u8]>,
            {
                use core::future::ready;
                super::run::block(
                    self.run(|request| ready(send(request)), |span| ready(wait(span))),
                )
            }
        }
    };
}
pub(crate) use repeatable;

/// The pauses before the second, third and fourth request. They are short, because a server accepts a used refresh token only for a short
/// time. This crate's server half does so for 30 s by default.
const PAUSES: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The longest `Retry-After` that is waited for here. If it is longer, the caller decides.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Sends a request until `answer` returns `Ok`, or until it must not be sent again. If `wait` returns [`ControlFlow::Break`], the last
/// error is returned.
pub(crate) async fn repeat<Q, R, B, S, W, T>(
    request: &Request,
    mut send: impl FnMut(Q) -> S,
    mut wait: impl FnMut(Duration) -> W,
    mut answer: impl FnMut(Result<Response<B>, TransportError>) -> Result<T, RequestError>,
) -> Result<T, RequestError>
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
        let pause = pauses.next().filter(|_| error.may_be_retried());
        let pause = pause.map(|least| least.max(error.retry_after().unwrap_or_default()));
        match pause.filter(|pause| *pause <= MAX_PAUSE) {
            Some(pause) if wait(pause).await.is_continue() => {}
            Some(_) | None => return Err(error),
        }
    }
}

/// Why a refresh or a revocation failed. `Display` says what happened and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "each has another consequence")]
pub enum RequestError {
    /// Only for a refresh: the server no longer accepts the refresh token, so the user must sign in again. [`Refusal::possibly_redeemed`]
    /// says whether this device may have used the token itself, because an earlier answer was lost.
    #[error("the server no longer accepts the refresh token ({0}){lost}; sign in again", lost = lost(.0))]
    Ended(Refusal),
    /// The server refused for another reason. The token may still be valid.
    #[error("the server refused the request: {0}; {advice}", advice = .0.advice())]
    Rejected(Refusal),
    /// The server could not answer. The same request may be sent again. Until then the token may be valid or not.
    #[error("the server could not answer (status {status}); try again {}", later(*.retry_after))]
    #[non_exhaustive]
    Unavailable {
        /// The status of the response.
        status: u16,
        /// How long to wait, if the server said so.
        retry_after: Option<Duration>,
    },
    /// There was no response. If the failure is temporary, the same request may be sent again. Until then the token may be valid or not.
    #[error("{0}")]
    Failed(TransportError),
    /// The server answered with a redirect of this status, which was not followed.
    #[error(
        "the server answered with a redirect (status {0}), which is not followed; check the URL of the endpoint"
    )]
    Redirected(u16),
    /// The response could not be used.
    #[error("{0}")]
    Malformed(Malformed),
}

impl RequestError {
    /// Returns whether to send the same request again. Wait for [`Self::retry_after`] first. Then send a refresh soon, because after a lost
    /// answer a server accepts the token only for a short time.
    pub const fn may_be_retried(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
            || matches!(self, Self::Failed(failure) if failure.is_temporary())
    }

    /// Returns how long to wait from the response on, if the server said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } = self {
            return *retry_after;
        }
        None
    }
}

fn lost(refusal: &Refusal) -> &'static str {
    if refusal.possibly_redeemed {
        return ", and an earlier answer was lost, so that the token may have been used already";
    }
    ""
}
