//! The verification page: entering a code, deciding, taking back (table U).
//!
//! Rules:
//! 1. Every entry of a code pays a guess, by a guarded write, before anything is looked up. Success never refills it.
//! 2. A code that was right but is of no use to this user looks to the user like a wrong one.
//! 3. Entering claims the session; the claimant alone decides, and becomes the subject.
//! 4. Who it is, is asked before anything else: an error tells a stranger nothing.

use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;

use time::OffsetDateTime;

use super::policy::Policy;
use super::quota::{Quota, QuotaChange, Spent};
use super::session::{ATTEMPTS, Change, Grant, Lost, Next, Session, State, Written};
use super::subject::{HostValue, Origin, Subject};
use crate::code::UserCode;
use crate::digest::{QuotaKey, UserCodeKeys, UserKey};
use crate::scope::Scope;
use crate::time::Timestamp;

/// A code that a signed-in user typed and submitted with a POST.
///
/// Load the quota of [`Entry::quota_key`], [`Entry::pay`], write the change, [`Guess::settle`]; then look up
/// [`Paid::user_keys`] and [`Paid::enter`]. Nothing is looked up by a code that was not paid for: no other value has its keys.
#[derive(Debug)]
#[must_use]
pub struct Entry<'a> {
    policy: &'a Policy,
    keys: &'a UserCodeKeys,
    user: &'a Subject,
    code: Option<UserCode>,
    quota_key: QuotaKey,
    losses: u64,
}

impl<'a> Entry<'a> {
    /// Reads what `user` typed, forgivingly: case, dashes, spaces and full-width forms do not matter.
    pub fn new(typed: &str, user: &'a Subject, keys: &'a UserCodeKeys, policy: &'a Policy) -> Self {
        Self {
            policy,
            keys,
            user,
            code: policy.user_code.read(typed),
            quota_key: QuotaKey::guesses(user),
            losses: 0,
        }
    }

    /// Counts the guesses by where they come from instead of by user: [`QuotaKey::guesses_from`]. To count both, take from
    /// [`Policy::guess_limit`] under that key first, by a guarded write, and leave the entry as it is.
    pub fn counted_by(mut self, key: QuotaKey) -> Self {
        self.quota_key = key;
        self
    }

    /// The key of the guess quota.
    pub const fn quota_key(&self) -> &QuotaKey {
        &self.quota_key
    }

    /// Takes one guess from the stored quota.
    ///
    /// # Errors
    ///
    /// [`Spent`], with the time to try again, for a right code as for a wrong one (U1); also after three lost writes.
    pub fn pay(
        &mut self,
        stored: Option<Quota>,
        now: OffsetDateTime,
    ) -> Result<Guess<'_, 'a>, Spent> {
        if self.losses >= ATTEMPTS {
            let retry_after = Duration::from_secs(1);
            return Err(Spent { retry_after });
        }
        let limit = self.policy.guess_limit();
        let change = limit.take(self.quota_key, stored, now)?;
        Ok(Guess {
            entry: self,
            change,
        })
    }
}

/// A guess that is about to be paid.
#[derive(Debug)]
#[must_use = "nothing is looked up before the guess is paid"]
pub struct Guess<'e, 'a> {
    entry: &'e mut Entry<'a>,
    change: QuotaChange,
}

impl<'a> Guess<'_, 'a> {
    /// The guarded change of the quota.
    pub const fn change(&self) -> &QuotaChange {
        &self.change
    }

    /// The code, to be looked up, if the guarded write won.
    ///
    /// # Errors
    ///
    /// [`Lost`] if it did not, or if nobody knows: load the quota and pay again. After three losses paying is refused.
    pub fn settle(self, written: Written) -> Result<Paid<'a>, Lost> {
        match written {
            Written::Won => Ok(Paid {
                user: self.entry.user,
                code: self.entry.code,
                keys: self.entry.code.map(|code| self.entry.keys.each(&code)),
            }),
            Written::Lost | Written::Unknown => {
                self.entry.losses = self.entry.losses.saturating_add(1);
                Err(Lost)
            }
        }
    }
}

/// A code that was paid for.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Paid<'a> {
    user: &'a Subject,
    code: Option<UserCode>,
    keys: Option<(UserKey, Option<UserKey>)>,
}

