//! Server processes around one store, as a state machine whose every interleaving is explored.
//!
//! - A handler is a task; each of its steps is one operation on the store, with the real exchange that asked for it. Between any
//!   two steps every other task may run, and the task may crash.
//! - A read may come from a replica that is behind: it returns any row that was ever stored, also after a purge. A pace may be
//!   missing at any read and its write may be lost.
//! - A guarded write may be stored or not, and its process may learn that or not. The process may also crash before it answers. A device
//!   that got no answer sends its request again. That is one more run of its task, which may run at the same time as any other.
//! - There is no common time. **Each reading of a clock may be any of the machine's moments**, in any order. So clocks differ, stand still
//!   and step back. Properties that need a true time are in `lone.rs`.
//! - Two parties may have the refresh token: the owner of the device, and a thief who has copied the first one. Each presents the last
//!   token that it was sent, until it is told that this token is not valid.
//! - Tasks of one kind are interchangeable, so they are kept sorted. Of states that differ only in the order of tasks, one is explored.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

use device_flow::server::{Cause, PageError, Status};
use stateright::{Model, Property};

use crate::real::{
    self, Asked, Client, Decision, Flight, GRACE, Moment, PaceForm, Request, Row, Secret, Setup,
    User, Write,
};
use crate::steps::Run;

/// What a host or its store may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store writes without comparing the version.
    NoGuard,
    /// The host decides by an old clock reading.
    ClockStands,
    /// The store saves a pace by writing back the whole record as it was read.
    PaceCarriesTheSession,
    /// The store raises the version when it saves a pace.
    PaceBumpsTheVersion,
    /// If the session is gone, the store inserts it again to save its pace.
    PaceRevives,
    /// The host names the claimant instead of the user who is signed in.
    NamesTheClaimant,
    /// The host treats a write of unknown outcome as done.
    UnknownIsDone,
    /// The store purges sessions before their purge time.
    PurgesEarly,
    /// The host answers a foreign client as if it were the session's own.
    HostSkipsTheClient,
    /// The host refuses a refresh token that was used before, but does not end the login.
    ReuseIsForgiven,
    /// The host sends new tokens for a refresh token that was used before.
    ReuseIsRefreshed,
    /// The server was configured without a grace.
    NoGrace,
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
    Refresh(Who),
    Revoke(Who),
    Enter(User),
    Decide(User),
    Purge,
}

/// Who has a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Who {
    Owner,
    Thief,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Phase {
    Idle,
    /// It is about to load again.
    Loading(Flight),
    /// It has loaded this, and has something to write.
    Writing(Flight, Row, Option<PaceForm>),
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

/// Somebody who may have a refresh token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Party {
    /// The last token that it was sent.
    pub(super) held: Option<Secret>,
    /// The earliest clock reading at which that token was presented.
    pub(super) since: Option<Moment>,
    /// Whether it was told that its token is not valid.
    pub(super) is_over: bool,
    pub(super) has_refreshed: bool,
}

/// What an observer has seen. It decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    /// How many redemptions were answered with tokens.
    pub(super) successes: u8,
    /// A denial or a withdrawal that was confirmed to a user.
    pub(super) refused: Option<Decision>,
    /// The user who was signed in when the current claim was written.
    pub(super) claimant: Option<User>,
    /// Whether the login was stored as ended.
    pub(super) ended: bool,
    pub(super) owner: Party,
    pub(super) thief: Party,
    /// If both have refreshed: the party that refreshed first. Its token is void.
    pub(super) loser: Option<Who>,
    /// How many guarded writes were stored.
    pub(super) changes: u64,
    /// Whether a pace was lost, or overwritten by one that was made without it.
    pub(super) pace_lost: bool,
    /// The properties that were broken, one bit each.
    pub(super) broken: u32,
}

