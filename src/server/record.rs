//! The stored forms of a session and of a pace.
//!
//! Rules:
//! 1. A stored form has a version tag. It is refused if its version or a member is unknown, or if its parts contradict each other.
//!    Otherwise a device could get a wrong answer.
//! 2. Its members have the names of the fields here and in `session.rs`. A test checks the form of every state. If you rename a
//!    stored field, give the form a new version.

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pace::Pace;
use super::session::{Session, State};
use super::subject::RequestSource;
use super::timestamp::Timestamp;
use crate::digest::{SessionKey, UserKey};
use crate::scope::Scope;
use crate::wire::octets::are_vschars;

/// The version of the stored form. An earlier version of this crate, which was not published, wrote 1.
const VERSION: u8 = 2;

/// The stored form of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Session", deny_unknown_fields)]
pub(super) struct Record {
    v: u8,
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
            v: VERSION,
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
    type Error = RecordError;

    fn try_from(record: Record) -> Result<Self, Self::Error> {
        if record.v != VERSION {
            return Err(RecordError::Version);
        }
        let lifetime = record.expires_at.since(record.issued_at).as_millis();
        let session = Self {
            key: record.key,
            state: record.state,
            expires_at: record.expires_at,
            client_id: record.client_id,
            version: record.version,
            lifetime: u32::try_from(lifetime).map_err(|_| RecordError::Corrupt)?,
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
            return Err(RecordError::Corrupt);
        }
        Ok(session)
    }
}

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

/// The stored form of a pace.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Pace", deny_unknown_fields)]
pub(super) struct PaceRecord {
    v: u8,
    last: Timestamp,
    interval: u32,
    widened: bool,
}

impl From<Pace> for PaceRecord {
    fn from(pace: Pace) -> Self {
        Self {
            v: VERSION,
            last: pace.last,
            interval: pace.interval,
            widened: pace.widened,
        }
    }
}

impl TryFrom<PaceRecord> for Pace {
    type Error = RecordError;

    fn try_from(record: PaceRecord) -> Result<Self, Self::Error> {
        if record.v != VERSION {
            return Err(RecordError::Version);
        }
        if record.interval == 0 {
            return Err(RecordError::Corrupt);
        }
        Ok(Self {
            last: record.last,
            interval: record.interval,
            widened: record.widened,
        })
    }
}

/// Why a stored form was refused. The host sees the text in the error of its deserializer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("the stored form has an unknown version; another version of this crate wrote it")]
    Version,
    #[error("the stored form is corrupt: its parts contradict each other")]
    Corrupt,
}
