//! One login at one store: its device, a thief, a foreign client and two users, all at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use core::time::Duration;

use device_flow::server::{Cause, Pace, Session, Status, Stored, Unavailable, Write};
use serde_json::Value;
use stateright::{Model, Property};

use crate::model::replay::{Answer, Asked, Deed, End, Fixture, Flight, Made, Row};
use crate::support::{self, BACKEND, CLI, Host, NOW};

/// Milliseconds after the codes were issued.
pub(crate) type Moment = i64;

/// When the codes expire.
pub(crate) const EXPIRY: Moment = 300_000;
/// For how long an approval can be redeemed at least: the cap and an interval.
pub(crate) const REDEEM_TIME: Moment = 65_000;
/// For how long the end of a session is remembered.
pub(crate) const RETENTION: Moment = 300_000;
/// For how long a refresh token is good after it was replaced.
pub(crate) const GRACE: Moment = 30_000;

/// Who polls, refreshes and revokes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    /// The device.
    Owner,
    /// Whoever stole the first refresh token.
    Thief,
    /// Another client of the server, with the codes and the token of the owner.
    Foreign,
}

/// What a task does, as often as the machine says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Job {
    Poll(Party),
    Refresh(Party),
    Revoke(Party),
    Enter(&'static str),
    /// Any of the machine's deeds.
    Decide(&'static str),
}

/// A fault of the host or of its store, or a policy that gives up a protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Changes are written whatever the version.
    NoGuard,
    /// A write of which the store says nothing is taken for committed.
    UnknownIsWon,
    /// The host says that it is always the first moment.
    ExpiryIgnored,
    /// Saving a pace writes back the session that was loaded before.
    PaceCarriesTheSession,
    /// Saving a pace moves the version on.
    PaceBumpsTheVersion,
    /// Saving a pace inserts what was purged.
    PaceRevives,
    /// A session is purged before its time.
    PurgesEarly,
    /// The host lets whoever sees a page act for the user who claimed the session.
    NamesTheClaimant,
    /// The host lets every client send requests as the owner's.
    EveryClientIsTheOwner,
    /// The end of a login whose refresh token was used twice is not written.
    ReuseIgnored,
    /// The token before the one in force is never good.
    NoGrace,
}

/// How a session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Pending,
    /// Approved by Alice at one of these moments.
    Approved(&'static [Moment]),
    /// Redeemed at 0. A thief has a copy of the first refresh token.
    Active,
}

#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) start: Start,
    pub(crate) tasks: Vec<(Job, u8)>,
    pub(crate) moments: Vec<Moment>,
    pub(crate) deeds: Vec<Deed>,
    /// How often something goes wrong that may: a failing store, an answer of it that is lost, a response that is lost.
    pub(crate) mishaps: u8,
    /// Whether the host may refuse to mint, which is a mishap.
    pub(crate) refuses: bool,
    pub(crate) purges: bool,
    pub(crate) fault: Option<Fault>,
    /// What was come upon.
    pub(crate) covered: Arc<Mutex<BTreeSet<String>>>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            start: Start::Pending,
            tasks: Vec::new(),
            moments: vec![1_000],
            deeds: Vec::new(),
            mishaps: 1,
            refuses: false,
            purges: false,
            fault: None,
            covered: Arc::default(),
        }
    }
}

/// A task that is not on its way, with the runs that are left, or that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Task {
    job: Job,
    runs: u8,
    /// With the moment at which it began by the true clock, and the commits at its last load.
    flight: Option<(Flight, Moment, u8)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    row: Option<Row>,
    time: usize,
    tasks: Vec<Task>,
    /// The refresh tokens that the owner and the thief hold.
    held: [Option<String>; 2],
    /// Whether each has refreshed with success.
    refreshed: [bool; 2],
    /// All refresh tokens that were ever answered with.
    sent: Vec<String>,
    redeemed: u8,
    commits: u8,
    mishaps: u8,
    /// The purge time of what was purged.
    purged: Option<Moment>,
    /// The properties that do not hold, by their place in [`PROPERTIES`].
    broken: u16,
}

