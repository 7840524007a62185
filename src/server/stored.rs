//! The stored form of a session.
//!
//! Rules:
//! 1. It has a version tag. A form of an unknown version, with an unknown member, or whose parts contradict each other is
//!    refused: a wrong guess would be a wrong answer to a device.
//! 2. It is written out here, apart from the session, so that no change to the session changes what is stored.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use super::session::{Grant, Session, State};
use super::subject::{Origin, Subject};
use crate::digest::{SessionKey, UserKey};
use crate::scope::Scope;
use crate::time::Timestamp;
use crate::wire::octets::are_vschars;

/// The version of the stored form.
const VERSION: u8 = 1;

/// The stored form of a session.
#[derive(Serialize, Deserialize)]
#[serde(rename = "Session", deny_unknown_fields)]
pub(super) struct Form {
    v: u8,
    key: SessionKey,
    user_key: UserKey,
    version: u32,
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
            issued_at: session.issued(),
            scope: session.scope,
            expires_at: session.expires_at,
            purge_at: session.purge_at,
            origin: session.origin.as_deref().cloned(),
            state: match &session.state {
                State::Pending => StateForm::Pending,
                State::Claimed(subject) => StateForm::Claimed((**subject).clone()),
                State::Approved(grant) => StateForm::Approved((**grant).clone()),
                State::Denied(subject) => StateForm::Denied((**subject).clone()),
                State::Redeemed(grant, at) => StateForm::Redeemed {
                    grant: (**grant).clone(),
                    at: *at,
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
        let client = !form.client_id.is_empty() && are_vschars(form.client_id.as_bytes());
        let grant = granted.is_none_or(|grant| {
            grant.scope.is_granted_of(&form.scope)
                && grant.approved_at < form.expires_at
                && form.expires_at <= grant.redeemable_until
                && grant.redeemable_until < form.purge_at
        });
        let lifetime = form.expires_at.since(form.issued_at).as_millis();
        let lifetime = u32::try_from(lifetime).map_err(|_| StoredError::Corrupt)?;
        if !in_order || !client || !grant || form.version == 0 {
            return Err(StoredError::Corrupt);
        }
        Ok(Self {
            key: form.key,
            state: match form.state {
                StateForm::Pending => State::Pending,
                StateForm::Claimed(subject) => State::Claimed(Arc::new(subject)),
                StateForm::Approved(grant) => State::Approved(Arc::new(grant)),
                StateForm::Denied(subject) => State::Denied(Arc::new(subject)),
                StateForm::Redeemed { grant, at } => State::Redeemed(Arc::new(grant), at),
                StateForm::Revoked(grant) => State::Revoked(Arc::new(grant)),
            },
            expires_at: form.expires_at,
            client_id: form.client_id.into(),
            version: form.version,
            purge_at: form.purge_at,
            user_key: form.user_key,
            scope: form.scope,
            lifetime,
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
