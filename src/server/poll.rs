//! The poll: one stored session, one request, one decision (table C).
//!
//! Rules:
//! 1. The decision is one `match` over the stored state. Expiry is checked before pending, ownership before everything.
//! 2. Nothing is written for a pending poll but its pace.
//! 3. A success is sealed until the guarded write has won: [`Redemption::settle`] alone makes one.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use time::OffsetDateTime;

use super::authenticate::Unauthenticated;
use super::pace::{Pace, Step};
use super::policy::Policy;
use super::registration::Registration;
use super::reply::{Cause, Reply};
use super::session::{ATTEMPTS, Change, Grant, Lost, Next, State, Stored, Written};
use super::subject::{HostValue, Subject};
use crate::digest::SessionKey;
use crate::scope::Scope;
use crate::time::Timestamp;
use crate::wire::response::Response;
use crate::wire::tokens::Tokens;

/// A poll by an authenticated client.
///
/// Only `authenticate` makes one. Load the session of [`Poll::session_key`], decide, and where that ends in a redemption that
/// lost its write, load and decide again with the same poll.
#[derive(Debug)]
#[must_use]
pub struct Poll<'f> {
    policy: &'f Policy,
    client: &'f Registration,
    key: Option<SessionKey>,
    losses: u64,
}

impl<'f> Poll<'f> {
    #[inline(always)]
    pub(super) const fn of(request: &Unauthenticated<'f, Self>, client: &'f Registration) -> Self {
        Self {
            policy: request.form().policy,
            client,
            key: request.session_key,
            losses: 0,
        }
    }

    /// The key to load. None for a code of a length that no code has: there is nothing to look up (A17).
    pub const fn session_key(&self) -> Option<&SessionKey> {
        self.key.as_ref()
    }

    /// The client, authenticated.
    pub const fn client(&self) -> &'f Registration {
        self.client
    }

    /// Decides on what the store has for [`Poll::session_key`].
    ///
    /// > If the user has approved the grant, the token endpoint responds with a success response defined in Section 5.1 of
    /// > \[RFC6749\]; otherwise, it responds with an error, as defined in Section 5.2 of \[RFC6749\].
    /// > ([RFC 8628, section 3.5](https://www.rfc-editor.org/rfc/rfc8628#section-3.5))
    ///
    /// A store that failed is not `None`: answer [`Reply::store_failed`] (C1).
    #[inline(always)]
    pub fn decide<'p>(&'p mut self, stored: Option<&Stored>, now: OffsetDateTime) -> Polled<'p> {
        if self.losses >= ATTEMPTS {
            return Polled::Reply(Reply::fixed(Cause::LostRace)); // C18
        }
        let now = Timestamp::from(now);
        let Some(key) = &self.key else {
            return Polled::Reply(Reply::fixed(Cause::MalformedCode)); // A17
        };
        let Some(Stored { pace, session }) = stored else {
            return Polled::Reply(Reply::fixed(Cause::UnknownCode)); // C2
        };
        if key != session.key() {
            return Polled::Reply(Reply::store_failed()); // C1: not what was asked for
        }
        if !session.belongs_to(self.client.shared_id()) {
            return Polled::Reply(Reply::fixed(Cause::ForeignClient)); // C3
        }
        match &session.state {
            State::Redeemed(_, at) => Polled::Reply(self.used(*at, now)), // C4
            State::Revoked(_) => Polled::Reply(Reply::fixed(Cause::Revoked)), // C5
            State::Denied(_) => Polled::Reply(Reply::fixed(Cause::Denied)), // C6
            State::Pending | State::Claimed(_) if now >= session.expires_at => {
                Polled::Reply(Reply::fixed(Cause::Expired)) // C7
            }
            State::Approved(grant) if now >= grant.redeemable_until => {
                Polled::Reply(Reply::fixed(Cause::ApprovalExpired)) // C8
            }
            State::Pending | State::Claimed(_) => {
                wait(self.policy, key, pace.as_ref(), now) // C9 to C13
            }
            State::Approved(grant) => Polled::Redeem(Redemption {
                losses: &mut self.losses,
                client: self.client,
                grant: grant.clone(),
                change: session.change(Next::Redeemed(now)),
            }), // C14 to C17
        }
    }

    #[cold]
    fn used(&self, at: Timestamp, now: Timestamp) -> Reply {
        if self.losses > 0 {
            return Reply::lost_race(); // C18: the winner redeemed it; that is no replay
        }
        let since = now.since(at);
        let cause = if since < self.policy.retry_window {
            Cause::Duplicate
        } else {
            Cause::Replay
        };
        Reply::used(cause, since)
    }
}

