//! Refreshing the tokens (RFC 6749, section 6).
//!
//! Rules:
//! 1. A refresh whose answer was lost may be sent again, with the same token. Many servers that rotate tokens allow this for a short time.
//! 2. After `invalid_grant` the user must sign in again. If an earlier answer was lost, this device itself may have used the token.
//! 3. A success without a refresh token keeps the old one.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::future::ready;
use core::ops::ControlFlow;
use core::time::Duration;

use super::body::Malformed;
use super::codes::later;
use super::flow::{DeviceFlow, FlowError};
use super::refusal::Refusal;
use super::request::Request;
use super::response::{Response, TransportError};
use super::run::{block, repeat};
use super::tokens::Tokens;
use super::verdict::{Verdict, may_hide_success, verdict};
use crate::scope::Scope;
use crate::wire::debug_shows;

impl DeviceFlow {
    /// Returns a refresh with this token, which came from [`Tokens::refresh_token`].
    ///
    /// # Errors
    ///
    /// [`FlowError`]: the token is empty, or the set-up has a mistake.
    pub fn refresh(&self, refresh_token: &str) -> Result<Refresh, FlowError> {
        self.refresh_of(refresh_token, Scope::empty())
    }

    /// Returns a refresh that requests only this part of the granted scope: scope tokens separated by single spaces. The login keeps all
    /// that was granted.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: the token is empty, the scope cannot be requested, or the set-up has a mistake.
    pub fn refresh_narrowed(&self, refresh_token: &str, scope: &str) -> Result<Refresh, FlowError> {
        self.refresh_of(refresh_token, scope.parse().map_err(FlowError::Scope)?)
    }

    fn refresh_of(&self, refresh_token: &str, scope: Scope) -> Result<Refresh, FlowError> {
        self.check()?;
        if refresh_token.is_empty() {
            return Err(FlowError::Token);
        }
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("scope", scope.as_str()),
            ("client_id", self.id_in_body()),
        ];
        Ok(Refresh {
            request: self.request(&self.0.endpoints.token, &parameters),
            token: refresh_token.into(),
            scope,
            is_lost: false,
        })
    }
}

/// A refresh of the tokens. Send its [`request`](Self::request) and pass the result to [`answer`](Self::answer); or let [`run`](Self::run)
/// or [`run_blocking`](Self::run_blocking) do so.
///
/// ```
/// use device_flow::client::{DeviceFlow, Endpoints, Response};
///
/// let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token")?;
/// let mut refresh = DeviceFlow::new(endpoints, "cli").refresh("the refresh token")?;
/// assert_eq!(refresh.request().body(), "grant_type=refresh_token&refresh_token=the+refresh+token&client_id=cli");
/// // A gateway failed. The server may have issued tokens or not, so the same request is sent again.
/// let error = refresh.answer(Ok(Response::new(502, "Bad Gateway"))).unwrap_err();
/// assert!(error.may_be_retried());
/// let tokens = refresh.answer(Ok(Response::new(200, r#"{"access_token":"a"}"#)))?;
/// assert_eq!(tokens.refresh_token(), Some("the refresh token"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is sent by itself"]
pub struct Refresh {
    request: Request,
    token: Box<str>,
    scope: Scope,
    /// Whether an answer that may have had tokens was lost.
    is_lost: bool,
}

impl Refresh {
    /// Notes that the same refresh token was sent before and its answer was lost, for example because the program was killed.
    pub const fn sent_before(mut self) -> Self {
        self.is_lost = true;
        self
    }

    /// Returns the request. Send it again only if [`RefreshError::may_be_retried`] says so.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Takes the response, or the reason why no response came.
    ///
    /// # Errors
    ///
    /// [`RefreshError`]. If [`RefreshError::may_be_retried`] says so, send the same request again soon.
    pub fn answer<B: AsRef<[u8]>>(
        &mut self,
        answer: Result<Response<B>, TransportError>,
    ) -> Result<Tokens, RefreshError> {
        match answer {
            Ok(response) => self.read(&response.by_ref()),
            Err(failure) => {
                self.is_lost |= failure.is_temporary();
                Err(RefreshError::Failed(failure))
            }
        }
    }

