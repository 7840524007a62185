//! Parallel guesses by one user. Every entry of a code takes a guess from the user's quota before anything is looked up, in one atomic
//! operation of the store.
//!
//! Processes ask the store to take a guess. They may crash, or not learn whether it was taken. Between these steps the store may purge. A
//! code is looked up only if a guess was taken.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::LazyLock;

use device_flow::server::{
    Exchange, Next, PageError, PolicyOptions, RateLimit, RateLimited, RateState, Review, Server,
    Subject, Take, Unavailable,
};
use stateright::{Model, Property};
use time::OffsetDateTime;

use crate::real::Moment;
use crate::support::{self, NOW};

/// Two guesses at once, then one a minute.
pub(crate) const BURST: i64 = 2;
const PERIOD: Moment = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store reads and writes a quota in two steps.
    NoGuard,
    /// The host looks a code up although it does not know whether the guess was taken.
    FailedIsTaken,
    /// The store purges quotas that still limit guesses.
    PurgesEarly,
    /// Requests hang before their guess is taken, for any time.
    RequestsHang,
}

/// Which clock the processes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Each reading may be any of the moments.
    Any,
    /// One clock for all, which goes forward through the moments. No request hangs between its clock reading and its guess while the clock
    /// moves on. Otherwise, after a purge, it would take a guess at a time that is over.
    Forward,
}

/// Guesses to explore, with their bounds.
#[derive(Clone, Debug)]
pub(crate) struct Guesses {
    pub(crate) entries: usize,
    pub(crate) moments: Vec<Moment>,
    pub(crate) clock: Clock,
    pub(crate) purges: bool,
    pub(crate) fault: Option<Fault>,
}

/// The stored quota, as the moment at which everything is given back.
type Stored = Option<Moment>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    quota: Stored,
    time: usize,
    entries: Vec<Phase>,
    looked_up: i64,
    refused_too_early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Idle,
    /// It has read the clock, and its guess is under way.
    Entering(Moment),
    /// The store has read the quota, but has not written it yet. This happens only if the store is not atomic.
    Taking(Moment, Stored),
    Done,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Tick,
    Purge(Moment),
    Enter(Moment),
    Read(Stored),
    Take(Commit),
    Crash,
}

/// What happened to a guess that the store was asked to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Commit {
    Heard,
    /// It was taken, but the host did not learn it.
    Unheard,
    /// It was not taken, and the host did not learn it either.
    Dropped,
}

pub(crate) const PAID: &str = "U1: no more codes are looked up than the limit allows";
pub(crate) const REFUSED: &str = "U1: a guess is refused for a spent quota alone";

struct Fixture {
    server: Server,
    user: Subject,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let limit = RateLimit::new(2, Duration::from_mins(1)).unwrap();
    let policy = support::policy_of(PolicyOptions {
        guess_limit: limit,
        ..PolicyOptions::default()
    });
    Fixture {
        server: support::server_of(policy),
        user: support::alice(),
    }
});

fn at(moment: Moment) -> OffsetDateTime {
    NOW + time::Duration::milliseconds(moment)
}

fn stored(quota: RateState) -> Moment {
    quota.millis() - NOW.unix_timestamp() * 1000
}

fn quota(moment: Moment) -> RateState {
    RateState::from_millis(NOW.unix_timestamp() * 1000 + moment)
}

thread_local! {
    static TAKEN: RefCell<HashMap<(Stored, Moment), Stored>> = RefCell::default();
}

/// Takes a guess with the real exchange. Returns the quota to write, or `None` if no guess is left. Asserts that two well-formed codes and
/// a malformed one take the same, and what the exchange does for each answer of the store.
fn take(read: Stored, now: Moment) -> Stored {
    if let Some(known) = TAKEN.with_borrow(|known| known.get(&(read, now)).copied()) {
        return known;
    }
    let codes = ["WDJB-MJHT", "BBBB-BBBB", "no code"];
    let [one, other, none] = codes.map(|code| take_for(code, read, now));
    assert_eq!(one, other);
    assert_eq!(one, none);
    TAKEN.with_borrow_mut(|known| known.insert((read, now), one));
    one
}

fn take_for(typed: &str, read: Stored, now: Moment) -> Stored {
    let Fixture { server, user } = &*FIXTURE;
    let entering = || server.enter(typed, user, "", at(now));
    let mut exchange = entering();
    let Next::Take(taking, _) = exchange.next() else {
        panic!("a guess is taken first")
    };
    let applied = taking.apply(read.map(quota));
    let unheard = answered(entering(), Err(Unavailable));
    assert_eq!(unheard.unwrap_err(), PageError::Unavailable);
    match applied {
        Ok(next) => {
            let found = answered(entering(), Ok(Ok(())));
            assert!(found.unwrap_err().is_wrong_code());
            Some(stored(next.expect("a guess is written")))
        }
        Err(limited) => {
            let refused = answered(entering(), Ok(Err(limited)));
            assert_eq!(refused.unwrap_err(), PageError::RateLimited(limited));
            None
        }
    }
}

