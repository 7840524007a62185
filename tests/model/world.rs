//! Server processes around one store, as a state machine whose every interleaving is explored.
//!
//! - A handler is a task; each of its steps is one operation on the store, with the real function that decided on it. Between
//!   any two steps every other task may run, and the task may crash.
//! - A read may come from a replica that is behind: it returns any row that was ever stored, also after a purge. A pace may be
//!   missing at any read and its write may be lost.
//! - A guarded write may be heard of or not, stored or not, and the process may crash before it answers. A device that got no
//!   answer polls again: that is one more run of its task, at once with any other.
//! - There is no one time. **Every reading of a clock is any of the machine's moments**, in any order: clocks that differ, that
//!   stand, and that step back. Properties that need a true time are in `lone.rs`.
//! - Tasks of one kind are interchangeable, so they are kept in order: of states that differ by their order one is explored.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use device_flow::server::{Cause, DecisionError, Written, WrongCode};
use stateright::{Model, Property};

use crate::model::real::{self, Client, Decision, Moment, PaceForm, Row, User, Write};
use crate::model::steps::Run;

/// What a host or its store may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store writes whatever is stored meanwhile.
    NoGuard,
    /// The host decides at an old clock reading.
    ExpiryIgnored,
    /// The store saves a pace by writing back the whole record as it was read.
    PaceCarriesTheSession,
    /// The store raises the version with a pace.
    PaceBumpsTheVersion,
    /// The store inserts where it finds nothing to save a pace in.
    PaceRevives,
    /// The host names the claimant instead of who is signed in.
    NamesTheClaimant,
    /// The host takes a commit of unknown outcome for won.
    UnknownIsWon,
    /// The store purges what it pleases.
    PurgesEarly,
    /// The host answers a foreign client from the session.
    HostSkipsTheClient,
}

/// A handler: what it does, how often it may still start, how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Task {
    pub(crate) job: Job,
    pub(crate) runs: u8,
    pub(crate) phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Job {
    Poll(Client),
    Enter(User),
    Decide(User),
    Purge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Idle,
    /// About to load, after so many losses.
    Loading(u8, Option<Decision>),
    /// A poll that has something to write.
    Polling(u8, Row, Option<PaceForm>, Moment),
    /// A claim to be written.
    Claiming(u8, Row, Moment),
    /// A decision to be written.
    Deciding(u8, Decision, Row, Moment),
}

/// The store, the tasks, and what an observer of both has seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(super) row: Option<Row>,
    pub(super) pace: Option<PaceForm>,
    /// What a replica may still return.
    pub(super) past: BTreeSet<Row>,
    pub(super) tasks: Vec<Task>,
    pub(super) seen: Seen,
}

/// What an observer has seen. It decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// Successes sent.
    pub(super) successes: u8,
    /// A user was told so.
    pub(super) denied: bool,
    pub(super) withdrawn: bool,
    /// Who was signed in when the claim that stands was written.
    pub(super) claimant: Option<User>,
    /// How many guarded writes were stored.
    pub(super) changes: u64,
    /// A pace was lost, or overwritten by one that was made without it.
    pub(super) pace_lost: bool,
    /// The properties that were broken, one bit each.
    pub(super) broken: u16,
}

/// One step, as a counterexample prints it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step(pub(super) Job, pub(super) Did);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Did {
    Read(Option<Row>, Option<PaceForm>, Moment),
    ReadFor(Decision, Option<Row>, Moment),
    Wrote(Verdict, Commit),
    SavedPace,
    LostPace,
    Refused,
    Purged(Moment),
    Crashed,
}

/// What the host makes of an approved session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Redeem,
    Revoke,
    /// Of a user.
    Decide,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Commit {
    Heard,
    /// It was stored, if the guard allowed it, and nobody heard.
    Unheard,
    /// It was not stored, and nobody heard.
    Dropped,
    /// It was stored, if the guard allowed it, and the process crashed before it answered.
    Crashed,
}

/// A world to explore, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) start: Start,
    pub(crate) tasks: Vec<(Job, u8)>,
    pub(crate) moments: Vec<Moment>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) keeps_paces: bool,
    pub(crate) fault: Option<Fault>,
    /// What came up.
    pub(crate) covered: Arc<Mutex<HashSet<Covered>>>,
}

/// An answer, or a refusal of a user: what an exploration covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Covered {
    Poll(Cause),
    Enter(WrongCode),
    Decide(DecisionError),
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            start: Start::Issued,
            tasks: Vec::new(),
            moments: Vec::new(),
            decisions: Vec::new(),
            keeps_paces: false,
            fault: None,
            covered: Arc::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// The codes were issued.
    Issued,
    /// Alice has claimed and approved, at any of these moments.
    Approved(&'static [Moment]),
}

