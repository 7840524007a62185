//! The reply: a finished response and its cause, and the one mapping from cause to wire.
//!
//! Rules:
//! 1. A refusal by the protocol is a value, not an error of the host.
//! 2. The cause is for the host's log, metrics and revocation. The wire never shows it, and it holds no bytes of the peer.
//! 3. What must not be told apart on the wire is the same constant: every refused client, every `invalid_grant` of a poll.

use core::time::Duration;

use super::policy::Policy;
use super::quota::Spent;
use crate::wire::response::{Fixed, INVALID_CLIENT, Response, fixed};

/// A response to send, and why it is what it is.
#[derive(Clone, Debug)]
#[must_use = "the peer is waiting for it"]
pub struct Reply {
    response: Response,
    /// In milliseconds; zero for a code that was not redeemed. With the cause it fills a word: a reply is moved often, and to
    /// move padding costs more than to move what is in it.
    since_redemption: u32,
    cause: Cause,
}

impl Reply {
    /// The response.
    pub const fn response(&self) -> &Response {
        &self.response
    }

    /// The response, to send it.
    #[must_use]
    pub fn into_response(self) -> Response {
        self.response
    }

    /// Why, for the host.
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// How long ago the code was redeemed, where the cause is [`Cause::Replay`] or [`Cause::Duplicate`].
    pub fn since_redemption(&self) -> Option<Duration> {
        let was_redeemed = matches!(self.cause, Cause::Replay | Cause::Duplicate);
        was_redeemed.then(|| Duration::from_millis(self.since_redemption.into()))
    }

    /// For a host whose store failed, or returned a form that it cannot read (B8, C1): 503. Never `invalid_grant`, on which
    /// the client would stop for good.
    pub const fn store_failed() -> Self {
        Self::fixed(Cause::StoreFailed)
    }

    /// For a host whose issuing quota is spent (D2): 429.
    pub fn issuing_quota_spent(spent: Spent) -> Self {
        Self::too_many(Cause::IssuingQuotaSpent, spent)
    }

    pub(super) fn secret_quota_spent(spent: Spent) -> Self {
        Self::too_many(Cause::SecretQuotaSpent, spent)
    }

    /// A poll that lost its race and finds the session redeemed by the winner: as any used code, but nothing is to be revoked.
    pub(super) const fn lost_race() -> Self {
        Self::made(Response::fixed(INVALID_GRANT), Cause::LostRace)
    }

    /// A code that was redeemed before, `since` ago.
    pub(super) fn used(cause: Cause, since: Duration) -> Self {
        let mut reply = Self::fixed(cause);
        reply.since_redemption = u32::try_from(since.as_millis()).unwrap_or(u32::MAX);
        reply
    }

    fn too_many(cause: Cause, spent: Spent) -> Self {
        Self::made(Response::too_many(spent.seconds()), cause)
    }

    #[inline(always)]
    pub(super) fn slow_down(interval: u32, policy: &Policy) -> Self {
        Self::made(
            Response::slow_down(policy.slow_down(interval)),
            Cause::TooFast,
        )
    }

    /// The refusal of a client: "the authorization server MUST respond with an HTTP 401 (Unauthorized) status code and include
    /// the "WWW-Authenticate" response header field" ([RFC 6749, section 5.2]).
    ///
    /// [RFC 6749, section 5.2]: https://www.rfc-editor.org/rfc/rfc6749#section-5.2
    pub(super) fn unauthorized(cause: Cause, policy: &Policy) -> Self {
        Self::made(Response::unauthorized(policy.challenge.clone()), cause)
    }

    /// The constant response to `cause`.
    #[inline(always)]
    pub(super) const fn fixed(cause: Cause) -> Self {
        Self::made(Response::fixed(cause.fixed()), cause)
    }

    #[inline(always)]
    pub(super) const fn made(response: Response, cause: Cause) -> Self {
        Self {
            response,
            since_redemption: 0,
            cause,
        }
    }
}

