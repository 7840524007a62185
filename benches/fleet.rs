//! A fleet of devices on a virtual clock, with both halves. The devices start over five minutes, poll, and are approved, denied or left to
//! expire. This measures the speed and the memory, for ten thousand to four million devices.
//!
//! ```sh
//! cargo bench --bench fleet            # four fleets, with the plot written to benches/fleet.svg
//! cargo bench --bench fleet -- 10000   # one, without the plot
//! ```
//!
//! The server half reads every byte that a device sends, and the client half reads every response. A request or a response takes 20 to 150
//! ms on its way. User codes are as long as the policy demands for this number of sessions. At the end every device must have the result
//! that its user chose. No device should be slowed down, because the client half keeps to the interval.
//!
//! - A transition is a request that the server half answers, an answer that the client half takes, a code that is entered, or a decision.
//!   The time is the processor time of the whole program: the halves, the store, and the calendar of the devices.
//! - Bytes per session are the bytes that are freed when the store is dropped. They include subjects, grants and quotas.
//! - Writes are counted at the store, by kind.
//! - The last columns are pending polls in random order among as many sessions, with those of the floor beside them. A poll may become
//!   slower only because the memory that it uses does. The floor uses that memory, too.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "a bench counts its own numbers, and a panic is how it fails"
)]

mod floor;
#[path = "operations/mod.rs"]
mod operations;

use core::mem;
use core::time::Duration;
use std::sync::LazyLock;
use std::time::Instant;

use ::time::OffsetDateTime;
use device_flow::client::{DeviceFlow, Endpoints, Login, LoginError, Next, Response, Tokens};
use device_flow::digest::{SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::server::{
    Change, Inserted, Pace, RateLimited, Session, Status, Stored, Take, Write,
};
use operations::device::{DEVICE_AUTHORIZATION, TOKEN};
use operations::host::{Host, Ours, PUBLIC, Request, SCOPE, Store, shape, user};
use operations::{Moment, Out, Random, server, time};
use plotters::prelude::*;

const FLEETS: [usize; 4] = [10_000, 100_000, 1_000_000, 4_000_000];

const PLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/fleet.svg");

/// The span over which the devices start. All times of the fleet are in milliseconds.
const START_WITHIN: u64 = 300_000;

/// The span of a page of the calendar. The events of a page are not sorted by their time.
const PAGE: u64 = 100;

/// The least and the most time from the codes to their entry. Some people wait with the phone in hand, others have to find it.
const ENTER_AFTER: (u64, u64) = (5_000, 40_000);

/// The least and the most time from the entry of the code to the decision.
const DECIDE_AFTER: (u64, u64) = (2_000, 10_000);

/// The least and the most time of one way through the network.
const TRAVEL: (u64, u64) = (20, 150);

/// How many devices are denied, and how many are left to expire, in percent. The rest is approved.
const DENIED: u64 = 10;
const LEFT: u64 = 5;

fn main() {
    let asked = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let asked: Vec<usize> = asked.collect();
    let fleets = if asked.is_empty() {
        &FLEETS[..]
    } else {
        &asked
    };
    println!(
        "{:>9} {:>6} {:>11} {:>9} {:>9} | {:>5} {:>5} {:>5} {:>6} {:>6} {:>6} | {:>7} {:>7} {:>5}",
        "devices",
        "code",
        "transitions",
        "million/s",
        "B/session",
        "insert",
        "pace",
        "claim",
        "decide",
        "redeem",
        "quota",
        "poll ns",
        "floor",
        "ratio"
    );
    let mut rows = Vec::new();
    for &devices in fleets {
        let row = Row::of(devices);
        println!("{row}");
        rows.push(row);
    }
    println!("peak memory: {}", peak_memory());
    if asked.is_empty() {
        plot(&rows).unwrap();
        println!("plot: {PLOT}");
    }
}

/// The results for a fleet.
struct Row {
    devices: usize,
    code: u8,
    transitions: u64,
    time: Duration,
    bytes: f64,
    writes: Writes,
    poll: f64,
    floor: f64,
}

impl Row {
    fn of(devices: usize) -> Self {
        let mut row = None;
        allocation_counter::opt_out(|| {
            let mut fleet = Fleet::new(devices);
            let start = spent();
            fleet.run();
            let time = spent().saturating_sub(start);
            fleet.check();
            row = Some((fleet, time));
        });
        let (fleet, time) = row.unwrap();
        let Fleet {
            host, transitions, ..
        } = fleet;
        let Counting { store, writes } = host.into_store();
        let freed = allocation_counter::measure(|| drop(store)).bytes_current;
        let (mut poll, mut floor) = (0.0, 0.0);
        allocation_counter::opt_out(|| (poll, floor) = polls(devices));
        Self {
            devices,
            code: shape(devices as u64).length(),
            transitions,
            time,
            bytes: -freed as f64 / devices as f64,
            writes,
            poll,
            floor,
        }
    }
}

impl core::fmt::Display for Row {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let each = |count: u64| count as f64 / self.devices as f64;
        let Writes {
            inserts,
            paces,
            claims,
            decisions,
            redemptions,
            quotas,
        } = self.writes;
        write!(
            f,
            "{:>9} {:>6} {:>11} {:>9.2} {:>9.0} | {:>5.2} {:>5.2} {:>5.2} {:>6.2} {:>6.2} {:>6.2} | {:>7.0} {:>7.0} {:>5.2}",
            self.devices,
            self.code,
            self.transitions,
            self.rate(),
            self.bytes,
            each(inserts),
            each(paces),
            each(claims),
            each(decisions),
            each(redemptions),
            each(quotas),
            self.poll,
            self.floor,
            self.poll / self.floor,
        )
    }
}

