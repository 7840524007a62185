//! What a host does for an exchange: its store, its registry, its generator, its tokens.
//!
//! Rules:
//! 1. A host that could not do something says so. That leads to 503, never to an answer that ends a device's login.
//! 2. A method has one contract, which stands at it. The contract is what the tests of every store run against.

use time::OffsetDateTime;

use super::authenticate::{Claim, Found};
use super::client::Client;
use super::grant::{Grant, GrantRefusal};
use super::pace::Pace;
use super::rate_limit::{RateLimited, Take};
use super::session::{Change, Session, Stored};
use crate::code::Entropy;
use crate::digest::{SessionKey, UserKey};
use crate::wire::tokens::Tokens;

/// A store, a registry or a generator could not answer. The peer is told to try again later: 503.
///
/// Every error turns into it, so that `?` works in the methods of [`Store`] and [`Host`]. The error itself is dropped: **log it
/// where it happens.** It is right for a stored form that cannot be read, too.
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

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a session that was not inserted must not be answered"]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Inserted {
    /// The session is stored.
    New,
    /// Another session has this user key. Nothing was written.
    UserCodeTaken,
    /// Another session has this key. Nothing was written. Say this if both keys are taken.
    DeviceCodeTaken,
}

/// What became of a guarded change.
///
/// **Pass on what the store said, and nothing else.** A `Committed` that no store said lets a code be redeemed twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a change in conflict has changed nothing"]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Write {
    /// The change is stored.
    Committed,
    /// Something else was stored meanwhile, or nothing is stored. Nothing was written.
    Conflict,
}

/// A store of sessions and quotas, shared by all servers of one issuer.
///
/// A store that may lose an acknowledged write may redeem a code twice. A method returns [`Unavailable`] if it failed, or if it
/// does not know whether its write was done.
///
/// Write the methods as `async fn`. A blocking store does its work in them without awaiting anything:
/// [`Exchange::run_blocking`](super::Exchange::run_blocking) then runs the exchange.
pub trait Store: Sync {
    /// Inserts a new session. Unique by [`Session::key`] and by [`Session::user_key`]. Never overwrites anything.
    fn insert(
        &self,
        session: &Session,
    ) -> impl Future<Output = Result<Inserted, Unavailable>> + Send;

    /// Loads the session of this key, with its pace if that is kept. It sees every completed insert. If a replica has no such
    /// session, ask the primary: the client stops for good when it is told that its code is unknown. A session past its purge time
    /// may still be returned.
    fn load(
        &self,
        key: &SessionKey,
    ) -> impl Future<Output = Result<Option<Stored>, Unavailable>> + Send;

    /// Loads the session of this user key, in the same way. A session whose code was redeemed has no user
    /// key any more, and is not found by it.
    fn load_by_user_key(
        &self,
        key: &UserKey,
    ) -> impl Future<Output = Result<Option<Stored>, Unavailable>> + Send;

    /// Writes a change where key and version match, **in one atomic step**. Never inserts. The pace stays as it is. A user key never
    /// changes: it stays, or it is removed. A store that reads the session first asks [`Change::applies_to`].
    fn change(&self, change: Change<'_>)
    -> impl Future<Output = Result<Write, Unavailable>> + Send;

    /// Saves the pace of a session. If that fails, log it: nobody waits for the result. It never inserts or revives a session, never
    /// touches its version, and never extends its life: a store with an expiry of its own does not renew that.
    fn save_pace(&self, key: &SessionKey, pace: Pace) -> impl Future<Output = ()> + Send;

    /// Applies [`Take::apply`] to the quota of [`Take::key`], **in one atomic step**, and returns what that says.
    fn take(
        &self,
        take: Take,
    ) -> impl Future<Output = Result<Result<(), RateLimited>, Unavailable>> + Send;

    /// Removes what has reached its purge time at `now`, and nothing else: sessions by [`Session::purge_at`], quotas by
    /// [`RateState::purge_at`](super::RateState::purge_at). Returns how many sessions it removed. The host calls it now and then;
    /// no exchange does.
    fn purge(&self, now: OffsetDateTime)
    -> impl Future<Output = Result<usize, Unavailable>> + Send;
}

/// What a server does around the core. [`Exchange::run`](super::Exchange::run) runs any exchange to its end over it.
pub trait Host: Sync {
    /// A registration as the registry holds it: `Client`, `&'static Client`, `Arc<Client>`.
    type Client: core::borrow::Borrow<Client> + Send;

    /// The store.
    type Store: Store;

    /// Returns the store.
    fn store(&self) -> &Self::Store;

    /// Finds the registration of a client, as it is now: `Ok(registry.get(id).into())`.
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

    /// Mints the tokens of a grant, in memory. **Store and send nothing here**: the change may still be lost to another request.
    /// Before minting, refuse a grant whose subject or consent is no longer valid.
    fn mint(
        &self,
        grant: Grant<'_>,
    ) -> impl Future<Output = Result<Tokens<'static>, GrantRefusal>> + Send;
}