pub(crate) const ONE_SUCCESS: &str = "1: at most one success per session";
pub(crate) const EXPIRED: &str = "2: no pending and no slow_down at or after the expiry";
pub(crate) const TOO_LATE: &str = "2: nothing is claimed, decided or redeemed too late";
pub(crate) const FINAL: &str = "3: a state is followed by those alone that may follow";
pub(crate) const PURGED: &str = "3: nothing is forgotten before its purge time, or comes back";
pub(crate) const PACED: &str = "6: saving a pace changes nothing of the session";
pub(crate) const FOREIGN: &str = "7: a foreign client changes nothing and learns nothing";
pub(crate) const NO_LOSS: &str = "8: saving a pace makes no other write lose";
pub(crate) const CLAIMANT: &str =
    "9: nobody but the claimant decides, and the subject is the claimant";
pub(crate) const OVER: &str = "R: what was said to be revoked, withdrawn or misused is over";
pub(crate) const ONE_TOKEN: &str = "R: of all refresh tokens one at most is good after the grace";
pub(crate) const KEPT: &str = "R: a device keeps its login over a lost answer";
pub(crate) const THEFT: &str = "R: a thief and an owner who both refreshed end the login";

const PROPERTIES: [&str; 13] = [
    ONE_SUCCESS,
    EXPIRED,
    TOO_LATE,
    FINAL,
    PURGED,
    PACED,
    FOREIGN,
    NO_LOSS,
    CLAIMANT,
    OVER,
    ONE_TOKEN,
    KEPT,
    THEFT,
];

impl World {
    fn must(&mut self, property: &str, holds: bool) {
        if !holds {
            let place = PROPERTIES.iter().position(|name| *name == property);
            self.broken |= 1 << place.unwrap();
        }
    }

    fn is_quiet(&self) -> bool {
        self.tasks.iter().all(|task| task.flight.is_none())
    }

    fn is_over(&self) -> bool {
        let status = self.row.as_ref().map(|row| row.stored.session.status());
        !matches!(status, Some(Status::Approved | Status::Active))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Tick(Moment),
    Purge,
    Begin(usize, Made),
    /// The next answer to a task.
    Go(usize, &'static str),
}

/// What a login is explored with, made once for each policy.
#[derive(Debug)]
pub(crate) struct Setting {
    fixture: Fixture,
    device_code: String,
    user_code: String,
    starts: Vec<(Row, Option<String>)>,
}

fn scope() -> device_flow::scope::Scope {
    support::scope("openid profile offline_access")
}

impl Setting {
    fn of(machine: &Machine) -> Self {
        let builder = support::builder();
        let builder = match machine.fault {
            Some(Fault::NoGrace) => builder.refresh_grace(Duration::ZERO),
            _ => builder,
        };
        let server = support::server_of(builder.build().unwrap());
        let clients = vec![
            support::cli().allow_scope(scope()),
            support::backend().allow_scope(scope()),
        ];
        let starts: &[Moment] = match machine.start {
            Start::Pending | Start::Active => &[0],
            Start::Approved(moments) => moments,
        };
        let mut rows = Vec::new();
        let mut codes = None;
        for &moment in starts {
            let now = NOW + time::Duration::milliseconds(moment);
            let mut host = Host::new(clients.clone());
            let asked = "openid+profile+offline_access";
            let issued = host.issue_for(&server, &clients[0], 1, asked, NOW);
            let mut token = None;
            if machine.start != Start::Pending {
                host.approve(&server, &support::alice(), &issued, now);
            }
            if machine.start == Start::Active {
                let reply = host.poll(&server, &clients[0], &issued.device_code, now);
                token = Some(support::refresh_token(&reply));
            }
            let stored = host.store.load(&issued.key).unwrap().clone();
            rows.push((Row::new(stored), token));
            codes = Some(issued);
        }
        let codes = codes.unwrap();
        Self {
            fixture: Fixture {
                server,
                clients,
                key: codes.key,
            },
            device_code: codes.device_code,
            user_code: codes.user_code,
            starts: rows,
        }
    }
}

/// A machine with its setting: what is explored.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    machine: Machine,
    setting: Arc<Setting>,
}

impl From<Machine> for Login {
    fn from(machine: Machine) -> Self {
        let setting = Arc::new(Setting::of(&machine));
        Self { machine, setting }
    }
}

impl Login {
    fn client(&self, party: Party) -> &'static str {
        let is_any_good = self.machine.fault == Some(Fault::EveryClientIsTheOwner);
        match party {
            Party::Foreign if !is_any_good => BACKEND,
            _ => CLI,
        }
    }

