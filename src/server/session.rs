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

use alloc::borrow::ToOwned as _;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::pace::Pace;
use crate::digest::{SessionKey, UserKey};
use crate::scope::Scope;
use crate::time::Timestamp;
use crate::wire::credentials::is_vschar;

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
#[serde(try_from = "Form", into = "Form")]
#[repr(C)] // what a pending poll reads comes first, within two cache lines
pub struct Session {
    key: SessionKey,
    pub(super) state: State,
    pub(super) expires_at: Timestamp,
    client_id: Arc<str>,
    pub(super) version: u64,
    purge_at: Timestamp,
    user_key: UserKey,
    scope: Scope,
    issued_at: Timestamp,
    origin: Option<Arc<Origin>>,
}

#[derive(Clone)]
pub(super) enum State {
    /// Nobody entered the code, or whoever did released it.
    Pending,
    /// A user entered the code and has not decided.
    Claimed(Arc<Subject>),
    Approved(Arc<Grant>),
    Denied(Arc<Subject>),
    Redeemed(Arc<Redeemed>),
    Revoked(Arc<Grant>),
}

/// What a user granted.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Grant {
    pub(super) subject: Subject,
    pub(super) scope: Scope,
    pub(super) value: HostValue,
    pub(super) approved_at: Timestamp,
    pub(super) redeemable_until: Timestamp,
}

/// A grant whose tokens were sent.
pub(super) struct Redeemed {
    pub(super) grant: Arc<Grant>,
    pub(super) at: Timestamp,
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
            issued_at: issued.at,
            origin: issued.origin,
        }
    }

    /// The key under which it is stored; also its id, which may be logged.
    #[must_use]
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// The second key, by which the user's code finds it.
    #[must_use]
    pub const fn user_key(&self) -> &UserKey {
        &self.user_key
    }

    /// The version on which a [`Change`] is guarded. It grows with every change.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// When a store may remove it, and not before. Every change may move it; a store with an expiry of its own takes it from
    /// each write.
    #[must_use]
    pub fn purge_at(&self) -> OffsetDateTime {
        self.purge_at.to_offset()
    }

    /// When it can no longer be approved.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at.to_offset()
    }

    /// When its codes were issued.
    #[must_use]
    pub fn issued_at(&self) -> OffsetDateTime {
        self.issued_at.to_offset()
    }

    /// The client that asked.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The scope that the user is asked for.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Where the request came from, as far as the host knew.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// The state's name. An expired session keeps the state it had.
    #[must_use]
    pub const fn status(&self) -> Status {
        match &self.state {
            State::Pending => Status::Pending,
            State::Claimed(_) => Status::Claimed,
            State::Approved(_) => Status::Approved,
            State::Denied(_) => Status::Denied,
            State::Redeemed(_) => Status::Redeemed,
            State::Revoked(_) => Status::Revoked,
        }
    }

    /// The user who claimed or decided it, if any.
    #[must_use]
    pub fn claimant(&self) -> Option<&Subject> {
        match &self.state {
            State::Pending => None,
            State::Claimed(subject) | State::Denied(subject) => Some(subject),
            State::Approved(grant) | State::Revoked(grant) => Some(&grant.subject),
            State::Redeemed(redeemed) => Some(&redeemed.grant.subject),
        }
    }

    /// This session after `change`; none where key or version are not those that the change was made for.
    ///
    /// For a store that keeps a session as one value: read, apply, and write **only where the stored version is still
    /// [`Change::expected_version`]**, in one atomic step.
    #[must_use]
    pub fn apply(&self, change: &Change) -> Option<Self> {
        let mut next = self.clone();
        next.update(change).then_some(next)
    }

    /// Changes this session in place where key and version match, and tells whether they did.
    pub(crate) fn update(&mut self, change: &Change) -> bool {
        let is_met = self.key == change.key && self.version == change.version;
        if is_met {
            self.state = change.state.clone();
            self.purge_at = change.purge_at;
            self.version = self.version.saturating_add(1);
        }
        is_met
    }

    /// The change to `state`, guarded by the version of this reading.
    pub(super) fn change(&self, state: State) -> Change {
        Change {
            key: self.key,
            version: self.version,
            purge_at: self.purge_at,
            state,
        }
    }

    /// The change to an approval, which outlives the session by the grace of its last moment.
    pub(super) fn change_to_approved(&self, grant: Grant, retention: Duration) -> Change {
        let end = self.expires_at.max(grant.redeemable_until);
        let mut change = self.change(State::Approved(Arc::new(grant)));
        change.purge_at = end.after(retention);
        change
    }

    /// The time since issuance.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        now.since(self.issued_at)
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
    key: SessionKey,
    version: u64,
    purge_at: Timestamp,
    state: State,
}

