//! The session: what a store keeps of one request for codes, its states, and the guarded change from one to the next.
//!
//! Rules:
//! 1. Only a [`Change`] changes a session, and it is written only if the stored version is still the one that was read.
//! 2. Only state, version and purge time change after issuance. The [`Pace`] is stored apart, so that a poll cannot change a decision,
//!    and a decision cannot change the pace.
//! 3. Expiry is not a state: it follows from the clock reading. [`server`](super) has a diagram of the states.
//! 4. The stored form is refused if its version or a member is unknown, or if its parts contradict each other. Otherwise a device could get
//!    a wrong answer.

use alloc::sync::Arc;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::pace::Pace;
use super::subject::{HostValue, RequestSource, Subject};
use super::timestamp::Timestamp;
use crate::digest::{Digest, SessionKey, UserKey};
use crate::scope::Scope;
use crate::wire::debug_shows;
use crate::wire::octets::are_vschars;
use crate::wire::version::Version;

/// What a store returns for a key: the session, and its pace if there is one.
///
/// The pace may be kept elsewhere, or nowhere. If it is lost, a few early polls are accepted.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "stores build it")]
#[repr(C)] // keeps the pace next to what a poll reads first
pub struct Stored {
    /// The pace, as last saved.
    pub pace: Option<Pace>,
    /// The session.
    pub session: Session,
}

/// One request for codes and what came of it, from the issuing of the codes to the purge.
///
/// It holds digests of codes and refresh tokens, never a code or a token. Its serde form has a version tag. A record with an unknown
/// version or member is refused.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Record", into = "Record")]
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
    /// Not used once the code was redeemed: see [`Session::user_key`].
    pub(super) user_key: UserKey,
    pub(super) scope: Scope,
    pub(super) source: Option<Arc<RequestSource>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Pending,
    Claimed(Arc<Subject>),
    Approved(Arc<Approval>),
    Denied(Arc<Subject>),
    Active(Arc<Login>),
    Ended(Arc<Approval>),
}

/// What a user approved.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approval {
    pub(super) subject: Subject,
    pub(super) scope: Scope,
    pub(super) value: HostValue,
    pub(super) approved_at: Timestamp,
    pub(super) redeemable_until: Timestamp,
}

/// A login whose code was redeemed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    pub(super) approval: Arc<Approval>,
    pub(super) redeemed_at: Timestamp,
    /// `None` if the core issued no refresh token.
    pub(super) refresh: Option<Rotation>,
}

/// The refresh tokens of a login, as digests of their secrets.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// The token in force.
    pub(super) current: Digest,
    /// The token before it.
    pub(super) previous: Option<Digest>,
    /// When the previous token was replaced, or when the first one was issued.
    pub(super) rotated_at: Timestamp,
    /// The idle or the absolute end, whichever comes first.
    pub(super) until: Timestamp,
}

/// The state of a session, for the host's pages and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a host must look at every state")]
pub enum Status {
    /// Nobody has entered the code, or a user entered it and then released the session.
    Pending,
    /// A user entered the code and has not decided.
    Claimed,
    /// The user approved. The device has not fetched its tokens yet.
    Approved,
    /// The user denied.
    Denied,
    /// The device has its tokens, and may refresh them.
    Active,
    /// The approval was withdrawn or is no longer valid, or the login was revoked, misused or expired.
    Ended,
}

impl Session {
    /// Returns the key under which the session is stored. It is also the id of the login, and may be logged.
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Returns the second key, by which the session is found when a user enters the code. Returns `None` once the code was redeemed or
    /// the session has ended. The store then removes the key from its index, so that the same user code can be issued again.
    pub const fn user_key(&self) -> Option<&UserKey> {
        if matches!(self.state, State::Active(_) | State::Ended(_)) {
            return None;
        }
        Some(&self.user_key)
    }

    /// Returns the version, which grows by one with every [`Change`].
    pub fn version(&self) -> u64 {
        self.version.into()
    }

