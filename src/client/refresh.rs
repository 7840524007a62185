//! Refreshing the tokens (RFC 6749, section 6).
//!
//! Rules:
//! 1. A refresh whose answer was lost may be sent again, with the same token. Many servers that rotate tokens allow this for a short time.
//! 2. After `invalid_grant` the user must sign in again. If an earlier answer was lost, this device itself may have used the token.
//! 3. A success without a refresh token keeps the old one.

use alloc::boxed::Box;

use super::flow::{DeviceFlow, FlowError};
use super::repeat::{RequestError, repeatable};
use super::request::Request;
use super::response::{Response, TransportError};
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

    /// Returns a refresh that requests only this part of the granted scope: scope tokens separated by single spaces. The granted scope does
    /// not shrink: a later refresh may request all of it again, so keep the whole scope yourself.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: the token is empty, the scope cannot be requested, or the set-up has a mistake.
    pub fn refresh_narrowed(&self, refresh_token: &str, scope: &str) -> Result<Refresh, FlowError> {
        let scope: Scope = scope.parse().map_err(FlowError::Scope)?;
        if scope.is_empty() {
            return Err(FlowError::EmptyScope);
        }
        self.refresh_of(refresh_token, scope)
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
    /// Notes that the same refresh token was sent before and its answer was lost, for example because the program was killed. To know this,
    /// store a mark before you send. It decides [`Refusal::possibly_redeemed`](super::Refusal::possibly_redeemed).
    pub const fn sent_before(mut self) -> Self {
        self.is_lost = true;
        self
    }

    /// Returns the request. Send it again only if [`RequestError::may_be_retried`] says so.
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// Takes the response, or the reason why no response came.
    ///
    /// # Errors
    ///
    /// [`RequestError`]. If [`RequestError::may_be_retried`] says so, send the same request again soon.
    pub fn answer<B: AsRef<[u8]>>(
        &mut self,
        answer: Result<Response<B>, TransportError>,
    ) -> Result<Tokens, RequestError> {
        match answer {
            Ok(response) => self.read(&response.by_ref()),
            Err(failure) => {
                self.is_lost |= failure.is_temporary();
                Err(RequestError::Failed(failure))
            }
        }
    }

    fn read(&mut self, response: &Response<&[u8]>) -> Result<Tokens, RequestError> {
        Err(match verdict(response) {
            Verdict::Tokens(tokens) => {
                let tokens = tokens.compare(&self.scope);
                return Ok(tokens.or_refresh_token(&self.token));
            }
            Verdict::Pending(announced) | Verdict::SlowDown(announced) => {
                RequestError::Unavailable {
                    status: response.status,
                    retry_after: response.retry_after.max(announced),
                }
            }
            Verdict::Transient => {
                self.is_lost |= may_hide_success(response);
                RequestError::Unavailable {
                    status: response.status,
                    retry_after: response.retry_after,
                }
            }
            Verdict::InvalidGrant(mut refusal) => {
                refusal.possibly_redeemed = self.is_lost;
                RequestError::Ended(refusal)
            }
            Verdict::Denied(refusal) | Verdict::Expired(refusal) => RequestError::Ended(refusal),
            Verdict::Rejected(refusal) => RequestError::Rejected(refusal),
            Verdict::Redirected(status) => RequestError::Redirected(status),
            Verdict::Malformed(why) => RequestError::Malformed(why),
        })
    }
}

repeatable!(Refresh, Tokens);

debug_shows!(Refresh: request, is_lost);
