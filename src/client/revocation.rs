//! Revoking a token (RFC 7009).
//!
//! Rule: a 2xx means that the token is revoked, whatever the body, even if the server did not know the token.

use super::body::Malformed;
use super::flow::{DeviceFlow, FlowError};
use super::repeat::{RequestError, repeatable};
use super::request::Request;
use super::response::{Response, TransportError};
use super::verdict::{Verdict, verdict};

impl DeviceFlow {
    /// Returns a revocation of this refresh token. After it the user is signed out. Some servers revoke the access token with it; with
    /// others the access token stays valid until it expires.
    ///
    /// # Errors
    ///
    /// [`FlowError`]: there is no revocation endpoint, the token is empty, or the set-up has a mistake.
    pub fn revoke_refresh_token(&self, token: &str) -> Result<Revocation, FlowError> {
        self.revocation(token, "refresh_token")
    }

    /// Returns a revocation of this access token, if there is no refresh token.
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
    /// Returns the request. Send it again only if [`RequestError::may_be_retried`] says so.
    pub const fn request(&self) -> &Request {
        &self.0
    }

    /// Takes the response, or the reason why no response came.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: the token may still be valid. If [`RequestError::may_be_retried`] says so, send the same request again.
    pub fn answer<B: AsRef<[u8]>>(
        &self,
        answer: Result<Response<B>, TransportError>,
    ) -> Result<(), RequestError> {
        let response = answer.map_err(RequestError::Failed)?;
        // "The content of the response body is ignored by the client as all necessary information is conveyed in the response
        // code." (RFC 7009, section 2.2)
        if matches!(response.status, 200..=299) {
            return Ok(());
        }
        Err(match verdict(&response) {
            Verdict::Rejected(refusal)
            | Verdict::Denied(refusal)
            | Verdict::Expired(refusal)
            | Verdict::InvalidGrant(refusal) => RequestError::Rejected(refusal),
            Verdict::Transient | Verdict::Pending(_) | Verdict::SlowDown(_) => {
                RequestError::Unavailable {
                    status: response.status,
                    retry_after: response.retry_after,
                }
            }
            Verdict::Redirected(status) => RequestError::Redirected(status),
            Verdict::Malformed(why) => RequestError::Malformed(why),
            // Tokens come only with a 2xx, which was handled above.
            Verdict::Tokens(_) => RequestError::Malformed(Malformed::Contradiction),
        })
    }
}

repeatable!(Revocation, ());
