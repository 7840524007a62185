//! The session: what a store keeps of one login, its states, and the guarded change from one to the next.
//!
//! Rules:
//! 1. A session changes by a [`Change`] alone, and a change wins only where the version is still the one that was read.
//! 2. Everything but state, version and purge time is fixed at issuance. Polls cannot touch the decision, a decision cannot
//!    touch the [`Pace`](super::Pace), which is stored apart.
//! 3. Expiry is not a state: it follows from the clock reading.
//!
//! ```text
//! Pending ⇄ Claimed → Approved → Redeemed
//!              ↓          ↓
//!            Denied    Revoked
//! ```

use alloc::sync::Arc;
use core::fmt;
use core::mem;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::pace::Pace;
use super::subject::{HostValue, Origin, Subject};
use crate::digest::{SessionKey, UserKey};
use crate::scope::Scope;
use crate::time::Timestamp;

/// What a store returns for a key: the session, and its pace where one is to be had.
///
/// The pace may live elsewhere, or nowhere: losing it costs a few early polls.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[repr(C)] // the pace next to what a poll reads first
pub struct Stored {
    /// The pace, as last saved.
    pub pace: Option<Pace>,
    /// The session.
    pub session: Session,
}

/// One login, from issuance to purge.
///
/// It holds digests of its codes, never a code. Its serde form has a version tag, and refuses what it does not know.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "super::stored::Form", into = "super::stored::Form")]
#[repr(C)] // what a pending poll reads comes first, within two cache lines
pub struct Session {
    pub(super) key: SessionKey,
    pub(super) state: State,
    pub(super) expires_at: Timestamp,
    pub(super) client_id: Arc<str>,
    pub(super) version: u32,
    /// From issuance to expiry, in milliseconds: at most a day.
    pub(super) lifetime: u32,
    pub(super) purge_at: Timestamp,
    pub(super) user_key: UserKey,
    pub(super) scope: Scope,
    pub(super) origin: Option<Arc<Origin>>,
}

#[derive(Clone)]
pub(super) enum State {
    /// Nobody entered the code, or whoever did released it.
    Pending,
    /// A user entered the code and has not decided.
    Claimed(Arc<Subject>),
    Approved(Arc<Grant>),
    Denied(Arc<Subject>),
    /// With the moment of the redemption.
    Redeemed(Arc<Grant>, Timestamp),
    Revoked(Arc<Grant>),
}

/// What a change makes of the state that it was decided on. Who and what that is about stays where it is.
#[derive(Clone)]
pub(super) enum Next {
    /// Released by the claimant.
    Pending,
    Claimed(Arc<Subject>),
    Approved(Arc<Grant>),
    /// Denied by the claimant.
    Denied,
    /// At this moment, as approved.
    Redeemed(Timestamp),
    /// What was approved.
    Revoked,
}

/// What a user granted.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) subject: Subject,
    pub(super) scope: Scope,
    pub(super) value: HostValue,
    pub(super) approved_at: Timestamp,
    pub(super) redeemable_until: Timestamp,
}

/// A state's name, for the host's pages and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a host must look at every state")]
pub enum Status {
    /// Nobody entered the code yet.
    Pending,
    /// A user entered the code and has not decided.
    Claimed,
    /// The user approved; the device has not fetched its tokens.
    Approved,
    /// The user denied.
    Denied,
    /// The device has its tokens.
    Redeemed,
    /// The approval was withdrawn before it was redeemed.
    Revoked,
}

/// What a session is made of at issuance.
pub(super) struct Issued {
    pub(super) key: SessionKey,
    pub(super) user_key: UserKey,
    pub(super) client_id: Arc<str>,
    pub(super) scope: Scope,
    pub(super) origin: Option<Arc<Origin>>,
    pub(super) at: Timestamp,
    pub(super) lifetime: Duration,
    pub(super) retention: Duration,
}

impl Session {
    pub(super) fn new(issued: Issued) -> Self {
        let expires_at = issued.at.after(issued.lifetime);
        Self {
            key: issued.key,
            state: State::Pending,
            expires_at,
            client_id: issued.client_id,
            version: 1,
            purge_at: expires_at.after(issued.retention),
            user_key: issued.user_key,
            scope: issued.scope,
            lifetime: u32::try_from(issued.lifetime.as_millis()).unwrap_or(u32::MAX),
            origin: issued.origin,
        }
    }

    /// The key under which it is stored; also its id, which may be logged.
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// The second key, by which the user's code finds it.
    pub const fn user_key(&self) -> &UserKey {
        &self.user_key
    }

    /// The version on which a [`Change`] is guarded. It grows with every change.
    pub fn version(&self) -> u64 {
        self.version.into()
    }

    /// When a store may remove it, and not before. Every change may move it; a store with an expiry of its own takes it from
    /// each write.
    pub fn purge_at(&self) -> OffsetDateTime {
        self.purge_at.to_offset()
    }