    /// What a task can begin with.
    fn made(&self, world: &World, job: Job) -> Vec<Made> {
        let token = |party| match party {
            Party::Owner | Party::Foreign => world.held[0].clone(),
            Party::Thief => world.held[1].clone(),
        };
        match job {
            Job::Poll(party) => vec![Made::Poll {
                client: self.client(party).to_owned(),
                device_code: self.setting.device_code.clone(),
            }],
            Job::Refresh(party) => token(party)
                .map(|token| Made::Refresh {
                    client: self.client(party).to_owned(),
                    token,
                })
                .into_iter()
                .collect(),
            Job::Revoke(party) => token(party)
                .map(|token| Made::Revoke {
                    client: self.client(party).to_owned(),
                    token,
                })
                .into_iter()
                .collect(),
            Job::Enter(user) => vec![Made::Enter {
                user,
                code: self.setting.user_code.clone(),
            }],
            Job::Decide(user) => {
                let claimant = world
                    .row
                    .as_ref()
                    .and_then(|row| row.stored.session.claimant());
                let user = match (self.machine.fault, claimant) {
                    (Some(Fault::NamesTheClaimant), Some(claimant)) => claimant.as_str(),
                    _ => user,
                };
                let deeds = self.machine.deeds.iter();
                let made = deeds.map(|&deed| Made::Decide {
                    user: user.to_owned(),
                    deed,
                });
                made.collect()
            }
        }
    }

    /// What can happen next to a task on its way.
    fn go(&self, world: &World, place: usize, steps: &mut Vec<(Step, Box<World>)>) {
        let Some((flight, began, commits)) = &world.tasks[place].flight else {
            return;
        };
        let may_fail = world.mishaps > 0;
        let mut step = |name, is_mishap, change: &dyn Fn(&mut World) -> Option<Answer>| {
            let mut next = world.clone();
            next.mishaps -= u8::from(is_mishap);
            if let Some(answer) = change(&mut next) {
                let loads = matches!(answer, Answer::Loaded(_));
                let commits = if loads { next.commits } else { *commits };
                let mut flight = flight.clone();
                flight.answer(&self.setting.fixture, answer);
                next.tasks[place].flight = Some((flight, *began, commits));
            } else {
                next.tasks[place].flight = None;
            }
            self.settle(&mut next);
            steps.push((Step::Go(place, name), Box::new(next)));
        };
        match &flight.asked {
            Asked::Load => {
                step("load", false, &|next| {
                    Some(Answer::Loaded(next.row.clone()))
                });
            }
            Asked::Write {
                to,
                expected,
                mints,
            } => {
                step("write", false, &|next| {
                    let written = self.write(next, place, to, *expected);
                    Some(Answer::Written(Ok(written)))
                });
                let unheard = match self.machine.fault {
                    Some(Fault::UnknownIsWon) => Ok(Write::Committed),
                    _ => Err(Unavailable),
                };
                if may_fail {
                    step("write unheard", true, &|next| {
                        let _ = self.write(next, place, to, *expected);
                        Some(Answer::Written(unheard))
                    });
                    step("write failed", true, &|_| Some(Answer::Written(unheard)));
                }
                if may_fail && *mints && self.machine.refuses {
                    step("consent gone", true, &|_| {
                        Some(Answer::Refused { is_gone: true })
                    });
                    step("minting failed", true, &|_| {
                        Some(Answer::Refused { is_gone: false })
                    });
                }
            }
            Asked::Pace(saved) => {
                step("pace saved", false, &|next| {
                    self.save_pace(next, flight, *saved);
                    Some(Answer::Paced)
                });
                if may_fail {
                    step("pace lost", true, &|_| Some(Answer::Paced));
                }
            }
            Asked::Done(end) => {
                step("done", false, &|next| {
                    self.end(next, place, end, true);
                    None
                });
                if may_fail && end.refresh_token.is_some() {
                    step("response lost", true, &|next| {
                        self.end(next, place, end, false);
                        None
                    });
                }
            }
        }
    }