/// One step, as a counterexample prints it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step(pub(super) Job, pub(super) Did);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Did {
    Read(Request, Option<Row>, Option<PaceForm>, Moment),
    Wrote(Option<Cause>, Commit),
    SavedPace,
    LostPace,
    Refused,
    Purged(Moment),
    Crashed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Commit {
    Heard,
    /// It was stored, if the guard allowed it, but the process did not learn that.
    Unheard,
    /// It was not stored, and the process did not learn that either.
    Dropped,
    /// It was stored, if the guard allowed it, and the process crashed before it answered: the answer is lost.
    Crashed,
}

/// A world to explore, with its bounds.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) setup: Setup,
    pub(crate) start: Start,
    pub(crate) tasks: Vec<(Job, u8)>,
    pub(crate) moments: Vec<Moment>,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) keeps_paces: bool,
    /// Whether the host may find that the consent is gone.
    pub(crate) withdraws_consent: bool,
    pub(crate) fault: Option<Fault>,
    /// What the exploration has covered.
    pub(crate) covered: Arc<Mutex<HashSet<Covered>>>,
}

/// An answer, or a refusal of a user: what an exploration covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Covered {
    Answer(Cause),
    Enter(PageError),
    Decide(PageError),
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            setup: Setup::Plain,
            start: Start::Issued,
            tasks: Vec::new(),
            moments: Vec::new(),
            decisions: Vec::new(),
            keeps_paces: false,
            withdraws_consent: true,
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
    /// The device has its first tokens, too; a thief has copied them. No replica is older than that.
    Active(Moment),
}

/// The properties. Each begins with the number of its invariant, as in `tests/properties/server.rs`, or with R for a rule of the refresh.
/// Invariant 5 needs a true time: see `lone.rs`. Invariants 10 and 11 are asserted at every first run of a real exchange: see `real.rs`.
pub(crate) const PROPERTIES: [&str; 18] = [
    "1: at most one success per session",
    "1: nothing is redeemed after a denial or a withdrawal, or denied after a redemption",
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
    "R: no refresh after the end",
    "R: a refresh token is refused only where the login is over",
    "R: a lost answer that is sent again within the grace ends nothing",
    "R: of a thief and the owner who both refreshed, the first never refreshes again",
    "R: one refresh token at most is good after the grace",
    "R: a revocation that was answered has ended the login",
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
pub(super) const AFTER_THE_END: usize = 12;
pub(super) const REFUSED: usize = 13;
pub(super) const SENT_AGAIN: usize = 14;
pub(super) const THEFT: usize = 15;
pub(super) const ONE_TOKEN: usize = 16;
pub(super) const REVOKED: usize = 17;

impl Seen {
    pub(super) fn must(&mut self, property: usize, holds: bool) {
        if !holds {
            self.broken |= 1 << property;
        }
    }

    pub(super) fn party(&mut self, who: Who) -> &mut Party {
        match who {
            Who::Owner => &mut self.owner,
            Who::Thief => &mut self.thief,
        }
    }
}

fn holds<const PROPERTY: usize>(_: &Machine, world: &World) -> bool {
    world.seen.broken & (1 << PROPERTY) == 0
}

impl Machine {
    /// Returns the login that is explored, without a grace if that is the fault.
    pub(super) fn setup(&self) -> Setup {
        match self.fault {
            Some(Fault::NoGrace) => Setup::Graceless,
            _ => self.setup,
        }
    }

    /// Returns the clock reading by which the host decides.
    pub(super) fn clock(&self, now: Moment) -> Moment {
        match self.fault {
            Some(Fault::ClockStands) => self.moments[0],
            _ => now,
        }
    }

    /// Returns whether nothing happens but the owner's refreshes, one after the other.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self.tasks[..], [(Job::Refresh(Who::Owner), _)])
    }

    /// Returns what an exchange that nothing disturbs makes of a row.
    fn written(&self, request: Request, row: Row, now: Moment) -> Row {
        let flight = Flight {
            secret: Some(0),
            ..Flight::new(self.setup(), request, now)
        };
        match real::ask(flight, Some(row), None) {
            Asked::Write(writing) => writing.choices[0].write.guarded(row).unwrap(),
            Asked::Done(_) | Asked::Pace(..) => unreachable!("it writes"),
        }
    }
}