/// Runs an entry whose guess gets this answer, and returns its result. Asserts that a code is looked up only if the guess was taken.
fn answered(
    mut exchange: Exchange<'_, Result<Review, PageError>>,
    taken: Result<Result<(), RateLimited>, Unavailable>,
) -> Result<Review, PageError> {
    let mut asked: Option<Take> = None;
    loop {
        match exchange.next() {
            Next::Take(take, ask) => {
                assert_eq!(asked.replace(take), None, "one guess is taken");
                ask.answer(taken);
            }
            Next::LoadByUserKey(_, ask) => {
                assert_eq!(taken, Ok(Ok(())));
                ask.answer(Ok(None));
            }
            Next::Done(end) => return end,
            next @ (Next::Client(..)
            | Next::Load(..)
            | Next::Draw(_)
            | Next::Insert(..)
            | Next::Mint(..)
            | Next::Change(..)
            | Next::SavePace(..)) => {
                unreachable!("{next:?} of no session")
            }
        }
    }
}

impl Guesses {
    /// Adds the steps that one entry can take.
    fn entry(&self, world: &World, place: usize, readings: &[Moment], step: &mut Steps<'_>) {
        let to = |phase| move |next: &mut World| next.entries[place] = phase;
        match world.entries[place] {
            Phase::Done => {}
            Phase::Idle => {
                for &now in readings {
                    step(Step::Enter(now), &to(Phase::Entering(now)));
                }
            }
            Phase::Entering(now) => {
                step(Step::Crash, &to(Phase::Done));
                if self.fault == Some(Fault::NoGuard) {
                    step(
                        Step::Read(world.quota),
                        &to(Phase::Taking(now, world.quota)),
                    );
                } else {
                    self.take(world, place, now, world.quota, step);
                }
            }
            Phase::Taking(now, read) => self.take(world, place, now, read, step),
        }
    }

    fn take(&self, world: &World, place: usize, now: Moment, read: Stored, step: &mut Steps<'_>) {
        let taken = take(read, now);
        let room = PERIOD * (BURST - 1);
        let spent = world.quota.is_some_and(|quota| quota - now > room);
        for commit in [Commit::Heard, Commit::Unheard, Commit::Dropped] {
            let is_looked_up = match commit {
                Commit::Heard => taken.is_some(),
                Commit::Unheard | Commit::Dropped => self.fault == Some(Fault::FailedIsTaken),
            };
            step(Step::Take(commit), &|next| {
                if commit != Commit::Dropped && taken.is_some() {
                    next.quota = taken;
                }
                next.looked_up += i64::from(is_looked_up);
                next.refused_too_early |= taken.is_none() && !spent;
                next.entries[place] = Phase::Done;
            });
        }
    }
}

/// A function that adds a step, with what it changes.
type Steps<'a> = dyn FnMut(Step, &dyn Fn(&mut World)) + 'a;

impl Model for Guesses {
    type State = World;
    type Action = (Step, Box<World>);

    fn init_states(&self) -> Vec<World> {
        vec![World {
            quota: None,
            time: 0,
            entries: vec![Phase::Idle; self.entries],
            looked_up: 0,
            refused_too_early: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Self::Action>) {
        let mut step = |step, change: &dyn Fn(&mut World)| {
            let mut next = world.clone();
            change(&mut next);
            next.entries.sort_unstable();
            actions.push((step, Box::new(next)));
        };
        if self.clock == Clock::Forward && world.time + 1 < self.moments.len() {
            let time = world.time + 1;
            let hangs = self.fault == Some(Fault::RequestsHang);
            let is_over = |phase: &Phase| matches!(phase, Phase::Entering(_)) && !hangs;
            step(Step::Tick, &|next| {
                next.time = time;
                for phase in next.entries.iter_mut().filter(|phase| is_over(phase)) {
                    *phase = Phase::Done;
                }
            });
        }
        let readings = match self.clock {
            Clock::Any => &self.moments[..],
            Clock::Forward => &self.moments[world.time..=world.time],
        };
        for &now in readings.iter().filter(|_| self.purges) {
            let early = self.fault == Some(Fault::PurgesEarly);
            let is_past = |stored| quota(stored).purge_at() <= at(now);
            if world.quota.is_some_and(|stored| is_past(stored) || early) {
                step(Step::Purge(now), &|next| next.quota = None);
            }
        }
        for (place, phase) in world.entries.iter().enumerate() {
            if place == 0 || world.entries[place - 1] != *phase {
                self.entry(world, place, readings, &mut step);
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
        vec![
            Property::always(PAID, |machine: &Self, world: &World| {
                let until = match machine.clock {
                    Clock::Any => machine.moments[machine.moments.len() - 1],
                    Clock::Forward => machine.moments[world.time],
                };
                world.looked_up <= BURST + (until - machine.moments[0]) / PERIOD
            }),
            Property::always(REFUSED, |_, world: &World| !world.refused_too_early),
        ]
    }
}