    /// Returns the earliest moment at which a store may remove the session. A change may move it, so a store that expires records by
    /// itself sets the expiry anew with each change.
    pub fn purge_at(&self) -> OffsetDateTime {
        self.purge_at.to_offset()
    }

    /// Returns when the codes expire. From then on nobody can approve them.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at.to_offset()
    }

    /// Returns when the codes were issued.
    pub fn issued_at(&self) -> OffsetDateTime {
        self.issued().to_offset()
    }

    /// Returns the id of the client that asked for the codes.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Returns the scope that the user is asked to grant.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns where the request came from, as far as the host knew. It is untrusted text.
    pub fn shown_source(&self) -> Option<&str> {
        self.source.as_deref().map(RequestSource::as_str)
    }

    /// Returns the state. An expired session keeps the state that it had.
    pub const fn status(&self) -> Status {
        match &self.state {
            State::Pending => Status::Pending,
            State::Claimed(_) => Status::Claimed,
            State::Approved(_) => Status::Approved,
            State::Denied(_) => Status::Denied,
            State::Active(_) => Status::Active,
            State::Ended(_) => Status::Ended,
        }
    }

    /// Returns the user who claimed the session or decided about it, if any.
    pub fn claimant(&self) -> Option<&Subject> {
        match &self.state {
            State::Pending => None,
            State::Claimed(subject) | State::Denied(subject) => Some(subject),
            State::Approved(_) | State::Active(_) | State::Ended(_) => {
                self.approval().map(|approval| &approval.subject)
            }
        }
    }

    /// Returns the scope that the user granted, if the user approved.
    pub fn granted(&self) -> Option<&Scope> {
        self.approval().map(|approval| &approval.scope)
    }

    /// Returns when the device fetched its tokens, while the login is active.
    pub fn redeemed_at(&self) -> Option<OffsetDateTime> {
        self.login().map(|login| login.redeemed_at.to_offset())
    }

    /// Returns when the previous refresh token was replaced, or the first one was issued, while the login is active.
    pub fn refreshed_at(&self) -> Option<OffsetDateTime> {
        let refresh = self.login()?.refresh?;
        Some(refresh.rotated_at.to_offset())
    }

    pub(super) fn login(&self) -> Option<&Login> {
        if let State::Active(login) = &self.state {
            return Some(login);
        }
        None
    }

    pub(super) fn approval(&self) -> Option<&Arc<Approval>> {
        match &self.state {
            State::Pending | State::Claimed(_) | State::Denied(_) => None,
            State::Approved(approval) | State::Ended(approval) => Some(approval),
            State::Active(login) => Some(&login.approval),
        }
    }

    /// Returns this session in its next state, with the next version. After four billion changes the version no longer grows, so that
    /// no further change is written.
    pub(super) fn next(&self, state: State, purge_at: Timestamp) -> Self {
        Self {
            state,
            purge_at,
            version: self.version.saturating_add(1),
            client_id: self.client_id.clone(),
            scope: self.scope.clone(),
            source: self.source.clone(),
            ..*self
        }
    }

    /// Copies state, version and purge time from `next`. A change leaves the rest as it is.
    pub(crate) fn become_like(&mut self, next: &Self) {
        self.state = next.state.clone();
        self.version = next.version;
        self.purge_at = next.purge_at;
    }

    /// Returns this session, ended. It is kept for the retention, counted from now or from the last moment of the approval, whichever
    /// is later.
    pub(super) fn ended(
        &self,
        approval: &Arc<Approval>,
        now: Timestamp,
        retention: Duration,
    ) -> Self {
        let end = approval.redeemable_until.max(now);
        self.next(State::Ended(approval.clone()), end.after(retention))
    }

    pub(super) fn issued(&self) -> Timestamp {
        self.expires_at
            .before(Duration::from_millis(self.lifetime.into()))
    }
}

debug_shows!(Session: key, client_id, status(), version);

