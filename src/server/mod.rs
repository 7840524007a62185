//! The server half: it decides.
//!
//! The host supplies a clock reading, 48 random bytes per issuance, HTTP, the sign-in of its users, the minting of tokens, the
//! keys for the digests of user codes, and a store. Three paths lead through it:
//!
//! - a device asks for codes: [`Form::read`], [`Form::device_authorization`], [`Unauthenticated::authenticate`], [`Issuing::draw`], insert,
//!   [`Issuance::settle`];
//! - a device polls: [`Form::read`], [`Form::grant`], [`Unauthenticated::authenticate`], load, [`Poll::decide`], and for an approved session
//!   mint, write, [`Redemption::settle`];
//! - a user decides: [`Entry::new`], pay a guess, look up, [`Paid::enter`], claim; then [`Session::approve`] or
//!   [`Session::deny`].
//!
//! # The store's contract
//!
//! | operation | what must hold |
//! |---|---|
//! | insert | unique on both keys, never overwrites, says which key was taken |
//! | load, by either key | sees every completed insert; a miss on a replica is asked again at the primary, for an unknown code is final for the client |
//! | change | where key and version match, in one atomic step, with the next version; never inserts; won, lost or unknown |
//! | save pace | by the session's key; may fail; never inserts or revives a session, touches its version or extends its life |
//! | change quota | where the stored value is still the one read, in one atomic step |
//! | purge | removes only what is past its purge time |
//!
//! A store that may lose an acknowledged write may redeem a code twice.

mod authenticate;
mod issue;
mod pace;
mod policy;
mod poll;
mod quota;
mod registration;
mod reply;
mod request;
mod session;
mod stored;
mod subject;
mod verify;

pub use authenticate::{HostVerdict, Presented, Unauthenticated};
pub use issue::{Inserted, Issuance, Issuing, Taken};
pub use pace::Pace;
pub use policy::{Policy, PolicyBuilder, PolicyError};
pub use poll::{Approval, HostError, HostErrorText, Poll, Polled, Redemption, Revocation};
pub use quota::{Limit, LimitError, Quota, QuotaChange, Spent};
pub use registration::{Authentication, ClientIdError, Registration, SecretPlacement};
pub use reply::{Cause, Reply};
pub use request::{Form, Grant, Incoming};
pub use session::{Change, Lost, Session, Status, Stored, Written};
pub use stored::StoredError;
pub use subject::{HostValue, HostValueError, Origin, Subject, SubjectError};
pub use verify::{Claim, DecisionError, Entered, Entry, Guess, Paid, Review, WrongCode};