impl Row {
    /// Returns the millions of transitions per second.
    fn rate(&self) -> f64 {
        self.transitions as f64 / self.time.as_secs_f64() / 1e6
    }
}

/// Returns the time of a pending poll in nanoseconds, ours and the floor's.
fn polls(sessions: usize) -> (f64, f64) {
    const BATCHES: usize = 1_001;
    let (mut ours, mut floor) = server::pending_among(sessions);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..BATCHES {
        times[0].push(time(&mut *ours, server::TURNS));
        times[1].push(time(&mut *floor, server::TURNS));
        times[1].push(time(&mut *floor, server::TURNS));
        times[0].push(time(&mut *ours, server::TURNS));
    }
    let [ours, floor] = times.map(|mut times| {
        times.sort_unstable();
        times[BATCHES].as_nanos() as f64 / server::TURNS as f64
    });
    (ours, floor)
}

/// The fleet, its server, and the calendar of both.
struct Fleet {
    flow: DeviceFlow,
    host: Ours<Counting>,
    devices: Vec<Device>,
    /// What happens on each page.
    calendar: Vec<Vec<Event>>,
    random: Random,
    out: Out,
    transitions: u64,
}

struct Device {
    /// The login, until there is an outcome.
    login: Option<Login>,
    plan: Plan,
    is_right: bool,
    /// The user code, until it is entered.
    user_code: String,
    claimed: Option<SessionKey>,
}

/// What the user is going to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plan {
    Approve,
    Deny,
    Nothing,
}

/// Something that happens at this time to the device of this number.
#[derive(Clone, Copy)]
struct Event {
    at: u64,
    device: u32,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Start,
    Poll,
    Enter,
    Decide,
}

impl Fleet {
    fn new(devices: usize) -> Self {
        let endpoints = Endpoints::new(DEVICE_AUTHORIZATION, TOKEN).unwrap();
        let pages = (START_WITHIN / PAGE) as usize + 1;
        let mut fleet = Self {
            flow: DeviceFlow::new(endpoints, PUBLIC).scope(SCOPE),
            host: Ours::new(devices as u64),
            devices: Vec::with_capacity(devices),
            calendar: (0..pages).map(|_| Vec::new()).collect(),
            random: Random(7),
            out: Out::default(),
            transitions: 0,
        };
        for number in 0..devices {
            let plan = match fleet.random.next() % 100 {
                share if share < DENIED => Plan::Deny,
                share if share < DENIED + LEFT => Plan::Nothing,
                _ => Plan::Approve,
            };
            fleet.devices.push(Device {
                login: None,
                plan,
                is_right: false,
                user_code: String::new(),
                claimed: None,
            });
            let at = number as u64 * START_WITHIN / devices as u64;
            fleet.note(at, number as u32, What::Start);
        }
        fleet
    }

    fn run(&mut self) {
        let mut page = 0;
        while page < self.calendar.len() {
            // An event may put more events on the same page.
            while let events @ [_, ..] = &*mem::take(&mut self.calendar[page]) {
                for event in events {
                    self.happen(*event);
                }
            }
            page += 1;
        }
    }