impl Change {
    /// The session's key.
    #[must_use]
    pub const fn key(&self) -> &SessionKey {
        &self.key
    }

    /// The version that must still be stored for the write to win.
    #[must_use]
    pub const fn expected_version(&self) -> u64 {
        self.version
    }

    /// The purge time of the session after the change.
    #[must_use]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Written {
    /// It is stored.
    Won,
    /// Something else was stored meanwhile, or nothing is: nothing was written.
    Lost,
    /// It may or may not be stored: the connection broke in the commit, or the store failed.
    Unknown,
}

/// A guarded write did not win: load again, decide again. The third time the core gives up by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guarded write did not win; load the record again and decide again")]
#[non_exhaustive]
pub struct Lost;

/// How often a guarded write is tried.
pub(super) const ATTEMPTS: u8 = 3;

/// A signed-in user, by the `sub` of the host ([OpenID Connect Core, section 2]): 1 to 255 bytes without control characters.
///
/// [OpenID Connect Core, section 2]: https://openid.net/specs/openid-connect-core-1_0.html#IDToken
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(Box<str>);

impl Subject {
    /// The user of this identifier.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] where it is empty, too long, or has control characters.
    pub fn new(sub: impl Into<Box<str>>) -> Result<Self, SubjectError> {
        let sub = sub.into();
        if sub.is_empty() || sub.len() > 255 || sub.chars().any(char::is_control) {
            return Err(SubjectError);
        }
        Ok(Self(sub))
    }

    /// The identifier.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(sub: String) -> Result<Self, Self::Error> {
        Self::new(sub)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0.into()
    }
}

/// A text that names no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a subject has from 1 to 255 bytes and no control characters")]
#[non_exhaustive]
pub struct SubjectError;

/// One opaque value of the host, kept with the approval and returned with the grant: organization, session, time of
/// authentication, consent. At most 1 KiB.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct HostValue(Box<[u8]>);

impl HostValue {
    /// The most bytes that it may have.
    pub const MAX_BYTES: usize = 1024;

