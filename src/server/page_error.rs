//! Why an action of a user failed.

use super::rate_limit::RateLimited;

/// The reason why an action of a user failed. `Display` writes a sentence for the user. The variant tells more to the host. Do not show it
/// to the user, because it says which codes exist.
///
/// Suitable HTTP statuses are 429 for [`RateLimited`](Self::RateLimited), 503 for [`Unavailable`](Self::Unavailable), 409 for
/// [`Decided`](Self::Decided) and [`Undecided`](Self::Undecided), and 400 for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// [U1](crate::tables#u1): too many codes were entered by this user or from this source. [`RateLimited::seconds`] is the value of
    /// `Retry-After`.
    #[error(transparent)]
    RateLimited(#[from] RateLimited),
    /// [U2](crate::tables#u2): what was typed does not have the form of a code.
    #[error("the code is wrong, has expired or was already used")]
    MalformedCode,
    /// [U2](crate::tables#u2): no session has this code.
    #[error("the code is wrong, has expired or was already used")]
    UnknownCode,
    /// [U3](crate::tables#u3): the code was right, but has expired.
    #[error("the code is wrong, has expired or was already used")]
    ExpiredCode,
    /// [U3](crate::tables#u3): the code was right, but it was approved or denied before.
    #[error("the code is wrong, has expired or was already used")]
    UsedCode,
    /// [U3](crate::tables#u3): the code was right, but another user entered it first.
    #[error("the code is wrong, has expired or was already used")]
    ClaimedByAnother,
    /// [U13](crate::tables#u13): two sessions have this code, under two keys of the server. Neither is opened, because it could be the
    /// wrong one.
    #[error("the code is wrong, has expired or was already used")]
    AmbiguousCode,
    /// [U14](crate::tables#u14): the client was removed or disabled, or may no longer use the device grant.
    #[error("this application can no longer sign in")]
    ClientGone,
    /// [U5](crate::tables#u5): this user has not entered the code of the session.
    #[error("first enter the code that your device shows")]
    NotYours,
    /// [U6](crate::tables#u6): the code has expired, or the session was purged.
    #[error("the code has expired; start again on your device")]
    Expired,
    /// [U8](crate::tables#u8): the scope is wider than what was asked for, or empty though something was asked for.
    #[error("what you allow must be some or all of what the device asks for")]
    Scope,
    /// [U10](crate::tables#u10) to [U12](crate::tables#u12): another decision was made before.
    #[error("you have already decided about this request")]
    Decided,
    /// [U11](crate::tables#u11): there is nothing to withdraw, because nothing was approved yet.
    #[error("you have not allowed this request yet, so there is nothing to take back")]
    Undecided,
    /// The host could not answer, or does not know whether the change was written, or other requests changed the session first, three
    /// times. The user can try again.
    #[error("something went wrong; try again")]
    Unavailable,
}

impl PageError {
    /// Returns whether `Display` says that the code is wrong. It says so for six variants, so that nobody learns which codes exist.
    #[must_use]
    pub const fn is_wrong_code(&self) -> bool {
        matches!(
            self,
            Self::MalformedCode
                | Self::UnknownCode
                | Self::ExpiredCode
                | Self::UsedCode
                | Self::ClaimedByAnother
                | Self::AmbiguousCode
        )
    }
}