/// A poll while nobody has decided (C9 to C13).
#[inline(always)]
fn wait<'p>(
    policy: &Policy,
    key: &'p SessionKey,
    pace: Option<&Pace>,
    now: Timestamp,
) -> Polled<'p> {
    match policy.step(pace, now) {
        Step::Accepted(pace) => Polled::Paced(key, pace, Reply::fixed(Cause::Pending)),
        Step::Widened(pace) => Polled::Paced(key, pace, Reply::slow_down(pace.seconds(), policy)),
        Step::Early(interval) => Polled::Reply(Reply::slow_down(interval, policy)),
    }
}

/// What becomes of a poll.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a host must match it whole")]
pub enum Polled<'p> {
    /// Send it; there is nothing to write.
    Reply(Reply),
    /// Save the pace under the session's key, whether or not that works, and send.
    Paced(&'p SessionKey, Pace, Reply),
    /// The user approved: mint, write, settle.
    Redeem(Redemption<'p>),
}

/// An approved session that is about to be redeemed.
///
/// Mint in memory; **write nothing else and send nothing before the guarded write of [`Redemption::change`] has won.** Then
/// give its outcome to [`Redemption::settle`], the only way to a success.
///
/// Before the write the host may still refuse: a failed check of its own first ([`Redemption::refuse`]), then a subject or
/// consent that is gone ([`Redemption::revoke`]), then a failure to mint ([`Redemption::minting_failed`]).
#[must_use = "the device is waiting for its tokens"]
pub struct Redemption<'p> {
    losses: &'p mut u64,
    client: &'p Registration,
    grant: Arc<Grant>,
    change: Change,
}

impl<'p> Redemption<'p> {
    /// What the user approved: what the tokens are to be about.
    pub const fn approval(&self) -> Approval<'_> {
        Approval { redemption: self }
    }

    /// The guarded change to `Redeemed`.
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// Makes the response from the outcome of the guarded write (C17 to C19): the tokens with the granted scope if it won; 503
    /// if nobody knows, in which case the next poll decides, and the tokens are to be dropped.
    ///
    /// # Errors
    ///
    /// [`Lost`]: load the session and decide again. After three losses the next decision is 503.
    pub fn settle(self, written: Written, tokens: &Tokens<'_>) -> Result<Reply, Lost> {
        settle(written, self.losses, || {
            // "scope OPTIONAL, if identical to the scope requested by the client; otherwise, REQUIRED." (RFC 6749, section 5.1)
            let body = tokens.body(self.grant.scope.as_str());
            Reply::made(Response::made(body), Cause::Granted)
        })
    }

    /// Refuses for a check of the host's own, `DPoP` or `resource` for example; nothing is consumed (C14). Come here first, so
    /// that a caller without its proof cannot cause a write.
    pub fn refuse(self, error: HostError) -> Reply {
        Reply::made(
            Response::refused(error.status, error.body()),
            Cause::HostCheck,
        )
    }

    /// Refuses because the subject or the consent is no longer valid, for good (C15).
    pub fn revoke(self) -> Revocation<'p> {
        Revocation {
            losses: self.losses,
            change: Change {
                next: Next::Revoked,
                ..self.change
            },
        }
    }

    /// Refuses because minting failed; nothing is consumed (C16).
    pub fn minting_failed(self) -> Reply {
        Reply::fixed(Cause::MintingFailed)
    }
}