    /// Asserts that every device got the result that its user chose.
    fn check(&self) {
        assert!(self.devices.iter().all(|device| device.is_right));
    }

    fn happen(&mut self, Event { at, device, what }: Event) {
        match what {
            What::Start => self.start(at, device),
            What::Poll => self.poll(at, device),
            What::Enter => self.enter(at, device),
            What::Decide => self.decide(at, device),
        }
    }

    fn start(&mut self, at: u64, number: u32) {
        let mut login = self.flow.login().unwrap();
        let Next::Send(ask) = login.next(Duration::from_millis(at)) else {
            panic!("it asks for codes first");
        };
        let request = ask.request().clone();
        let served = at + self.between(TRAVEL);
        let (random, out) = (&mut self.random, &mut self.out);
        let request = Request::new(request.body());
        self.host
            .device_authorization(request, || random.entropy(), moment(served), out);
        let answered = served + self.between(TRAVEL);
        let response = Response::new(self.out.status, &self.out.body);
        ask.answer(Ok(response), Duration::from_millis(answered));
        let Next::Show(prompt) = login.next(Duration::from_millis(answered)) else {
            panic!("nothing is shown");
        };
        self.transitions += 2;
        let device = &mut self.devices[number as usize];
        device.user_code = prompt.user_code;
        if device.plan != Plan::Nothing {
            let after = self.between(ENTER_AFTER);
            self.note(answered + after, number, What::Enter);
        }
        self.wait(login, answered, number);
    }

    fn poll(&mut self, at: u64, number: u32) {
        let mut login = self.devices[number as usize].login.take().unwrap();
        let ask = match login.next(Duration::from_millis(at)) {
            Next::Send(ask) => ask,
            Next::Done(outcome) => return self.end(number, &outcome),
            Next::Wait { .. } => return self.wait(login, at, number),
            Next::Show(_) => panic!("the prompt is shown twice"),
        };
        let request = ask.request().clone();
        let served = at + self.between(TRAVEL);
        let request = Request::new(request.body());
        let random = &mut self.random;
        let entropy = || random.entropy();
        self.host
            .token(request, entropy, moment(served), &mut self.out);
        let answered = served + self.between(TRAVEL);
        let response = Response::new(self.out.status, &self.out.body);
        self.transitions += 2;
        ask.answer(Ok(response), Duration::from_millis(answered));
        self.wait(login, answered, number);
    }

    fn enter(&mut self, at: u64, number: u32) {
        let device = &mut self.devices[number as usize];
        let typed = mem::take(&mut device.user_code);
        let claimed = self.host.enter(&typed, &person(number), moment(at));
        device.claimed = Some(claimed.unwrap());
        self.transitions += 1;
        let after = self.between(DECIDE_AFTER);
        self.note(at + after, number, What::Decide);
    }

    fn decide(&mut self, at: u64, number: u32) {
        let device = &mut self.devices[number as usize];
        let (session, user) = (device.claimed.take().unwrap(), person(number));
        let decided = match device.plan {
            Plan::Approve => self.host.approve(session, &user, moment(at)),
            Plan::Deny => self.host.deny(session, &user, moment(at)),
            Plan::Nothing => false,
        };
        assert!(decided);
        self.transitions += 1;
    }

    /// Notes when the device is to ask again, unless its login is over.
    fn wait(&mut self, mut login: Login, now: u64, number: u32) {
        match login.next(Duration::from_millis(now)) {
            Next::Wait { until } => {
                self.devices[number as usize].login = Some(login);
                self.note(until.as_millis() as u64, number, What::Poll);
            }
            Next::Done(outcome) => self.end(number, &outcome),
            other @ (Next::Send(_) | Next::Show(_)) => panic!("{other:?}"),
        }
    }

    fn end(&mut self, number: u32, outcome: &Result<Tokens, LoginError>) {
        let device = &mut self.devices[number as usize];
        device.is_right = match device.plan {
            Plan::Approve => outcome.is_ok(),
            Plan::Deny => matches!(outcome, Err(LoginError::Denied(_))),
            Plan::Nothing => {
                matches!(
                    outcome,
                    Err(LoginError::Expired(_) | LoginError::TimedOut(_))
                )
            }
        };
    }