#[cfg(feature = "http")]
impl<B: From<alloc::borrow::Cow<'static, [u8]>>> From<Reply> for http::Response<B> {
    fn from(reply: Reply) -> Self {
        reply.response.into()
    }
}

/// The responses that several causes share, byte for byte.
const EXPIRED: &Fixed = fixed!(400, "expired_token", "the device code has expired");
const UNAVAILABLE: &Fixed = fixed!(503, "temporarily_unavailable", "try again later");
/// Also stands for the causes whose response is made for the request, and never sent for these.
const SERVER_ERROR: &Fixed = fixed!(500, "server_error", "the server failed");
/// "The provided authorization grant … is invalid, expired, revoked, … or was issued to another client." (RFC 6749, section
/// 5.2) Which of these it is, nobody learns.
const INVALID_GRANT: &Fixed = fixed!(400, "invalid_grant", "the device code is not valid");

/// `invalid_request` with its description.
macro_rules! invalid {
    ($description:literal) => {
        fixed!(400, "invalid_request", $description)
    };
}

/// Declares the causes: each with its row in the tables, its name in a log, and its response.
macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $response:expr;)+) => {
        /// Why a request got its reply. Each names its row in the tables of the server half.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Cause {
            $($(#[$doc])* $name,)+
        }

        impl Cause {
            /// The name for a log or a metric: short, constant, in snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The constant part of the response.
            #[inline(always)]
            const fn fixed(self) -> &'static Fixed {
                match self {
                    $(Self::$name => $response,)+
                }
            }
        }
    };
}