/// The properties: each is one of the invariants of the tables, by its number. 5 needs a true time: see `lone.rs`. 10 and 11
/// are asserted at every first call of a real function: see `real.rs`.
pub(crate) const PROPERTIES: [&str; 12] = [
    "1: at most one success per session",
    "1: exactly one of a redemption, a denial and a withdrawal takes effect",
    "2: no pending and no slow_down at or after the expiry",
    "2: nothing is claimed, decided or redeemed too late",
    "3: a final state and its answer never change until purge",
    "3: a purge removes only what is past its purge time, for good",
    "4: while no pace is lost the interval never falls, starts as advertised and stops at the cap",
    "6: a poll never changes subject, scope, claimant or decision",
    "7: a foreign client changes nothing and learns nothing",
    "8: while pending no poll writes the session, and a rejected poll after the first writes nothing",
    "8: saving a pace makes no other write lose",
    "9: nobody but the claimant decides, and the subject is the claimant",
];

pub(super) const ONE_SUCCESS: usize = 0;
pub(super) const ONE_EFFECT: usize = 1;
pub(super) const EXPIRED: usize = 2;
pub(super) const TOO_LATE: usize = 3;
pub(super) const FINAL: usize = 4;
pub(super) const PURGE: usize = 5;
pub(super) const INTERVAL: usize = 6;
pub(super) const POLL_CHANGES: usize = 7;
pub(super) const FOREIGN: usize = 8;
pub(super) const PENDING_WRITES: usize = 9;
pub(super) const PACE_LOSES: usize = 10;
pub(super) const CLAIMANT: usize = 11;

impl Seen {
    pub(super) fn must(&mut self, property: usize, holds: bool) {
        if !holds {
            self.broken |= 1 << property;
        }
    }
}

fn holds<const PROPERTY: usize>(_: &Machine, world: &World) -> bool {
    world.seen.broken & (1 << PROPERTY) == 0
}

impl Model for Machine {
    type State = World;
    /// The step and where it leads: the steps of a state are made together.
    type Action = (Step, Box<World>);

    fn init_states(&self) -> Vec<World> {
        let mut tasks: Vec<_> = self
            .tasks
            .iter()
            .map(|&(job, runs)| Task::new(job, runs))
            .collect();
        tasks.sort_unstable();
        let issued = Row::issued();
        let world = World {
            row: Some(issued),
            pace: None,
            past: BTreeSet::from([issued]),
            tasks,
            seen: Seen::default(),
        };
        let Start::Approved(moments) = self.start else {
            return vec![world];
        };
        let approved = moments.iter().map(|&now| {
            let claim = real::enter(User::Alice, Some(issued), 0).unwrap().unwrap();
            let claimed = claim.guarded(issued).unwrap();
            let approval = real::decision(User::Alice, Decision::Approve, claimed, now);
            let approved = approval.unwrap().unwrap().guarded(claimed).unwrap();
            let mut world = world.clone();
            world.row = Some(approved);
            world.past.extend([claimed, approved]);
            world.seen.claimant = Some(User::Alice);
            world.seen.changes = 2;
            world
        });
        approved.collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Self::Action>) {
        if world.seen.broken != 0 {
            return; // one counterexample is enough, and a short one is best
        }
        let mut before = None;
        for (place, task) in world.tasks.iter().enumerate() {
            // Of tasks that are alike, one is enough.
            if before.replace(task) != Some(task) {
                Run::new(self, world, place, actions).steps();
            }
        }
    }

    fn next_state(&self, _: &World, (_, next): Self::Action) -> Option<World> {
        Some(*next)
    }

    fn format_action(&self, (step, _): &Self::Action) -> String {
        format!("{step:?}")
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let conditions: [fn(&Self, &World) -> bool; 12] = [
            holds::<0>,
            holds::<1>,
            holds::<2>,
            holds::<3>,
            holds::<4>,
            holds::<5>,
            holds::<6>,
            holds::<7>,
            holds::<8>,
            holds::<9>,
            holds::<10>,
            holds::<11>,
        ];
        let named = PROPERTIES.into_iter().zip(conditions);
        named
            .map(|(name, condition)| Property::always(name, condition))
            .collect()
    }
}

impl Task {
    fn new(job: Job, runs: u8) -> Self {
        let phase = Phase::Idle;
        Self { job, runs, phase }
    }
}

impl World {
    pub(super) fn store(&mut self, row: Option<Row>) {
        if let (Some(before), Some(after)) = (self.row, row) {
            self.seen.must(FINAL, before == after || !before.is_final());
        }
        self.past.extend(row);
        self.row = row;
    }

    /// Stores what a guarded write left, if anything.
    pub(super) fn change(&mut self, write: Write, stored: Option<Row>, written: Written) {
        if stored.is_some() {
            self.store(stored);
            self.seen.changes += 1;
        }
        if written == Written::Lost && self.row.is_some() {
            // A session is issued with version 1: the write loses to another one, made since its reading.
            let read = write.read();
            let won = self.seen.changes;
            self.seen.must(PACE_LOSES, read.version() <= won);
        }
    }
}