impl fmt::Debug for Redemption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redemption({})", self.change.key())
    }
}

/// An approval that is withdrawn at the last moment, because the subject or the consent is gone.
#[derive(Debug)]
#[must_use = "the device is waiting for its answer"]
pub struct Revocation<'p> {
    losses: &'p mut u64,
    change: Change,
}

impl Revocation<'_> {
    /// The guarded change to `Revoked`.
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// Makes the response from the outcome of the guarded write: `invalid_grant` if it won, 503 if nobody knows.
    ///
    /// # Errors
    ///
    /// [`Lost`]: load the session and decide again. After three losses the next decision is 503.
    pub fn settle(self, written: Written) -> Result<Reply, Lost> {
        settle(written, self.losses, || Reply::fixed(Cause::ConsentGone))
    }
}

fn settle(written: Written, losses: &mut u64, won: impl FnOnce() -> Reply) -> Result<Reply, Lost> {
    match written {
        Written::Won => Ok(won()),
        Written::Unknown => Ok(Reply::fixed(Cause::OutcomeUnknown)),
        Written::Lost => {
            *losses = losses.saturating_add(1);
            Err(Lost)
        }
    }
}

/// What a user approved. It cannot be made by hand: whoever has one has an approved session before them.
#[derive(Clone, Copy)]
pub struct Approval<'r> {
    redemption: &'r Redemption<'r>,
}

impl<'r> Approval<'r> {
    /// The session's id. Keep it with the tokens: a replay names it, and they are to be revoked then.
    pub const fn session_key(&self) -> &'r SessionKey {
        self.redemption.change.key()
    }

    /// The client.
    pub fn client_id(&self) -> &'r str {
        self.redemption.client.client_id()
    }

    /// The user.
    pub fn subject(&self) -> &'r Subject {
        &self.redemption.grant.subject
    }

    /// The scope granted, which may be narrower than the one asked for.
    pub fn scope(&self) -> &'r Scope {
        &self.redemption.grant.scope
    }

    /// The host's value, as given with the approval.
    pub fn host_value(&self) -> &'r HostValue {
        &self.redemption.grant.value
    }

    /// When the user approved.
    pub fn approved_at(&self) -> OffsetDateTime {
        self.redemption.grant.approved_at.to_offset()
    }
}

impl fmt::Debug for Approval<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Approval")
            .field("session", self.session_key())
            .field("subject", self.subject())
            .field("scope", self.scope())
            .finish_non_exhaustive()
    }
}

/// An error response of the host's own, for [`Redemption::refuse`]: `use_dpop_nonce` or `invalid_target` for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostError {
    status: u16,
    error: &'static str,
    description: &'static str,
}

impl HostError {
    /// Status 400 with this code and description.
    ///
    /// # Errors
    ///
    /// [`HostErrorText`] for an empty code, or characters that [RFC 6749, section 5.2] does not allow: "Values for the "error"
    /// parameter MUST NOT include characters outside the set %x20-21 / %x23-5B / %x5D-7E."
    ///
    /// [RFC 6749, section 5.2]: https://www.rfc-editor.org/rfc/rfc6749#section-5.2
    pub fn new(error: &'static str, description: &'static str) -> Result<Self, HostErrorText> {
        let legal = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E);
        if error.is_empty() || !error.bytes().chain(description.bytes()).all(legal) {
            return Err(HostErrorText);
        }
        Ok(Self {
            status: 400,
            error,
            description,
        })
    }

    /// The same with status 401, which some extensions ask for. **Add the challenge after the conversion.**
    #[must_use]
    pub const fn unauthorized(mut self) -> Self {
        self.status = 401;
        self
    }

    fn body(&self) -> String {
        let (error, description) = (self.error, self.description);
        alloc::format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
    }
}

/// An error code or description with characters that may not stand in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an error code is not empty, and it and its description are visible ascii without quotes and backslashes"
)]
#[non_exhaustive]
pub struct HostErrorText;