impl Paid<'_> {
    /// The keys to look up, in this order, until one is found: `keys.find_map(|key| store.load_by_user_key(&key))`. None at
    /// all for what cannot be a code.
    pub fn user_keys(&self) -> impl Iterator<Item = UserKey> + use<> {
        let (current, previous) = match self.keys {
            Some((current, previous)) => (Some(current), previous),
            None => (None, None),
        };
        current.into_iter().chain(previous)
    }

    /// Enters the code: claims the session for the user, and shows what the device asks for.
    ///
    /// Where the claim loses its write, load the session and enter again, **three times at most**; the guess is paid.
    ///
    /// # Errors
    ///
    /// A [`WrongCode`]. To the user it is one answer: wrong, expired or used. The reason is for the host.
    pub fn enter(
        &self,
        session: Option<&Session>,
        now: OffsetDateTime,
    ) -> Result<Entered, WrongCode> {
        let now = Timestamp::from(now);
        let code = self.code.ok_or(WrongCode::Malformed)?;
        let session = session.ok_or(WrongCode::Unknown)?;
        if self.user_keys().all(|key| key != *session.user_key()) {
            return Err(WrongCode::Unknown);
        }
        let claimed = match &session.state {
            State::Approved(_) | State::Denied(_) | State::Redeemed(..) | State::Revoked(_) => {
                return Err(WrongCode::Decided);
            }
            State::Pending | State::Claimed(_) if now >= session.expires_at => {
                return Err(WrongCode::Expired);
            }
            State::Claimed(claimant) if **claimant != *self.user => {
                return Err(WrongCode::ClaimedByAnother);
            }
            State::Claimed(_) => true,
            State::Pending => false,
        };
        let review = Review {
            session: session.clone(),
            code,
            now,
        };
        if claimed {
            return Ok(Entered::Review(review));
        }
        let claimant = Arc::new(self.user.clone());
        Ok(Entered::Claim(Claim {
            change: session.change(Next::Claimed(claimant)),
            review,
        }))
    }
}

/// What entering a right code leads to.
#[derive(Debug)]
#[must_use]
#[expect(clippy::exhaustive_enums, reason = "a host must match it whole")]
pub enum Entered {
    /// Write the claim, then show its review.
    Claim(Claim),
    /// This user had claimed it before: show the review.
    Review(Review),
}

/// A session about to be claimed.
#[derive(Debug)]
#[must_use = "the session is not claimed until the store has written it"]
pub struct Claim {
    change: Change,
    review: Review,
}

impl Claim {
    /// The guarded change to `Claimed`.
    pub const fn change(&self) -> &Change {
        &self.change
    }

    /// The session as it was read, for [`Session::apply`].
    pub const fn session(&self) -> &Session {
        &self.review.session
    }

    /// The review, if the guarded write won.
    ///
    /// # Errors
    ///
    /// [`Lost`] if it did not, or if nobody knows: load the session and enter again.
    pub fn settle(self, written: Written) -> Result<Review, Lost> {
        match written {
            Written::Won => Ok(self.review),
            Written::Lost | Written::Unknown => Err(Lost),
        }
    }
}

/// What the user is shown before deciding ([RFC 8628, section 3.3]).
///
/// # Security
///
/// All of it is untrusted text: escape it. Show the code and ask whether the device shows the same, warn that somebody else may
/// have sent the user here ([RFC 8628, section 5.4]), and decide on POST alone.
///
/// [RFC 8628, section 3.3]: https://www.rfc-editor.org/rfc/rfc8628#section-3.3
/// [RFC 8628, section 5.4]: https://www.rfc-editor.org/rfc/rfc8628#section-5.4
pub struct Review {
    session: Session,
    code: UserCode,
    now: Timestamp,
}

impl Review {
    /// The session's key, under which the host loads it again when the user decides. Keep it with the user's own session, or
    /// in the page: it is no secret, and only the claimant can decide with it.
    pub const fn session_key(&self) -> &crate::digest::SessionKey {
        self.session.key()
    }

    /// The client that asks. **A public client's id is only claimed.**
    pub fn client_id(&self) -> &str {
        self.session.client_id()
    }

    /// What it asks for. The user may grant less.
    pub const fn scope(&self) -> &Scope {
        self.session.scope()
    }

    /// How long ago it asked.
    pub fn age(&self) -> Duration {
        self.session.age(self.now)
    }

    /// The time left to decide.
    pub fn time_left(&self) -> Duration {
        self.session.expires_at.since(self.now)
    }

    /// Where it asked from, as far as the host knew.
    pub fn origin(&self) -> Option<&Origin> {
        self.session.origin()
    }

    /// The code, to compare with the one on the device.
    pub const fn user_code(&self) -> &UserCode {
        &self.code
    }
}

impl fmt::Debug for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Review")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// Why a code was not accepted, for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("the code is wrong, expired or already used")]
#[non_exhaustive]
pub enum WrongCode {
    /// U2: not a code of this policy.
    Malformed,
    /// U2: nobody has this code.
    Unknown,
    /// U3: it has expired.
    Expired,
    /// U3: it was approved, denied, redeemed or revoked.
    Decided,
    /// U3: another user entered it first.
    ClaimedByAnother,
}

