//! The stored forms of a session and of a pace.
//!
//! Rules:
//! 1. It has a version tag. A form of an unknown version, with an unknown member, or whose parts contradict each other is
//!    refused: a wrong guess would be a wrong answer to a device.
//! 2. It is written out here, apart from what it is of, so that no change to that changes what is stored.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::pace::Pace;
use super::session::{Approval, Login, Rotation, Session, State};
use super::subject::{RequestSource, Subject};
use crate::digest::{SessionKey, UserKey};
use crate::scope::Scope;
use crate::time::Timestamp;
use crate::wire::octets::are_vschars;

/// The version of the stored form. The first edition wrote 1.
const VERSION: u8 = 2;

/// The stored form of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Session", deny_unknown_fields)]
struct Record {
    v: u8,
    key: SessionKey,
    user_key: Option<UserKey>,
    version: u32,
    client_id: String,
    scope: Scope,
    issued_at: Timestamp,
    expires_at: Timestamp,
    purge_at: Timestamp,
    source: Option<RequestSource>,
    state: StateRecord,
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "State", rename_all = "lowercase", deny_unknown_fields)]
enum StateRecord {
    Pending,
    Claimed(Subject),
    Approved(Approval),
    Denied(Subject),
    Active {
        approval: Approval,
        redeemed_at: Timestamp,
        refresh: Option<Rotation>,
    },
    Ended(Approval),
}

impl From<Session> for Record {
    fn from(session: Session) -> Self {
        Self {
            v: VERSION,
            key: session.key,
            user_key: session.user_key().copied(),
            version: session.version,
            client_id: (*session.client_id).to_owned(),
            issued_at: session.issued(),
            expires_at: session.expires_at,
            purge_at: session.purge_at,
            source: session.source.as_deref().cloned(),
            state: match &session.state {
                State::Pending => StateRecord::Pending,
                State::Claimed(subject) => StateRecord::Claimed((**subject).clone()),
                State::Approved(approval) => StateRecord::Approved((**approval).clone()),
                State::Denied(subject) => StateRecord::Denied((**subject).clone()),
                State::Active(login) => StateRecord::Active {
                    approval: (*login.approval).clone(),
                    redeemed_at: login.redeemed_at,
                    refresh: login.refresh,
                },
                State::Ended(approval) => StateRecord::Ended((**approval).clone()),
            },
            scope: session.scope,
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
        let lifetime = u32::try_from(lifetime).map_err(|_| RecordError::Corrupt)?;
        if !record.is_consistent() {
            return Err(RecordError::Corrupt);
        }
        Ok(Self {
            key: record.key,
            state: match record.state {
                StateRecord::Pending => State::Pending,
                StateRecord::Claimed(subject) => State::Claimed(Arc::new(subject)),
                StateRecord::Approved(approval) => State::Approved(Arc::new(approval)),
                StateRecord::Denied(subject) => State::Denied(Arc::new(subject)),
                StateRecord::Active {
                    approval,
                    redeemed_at,
                    refresh,
                } => State::Active(Arc::new(Login {
                    approval: Arc::new(approval),
                    redeemed_at,
                    refresh,
                })),
                StateRecord::Ended(approval) => State::Ended(Arc::new(approval)),
            },
            expires_at: record.expires_at,
            client_id: record.client_id.into(),
            version: record.version,
            purge_at: record.purge_at,
            user_key: record.user_key.unwrap_or(UserKey::from_bytes([0; 32])),
            scope: record.scope,
            lifetime,
            source: record.source.map(Arc::new),
        })
    }
}

impl Record {
    /// Whether the parts agree with each other.
    fn is_consistent(&self) -> bool {
        let (approval, is_indexed) = match &self.state {
            StateRecord::Pending | StateRecord::Claimed(_) | StateRecord::Denied(_) => (None, true),
            StateRecord::Approved(approval) => (Some(approval), true),
            StateRecord::Ended(approval) | StateRecord::Active { approval, .. } => {
                (Some(approval), false)
            }
        };
        let in_order = self.issued_at < self.expires_at && self.expires_at < self.purge_at;
        let client = !self.client_id.is_empty() && are_vschars(self.client_id.as_bytes());
        let approval = approval.is_none_or(|approval| {
            approval.scope.is_granted_of(&self.scope)
                && approval.approved_at < self.expires_at
                && self.expires_at <= approval.redeemable_until
                && approval.redeemable_until < self.purge_at
        });
        let refresh = match &self.state {
            StateRecord::Active {
                redeemed_at,
                refresh: Some(refresh),
                ..
            } => {
                refresh.rotated_at >= *redeemed_at
                    && refresh.until > refresh.rotated_at
                    && self.purge_at > refresh.until
                    && refresh.previous != Some(refresh.current)
            }
            StateRecord::Active { refresh: None, .. }
            | StateRecord::Pending
            | StateRecord::Claimed(_)
            | StateRecord::Approved(_)
            | StateRecord::Denied(_)
            | StateRecord::Ended(_) => true,
        };
        in_order
            && client
            && approval
            && refresh
            && self.version > 0
            && self.user_key.is_some() == is_indexed
    }
}

/// The stored form of a pace.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Pace", deny_unknown_fields)]
struct PaceRecord {
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

impl Serialize for Session {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Record::from(self.clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Session {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        Self::try_from(record).map_err(D::Error::custom)
    }
}

impl Serialize for Pace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        PaceRecord::from(*self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Pace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = PaceRecord::deserialize(deserializer)?;
        Self::try_from(record).map_err(D::Error::custom)
    }
}

/// Why a stored form was refused. The text reaches the host in the error of its deserializer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RecordError {
    #[error("the stored form has an unknown version; another version of this crate wrote it")]
    Version,
    #[error("the stored form is corrupt: its parts contradict each other")]
    Corrupt,
}