    /// A guarded write, and what must hold of it.
    fn write(&self, world: &mut World, place: usize, to: &Session, expected: u64) -> Write {
        let (flight, began, commits) = world.tasks[place].flight.clone().unwrap();
        let job = world.tasks[place].job;
        let Some(row) = world.row.clone() else {
            return Write::Conflict;
        };
        let from = &row.stored.session;
        if from.version() != expected && self.machine.fault != Some(Fault::NoGuard) {
            world.must(NO_LOSS, world.commits != commits);
            return Write::Conflict;
        }
        let refreshes = matches!(flight.made, Made::Refresh { .. });
        let is_reuse = refreshes && to.status() == Status::Ended;
        if is_reuse && self.machine.fault == Some(Fault::ReuseIgnored) {
            return Write::Committed;
        }
        let follows = match (from.status(), to.status()) {
            (Status::Pending, Status::Claimed)
            | (Status::Claimed, Status::Pending | Status::Approved | Status::Denied)
            | (Status::Approved, Status::Active | Status::Ended)
            | (Status::Active, Status::Ended) => true,
            (Status::Active, Status::Active) => refreshes,
            _ => false,
        };
        world.must(FINAL, follows);
        let foreign = [
            Job::Poll(Party::Foreign),
            Job::Refresh(Party::Foreign),
            Job::Revoke(Party::Foreign),
        ];
        world.must(FOREIGN, !foreign.contains(&job));
        let in_time = match to.status() {
            Status::Claimed | Status::Approved | Status::Denied => began < EXPIRY,
            Status::Active => refreshes || began < EXPIRY + REDEEM_TIME,
            Status::Pending | Status::Ended => true,
        };
        world.must(TOO_LATE, in_time);
        if let Job::Decide(user) | Job::Enter(user) = job {
            let before = from
                .claimant()
                .is_none_or(|claimant| claimant.as_str() == user);
            let after = to
                .claimant()
                .is_none_or(|claimant| claimant.as_str() == user);
            world.must(CLAIMANT, before && after);
        } else {
            world.must(CLAIMANT, from.claimant() == to.claimant());
        }
        world.commits += 1;
        world.row = Some(row.with(to.clone()));
        Write::Committed
    }

    fn save_pace(&self, world: &mut World, flight: &Flight, pace: Pace) {
        let loaded = flight.loaded().unwrap();
        let Some(row) = &world.row else {
            if self.machine.fault == Some(Fault::PaceRevives) {
                world.must(PURGED, false);
                world.row = Some(loaded.clone());
            }
            return;
        };
        let session = match self.machine.fault {
            Some(Fault::PaceCarriesTheSession) => loaded.stored.session.clone(),
            Some(Fault::PaceBumpsTheVersion) => {
                let mut form: Value = serde_json::to_value(&row.stored.session).unwrap();
                form["version"] = (row.stored.session.version() + 1).into();
                serde_json::from_value(form).unwrap()
            }
            _ => row.stored.session.clone(),
        };
        let is_same = session.status() == row.stored.session.status();
        world.must(PACED, is_same);
        let pace = Some(pace);
        world.row = Some(Row::new(Stored { pace, session }));
    }

