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
//! All values are `Send` and `Sync`, and may be held across awaits. Ids such as C12 name rows of the decision tables; the tests
//! that hold a row are named for it.
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
//!
//! # The poll
//!
//! ```
//! use device_flow::memory::Memory;
//! use device_flow::server::{Approval, Cause, Lost, Poll, Polled, Reply};
//! use device_flow::wire::tokens::{TokenError, Tokens};
//! use time::OffsetDateTime;
//!
//! fn decide(
//!     mut poll: Poll<'_>,
//!     store: &mut Memory,
//!     mint: impl Fn(Approval<'_>) -> String,
//!     now: OffsetDateTime,
//! ) -> Result<Reply, TokenError> {
//!     loop {
//!         let stored = poll.session_key().and_then(|key| store.load(key));
//!         match poll.decide(stored, now) {
//!             Polled::Reply(reply) => {
//!                 if reply.cause() == Cause::Replay {
//!                     // Revoke the tokens of poll.session_key().
//!                 }
//!                 return Ok(reply);
//!             }
//!             Polled::Paced(key, pace, reply) => {
//!                 store.save_pace(key, pace); // may fail
//!                 return Ok(reply);
//!             }
//!             Polled::Redeem(redemption) => {
//!                 let access_token = mint(redemption.approval()); // in memory: nothing is stored or sent
//!                 let written = store.change(redemption.change()); // the guarded write
//!                 match redemption.settle(written, &Tokens::bearer(&access_token)?) {
//!                     Ok(reply) => return Ok(reply),
//!                     Err(Lost) => {} // load and decide again; after three losses the decision is 503
//!                 }
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! # The verification page
//!
//! ```
//! use device_flow::digest::{SessionKey, UserCodeKeys};
//! use device_flow::memory::Memory;
//! use device_flow::scope::Scope;
//! use device_flow::server::{Entered, Entry, HostValue, Lost, Policy, Review, Subject, Written};
//! use time::OffsetDateTime;
//!
//! /// A signed-in user submits a code. To show: the review, or "wrong, expired or used", or when to try again.
//! fn enter(
//!     typed: &str,
//!     user: &Subject,
//!     keys: &UserCodeKeys,
//!     policy: &Policy,
//!     store: &mut Memory,
//!     now: OffsetDateTime,
//! ) -> Result<Review, Box<dyn core::error::Error>> {
//!     let mut entry = Entry::new(typed, user, keys, policy);
//!     let paid = loop {
//!         let quota = store.load_quota(entry.quota_key());
//!         let guess = entry.pay(quota, now)?; // refuses after three losses, too
//!         let written = store.change_quota(guess.change());
//!         if let Ok(paid) = guess.settle(written) {
//!             break paid;
//!         }
//!     };
//!     for _ in 0..3 {
//!         let found = paid.user_keys().find_map(|key| store.load_by_user_key(&key));
//!         match paid.enter(found.map(|stored| &stored.session), now)? {
//!             Entered::Review(review) => return Ok(review), // claimed by this user before
//!             Entered::Claim(claim) => {
//!                 let written = store.change(claim.change());
//!                 if let Ok(review) = claim.settle(written) {
//!                     return Ok(review);
//!                 }
//!             }
//!         }
//!     }
//!     Err("busy, try again".into())
//! }
//!
//! /// The claimant approves, on a POST that names the session of the review.
//! fn approve(
//!     session: &SessionKey,
//!     user: &Subject,
//!     granted: &Scope,
//!     policy: &Policy,
//!     store: &mut Memory,
//!     now: OffsetDateTime,
//! ) -> Result<(), Box<dyn core::error::Error>> {
//!     for _ in 0..3 {
//!         let stored = store.load(session).ok_or("the code has expired")?;
//!         let decided = stored.session.approve(user, granted, HostValue::default(), policy, now)?;
//!         match decided {
//!             Some(change) if store.change(&change) != Written::Won => {} // decide again
//!             Some(_) | None => return Ok(()),
//!         }
//!     }
//!     Err("busy, try again".into())
//! }
//! ```
//!
//! # The quotas of the endpoints
//!
//! ```
//! use device_flow::memory::Memory;
//! use device_flow::server::{
//!     Issuing, Policy, Registration, Reply, Unauthenticated, Written,
//! };
//! use time::OffsetDateTime;
//!
//! /// For `source`, such as an address. The same goes for a poll, without the issuing quota. Those who come at once with one key
//! /// stand in line: the exclusive reference to the store sees to it here.
//! fn authenticate<'f>(
//!     request: Unauthenticated<'f, Issuing<'f>>,
//!     registration: Option<&'f Registration>,
//!     source: &str,
//!     policy: &Policy,
//!     store: &mut Memory,
//!     now: OffsetDateTime,
//! ) -> Result<Issuing<'f>, Reply> {
//!     let key = request.secret_quota_key(source); // before the request is consumed
//!     if let Some(key) = &key {
//!         request.check_secret_quota(store.load_quota(key), now)?;
//!     }
//!     let issuing = request.authenticate(registration).inspect_err(|refused| {
//!         if let Some(key) = key.filter(|_| refused.cause().is_wrong_secret())
//!             && let Ok(change) = policy.secret_limit().take(key, store.load_quota(&key), now)
//!         {
//!             let _ = store.change_quota(&change); // where others share the store: again, until it has won
//!         }
//!     })?;
//!     for _ in 0..24 {
//!         let key = issuing.quota_key(source);
//!         let change = policy.issuing_limit().take(key, store.load_quota(&key), now);
//!         if store.change_quota(&change.map_err(Reply::issuing_quota_spent)?) == Written::Won {
//!             return Ok(issuing);
//!         }
//!     }
//!     Err(Reply::store_failed())
//! }
//! ```
//!
//! # What does not compile
//!
//! Two successes of one redemption, and two decisions of one poll at once:
//!
//! ```compile_fail,E0382
//! # use device_flow::{server::{Redemption, Written}, wire::tokens::Tokens};
//! fn twice(redemption: Redemption<'_>, tokens: &Tokens<'_>) {
//!     let _ = redemption.settle(Written::Won, tokens);
//!     let _ = redemption.settle(Written::Won, tokens);
//! }
//! ```
//!
//! ```compile_fail,E0499
//! # use device_flow::server::Poll;
//! # use time::OffsetDateTime;
//! fn at_once(mut poll: Poll<'_>, now: OffsetDateTime) {
//!     let one = poll.decide(None, now);
//!     let other = poll.decide(None, now);
//!     drop((one, other));
//! }
//! ```
//!
//! A poll without an authenticated client, an approval that nobody gave, a code that was not paid for, a change that no
//! transition made: none of these types can be made by hand.
//!
//! ```compile_fail,E0451
//! # use device_flow::server::{Poll, Policy, Registration};
//! fn unauthenticated<'f>(policy: &'f Policy, client: &'f Registration) -> Poll<'f> {
//!     Poll { policy, client, key: None, losses: 0 }
//! }
//! ```
//!
//! ```compile_fail,E0451
//! # use device_flow::server::{Approval, Redemption};
//! fn unapproved<'r>(redemption: &'r Redemption<'r>) -> Approval<'r> {
//!     Approval { redemption }
//! }
//! ```
//!
//! ```compile_fail,E0451
//! # use device_flow::server::{Paid, Subject};
//! fn unpaid(user: &Subject) -> Paid<'_> {
//!     Paid { user, code: None, keys: None }
//! }
//! ```
//!
//! ```compile_fail,E0599
//! # use device_flow::server::Entry;
//! fn looked_up_before_it_was_paid(entry: Entry<'_>) {
//!     let _ = entry.user_keys();
//! }
//! ```
//!
//! ```compile_fail,E0382
//! # use device_flow::server::{Claim, Written};
//! fn claimed_twice(claim: Claim) {
//!     let _ = claim.settle(Written::Won);
//!     let _ = claim.settle(Written::Won);
//! }
//! ```
//!
//! ```compile_fail,E0451
//! # use device_flow::{digest::SessionKey, server::Change};
//! fn forged(key: SessionKey, change: Change) -> Change {
//!     Change { key, ..change }
//! }
//! ```

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
