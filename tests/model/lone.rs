//! One device that polls two servers by the true time. This checks the invariants 4 and 5, which are named below.
//!
//! Each poll comes after one of several gaps, at either server, and its pace may be saved or lost. The clocks of the servers differ by half
//! the tolerance, which is the most that is permitted.

use core::cell::RefCell;
use core::time::Duration;
use std::sync::LazyLock;

use device_flow::server::{Cause, Client, Next, PolicyOptions, Server, Session, Stored};
use stateright::{Model, Property};

use crate::real::{Memo, Moment, PaceForm, remembered};
use crate::support::{self, Host, NOW};

/// In seconds. It is short, so that all of it can be explored. The first interval is 5 s, with a tolerance of 1.25 s.
const LIFETIME: u64 = 60;
const CAP: Moment = 20_000;

/// The clocks of different servers must agree within half the tolerance (`SECURITY.md`).
pub(crate) const SKEW: Moment = 625;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The host also sets the time of the last poll when it rejects a poll.
    RejectionsCount,
    /// The host saves the initial interval with every accepted poll.
    IntervalForgotten,
    /// Clocks differ by more than the tolerance.
    ClocksFarApart,
}

/// When the device polls again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    /// After any of these gaps, or after the interval that it was told.
    Any(&'static [Moment]),
    /// Always after the same gap, which is one of these.
    Fixed(&'static [Moment]),
}

#[derive(Clone, Debug)]
pub(crate) struct Lone {
    pub(crate) rate: Rate,
    pub(crate) loses_paces: bool,
    pub(crate) fault: Option<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// The gap of a fixed rate.
    gap: Moment,
    now: Moment,
    pace: Option<PaceForm>,
    /// The interval that the device was told, in milliseconds.
    told: Moment,
    accepted: Moment,
    is_pace_lost: bool,
    broken: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    gap: Moment,
    skew: Moment,
    saved: bool,
}

pub(crate) const INTERVAL: &str =
    "4: while no pace is lost the interval never falls, starts as advertised and stops at the cap";
pub(crate) const OBEDIENT: &str = "5: a poll after the interval that was told is never slowed down";
pub(crate) const FIXED: &str = "5: a fixed rate is accepted within the cap plus one gap";

struct Fixture {
    server: Server,
    client: Client,
    /// The body of every poll.
    body: String,
    session: Session,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let server = support::server_of(support::policy_of(PolicyOptions {
        lifetime: Duration::from_secs(LIFETIME),
        cap: Duration::from_secs(20),
        ..PolicyOptions::default()
    }));
    let client = support::cli();
    let mut host = Host::new([client.clone()]);
    let codes = host.issue(&server, &client, 1, NOW);
    let session = host.session(&codes.key).unwrap().clone();
    Fixture {
        server,
        body: support::poll_body(client.id(), &codes.device_code),
        client,
        session,
    }
});

/// The answer to a poll while nobody decides.
#[derive(Clone, Copy)]
struct Told {
    /// The interval of `slow_down`.
    slowed_to: Option<Moment>,
    /// Whether the poll counts as the last accepted poll, sent twice.
    is_repeated: bool,
}

/// Polls with the real exchange. Returns the answer to the device, and the pace to save.
fn poll(pace: Option<PaceForm>, now: Moment) -> Polling {
    remembered(&POLLS, (pace, now), || decide(pace, now))
}

type Polling = (Told, Option<PaceForm>);

thread_local! {
    static POLLS: Memo<(Option<PaceForm>, Moment), Polling> = RefCell::default();
}

fn decide(pace: Option<PaceForm>, now: Moment) -> Polling {
    let Fixture {
        server,
        client,
        body,
        session,
    } = &*FIXTURE;
    let stored = Stored {
        pace: pace.map(PaceForm::pace),
        session: session.clone(),
    };
    let now = NOW + time::Duration::milliseconds(now);
    let mut exchange = server.token(support::post(body), support::SOURCE, now);
    let mut saved = None;
    let reply = loop {
        match exchange.next() {
            Next::Client(_, ask) => ask.answer(Ok(Some(client))),
            Next::Load(_, ask) => ask.answer(Ok(Some(&stored))),
            Next::SavePace(_, pace) => saved = Some(PaceForm::of(pace)),
            Next::Done(reply) => break reply,
            next @ (Next::Take(..)
            | Next::LoadByUserKey(..)
            | Next::Draw(_)
            | Next::Insert(..)
            | Next::Mint(..)
            | Next::Change(..)) => unreachable!("{next:?} while nobody approves"),
        }
    };
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    let slowed_to = match body["error"].as_str().unwrap() {
        "authorization_pending" => None,
        "slow_down" => Some(body["interval"].as_i64().unwrap() * 1000),
        error => unreachable!("{error} while pending"),
    };
    let is_repeated = reply.cause() == Cause::Repeated;
    let told = Told {
        slowed_to,
        is_repeated,
    };
    (told, saved)
}