    /// What was answered, and what must hold of it.
    fn end(&self, world: &mut World, place: usize, end: &End, is_heard: bool) {
        let (flight, began, _) = world.tasks[place].flight.clone().unwrap();
        let job = world.tasks[place].job;
        if let Some(cause) = end.cause {
            self.cover(cause.as_str().to_owned());
            world.must(EXPIRED, cause_is_in_time(cause, began));
            let succeeds = matches!(cause, Cause::Granted | Cause::Refreshed | Cause::Revoked);
            let foreign = matches!(
                job,
                Job::Poll(Party::Foreign)
                    | Job::Refresh(Party::Foreign)
                    | Job::Revoke(Party::Foreign)
            );
            world.must(FOREIGN, !(foreign && succeeds));
            world.redeemed += u8::from(cause == Cause::Granted);
            world.must(ONE_SUCCESS, world.redeemed <= 1);
            let ends = matches!(
                cause,
                Cause::Revoked | Cause::Reuse | Cause::Replay | Cause::ConsentGone
            );
            world.must(OVER, !ends || world.is_over());
            let forgotten = matches!(cause, Cause::UnknownCode | Cause::UnknownRefreshToken);
            let was_due = world
                .purged
                .is_some_and(|due| due <= self.machine.moments[world.time]);
            world.must(PURGED, !forgotten || was_due);
        }
        match (&flight.made, end.refused) {
            (Made::Decide { deed, .. }, None) => {
                self.cover(format!("{deed:?}"));
                world.must(OVER, *deed != Deed::Withdraw || world.is_over());
            }
            (Made::Enter { .. }, None) => self.cover("Entered".to_owned()),
            (_, Some(error)) => self.cover(format!("{error:?}")),
            _ => {}
        }
        if let Some(token) = &end.refresh_token {
            world.sent.push(token.clone());
            world.sent.sort();
            if is_heard {
                let party = usize::from(job == Job::Refresh(Party::Thief));
                world.held[party] = Some(token.clone());
                world.refreshed[party] |= end.cause == Some(Cause::Refreshed);
            }
        }
    }

    fn cover(&self, name: String) {
        self.machine.covered.lock().unwrap().insert(name);
    }

    /// A refresh without a mishap, alone.
    fn refresh(&self, row: &mut Option<Row>, token: &str, now: Moment) -> Option<Cause> {
        let fixture = &self.setting.fixture;
        let made = Made::Refresh {
            client: CLI.to_owned(),
            token: token.to_owned(),
        };
        let mut flight = Flight::new(fixture, made, now, 250);
        loop {
            let answer = match &flight.asked {
                Asked::Load => Answer::Loaded(row.clone()),
                Asked::Write { to, .. } => {
                    let reuse = to.status() == Status::Ended;
                    if !(reuse && self.machine.fault == Some(Fault::ReuseIgnored)) {
                        *row = row.as_ref().map(|row| row.with(to.clone()));
                    }
                    Answer::Written(Ok(Write::Committed))
                }
                Asked::Pace(_) => Answer::Paced,
                Asked::Done(end) => return end.cause,
            };
            flight.answer(fixture, answer);
        }
    }

    /// What must hold where nobody is on the way.
    fn settle(&self, world: &mut World) {
        if self.machine.start != Start::Active || !world.is_quiet() {
            return;
        }
        let now = self.machine.moments[world.time];
        let later = now + GRACE + 1;
        let good = world.sent.iter().filter(|token| {
            self.refresh(&mut world.row.clone(), token, later) == Some(Cause::Refreshed)
        });
        let good = good.count();
        world.must(ONE_TOKEN, good <= 1);
        let ends = world.tasks.iter().any(|task| {
            !matches!(
                task.job,
                Job::Refresh(Party::Owner | Party::Foreign) | Job::Revoke(Party::Foreign)
            )
        });
        if let (false, Some(token)) = (ends || self.machine.refuses, &world.held[0]) {
            let cause = self.refresh(&mut world.row.clone(), token, now);
            world.must(KEPT, cause == Some(Cause::Refreshed));
        }
        if world.refreshed == [true, true] {
            for order in [[0, 1], [1, 0]] {
                let mut row = world.row.clone();
                for party in order {
                    let token = world.held[party].clone().unwrap();
                    self.refresh(&mut row, &token, later);
                }
                let is_over = row.is_none_or(|row| row.stored.session.status() == Status::Ended);
                world.must(THEFT, is_over);
            }
        }
    }
}

