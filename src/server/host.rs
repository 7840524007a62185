//! What an exchange asks its host for: the store, the registry of clients, the generator, the tokens.
//!
//! Rules:
//! 1. A host that could not do something says so. The peer then gets 503, never an answer that ends its login.
//! 2. The documentation of a method is its contract. The tests of a store check that contract.

use time::OffsetDateTime;

use super::authenticate::{Claim, Found};
use super::client::Client;
use super::grant::{Grant, GrantRefusal};
use super::pace::Pace;
use super::rate_limit::{RateLimited, Take};
use super::session::{Change, Session, Stored};
use super::tokens::Tokens;
use crate::code::Entropy;
use crate::digest::{SessionKey, UserKey};

/// A store, a registry or a generator could not answer. The peer is told to try again later: 503.
///
/// Every error converts into it, so that `?` works in the methods of [`Store`] and [`Host`]. The error itself is dropped: **log it where it
/// happens.** `Unavailable` is no `Error` itself, because otherwise not every error could convert into it. Return it also if a stored
/// record cannot be read.
///
/// ```
/// use device_flow::server::{Session, Unavailable};
///
/// fn read(row: &str) -> Result<Session, Unavailable> {
///     Ok(serde_json::from_str(row)?)
/// }
/// # assert!(read("{}").is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a host makes it")]
pub struct Unavailable;

impl<E: core::error::Error> From<E> for Unavailable {
    fn from(_: E) -> Self {
        Self
    }
}

impl From<Unavailable> for GrantRefusal {
    fn from(_: Unavailable) -> Self {
        Self::failed()
    }
}

/// The result of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "the codes of a session that was not inserted must not be sent"]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Inserted {
    /// The session is stored.
    New,
    /// Another session has this user key. Nothing was written.
    UserCodeTaken,
    /// Another session has this key. Nothing was written. Return this if both keys are taken.
    DeviceCodeTaken,
}

/// The result of a guarded change.
///
/// **Return `Committed` only if the store reported that it wrote the change.** Otherwise a code can be redeemed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a change in conflict was not written"]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Write {
    /// The change is stored.
    Committed,
    /// Another change was written first, or the session is gone. Nothing was written.
    Conflict,
}

/// A store of sessions and quotas, shared by all servers of one issuer.
///
/// If a store loses a write that it acknowledged, a code can be redeemed twice. A method returns [`Unavailable`] if it failed, or if it
/// does not know whether its write was done.
///
/// Write the methods as `async fn`. A blocking store awaits nothing in them. Run its exchanges with
/// [`Exchange::run_blocking`](super::Exchange::run_blocking). The package `device-flow-testkit` checks a store: call its `check_store`, or
/// `check_store_on_threads` for a store that blocks.
pub trait Store: Sync {
    /// Inserts a session if no other has its [`Session::key`] or its [`Session::user_key`]. Never overwrites anything.
    fn insert(
        &self,
        session: &Session,
    ) -> impl Future<Output = Result<Inserted, Unavailable>> + Send;

    /// Returns the session with this key, and its pace if one is kept. It must see every completed insert. If a replica has no such
    /// session, ask the primary, because the client stops for good when it is told that its code is unknown. A session past its purge
    /// time may still be returned.
    fn load(
        &self,
        key: &SessionKey,
    ) -> impl Future<Output = Result<Option<Stored>, Unavailable>> + Send;

    /// Returns the session with this user key, by the rules of [`Store::load`]. A session whose code was redeemed has no user key any more,
    /// and is not found.
    fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> impl Future<Output = Result<Option<Stored>, Unavailable>> + Send;

    /// Writes a change if the stored session has its key and its expected version, **in one atomic step**. Never inserts, and leaves the
    /// pace as it is. If the new session has no user key, also remove the key of the old one from the index. A change never replaces a user
    /// key. A store that reads the session before it writes checks [`Change::applies_to`] instead.
    fn change(&self, change: Change<'_>)
    -> impl Future<Output = Result<Write, Unavailable>> + Send;

    /// Saves the pace of a session. If that fails, log it and go on. Never inserts or revives a session, never touches its version,
    /// and never extends its life: a store that expires records by itself must not renew the expiry.
    fn save_pace(&self, key: &SessionKey, pace: Pace) -> impl Future<Output = ()> + Send;

    /// Applies [`Take::apply`] to the state under [`Take::key`], **in one atomic step**. Returns `Ok(Err(limited))` if it refused.
    fn take(
        &self,
        take: Take,
    ) -> impl Future<Output = Result<Result<(), RateLimited>, Unavailable>> + Send;

    /// Removes what has reached its purge time at `now`, and nothing else: sessions by [`Session::purge_at`], quotas by
    /// [`RateState::purge_at`](super::RateState::purge_at). Returns how many sessions it removed. Call it now and then, because no
    /// exchange does.
    fn purge(&self, now: OffsetDateTime)
    -> impl Future<Output = Result<usize, Unavailable>> + Send;
}

/// What a host provides. [`Exchange::run`](super::Exchange::run) answers every question of an exchange from it.
pub trait Host: Sync {
    /// How the registry returns a client: as a `Client`, a `&'static Client` or an `Arc<Client>`.
    type Client: core::borrow::Borrow<Client> + Send;

    /// The store.
    type Store: Store;

    /// Returns the store.
    fn store(&self) -> &Self::Store;

    /// Finds the registration, as it is now, of the client that [`Claim::client_id`] names:
    /// `Ok(claim.client_id().and_then(|id| registry.get(id)).cloned().into())`.
    fn client(
        &self,
        claim: Claim<'_>,
    ) -> impl Future<Output = Result<Found<Self::Client>, Unavailable>> + Send;

    /// Returns fresh octets from a cryptographically secure generator.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] if the generator failed.
    fn entropy(&self) -> Result<Entropy, Unavailable>;

    /// Mints the tokens of a grant, in memory. **Store and send nothing here**, because another request may still change the session first.
    /// If it does, the exchange calls this method again for the same request. Check a proof that is good only once, such as one of `DPoP`,
    /// before you run the exchange, because the second call would refuse it. A host can be made for each request, and hold what was
    /// checked. If the subject or the consent is no longer valid, return [`GrantRefusal::consent_gone`]. Tokens that must be stored need a
    /// loop of your own, which stores them together with the change of [`Next::Mint`](super::Next::Mint).
    fn mint(
        &self,
        grant: Grant<'_>,
    ) -> impl Future<Output = Result<Tokens<'static>, GrantRefusal>> + Send;
}