    fn read(&mut self, response: &Response<&[u8]>) -> Result<Tokens, RefreshError> {
        Err(match verdict(response) {
            Verdict::Tokens(tokens) => {
                let tokens = tokens.compare(&self.scope);
                return Ok(tokens.or_refresh_token(&self.token));
            }
            Verdict::Pending(announced) | Verdict::SlowDown(announced) => {
                RefreshError::Unavailable {
                    status: response.status,
                    retry_after: response.retry_after.max(announced),
                }
            }
            Verdict::Transient => {
                self.is_lost |= may_hide_success(response);
                RefreshError::Unavailable {
                    status: response.status,
                    retry_after: response.retry_after,
                }
            }
            Verdict::InvalidGrant(mut refusal) => {
                refusal.possibly_redeemed = self.is_lost;
                RefreshError::Ended(refusal)
            }
            Verdict::Denied(refusal) | Verdict::Expired(refusal) => RefreshError::Ended(refusal),
            Verdict::Rejected(refusal) => RefreshError::Rejected(refusal),
            Verdict::Redirected(status) => RefreshError::Redirected(status),
            Verdict::Malformed(why) => RefreshError::Malformed(why),
        })
    }

    /// Sends the refresh. If the answer was lost, or the server could not answer, it is sent again up to three times, unless the server
    /// asks for a wait of more than ten seconds.
    ///
    /// `send` and `wait` are as for [`Login::run`](super::Login::run), but `wait` gets only the time. If `wait` returns
    /// [`ControlFlow::Break`], the last error is returned.
    ///
    /// # Errors
    ///
    /// [`RefreshError`].
    pub async fn run<Q, R, B, S, W>(
        &mut self,
        send: impl FnMut(Q) -> S,
        wait: impl FnMut(Duration) -> W,
    ) -> Result<Tokens, RefreshError>
    where
        S: Future<Output = Result<R, TransportError>>,
        W: Future<Output = ControlFlow<()>>,
        Q: From<Request>,
        R: Into<Response<B>>,
        B: AsRef<[u8]>,
    {
        let request = self.request.clone();
        let retry = |error: &RefreshError| {
            let pause = error.retry_after().unwrap_or_default();
            error.may_be_retried().then_some(pause)
        };
        repeat(&request, send, wait, |answer| self.answer(answer), retry).await
    }

    /// Sends the refresh, like [`run`](Self::run), with functions that block.
    ///
    /// # Errors
    ///
    /// [`RefreshError`].
    pub fn run_blocking<Q, R, B>(
        &mut self,
        mut send: impl FnMut(Q) -> Result<R, TransportError>,
        mut wait: impl FnMut(Duration) -> ControlFlow<()>,
    ) -> Result<Tokens, RefreshError>
    where
        Q: From<Request>,
        R: Into<Response<B>>,
        B: AsRef<[u8]>,
    {
        block(self.run(|request| ready(send(request)), |span| ready(wait(span))))
    }
}

debug_shows!(Refresh: request, is_lost);

/// Why there are no new tokens. `Display` says what happened and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(clippy::exhaustive_enums, reason = "each has another consequence")]
pub enum RefreshError {
    /// The server no longer accepts the refresh token, so the user must sign in again. [`Refusal::possibly_redeemed`] says whether this
    /// device may have used the token itself, because an earlier answer was lost.
    #[error("{}", ended(.0))]
    Ended(Refusal),
    /// The server refused for another reason. The refresh token may still be valid.
    #[error("the tokens were not refreshed: {0}; {advice}", advice = .0.advice())]
    Rejected(Refusal),
    /// The server could not answer. The same refresh may be sent again.
    #[error("no new tokens arrived, because the server could not answer (status {status}); try again {}", later(*.retry_after))]
    #[non_exhaustive]
    Unavailable {
        /// The status of the response.
        status: u16,
        /// How long to wait, if the server said so.
        retry_after: Option<Duration>,
    },
    /// There was no response. If the failure is temporary, the same refresh may be sent again.
    #[error("no new tokens arrived: {0}")]
    Failed(TransportError),
    /// The server answered with a redirect of this status, which was not followed.
    #[error(
        "the server answered with a redirect (status {0}), which is not followed; check the URL of the token endpoint"
    )]
    Redirected(u16),
    /// The response could not be used.
    #[error("no new tokens arrived: {0}")]
    Malformed(Malformed),
}

impl RefreshError {
    /// Returns whether to send the same refresh again. Wait for [`Self::retry_after`] first. Then send it soon, because after a lost answer
    /// a server accepts the token only for a short time.
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

fn ended(refusal: &Refusal) -> String {
    if refusal.possibly_redeemed {
        return format!(
            "the server no longer accepts the refresh token ({refusal}), and an earlier answer was lost, so that the token may \
             have been used already; sign in again"
        );
    }
    format!("the server no longer accepts the refresh token ({refusal}); sign in again")
}
