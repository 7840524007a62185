//! The [store's contract](crate::server#the-stores-contract) as data: what to ask of a store, and what it must answer.
//!
//! Rules:
//! 1. The operations of one [`Step`] are issued at once, each by a worker of its own, or in any order where there is one
//!    worker. A race may go well by luck: run the cases often, each time with another seed.
//! 2. [`Step::check`] judges what the store answered.
//! 3. Every case has keys of its own, and every seed has others: nothing needs to be emptied before or between.
//! 4. Sessions are compared by their whole stored form. A pace may always be missing, for a store need not keep any.
//!
//! ```
//! use device_flow::contract::{self, Operation, Outcome};
//! use device_flow::memory::Memory;
//! use time::macros::datetime;
//!
//! fn run(store: &mut Memory, operation: &Operation) -> Outcome {
//!     match operation {
//!         Operation::Insert(session) => Outcome::Inserted(store.insert(session)),
//!         Operation::Load(key) => Outcome::Found(store.load(key).cloned()),
//!         Operation::LoadByUserKey(key) => Outcome::Found(store.load_by_user_key(key).cloned()),
//!         Operation::Change(_, change) => Outcome::Written(store.change(change)),
//!         Operation::SavePace(key, pace) => {
//!             store.save_pace(key, *pace);
//!             Outcome::Done
//!         }
//!         Operation::LoadQuota(key) => Outcome::Quota(store.load_quota(key)),
//!         Operation::ChangeQuota(change) => Outcome::Written(store.change_quota(change)),
//!         Operation::Purge(now) => {
//!             store.purge(*now);
//!             Outcome::Done
//!         }
//!     }
//! }
//!
//! let mut store = Memory::new();
//! for case in contract::cases("run 1", datetime!(2026-03-21 12:00 UTC)) {
//!     for step in case.steps() {
//!         let operations = step.operations().iter();
//!         let outcomes: Vec<_> = operations.map(|operation| run(&mut store, operation)).collect();
//!         step.check(&outcomes)?;
//!     }
//! }
//! # Ok::<(), contract::Violation>(())
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use time::OffsetDateTime;

use crate::digest::{QuotaKey, SessionKey, UserKey};
use crate::server::{Change, Inserted, Pace, Quota, QuotaChange, Session, Stored, Written};

mod cases;

/// The cases: what a store of the host must survive.
///
/// `seed` makes the keys those of this run, `now` is when the sessions are issued.
pub fn cases(seed: &str, now: OffsetDateTime) -> impl Iterator<Item = Case> {
    (0..).zip(cases::CASES).filter_map(move |(place, case)| {
        // There is a set for every seed and every moment; the tests of the crate count the cases.
        cases::Set::new(seed, place, now).map(|set| case(&set))
    })
}

/// One thing that must hold, with the steps that show it.
#[derive(Clone, Debug)]
pub struct Case {
    name: &'static str,
    steps: Vec<Step>,
}

impl Case {
    /// What must hold, as a sentence.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The steps, to be run one after the other.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether it purges. A store with an expiry of its own leaves these out, and gives [`cases`] the true time.
    pub fn purges(&self) -> bool {
        let mut operations = self.steps.iter().flat_map(|step| &step.operations);
        operations.any(|operation| matches!(operation, Operation::Purge(_)))
    }
}

/// Operations that are issued at once, and what a store must answer.
#[derive(Clone, Debug)]
pub struct Step {
    case: &'static str,
    operations: Vec<Operation>,
    rule: Rule,
    expected: Vec<Outcome>,
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Each operation answers what is expected of it.
    Each,
    /// The one operation answers one of these.
    AnyOf,
    /// Exactly one operation answers the first, every other one the second.
    OneWins,
}

/// What a store does.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a store must be asked all of it")]
pub enum Operation {
    /// Insert a new session.
    Insert(Session),
    /// Load the session of a device code.
    Load(SessionKey),
    /// Load the session of a user code.
    LoadByUserKey(UserKey),
    /// Write a change. The session is the one that was read, for [`Session::apply`].
    Change(Session, Change),
    /// Save a pace.
    SavePace(SessionKey, Pace),
    /// Load a quota.
    LoadQuota(QuotaKey),
    /// Write a quota.
    ChangeQuota(QuotaChange),
    /// Remove what is past its purge time at this moment.
    Purge(OffsetDateTime),
}

/// What a store answered.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a store must say one of these")]
pub enum Outcome {
    /// To [`Operation::Insert`].
    Inserted(Inserted),
    /// To [`Operation::Load`] and [`Operation::LoadByUserKey`].
    Found(Option<Stored>),
    /// To [`Operation::Change`] and [`Operation::ChangeQuota`].
    Written(Written),
    /// To [`Operation::LoadQuota`].
    Quota(Option<Quota>),
    /// To [`Operation::SavePace`] and [`Operation::Purge`], which tell nothing.
    Done,
}

impl Outcome {
    fn meets(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Inserted(one), Self::Inserted(other)) => one == other,
            (Self::Found(Some(one)), Self::Found(Some(other))) => {
                let whole = |stored: &Stored| serde_json::to_string(&stored.session).ok();
                let is_pace = one.pace.is_none() || one.pace == other.pace;
                is_pace && whole(one) == whole(other)
            }
            (Self::Found(None), Self::Found(None)) | (Self::Done, Self::Done) => true,
            (Self::Written(one), Self::Written(other)) => one == other,
            (Self::Quota(one), Self::Quota(other)) => one == other,
            _ => false,
        }
    }
}

impl Step {
    /// The operations, to be issued at once.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Judges what the store answered, in the order of the operations.
    ///
    /// # Errors
    ///
    /// A [`Violation`] of the contract. [`Written::Unknown`] is one here: nothing can be said of a store that does not know.
    pub fn check(&self, outcomes: &[Outcome]) -> Result<(), Violation> {
        let met = |outcome: &Outcome, place| {
            let expected = self.expected.get(place);
            expected.is_some_and(|expected| outcome.meets(expected))
        };
        let count = |place| outcomes.iter().filter(|one| met(one, place)).count();
        let right = match self.rule {
            Rule::Each => (0..).zip(outcomes).all(|(place, one)| met(one, place)),
            Rule::AnyOf => (0..self.expected.len()).any(|place| count(place) == outcomes.len()),
            Rule::OneWins => count(0) == 1 && count(1).saturating_add(1) == outcomes.len(),
        };
        if right && outcomes.len() == self.operations.len() {
            return Ok(());
        }
        let expected = match self.rule {
            Rule::Each => "",
            Rule::AnyOf => "one of ",
            Rule::OneWins => "once the first and else the second of ",
        };
        Err(Violation {
            case: self.case,
            asked: format!("{:?}", self.operations),
            expected: format!("{expected}{:?}", self.expected),
            answered: format!("{outcomes:?}"),
        })
    }
}

/// A store that breaks its contract. It shows keys and versions, no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{case}: asked {asked}, the store answered {answered}; expected {expected}")]
#[non_exhaustive]
pub struct Violation {
    /// What must hold: the name of the case.
    pub case: &'static str,
    asked: String,
    expected: String,
    answered: String,
}
