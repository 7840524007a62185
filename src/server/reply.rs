//! The reply: a finished response and its cause, and the one place that maps causes to responses.
//!
//! Rules:
//! 1. A refusal by the protocol is a reply, not an error of the host.
//! 2. The cause is for the host's log and metrics. It is never sent, and it holds no bytes of the peer.
//! 3. Causes that the peer must not tell apart share one constant: every refused client, every `invalid_grant` of a poll.

use core::time::Duration;

use super::policy::Policy;
use super::response::{Fixed, OK, Response, fixed};

/// A response to send, and its cause.
#[derive(Clone, Debug)]
#[must_use = "the peer is waiting for it"]
pub struct Reply {
    response: Response,
    /// The number that belongs to the cause: see [`Reply::new`]. Number and cause fill one word without padding, so
    /// that a reply is moved faster.
    number: u32,
    cause: Cause,
}

impl Reply {
    /// Returns the response.
    pub const fn response(&self) -> &Response {
        &self.response
    }

    /// Turns the reply into the response to send.
    #[must_use]
    pub fn into_response(self) -> Response {
        self.response
    }

    /// Returns the cause of the response, for the host's log and metrics.
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// Returns how long ago the code was redeemed, for [`Cause::Replay`] and [`Cause::Duplicate`].
    pub fn since_redemption(&self) -> Option<Duration> {
        let was_redeemed = matches!(self.cause, Cause::Replay | Cause::Duplicate);
        was_redeemed.then(|| Duration::from_millis(self.number.into()))
    }