causes! {
    /// A1: another method than POST.
    MethodNotAllowed, "method_not_allowed", fixed!(405, "invalid_request", "only POST is allowed here");
    /// A2: the media type is absent, repeated or another one.
    MediaType, "media_type", invalid!("the body must be application/x-www-form-urlencoded, said once");
    /// A2: a broken escape, or not UTF-8.
    Encoding, "encoding", invalid!("the body has a broken percent escape or is not UTF-8");
    /// A3: a body over the limit.
    BodyTooLarge, "body_too_large", invalid!("the body is too large");
    /// A3: too many parameters.
    TooManyParameters, "too_many_parameters", invalid!("the body has too many parameters");
    /// A5: a parameter twice.
    RepeatedParameter, "repeated_parameter", invalid!("a parameter is repeated");
    /// A8: no `grant_type`.
    GrantTypeMissing, "grant_type_missing", invalid!("grant_type is missing");
    /// A9: a grant that nobody here serves.
    GrantTypeUnsupported, "grant_type_unsupported", fixed!(400, "unsupported_grant_type", "this grant type is not supported");
    /// A10: two ways of authentication at once.
    SeveralCredentials, "several_credentials", invalid!("the client authenticates in more than one way");
    /// A11: an `Authorization` header that is not usable.
    Authorization, "authorization", INVALID_CLIENT;
    /// A12: two different client ids.
    ClientIdsDiffer, "client_ids_differ", invalid!("client_id differs from the one in the authorization header");
    /// A14: no client id.
    ClientIdMissing, "client_id_missing", invalid!("client_id is missing");
    /// A15: an id or a secret with illegal characters.
    CredentialCharacters, "credential_characters", invalid!("client_id or client_secret is not visible ASCII");
    /// A16: no `device_code`.
    DeviceCodeMissing, "device_code_missing", invalid!("device_code is missing");
    /// B1: too many wrong secrets before.
    SecretQuotaSpent, "secret_quota_spent", SERVER_ERROR;
    /// B2, B3: nobody has this id.
    UnknownClient, "unknown_client", INVALID_CLIENT;
    /// B2, B3: the secret is wrong.
    WrongSecret, "wrong_secret", INVALID_CLIENT;
    /// B4: a confidential client without its credential.
    CredentialMissing, "credential_missing", INVALID_CLIENT;
    /// B5: a public client with a secret.
    UnexpectedSecret, "unexpected_secret", INVALID_CLIENT;
    /// B6: a method that the registration excludes.
    MethodExcluded, "method_excluded", INVALID_CLIENT;
    /// B7: the client is disabled.
    ClientDisabled, "client_disabled", INVALID_CLIENT;
    /// B2: the host's own verification failed.
    HostRefused, "host_refused", INVALID_CLIENT;
    /// B8, C1: the store failed, or returned something else than it was asked for.
    StoreFailed, "store_failed", UNAVAILABLE;
    /// B9: the device grant is not allowed for this client.
    GrantNotAllowed, "grant_not_allowed", fixed!(400, "unauthorized_client", "the client may not use this grant");
    /// C2: no session has this code.
    UnknownCode, "unknown_code", INVALID_GRANT;
    /// A17: no code has this length.
    MalformedCode, "malformed_code", INVALID_GRANT;
    /// C3: the code was issued to another client. Worth an alarm.
    ForeignClient, "foreign_client", INVALID_GRANT;
    /// C4: redeemed before, [`Reply::since_redemption`] ago: revoke the tokens of the session.
    Replay, "replay", INVALID_GRANT;
    /// C4: redeemed before, so shortly that it is a duplicate of the same request: revoke nothing.
    Duplicate, "duplicate", INVALID_GRANT;
    /// C5: the approval was withdrawn.
    Revoked, "revoked", INVALID_GRANT;
    /// C6: the user denied.
    Denied, "denied", fixed!(400, "access_denied", "the user denied the request");
    /// C7: nobody decided in time.
    Expired, "expired", EXPIRED;
    /// C8: approved, but not redeemed in time.
    ApprovalExpired, "approval_expired", EXPIRED;
    /// C9 to C11: nobody decided yet.
    Pending, "pending", fixed!(400, "authorization_pending", "the user has not decided yet");
    /// C12, C13: nobody decided yet, and the device polls too fast.
    TooFast, "too_fast", SERVER_ERROR;
    /// C14: a check of the host's own failed.
    HostCheck, "host_check", SERVER_ERROR;
    /// C15: the subject or the consent is no longer valid.
    ConsentGone, "consent_gone", INVALID_GRANT;
    /// C16: the host could not mint.
    MintingFailed, "minting_failed", UNAVAILABLE;
    /// C17: the tokens are in the response.
    Granted, "granted", SERVER_ERROR;
    /// C18: another request decided first. The tokens of this one were never sent; revoke nothing.
    LostRace, "lost_race", UNAVAILABLE;
    /// C19: whether the write won is unknown. The tokens of this request were never sent.
    OutcomeUnknown, "outcome_unknown", UNAVAILABLE;
    /// D2: too many codes asked for.
    IssuingQuotaSpent, "issuing_quota_spent", SERVER_ERROR;
    /// D3: no scope, and no default.
    ScopeMissing, "scope_missing", fixed!(400, "invalid_scope", "scope is missing");
    /// D4: not the syntax of a scope.
    ScopeMalformed, "scope_malformed", fixed!(400, "invalid_scope", "scope is malformed");
    /// D4: nothing of it is allowed.
    ScopeNotAllowed, "scope_not_allowed", fixed!(400, "invalid_scope", "nothing of the scope is allowed");
    /// D6: the codes are in the response.
    Issued, "issued", SERVER_ERROR;
    /// D7: every user code drawn was taken: codes are too short for their number.
    UserCodesTaken, "user_codes_taken", UNAVAILABLE;
    /// D8: a device code was drawn twice, or the entropy was never filled. **Stop issuing.**
    EntropyBroken, "entropy_broken", SERVER_ERROR;
}

impl Cause {
    /// Whether this counts against the quota of wrong secrets, if a secret was presented.
    pub const fn is_wrong_secret(self) -> bool {
        matches!(
            self,
            Self::WrongSecret | Self::UnknownClient | Self::HostRefused
        )
    }
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}
