//! The stored form of a session.
//!
//! Rules:
//! 1. It is refused if its version or a member is unknown, or if its parts contradict each other. Otherwise a device could get a wrong
//!    answer.
//! 2. Its members have the names of the fields here and in `session.rs`. A test checks the form of every state. If you rename a
//!    stored field, give the form a new version.

use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use super::session::{Session, State};
use super::subject::RequestSource;
use super::timestamp::Timestamp;
use crate::digest::{SessionKey, UserKey};
use crate::scope::Scope;
use crate::wire::octets::are_vschars;
use crate::wire::version::Version;

/// The stored form of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Session", deny_unknown_fields)]
pub(super) struct Record {
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
