//! Revoking a token (RFC 7009).
//!
//! Rule: a 2xx means that the token is revoked, whatever the body, even if the server did not know the token.

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
use super::verdict::{Verdict, verdict};

impl DeviceFlow {
    /// Returns a revocation of this refresh token. It ends the login. Some servers revoke the access token with it; with others the access
    /// token stays valid until it expires.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: there is no revocation endpoint, the token is empty, or the set-up has a mistake.
    pub fn revoke_refresh_token(&self, token: &str) -> Result<Revocation, FlowError> {
        self.revocation(token, "refresh_token")
    }

    /// Returns a revocation of this access token, for a login without a refresh token.
    ///
    /// # Errors
    ///
    /// As [`Self::revoke_refresh_token`].
    pub fn revoke_access_token(&self, token: &str) -> Result<Revocation, FlowError> {
        self.revocation(token, "access_token")
    }

    fn revocation(&self, token: &str, hint: &str) -> Result<Revocation, FlowError> {
        self.check()?;
        let url = self.0.endpoints.revocation.as_ref();
        let url = url.ok_or(FlowError::RevocationEndpoint)?;
        if token.is_empty() {
            return Err(FlowError::Token);
        }
        let parameters = [
            ("token", token),
            ("token_type_hint", hint),
            ("client_id", self.id_in_body()),
        ];
        Ok(Revocation(self.request(url, &parameters)))
    }
}

/// The revocation of a token. Send its [`request`](Self::request) and pass the result to [`answer`](Self::answer); or let
/// [`run`](Self::run) or [`run_blocking`](Self::run_blocking) do so.
#[derive(Debug)]
#[must_use = "nothing is sent by itself"]
pub struct Revocation(Request);

impl Revocation {
    /// Returns the request. Send it again only if [`RevokeError::may_be_retried`] says so.
    pub const fn request(&self) -> &Request {
        &self.0
    }

    /// Takes the response, or the reason why no response came.
    ///
    /// # Errors
    ///
    /// [`RevokeError`]: the token may still be good.
    pub fn answer<B: AsRef<[u8]>>(
        &self,
        answer: Result<Response<B>, TransportError>,
    ) -> Result<(), RevokeError> {
        let response = answer.map_err(RevokeError::Failed)?;
        // "The content of the response body is ignored by the client as all necessary information is conveyed in the response
        // code." (RFC 7009, section 2.2)
        if matches!(response.status, 200..=299) {
            return Ok(());
        }
        Err(match verdict(&response) {
            Verdict::Rejected(refusal) if refusal.code() == Some("unsupported_token_type") => {
                RevokeError::UnsupportedTokenType(refusal)
            }
            Verdict::Rejected(refusal)
            | Verdict::Denied(refusal)
            | Verdict::Expired(refusal)
            | Verdict::InvalidGrant(refusal) => RevokeError::Rejected(refusal),
            Verdict::Transient | Verdict::Pending(_) | Verdict::SlowDown(_) => {
                RevokeError::Unavailable {
                    status: response.status,
                    retry_after: response.retry_after,
                }
            }
            Verdict::Redirected(status) => RevokeError::Redirected(status),
            Verdict::Malformed(why) => RevokeError::Malformed(why),
            // Tokens come only with a 2xx, which was handled above.
            Verdict::Tokens(_) => RevokeError::Malformed(Malformed::Contradiction),
        })
    }

    /// Sends the revocation. If the answer was lost, or the server could not answer, it is sent again up to three times, unless the server
    /// asks for a wait of more than ten seconds.
    ///
    /// `send` and `wait` are as for [`Refresh::run`](super::Refresh::run).
    ///
    /// # Errors
    ///
    /// [`RevokeError`]: the token may still be good.
    pub async fn run<Q, R, B, S, W>(
        &self,
        send: impl FnMut(Q) -> S,
        wait: impl FnMut(Duration) -> W,
    ) -> Result<(), RevokeError>
    where
        S: Future<Output = Result<R, TransportError>>,
        W: Future<Output = ControlFlow<()>>,
        Q: From<Request>,
        R: Into<Response<B>>,
        B: AsRef<[u8]>,
    {
        let retry = |error: &RevokeError| {
            let pause = error.retry_after().unwrap_or_default();
            error.may_be_retried().then_some(pause)
        };
        repeat(&self.0, send, wait, |answer| self.answer(answer), retry).await
    }

    /// Sends the revocation, like [`run`](Self::run), with functions that block.
    ///
    /// # Errors
    ///
    /// [`RevokeError`]: the token may still be good.
    pub fn run_blocking<Q, R, B>(
        &self,
        mut send: impl FnMut(Q) -> Result<R, TransportError>,
        mut wait: impl FnMut(Duration) -> ControlFlow<()>,
    ) -> Result<(), RevokeError>
    where
        Q: From<Request>,
        R: Into<Response<B>>,
        B: AsRef<[u8]>,
    {
        block(self.run(|request| ready(send(request)), |span| ready(wait(span))))
    }
}

/// Why a token may not have been revoked. `Display` says what happened and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RevokeError {
    /// The server does not revoke tokens of this kind.
    #[error("the server does not revoke this kind of token ({0}); {advice}", advice = .0.advice())]
    UnsupportedTokenType(Refusal),
    /// The server refused for another reason.
    #[error("the token was not revoked: {0}; {advice}", advice = .0.advice())]
    Rejected(Refusal),
    /// The server could not answer. The same revocation may be sent again.
    #[error("the token might still be valid, because the server could not answer (status {status}); try again {}", later(*.retry_after))]
    #[non_exhaustive]
    Unavailable {
        /// The status of the response.
        status: u16,
        /// How long to wait, if the header `Retry-After` said so.
        retry_after: Option<Duration>,
    },
    /// There was no response. If the failure is temporary, the same revocation may be sent again.
    #[error("the token might still be valid: {0}")]
    Failed(TransportError),
    /// The server answered with a redirect of this status, which was not followed.
    #[error(
        "the server answered with a redirect (status {0}), which is not followed; check the URL of the revocation endpoint"
    )]
    Redirected(u16),
    /// The response could not be used.
    #[error("the token might still be valid: {0}")]
    Malformed(Malformed),
}

impl RevokeError {
    /// Returns whether to send the same revocation again, after [`Self::retry_after`].
    pub const fn may_be_retried(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
            || matches!(self, Self::Failed(failure) if failure.is_temporary())
    }

    /// Returns how long to wait from the response on, if the header `Retry-After` said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } = self {
            return *retry_after;
        }
        None
    }
}
