//! What a user decides about a session.

use super::subject::HostValue;
use crate::scope::Scope;

/// What a user approves: all or a part of the requested scope. The host can add a value, which comes back with each
/// [`Grant`](super::Grant).
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Consent {
    pub(super) scope: Option<Scope>,
    pub(super) value: HostValue,
}

impl Consent {
    /// Consents to all that was asked for.
    pub fn to_all() -> Self {
        Self::default()
    }

    /// Consents to this part of what was asked for. A wider scope is refused. So is an empty one, unless the
    /// requested scope is empty.
    pub fn to(scope: Scope) -> Self {
        Self {
            scope: Some(scope),
            ..Self::default()
        }
    }

    /// Keeps a value of the host with the approval.
    pub fn with_value(mut self, value: HostValue) -> Self {
        self.value = value;
        self
    }
}

/// What a user does with a session.
#[derive(Clone, Copy)]
pub(super) enum Deed<'r> {
    Approve(&'r Consent),
    Deny,
    Withdraw,
    Release,
}