    /// Maps a cause to its response. `number` belongs to the cause: the interval in force or the time to wait, in seconds, or the time
    /// since the redemption, in milliseconds. `made` is the response if its body was made for this request. `invalid_grant` is the response
    /// of this name for the grant type of the request.
    #[inline(always)]
    pub(super) fn new(
        cause: Cause,
        number: u32,
        made: Option<Response>,
        invalid_grant: &'static Fixed,
        policy: &Policy,
    ) -> Self {
        let response = match (made, cause.wire()) {
            (Some(made), _) => made,
            (None, Wire::Fixed(fixed)) => Response::fixed(fixed),
            (None, Wire::InvalidGrant) => Response::fixed(invalid_grant),
            (None, Wire::SlowDown) => Response::slow_down(policy.slow_down(number)),
            (None, Wire::TooMany) => Response::too_many(number),
            // "the authorization server MUST respond with an HTTP 401 (Unauthorized) status code and include the
            // "WWW-Authenticate" response header field" (RFC 6749, section 5.2)
            (None, Wire::InvalidClient) => Response::unauthorized(policy.challenge.clone()),
        };
        Self {
            response,
            number,
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

/// "The provided authorization grant (e.g., authorization code, resource owner credentials) or refresh token is invalid, expired,
/// revoked, … or was issued to another client." (RFC 6749, section 5.2) The response does not say which of these it is.
pub(super) const INVALID_GRANT: &Fixed =
    fixed!(400, "invalid_grant", "the device code is not valid");
pub(super) const INVALID_REFRESH: &Fixed =
    fixed!(400, "invalid_grant", "the refresh token is not valid");

/// The responses that several causes share, byte for byte.
const EXPIRED: Wire = Wire::Fixed(fixed!(400, "expired_token", "the device code has expired"));
const UNAVAILABLE: Wire = Wire::Fixed(fixed!(503, "temporarily_unavailable", "try again later"));
const SERVER_ERROR: Wire = Wire::Fixed(fixed!(500, "server_error", "the server failed"));
const DONE: Wire = Wire::Fixed(OK);
const PENDING: Wire = Wire::Fixed(fixed!(
    400,
    "authorization_pending",
    "the user has not decided yet"
));

/// What is sent for a cause.
#[derive(Clone, Copy)]
enum Wire {
    Fixed(&'static Fixed),
    /// The `invalid_grant` response for the grant type of the request.
    InvalidGrant,
    InvalidClient,
    SlowDown,
    TooMany,
}

macro_rules! refusal {
    ($status:literal, $error:literal, $description:literal) => {
        Wire::Fixed(fixed!($status, $error, $description))
    };
}

macro_rules! invalid {
    ($description:literal) => {
        refusal!(400, "invalid_request", $description)
    };
}

/// Declares the causes: each with its row in the tables, its name in a log, and its response.
macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $response:expr;)+) => {
        /// Why a request got its reply. Each cause links to its rows in the tables, if it has any.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Cause {
            $($(#[$doc])* $name,)+
        }

        impl Cause {
            /// Returns the name for a log or a metric: short, constant, in snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            #[inline(always)]
            const fn wire(self) -> Wire {
                match self {
                    $(Self::$name => $response,)+
                }
            }
        }
    };
}

causes! {
    /// [A1](crate::tables#a1): the method is not POST.
    MethodNotAllowed, "method_not_allowed", refusal!(405, "invalid_request", "only POST is allowed here");
    /// [A2](crate::tables#a2): the media type is absent, repeated, or not that of a form.
    MediaType, "media_type", invalid!("the content type must be application/x-www-form-urlencoded, in one header");
    /// [A2](crate::tables#a2): the body has a broken percent escape, or is not UTF-8.
    Encoding, "encoding", invalid!("the body has a broken percent escape or is not UTF-8");
    /// [A3](crate::tables#a3): the body is longer than [`PolicyOptions::max_body`](super::PolicyOptions::max_body).
    BodyTooLarge, "body_too_large", invalid!("the body is too large");
    /// [A3](crate::tables#a3): the body has too many parameters.
    TooManyParameters, "too_many_parameters", invalid!("the body has too many parameters");
    /// [A5](crate::tables#a5): a parameter is repeated.
    RepeatedParameter, "repeated_parameter", invalid!("a parameter is repeated");
    /// [A8](crate::tables#a8): `grant_type` is missing.
    GrantTypeMissing, "grant_type_missing", invalid!("grant_type is missing");
    /// [A9](crate::tables#a9): a grant that the core does not serve. **A host that serves it answers the request itself**, see
    /// [`Server::authenticate`](super::Server::authenticate).
    GrantTypeUnsupported, "grant_type_unsupported", refusal!(400, "unsupported_grant_type", "this grant type is not supported");
    /// [A10](crate::tables#a10): the client authenticates in more than one way.
    SeveralCredentials, "several_credentials", invalid!("the client authenticates in more than one way");
    /// [A11](crate::tables#a11): the `Authorization` header is invalid or repeated.
    Authorization, "authorization", Wire::InvalidClient;
    /// [A12](crate::tables#a12): the header and the body name different client ids.
    ClientIdsDiffer, "client_ids_differ", invalid!("client_id differs from the one in the authorization header");
    /// [A14](crate::tables#a14): the request has no client id.
    ClientIdMissing, "client_id_missing", invalid!("client_id is missing");
    /// [A15](crate::tables#a15): the id or the secret has a character outside `%x20-7E`.
    CredentialCharacters, "credential_characters", invalid!("client_id or client_secret is not printable ASCII");
    /// [A16](crate::tables#a16): `device_code` is missing.
    DeviceCodeMissing, "device_code_missing", invalid!("device_code is missing");
    /// [R1](crate::tables#r1): `refresh_token` is missing.
    RefreshTokenMissing, "refresh_token_missing", invalid!("refresh_token is missing");
    /// [R15](crate::tables#r15): `token` is missing.
    TokenMissing, "token_missing", invalid!("token is missing");
    /// [B1](crate::tables#b1): too many wrong secrets were presented before, so this one was not compared.
    SecretQuotaSpent, "secret_quota_spent", Wire::TooMany;
    /// [B2](crate::tables#b2), [B3](crate::tables#b3): no client has this id.
    UnknownClient, "unknown_client", Wire::InvalidClient;
    /// [B2](crate::tables#b2), [B3](crate::tables#b3): the secret is wrong.
    WrongSecret, "wrong_secret", Wire::InvalidClient;
    /// [B4](crate::tables#b4): a confidential client presented no credential.
    CredentialMissing, "credential_missing", Wire::InvalidClient;
    /// [B5](crate::tables#b5): a public client presented a secret.
    UnexpectedSecret, "unexpected_secret", Wire::InvalidClient;
    /// [B6](crate::tables#b6): the client used a method that its registration excludes.
    MethodExcluded, "method_excluded", Wire::InvalidClient;
    /// [B7](crate::tables#b7): the client is disabled.
    ClientDisabled, "client_disabled", Wire::InvalidClient;
    /// [B2](crate::tables#b2): the host's own verification refused the client, or verified another one.
    HostRefused, "host_refused", Wire::InvalidClient;
    /// [B8](crate::tables#b8), [C1](crate::tables#c1), [R14](crate::tables#r14): the host could not answer, or answered something else than
    /// it was asked for.
    StoreFailed, "store_failed", UNAVAILABLE;
    /// [B9](crate::tables#b9): the client may not use the device grant.
    GrantNotAllowed, "grant_not_allowed", refusal!(400, "unauthorized_client", "the client may not use this grant");
    /// [C2](crate::tables#c2): no session has this device code.
    UnknownCode, "unknown_code", Wire::InvalidGrant;
    /// [A17](crate::tables#a17): the device code has the wrong length.
    MalformedCode, "malformed_code", Wire::InvalidGrant;
    /// [C3](crate::tables#c3), [R3](crate::tables#r3): the code or the token was issued to another client. Worth an alarm.
    ForeignClient, "foreign_client", Wire::InvalidGrant;
    /// [C4](crate::tables#c4): the code was redeemed before, [`Reply::since_redemption`] ago. The login has been ended, because two parties
    /// may have the code. Worth an alarm, although a device that lost the response with its tokens looks the same. If you mint refresh
    /// tokens of your own, revoke those of [`Exchange::session_key`](super::Exchange::session_key).
    Replay, "replay", Wire::InvalidGrant;
    /// [C4](crate::tables#c4): the code was redeemed only a moment before, so this counts as the same request, sent twice. You need not do
    /// anything.
    Duplicate, "duplicate", Wire::InvalidGrant;
    /// [C5](crate::tables#c5), [R4](crate::tables#r4): the login was ended, or it never became active.
    Ended, "ended", Wire::InvalidGrant;
    /// [C6](crate::tables#c6): the user denied.
    Denied, "denied", refusal!(400, "access_denied", "the user denied the request");
    /// [C7](crate::tables#c7): nobody decided in time.
    Expired, "expired", EXPIRED;
    /// [C8](crate::tables#c8): approved, but not redeemed in time.
    ApprovalExpired, "approval_expired", EXPIRED;
    /// [C9](crate::tables#c9) to [C11](crate::tables#c11): nobody decided yet.
    Pending, "pending", PENDING;
    /// [C20](crate::tables#c20): nobody decided yet, and this counts as the last accepted poll, sent twice.
    Repeated, "repeated", PENDING;
    /// [C12](crate::tables#c12), [C13](crate::tables#c13): nobody decided yet, and the device polls too fast.
    TooFast, "too_fast", Wire::SlowDown;
    /// [C14](crate::tables#c14): a check by the host failed ([`GrantRefusal::error`](super::GrantRefusal::error)).
    HostCheck, "host_check", SERVER_ERROR;
    /// [C15](crate::tables#c15), [R11](crate::tables#r11): the subject or the consent is no longer valid, or the client may no longer ask
    /// for anything that was granted. The login has been ended.
    ConsentGone, "consent_gone", Wire::InvalidGrant;
    /// [C16](crate::tables#c16), [R12](crate::tables#r12): the host could not mint.
    MintingFailed, "minting_failed", UNAVAILABLE;
    /// [C17](crate::tables#c17): the tokens are in the response.
    Granted, "granted", DONE;
    /// [C18](crate::tables#c18): another request redeemed the code at the same moment. The tokens of this request were never sent.
    LostRace, "lost_race", Wire::InvalidGrant;
    /// [C18](crate::tables#c18), [R13](crate::tables#r13), [R18](crate::tables#r18): other requests changed the session first. No tokens
    /// were sent.
    Contended, "contended", UNAVAILABLE;
    /// [C19](crate::tables#c19), [R14](crate::tables#r14), [R18](crate::tables#r18): it is unknown whether the write was committed. The
    /// tokens of this request were never sent.
    OutcomeUnknown, "outcome_unknown", UNAVAILABLE;
    /// [D2](crate::tables#d2): the client asked for codes too often.
    IssuingQuotaSpent, "issuing_quota_spent", Wire::TooMany;
    /// [D3](crate::tables#d3): `scope` is missing, and the client has no default that is allowed.
    ScopeMissing, "scope_missing", refusal!(400, "invalid_scope", "scope is missing");
    /// [D4](crate::tables#d4), [R9](crate::tables#r9): `scope` is malformed.
    ScopeMalformed, "scope_malformed", refusal!(400, "invalid_scope", "scope is malformed");
    /// [D4](crate::tables#d4): nothing in `scope` is allowed. [R9](crate::tables#r9): it has more than was granted, or nothing that is
    /// still allowed.
    ScopeNotAllowed, "scope_not_allowed", refusal!(400, "invalid_scope", "the scope is not allowed");
    /// [D6](crate::tables#d6): the codes are in the response.
    Issued, "issued", DONE;
    /// [D7](crate::tables#d7): every user code that was drawn is taken, because the codes are too short for the number of sessions.
    UserCodesTaken, "user_codes_taken", UNAVAILABLE;
    /// [D8](crate::tables#d8): a device code was drawn twice, or a part of the entropy was never filled. **Stop issuing: the generator is
    /// broken.**
    EntropyBroken, "entropy_broken", SERVER_ERROR;
    /// [R2](crate::tables#r2): this server did not make the refresh token.
    MalformedRefreshToken, "malformed_refresh_token", Wire::InvalidGrant;
    /// [R2](crate::tables#r2): the login of the refresh token is gone.
    UnknownRefreshToken, "unknown_refresh_token", Wire::InvalidGrant;
    /// [R5](crate::tables#r5): the login was not refreshed for too long, or has reached its absolute end. It has been ended.
    LoginExpired, "login_expired", Wire::InvalidGrant;
    /// [R6](crate::tables#r6), [R8](crate::tables#r8): the refresh token was replaced before. The login has been ended, because two parties
    /// have its tokens. Worth an alarm.
    Reuse, "reuse", Wire::InvalidGrant;
    /// [R10](crate::tables#r10): the tokens are in the response.
    Refreshed, "refreshed", DONE;
    /// The login was refreshed too often ([`RefreshOptions::limit`](super::RefreshOptions::limit)).
    RefreshQuotaSpent, "refresh_quota_spent", Wire::TooMany;
    /// [R16](crate::tables#r16): there was nothing to revoke.
    NothingToRevoke, "nothing_to_revoke", DONE;
    /// [R17](crate::tables#r17): the login of the token has been ended.
    Revoked, "revoked", DONE;
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.as_str())
    }
}
