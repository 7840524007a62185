//! Parallel guesses by one user: every entry of a code pays before anything is looked up, by a guarded write.
//!
//! Processes read the quota, also an old one, take a guess from it, and write it where it is still the one that they read;
//! they may crash, or not hear of a commit. In between the store purges. Nothing is looked up but by a guess that was paid.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use device_flow::digest::UserCodeKeys;
use device_flow::server::{Entry, Limit, Policy, Quota, QuotaChange, Subject, Written};
use stateright::{Model, Property};
use time::OffsetDateTime;

use crate::model::real::{Memo, Moment, remembered};
use crate::support::{self, NOW};

/// Two guesses at once, then one a minute.
pub(crate) const BURST: i64 = 2;
const PERIOD: Moment = 60_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store writes whatever quota is stored meanwhile.
    NoGuard,
    /// The host looks up though it does not know whether the guess was paid.
    UnknownIsPaid,
    /// The store forgets quotas that still limit.
    PurgesEarly,
    /// Requests hang between reading the quota and writing it, for as long as they like.
    RequestsHang,
}

/// Which clock the processes read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Every reading is any of the moments.
    Any,
    /// One clock for all, which goes through the moments. No request hangs from one to the next between its reading and its
    /// writing: one that had read nothing would write over what was written and purged meanwhile, with an old clock reading.
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
    past: BTreeSet<Stored>,
    time: usize,
    entries: Vec<Phase>,
    looked_up: i64,
    refused_too_early: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Phase {
    Loading {
        losses: u8,
    },
    Paying {
        losses: u8,
        read: Stored,
        now: Moment,
    },
    Done,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    Tick,
    Purge(Moment),
    Read(Stored, Moment),
    Write(Written, bool),
    Crash,
}

pub(crate) const PAID: &str = "U1: no more codes are looked up than the limit allows";
pub(crate) const REFUSED: &str =
    "U1: a guess is refused for a spent quota or three lost writes alone";

struct Fixture {
    policy: Policy,
    user: Subject,
    keys: UserCodeKeys,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let limit = Limit::new(2, Duration::from_mins(1)).unwrap();
    Fixture {
        policy: support::builder().guess_limit(limit).build().unwrap(),
        user: support::alice(),
        keys: support::keys(),
    }
});

fn at(moment: Moment) -> OffsetDateTime {
    NOW + time::Duration::milliseconds(moment)
}

fn stored(quota: Quota) -> Moment {
    let millis = serde_json::to_value(quota).unwrap().as_i64().unwrap();
    millis - NOW.unix_timestamp() * 1000
}

fn quota(moment: Moment) -> Quota {
    let millis = NOW.unix_timestamp() * 1000 + moment;
    serde_json::from_value(millis.into()).unwrap()
}

thread_local! {
    static PAID_FROM: Memo<(u8, Stored, Moment), Stored> = RefCell::default();
}

/// Pays with the real functions after so many losses: the quota to write. What the guess is for each outcome of its write is
/// asserted; a right code, a wrong one and what is no code must come to the same.
fn pay(losses: u8, read: Stored, now: Moment) -> Stored {
    remembered(&PAID_FROM, (losses, read, now), || {
        let codes = ["WDJB-MJHT", "BBBB-BBBB", "no code"];
        let [one, other, none] = codes.map(|code| pay_for(code, losses, read, now));
        assert_eq!(one, other);
        assert_eq!(one, none);
        one.map(|change| stored(change.to()))
    })
}

fn pay_for(typed: &str, losses: u8, read: Stored, now: Moment) -> Option<QuotaChange> {
    let Fixture { policy, user, keys } = &*FIXTURE;
    let paid = |written| {
        let mut entry = Entry::new(typed, user, keys, policy);
        for _ in 0..losses {
            let guess = entry.pay(None, NOW).unwrap();
            assert!(guess.settle(Written::Lost).is_err());
        }
        let guess = entry.pay(read.map(quota), at(now)).ok()?;
        let change = *guess.change();
        assert_eq!(change.from(), read.map(quota));
        assert_eq!(guess.settle(written).is_ok(), written == Written::Won);
        Some(change)
    };
    let outcomes = [Written::Won, Written::Lost, Written::Unknown];
    let [one, other, unknown] = outcomes.map(paid);
    assert_eq!(one, other);
    assert_eq!(one, unknown);
    one
}

impl Model for Guesses {
    type State = World;
    type Action = (Step, Box<World>);

    fn init_states(&self) -> Vec<World> {
        vec![World {
            quota: None,
            past: BTreeSet::from([None]),
            time: 0,
            entries: vec![Phase::Loading { losses: 0 }; self.entries],
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
            let is_over = |phase: &Phase| matches!(phase, Phase::Paying { .. }) && !hangs;
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
            if place > 0 && world.entries[place - 1] == *phase {
                continue;
            }
            match *phase {
                Phase::Done => {}
                Phase::Loading { losses } => {
                    for &read in &world.past {
                        for &now in readings {
                            let change = pay(losses, read, now);
                            let room = PERIOD * (BURST - 1);
                            let spent = read.is_some_and(|quota| quota - now > room);
                            let wrong = change.is_some() == (spent || losses >= 3);
                            let next = match change {
                                Some(_) => Phase::Paying { losses, read, now },
                                None => Phase::Done,
                            };
                            step(Step::Read(read, now), &|world| {
                                world.entries[place] = next;
                                world.refused_too_early |= wrong;
                            });
                        }
                    }
                }
                Phase::Paying { losses, read, now } => {
                    step(Step::Crash, &|next| next.entries[place] = Phase::Done);
                    let paid = pay(losses, read, now).unwrap();
                    let allowed = world.quota == read || self.fault == Some(Fault::NoGuard);
                    let heard = if allowed { Written::Won } else { Written::Lost };
                    for (written, is_stored) in [
                        (heard, allowed),
                        (Written::Unknown, allowed),
                        (Written::Unknown, false),
                    ] {
                        let is_paid = written == Written::Won
                            || written == Written::Unknown
                                && self.fault == Some(Fault::UnknownIsPaid);
                        step(Step::Write(written, is_stored), &|next| {
                            if is_stored {
                                next.quota = Some(paid);
                                next.past.insert(next.quota);
                            }
                            next.looked_up += i64::from(is_paid);
                            next.entries[place] = if is_paid {
                                Phase::Done
                            } else {
                                Phase::Loading { losses: losses + 1 }
                            };
                        });
                    }
                }
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