    /// When it can no longer be approved.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at.to_offset()
    }

    /// When its codes were issued.
    pub fn issued_at(&self) -> OffsetDateTime {
        self.issued().to_offset()
    }

    /// The client that asked.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The scope that the user is asked for.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Where the request came from, as far as the host knew.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// The state's name. An expired session keeps the state it had.
    pub const fn status(&self) -> Status {
        match &self.state {
            State::Pending => Status::Pending,
            State::Claimed(_) => Status::Claimed,
            State::Approved(_) => Status::Approved,
            State::Denied(_) => Status::Denied,
            State::Redeemed(..) => Status::Redeemed,
            State::Revoked(_) => Status::Revoked,
        }
    }

    /// The user who claimed or decided it, if any.
    pub fn claimant(&self) -> Option<&Subject> {
        match &self.state {
            State::Pending => None,
            State::Claimed(subject) | State::Denied(subject) => Some(subject),
            State::Approved(grant) | State::Revoked(grant) | State::Redeemed(grant, _) => {
                Some(&grant.subject)
            }
        }
    }

    /// This session after `change`; none where key or version are not those that the change was made for.
    ///
    /// For a store that keeps a session as one value: read, apply, and write **only where the stored version is still
    /// [`Change::expected_version`]**, in one atomic step.
    pub fn apply(&self, change: &Change) -> Option<Self> {
        let mut next = self.clone();
        next.update(change).then_some(next)
    }

    /// Changes this session in place where key and version match, and tells whether they did.
    pub(crate) fn update(&mut self, change: &Change) -> bool {
        // After four billion changes none wins any more.
        let Some(next) = self.version.checked_add(1) else {
            return false;
        };
        if self.key != change.key || self.version != change.version {
            return false;
        }
        self.state = match (mem::replace(&mut self.state, State::Pending), &change.next) {
            (_, Next::Pending) => State::Pending,
            (_, Next::Claimed(subject)) => State::Claimed(subject.clone()),
            (_, Next::Approved(grant)) => State::Approved(grant.clone()),
            (State::Claimed(subject), Next::Denied) => State::Denied(subject),
            (State::Approved(grant), Next::Redeemed(at)) => State::Redeemed(grant, *at),
            (State::Approved(grant), Next::Revoked) => State::Revoked(grant),
            // The version was reused: this is not the state that the change was decided on.
            (state, Next::Denied | Next::Redeemed(_) | Next::Revoked) => {
                self.state = state;
                return false;
            }
        };
        self.purge_at = change.purge_at;
        self.version = next;
        true
    }

    /// A change of the state, guarded by the version of this reading.
    pub(super) const fn change(&self, next: Next) -> Change {
        Change {
            key: self.key,
            version: self.version,
            purge_at: self.purge_at,
            next,
        }
    }

    /// The change to an approval, which outlives the session by the grace of its last moment.
    pub(super) fn change_to_approved(&self, grant: Grant, retention: Duration) -> Change {
        let end = self.expires_at.max(grant.redeemable_until);
        let mut change = self.change(Next::Approved(Arc::new(grant)));
        change.purge_at = end.after(retention);
        change
    }

    pub(super) fn issued(&self) -> Timestamp {
        self.expires_at
            .before(Duration::from_millis(self.lifetime.into()))
    }

    /// The time since issuance.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.issued())
    }

    pub(super) fn belongs_to(&self, client_id: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.client_id, client_id) || self.client_id == *client_id
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("key", &self.key)
            .field("client_id", &self.client_id)
            .field("status", &self.status())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A guarded change: which session, the version that was read, and the new state.
///
/// Write it **where key and version match, in one atomic step**, with the version raised by one; it never inserts. In SQL:
/// `UPDATE … SET session = ?, version = version + 1, purge_at = ? WHERE key = ? AND version = ?`, with the session of
/// [`Session::apply`], won if one row was changed.
#[derive(Clone)]
#[must_use = "nothing has changed until the store has written it"]
pub struct Change {
    pub(super) key: SessionKey,
    pub(super) version: u32,
    pub(super) purge_at: Timestamp,
    pub(super) next: Next,
}

impl Change {
    /// The session's key.
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// The version that must still be stored for the write to win.
    pub fn expected_version(&self) -> u64 {
        self.version.into()
    }

    /// The purge time of the session after the change.
    pub fn purge_at(&self) -> OffsetDateTime {
        self.purge_at.to_offset()
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Change")
            .field("key", &self.key)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What became of a guarded write.
///
/// **Pass on what the store said, and nothing else:** a `Won` that no store said lets a code be redeemed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a write that was lost has changed nothing"]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Written {
    /// It is stored.
    Won,
    /// Something else was stored meanwhile, or nothing is: nothing was written.
    Lost,
    /// It may or may not be stored: the connection broke in the commit, or the store failed.
    Unknown,
}

/// A guarded write did not win: load again, decide again.
///
/// For polls and guesses the core counts, and gives up after the third. **For claims and decisions the host counts: three times at
/// most, then it says that it is busy.**
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guarded write did not win; load the record again and decide again")]
#[expect(
    clippy::exhaustive_structs,
    reason = "it is matched by its name, and nothing more is to be said"
)]
pub struct Lost;

/// How often a guarded write is tried.
pub(super) const ATTEMPTS: u64 = 3;