    fn note(&mut self, at: u64, device: u32, what: What) {
        let page = (at / PAGE) as usize;
        if page >= self.calendar.len() {
            self.calendar.resize_with(page + 1, Vec::new);
        }
        self.calendar[page].push(Event { at, device, what });
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.random.next() % (most - least)
    }
}

fn moment(at: u64) -> Moment {
    Moment::after(at as i64)
}

fn person(number: u32) -> device_flow::server::Subject {
    <Ours as Host>::user(user(number as usize))
}

/// The writes to a store, by kind.
#[derive(Clone, Copy, Default)]
struct Writes {
    inserts: u64,
    paces: u64,
    claims: u64,
    decisions: u64,
    redemptions: u64,
    quotas: u64,
}

/// [`Memory`], counting the writes to it.
#[derive(Default)]
struct Counting {
    store: Memory,
    writes: Writes,
}

impl Store for Counting {
    fn insert(&mut self, session: &Session) -> Inserted {
        self.writes.inserts += 1;
        self.store.insert(session)
    }

    fn load(&self, key: &SessionKey) -> Option<&Stored> {
        self.store.load(key)
    }

    fn load_by_user_key(&self, key: &UserKey) -> Option<&Stored> {
        self.store.load_by_user_key(key)
    }

    fn change(&mut self, change: Change<'_>) -> Write {
        let written = self.store.change(change);
        let stored = self.store.load(change.key());
        match stored.map(|stored| stored.session.status()) {
            Some(Status::Claimed) => self.writes.claims += 1,
            Some(Status::Approved | Status::Denied) => self.writes.decisions += 1,
            Some(Status::Active) => self.writes.redemptions += 1,
            Some(Status::Pending | Status::Ended) | None => panic!("nobody asked for this"),
        }
        written
    }

    fn save_pace(&mut self, key: &SessionKey, pace: Pace) {
        self.writes.paces += 1;
        self.store.save_pace(key, pace);
    }

    fn take(&mut self, take: &Take) -> Result<(), RateLimited> {
        self.writes.quotas += 1;
        self.store.take(take)
    }

    fn purge(&mut self, now: OffsetDateTime) -> usize {
        self.store.purge(now)
    }
}

/// Returns the processor time of this thread, as Linux reports it. On other systems it returns the time that has passed.
fn spent() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|line| line.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| START.elapsed(), Duration::from_nanos)
}

/// Returns the most memory that this process had, as Linux reports it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("unknown").trim().to_owned()
}

/// A curve: its name, its colour, its points.
type Curve<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

/// Draws three panels over the number of devices.
fn plot(rows: &[Row]) -> Result<(), Box<dyn core::error::Error>> {
    let root = SVGBackend::new(PLOT, (960, 320)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((1, 3));
    let of = |value: fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter()
            .map(|row| (row.devices as f64, value(row)))
            .collect()
    };
    let panel = |place: usize, title: &str, curves: &[Curve<'_>]| {
        let values = curves.iter().flat_map(|(_, _, points)| points);
        let most = values.fold(0.0, |most: f64, (_, value)| most.max(*value));
        let mut chart = ChartBuilder::on(&panels[place])
            .caption(title, ("sans-serif", 15))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(45)
            .build_cartesian_2d((8e3..5e6).log_scale(), 0.0..most * 1.15)?;
        chart
            .configure_mesh()
            .x_labels(4)
            .y_label_formatter(&|value| format!("{value}"))
            .x_label_formatter(&|devices| format!("{}k", devices / 1e3))
            .x_desc("devices")
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (name, color, points) in curves {
            let color = *color;
            let line = LineSeries::new(points.clone(), color.stroke_width(2)).point_size(3);
            chart.draw_series(line)?.label(*name).legend(move |(x, y)| {
                Rectangle::new([(x, y - 2), (x + 12, y + 2)], color.filled())
            });
        }
        if curves.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerRight)
                .draw()?;
        }
        Ok::<(), Box<dyn core::error::Error>>(())
    };
    let polls = [
        ("this crate", BLUE, of(|row| row.poll)),
        ("floor", RED, of(|row| row.floor)),
    ];
    panel(0, "pending poll, ns", &polls)?;
    panel(
        1,
        "million transitions per second",
        &[("", BLUE, of(Row::rate))],
    )?;
    panel(2, "bytes per session", &[("", BLUE, of(|row| row.bytes))])?;
    root.present()?;
    Ok(())
}