fn cause_is_in_time(cause: Cause, began: Moment) -> bool {
    let waits = matches!(cause, Cause::Pending | Cause::Repeated | Cause::TooFast);
    !waits || began < EXPIRY
}

impl Model for Login {
    type State = World;
    type Action = (Step, Box<World>);

    fn init_states(&self) -> Vec<World> {
        let starts = self.setting.starts.iter();
        let tasks = self.machine.tasks.iter().map(|&(job, runs)| Task {
            job,
            runs,
            flight: None,
        });
        let tasks: Vec<_> = tasks.collect();
        let worlds = starts.map(|(row, token)| World {
            row: Some(row.clone()),
            time: 0,
            tasks: tasks.clone(),
            held: [token.clone(), token.clone()],
            refreshed: [false; 2],
            sent: token.iter().cloned().collect(),
            redeemed: 0,
            commits: 0,
            mishaps: self.machine.mishaps,
            purged: None,
            broken: 0,
        });
        worlds.collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Self::Action>) {
        let moment = self.machine.moments[world.time];
        if let Some(&later) = self.machine.moments.get(world.time + 1) {
            let mut next = world.clone();
            next.time += 1;
            actions.push((Step::Tick(later), Box::new(next)));
        }
        if let (Some(row), true) = (&world.row, self.machine.purges) {
            let due = row.stored.session.purge_at() - NOW;
            let due = i64::try_from(due.whole_milliseconds()).unwrap();
            if due <= moment || self.machine.fault == Some(Fault::PurgesEarly) {
                let mut next = world.clone();
                next.row = None;
                next.purged = Some(due);
                actions.push((Step::Purge, Box::new(next)));
            }
        }
        let now = match self.machine.fault {
            Some(Fault::ExpiryIgnored) => self.machine.moments[0],
            _ => moment,
        };
        for (place, task) in world.tasks.iter().enumerate() {
            if task.flight.is_some() {
                self.go(world, place, actions);
                continue;
            }
            let is_repeated = world.tasks[..place].iter().any(|other| other == task);
            if task.runs == 0 || is_repeated {
                continue;
            }
            for made in self.made(world, task.job) {
                let seed = u8::try_from(place * 40 + usize::from(task.runs) * 10 + 20).unwrap();
                let flight = Flight::new(&self.setting.fixture, made.clone(), now, seed);
                let mut next = world.clone();
                next.tasks[place].runs -= 1;
                next.tasks[place].flight = Some((flight, moment, world.commits));
                actions.push((Step::Begin(place, made), Box::new(next)));
            }
        }
    }

    fn next_state(&self, _: &World, (_, next): Self::Action) -> Option<World> {
        Some(*next)
    }

    fn format_action(&self, (step, _): &Self::Action) -> String {
        match step {
            Step::Go(place, name) => format!("{:?}: {name}", self.machine.tasks[*place].0),
            Step::Begin(place, Made::Decide { user, deed }) => {
                format!(
                    "{:?} begins, as {user}: {deed:?}",
                    self.machine.tasks[*place].0
                )
            }
            Step::Begin(place, _) => format!("{:?} begins", self.machine.tasks[*place].0),
            Step::Tick(moment) => format!("it is {moment}"),
            Step::Purge => "purge".to_owned(),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! always {
            ($($place:literal)*) => {
                vec![$(Property::always(PROPERTIES[$place], |_, world: &World| {
                    world.broken & (1 << $place) == 0
                }),)*]
            };
        }
        always!(0 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}