impl Lone {
    fn gaps(&self, world: &World) -> Vec<Moment> {
        match self.rate {
            Rate::Any(gaps) => gaps.iter().copied().chain([world.told]).collect(),
            Rate::Fixed(_) => vec![world.gap],
        }
    }

    fn polled(&self, world: &World, gap: Moment, skew: Moment) -> Vec<(Step, World)> {
        let now = world.now + gap;
        let (
            Told {
                slowed_to: told,
                is_repeated,
            },
            save,
        ) = poll(world.pace, now + skew);
        let mut next = world.clone();
        next.now = now;
        let is_first = world.accepted < 0;
        let obeys = !is_first && gap >= world.told;
        next.must(1, told.is_none() || !obeys && !is_first);
        match told {
            // C20: a poll that counts as sent twice is not accepted again.
            None if is_repeated => {
                let since = now - world.accepted;
                next.must(2, since < CAP + gap || !matches!(self.rate, Rate::Fixed(_)));
            }
            None => next.accepted = now,
            Some(interval) => {
                let since = now - world.accepted;
                next.must(2, since < CAP + gap || !matches!(self.rate, Rate::Fixed(_)));
                // RFC 8628, section 3.5: "the interval MUST be increased by 5 seconds for this and all subsequent requests".
                let raised = interval == (world.told + 5000).min(CAP) || interval == world.told;
                next.must(0, world.is_pace_lost || raised);
                next.told = next.told.max(interval);
            }
        }
        let save = match (self.fault, save) {
            (Some(Fault::RejectionsCount), _) if told.is_some() => world.pace.map(|pace| {
                let last = NOW.unix_timestamp() * 1000 + now;
                PaceForm {
                    last,
                    ..save.unwrap_or(pace)
                }
            }),
            (Some(Fault::IntervalForgotten), Some(pace)) if told.is_none() => Some(PaceForm {
                interval: 5,
                ..pace
            }),
            (_, save) => save,
        };
        let step = |saved| Step { gap, skew, saved };
        let Some(save) = save else {
            return vec![(step(false), next)];
        };
        let mut saved = next.clone();
        let least = world.pace.map_or(5, |pace| pace.interval);
        saved.must(
            0,
            world.is_pace_lost || (least..=20).contains(&save.interval),
        );
        saved.must(0, world.pace.is_some() || save.interval == 5);
        saved.pace = Some(save);
        next.is_pace_lost = true;
        let lost = self.loses_paces.then(|| (step(false), next));
        core::iter::once((step(true), saved)).chain(lost).collect()
    }
}

impl World {
    fn must(&mut self, property: u8, holds: bool) {
        if !holds {
            self.broken |= 1 << property;
        }
    }
}

impl Model for Lone {
    type State = World;
    type Action = (Step, Box<World>);

    fn init_states(&self) -> Vec<World> {
        let gaps = match self.rate {
            Rate::Any(_) => &[0],
            Rate::Fixed(gaps) => gaps,
        };
        let worlds = gaps.iter().map(|&gap| World {
            gap,
            now: 0,
            pace: None,
            told: 5000,
            accepted: -1,
            is_pace_lost: false,
            broken: 0,
        });
        worlds.collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Self::Action>) {
        let skew = match self.fault {
            Some(Fault::ClocksFarApart) => 2500,
            _ => SKEW,
        };
        let end = i64::try_from(LIFETIME).unwrap() * 1000 - skew;
        for gap in self.gaps(world) {
            for skew in [0, skew] {
                if world.now + gap < end {
                    let steps = self.polled(world, gap, skew).into_iter();
                    actions.extend(steps.map(|(step, next)| (step, Box::new(next))));
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
            Property::always(INTERVAL, |_, world: &World| world.broken & 1 == 0),
            Property::always(OBEDIENT, |_, world: &World| world.broken & 2 == 0),
            Property::always(FIXED, |_, world: &World| world.broken & 4 == 0),
        ]
    }
}