/// The user's decision, on the session loaded by [`Review::session_key`].
///
/// Each gives the guarded change to write, or nothing where the same decision stands already. Where the write lost, load the
/// session and decide again, **three times at most**. Where the session is gone, it was purged: tell the user that the code has
/// expired.
impl Session {
    /// Approves: nothing is approved before the change is written. With the scope granted and a value of the host to return with the grant (U5 to U8, U10).
    ///
    /// # Errors
    ///
    /// A [`DecisionError`]; nothing changes.
    #[must_use = "nothing has changed until the change is written"]
    pub fn approve(
        &self,
        user: &Subject,
        scope: &Scope,
        value: HostValue,
        policy: &Policy,
        now: OffsetDateTime,
    ) -> Result<Option<Change>, DecisionError> {
        let now = Timestamp::from(now);
        self.owned_by(user)?;
        match &self.state {
            State::Pending | State::Claimed(_) if now >= self.expires_at => {
                Err(DecisionError::Expired)
            }
            State::Pending | State::Claimed(_) => {
                if !scope.is_granted_of(self.scope()) {
                    return Err(DecisionError::Scope);
                }
                let grant = Grant {
                    subject: user.clone(),
                    scope: scope.clone(),
                    value,
                    approved_at: now,
                    redeemable_until: self.expires_at.max(now.after(policy.grace())),
                };
                Ok(Some(self.change_to_approved(grant, policy.retention)))
            }
            State::Approved(grant) | State::Redeemed(grant, _) => same(grant, scope),
            State::Denied(_) | State::Revoked(_) => Err(DecisionError::Decided),
        }
    }

    /// Denies, for good (U5, U6, U9, U10).
    ///
    /// # Errors
    ///
    /// A [`DecisionError`]; nothing changes.
    #[must_use = "nothing has changed until the change is written"]
    pub fn deny(
        &self,
        user: &Subject,
        now: OffsetDateTime,
    ) -> Result<Option<Change>, DecisionError> {
        self.owned_by(user)?;
        match &self.state {
            State::Pending | State::Claimed(_) if Timestamp::from(now) >= self.expires_at => {
                Err(DecisionError::Expired)
            }
            State::Pending => Err(DecisionError::NotYours),
            State::Claimed(_) => Ok(Some(self.change(Next::Denied))),
            State::Denied(_) => Ok(None),
            State::Approved(_) | State::Redeemed(..) | State::Revoked(_) => {
                Err(DecisionError::Decided)
            }
        }
    }

    /// Takes an approval back before it is redeemed (U11). Races with the redemption: exactly one wins.
    ///
    /// # Errors
    ///
    /// A [`DecisionError`]; nothing changes. [`DecisionError::Redeemed`] means that the device has its tokens: revoke those.
    #[must_use = "nothing has changed until the change is written"]
    pub fn withdraw(&self, user: &Subject) -> Result<Option<Change>, DecisionError> {
        self.owned_by(user)?;
        match &self.state {
            State::Approved(_) => Ok(Some(self.change(Next::Revoked))),
            State::Revoked(_) => Ok(None),
            State::Redeemed(..) => Err(DecisionError::Redeemed),
            State::Denied(_) => Err(DecisionError::Decided),
            State::Pending | State::Claimed(_) => Err(DecisionError::Undecided),
        }
    }

    /// Gives the session back unclaimed, for another account of the same person (U12).
    ///
    /// # Errors
    ///
    /// A [`DecisionError`]; nothing changes.
    pub fn release(&self, user: &Subject) -> Result<Change, DecisionError> {
        self.owned_by(user)?;
        match &self.state {
            State::Claimed(_) => Ok(self.change(Next::Pending)),
            State::Pending => Err(DecisionError::NotYours),
            State::Approved(_) | State::Denied(_) | State::Redeemed(..) | State::Revoked(_) => {
                Err(DecisionError::Decided)
            }
        }
    }

    /// U5: nobody but the claimant.
    fn owned_by(&self, user: &Subject) -> Result<(), DecisionError> {
        let is_theirs = self.claimant() == Some(user);
        is_theirs.then_some(()).ok_or(DecisionError::NotYours)
    }
}

/// The same decision again is a success without a change; another one is not.
fn same(grant: &Grant, scope: &Scope) -> Result<Option<Change>, DecisionError> {
    if grant.scope == *scope {
        return Ok(None);
    }
    Err(DecisionError::Decided)
}

/// Why a decision was not taken. The claimant may be told which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecisionError {
    /// U5: not claimed, or by another user. Say no more than that the code must be entered.
    #[error("this user has not entered the code of the session")]
    NotYours,
    /// U6: too late.
    #[error("the code has expired; start again on the device")]
    Expired,
    /// U8: wider than asked for, or empty though something was asked for.
    #[error("the scope must be some or all of what the device asked for")]
    Scope,
    /// U10: the other decision was taken before.
    #[error("the request was decided before")]
    Decided,
    /// U11: too late to withdraw.
    #[error("the device has its tokens already; revoke those")]
    Redeemed,
    /// U11: there is nothing to withdraw.
    #[error("the request was not decided yet; deny it instead")]
    Undecided,
}