    /// The value of these bytes.
    ///
    /// # Errors
    ///
    /// [`HostValueError`] for more than [`HostValue::MAX_BYTES`].
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, HostValueError> {
        let bytes = bytes.into();
        if bytes.len() > Self::MAX_BYTES {
            return Err(HostValueError);
        }
        Ok(Self(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for HostValue {
    type Error = HostValueError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<HostValue> for Vec<u8> {
    fn from(value: HostValue) -> Self {
        value.0.into()
    }
}

impl fmt::Debug for HostValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostValue({} bytes)", self.0.len())
    }
}

/// A value that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host's value may have at most 1024 bytes; store more elsewhere and keep its key here")]
#[non_exhaustive]
pub struct HostValueError;

/// Where a request for codes came from, as the host knows it: an address, a place, a user agent.
///
/// It is kept for the review: a user who sees a strange city does not approve. Cut at 256 bytes, control characters
/// replaced; none is left out for an empty text.
///
/// # Security
///
/// Untrusted text: escape it before it is shown in a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Origin(Box<str>);

impl Origin {
    /// The most bytes that are kept.
    pub const MAX_BYTES: usize = 256;

    /// The origin of this text, cut and cleaned.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(Self::MAX_BYTES));
        for character in text.chars() {
            let shown = if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            };
            if kept.len().saturating_add(shown.len_utf8()) > Self::MAX_BYTES {
                break;
            }
            kept.push(shown);
        }
        Self(kept.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Origin {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0.into()
    }
}

/// The version of the stored form.
const VERSION: u8 = 1;

/// The stored form of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Session", deny_unknown_fields)]
struct Form {
    v: u8,
    key: SessionKey,
    user_key: UserKey,
    version: u64,
    client_id: String,
    scope: Scope,
    issued_at: Timestamp,
    expires_at: Timestamp,
    purge_at: Timestamp,
    origin: Option<Origin>,
    state: StateForm,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "State", rename_all = "lowercase", deny_unknown_fields)]
enum StateForm {
    Pending,
    Claimed(Subject),
    Approved(Grant),
    Denied(Subject),
    Redeemed { grant: Grant, at: Timestamp },
    Revoked(Grant),
}

impl From<Session> for Form {
    fn from(session: Session) -> Self {
        Self {
            v: VERSION,
            key: session.key,
            user_key: session.user_key,
            version: session.version,
            client_id: (*session.client_id).to_owned(),
            scope: session.scope,
            issued_at: session.issued_at,
            expires_at: session.expires_at,
            purge_at: session.purge_at,
            origin: session.origin.as_deref().cloned(),
            state: match &session.state {
                State::Pending => StateForm::Pending,
                State::Claimed(subject) => StateForm::Claimed((**subject).clone()),
                State::Approved(grant) => StateForm::Approved((**grant).clone()),
                State::Denied(subject) => StateForm::Denied((**subject).clone()),
                State::Redeemed(redeemed) => StateForm::Redeemed {
                    grant: (*redeemed.grant).clone(),
                    at: redeemed.at,
                },
                State::Revoked(grant) => StateForm::Revoked((**grant).clone()),
            },
        }
    }
}

impl TryFrom<Form> for Session {
    type Error = StoredError;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        if form.v != VERSION {
            return Err(StoredError::Version);
        }
        let granted = match &form.state {
            StateForm::Pending | StateForm::Claimed(_) | StateForm::Denied(_) => None,
            StateForm::Approved(grant)
            | StateForm::Revoked(grant)
            | StateForm::Redeemed { grant, .. } => Some(grant),
        };
        let in_order = form.issued_at < form.expires_at && form.expires_at < form.purge_at;
        let client = !form.client_id.is_empty() && form.client_id.bytes().all(is_vschar);
        let scope = granted.is_none_or(|grant| grant.scope.is_within(&form.scope));
        if !in_order || !client || !scope || form.version == 0 {
            return Err(StoredError::Corrupt);
        }
        Ok(Self {
            key: form.key,
            state: match form.state {
                StateForm::Pending => State::Pending,
                StateForm::Claimed(subject) => State::Claimed(Arc::new(subject)),
                StateForm::Approved(grant) => State::Approved(Arc::new(grant)),
                StateForm::Denied(subject) => State::Denied(Arc::new(subject)),
                StateForm::Redeemed { grant, at } => {
                    let grant = Arc::new(grant);
                    State::Redeemed(Arc::new(Redeemed { grant, at }))
                }
                StateForm::Revoked(grant) => State::Revoked(Arc::new(grant)),
            },
            expires_at: form.expires_at,
            client_id: form.client_id.into(),
            version: form.version,
            purge_at: form.purge_at,
            user_key: form.user_key,
            scope: form.scope,
            issued_at: form.issued_at,
            origin: form.origin.map(Arc::new),
        })
    }
}

/// Why a stored form was refused. Answer 503, never `invalid_grant` (C1): the client would stop for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// Written by a version of this crate that this one does not know.
    #[error("the stored form has an unknown version; a newer server wrote it")]
    Version,
    /// Its parts contradict each other.
    #[error("the stored form is corrupt: its parts contradict each other")]
    Corrupt,
}