impl Model for Machine {
    type State = World;
    /// The step, and the world after it. All steps of a world are made together.
    type Action = (Step, Box<World>);

    fn init_states(&self) -> Vec<World> {
        let mut tasks: Vec<_> = self
            .tasks
            .iter()
            .map(|&(job, runs)| Task::new(job, runs))
            .collect();
        tasks.sort_unstable();
        let issued = Row::issued(self.setup());
        let world = World {
            row: Some(issued),
            pace: None,
            past: BTreeSet::from([issued]),
            tasks,
            seen: Seen::default(),
        };
        let approved = |now| {
            let claimed = self.written(Request::Enter(User::Alice), issued, 0);
            let approve = Request::Decide(User::Alice, Decision::Approve);
            let approved = self.written(approve, claimed, now);
            let mut world = world.clone();
            world.row = Some(approved);
            world.past.extend([claimed, approved]);
            world.seen.claimant = Some(User::Alice);
            world.seen.changes = 2;
            world
        };
        match self.start {
            Start::Issued => vec![world],
            Start::Approved(moments) => moments.iter().map(|&now| approved(now)).collect(),
            Start::Active(now) => {
                let mut world = approved(now);
                let active = self.written(Request::Poll(Client::Own), world.row.unwrap(), now);
                world.row = Some(active);
                world.past = BTreeSet::from([active]);
                world.seen.changes = 3;
                world.seen.successes = 1;
                world.seen.owner.held = Some(0);
                world.seen.thief.held = Some(0);
                vec![world]
            }
        }
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
        let conditions: [fn(&Self, &World) -> bool; 18] = [
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
            holds::<12>,
            holds::<13>,
            holds::<14>,
            holds::<15>,
            holds::<16>,
            holds::<17>,
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

    fn flight(&self) -> Option<&Flight> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Loading(flight) | Phase::Writing(flight, ..) => Some(flight),
        }
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

    /// Stores the result of a guarded write, if there is one.
    pub(super) fn change(
        &mut self,
        machine: &Machine,
        write: Write,
        stored: Option<Row>,
        is_lost: bool,
    ) {
        if let Some(row) = stored {
            self.store(stored);
            self.seen.changes += 1;
            self.seen.ended |= row.status() == Status::Ended;
            if let Some(rotation) = row.rotation() {
                let quiet = machine.clock(rotation.rotated_at + GRACE);
                let good = row.good_tokens(machine.setup(), quiet);
                self.seen.must(ONE_TOKEN, good <= 1);
            }
        }
        if is_lost && self.row.is_some() {
            // A session is issued with version 1, and each stored change adds one. So if only changes cause conflicts, one was stored after
            // this write had read the session.
            let won = self.seen.changes;
            self.seen.must(PACE_LOSES, write.read().version() <= won);
        }
    }

    /// Returns whether the login has ended, or is no longer stored.
    pub(super) fn is_over(&self) -> bool {
        self.row.is_none_or(|row| row.status() == Status::Ended)
    }

    /// Returns the first secret that is not in use. So of worlds that differ only in the numbers of their secrets, one is explored.
    pub(super) fn free_secret(&self) -> Secret {
        let rotations = self.past.iter().filter_map(|row| row.rotation());
        let stored = rotations.flat_map(|of| [Some(of.current), of.previous]);
        let in_flight = self.tasks.iter().filter_map(Task::flight);
        let in_flight = in_flight.flat_map(|flight| {
            let presented = match flight.request {
                Request::Refresh(secret) | Request::Revoke(secret) => Some(secret),
                Request::Poll(_) | Request::Enter(_) | Request::Decide(..) => None,
            };
            [flight.secret, presented]
        });
        let held = [self.seen.owner.held, self.seen.thief.held];
        let taken = stored.chain(in_flight).chain(held).flatten();
        let taken: BTreeSet<_> = taken.collect();
        (0..Secret::MAX)
            .find(|secret| !taken.contains(secret))
            .unwrap()
    }
}