/// A guarded change: the new session to store, and the version that the stored session must still have.
///
/// Write it **only if key and version match, in one atomic step**. It never inserts. In SQL:
/// `UPDATE … SET session = ?, version = version + 1, user_key = ?, purge_at = ? WHERE key = ? AND version = ?`. It is committed
/// if one row was changed.
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing has changed until the store has written it"]
pub struct Change<'x> {
    pub(super) session: &'x Session,
    pub(super) from: Status,
}

impl<'x> Change<'x> {
    /// Returns the key of the session.
    pub const fn key(&self) -> &'x SessionKey {
        &self.session.key
    }

    /// Returns the version that the stored session must still have.
    pub fn expected_version(&self) -> u64 {
        self.session.version().saturating_sub(1)
    }

    /// Returns the session to store, with its next version, purge time and user key.
    pub const fn session(&self) -> &'x Session {
        self.session
    }

    /// Returns whether `stored` has the key, the version and the state from which the change was made. A store that reads before it writes
    /// checks this instead of the version alone. After a backup was restored, a session can reach the same version in another state. This
    /// check notices that, too.
    pub fn applies_to(&self, stored: &Session) -> bool {
        stored.key == self.session.key
            && stored.version() == self.expected_version()
            && stored.status() == self.from
    }
}

/// The stored form of a session. A test checks the form of every state. If you rename a member, here or in a state, give the form a new
/// version.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Session", deny_unknown_fields)]
struct Record {
    v: Version<2>, // an earlier version of this crate, which was not published, wrote 1
    key: SessionKey,
    user_key: Option<UserKey>,
    version: u32,
    client_id: Arc<str>,
    scope: Scope,
    issued_at: Timestamp,
    expires_at: Timestamp,
    purge_at: Timestamp,
    source: Option<Arc<RequestSource>>,
    state: State,
}

impl From<Session> for Record {
    fn from(session: Session) -> Self {
        Self {
            v: Version,
            key: session.key,
            user_key: session.user_key().copied(),
            version: session.version,
            issued_at: session.issued(),
            client_id: session.client_id,
            scope: session.scope,
            expires_at: session.expires_at,
            purge_at: session.purge_at,
            source: session.source,
            state: session.state,
        }
    }
}

impl TryFrom<Record> for Session {
    type Error = &'static str;

    fn try_from(record: Record) -> Result<Self, Self::Error> {
        let lifetime = record.expires_at.since(record.issued_at).as_millis();
        let session = Self {
            key: record.key,
            state: record.state,
            expires_at: record.expires_at,
            client_id: record.client_id,
            version: record.version,
            lifetime: u32::try_from(lifetime).map_err(|_| CORRUPT)?,
            purge_at: record.purge_at,
            user_key: record.user_key.unwrap_or(UserKey::from_bytes([0; 32])),
            scope: record.scope,
            source: record.source,
        };
        let is_indexed = session.user_key().is_some();
        if is_indexed != record.user_key.is_some()
            || record.issued_at >= record.expires_at
            || !is_consistent(&session)
        {
            return Err(CORRUPT);
        }
        Ok(session)
    }
}

const CORRUPT: &str = "the stored form is corrupt: its parts contradict each other";

/// Whether the parts of a session agree with each other.
fn is_consistent(session: &Session) -> bool {
    let approval = session.approval().is_none_or(|approval| {
        approval.scope.is_granted_of(&session.scope)
            && approval.approved_at < session.expires_at
            && session.expires_at <= approval.redeemable_until
            && approval.redeemable_until < session.purge_at
    });
    let login = session.login().is_none_or(|login| {
        login.refresh.is_none_or(|refresh| {
            refresh.rotated_at >= login.redeemed_at
                && refresh.until > refresh.rotated_at
                && session.purge_at > refresh.until
                && refresh.previous != Some(refresh.current)
        })
    });
    approval
        && login
        && session.expires_at < session.purge_at
        && !session.client_id.is_empty()
        && are_vschars(session.client_id.as_bytes())
        && session.version > 0
}
