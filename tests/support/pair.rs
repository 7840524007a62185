//! Both halves of the crate, joined by a network that delays, loses, repeats and reorders messages. Clocks drift and jump, processes die,
//! stores fail, and strangers send requests of their own.
//!
//! A [`Dialogue`] is a set-up and a list of turns. A turn is what happens before the client's next step. After the last turn nothing goes
//! wrong any more. If the client has its tokens before that, it refreshes them in the turns that are left. [`play`] asserts, at every step
//! and at the end, what must hold: how a login may end, table R, and the invariants of both halves.
//!
//! The server's time is in milliseconds after the codes were issued, the client's in milliseconds of its own clock.

use core::fmt::{Debug, Write as _};
use core::time::Duration;

use device_flow::client::{
    Ask, DeviceFlow, Endpoints, Login, LoginError, Next, Request, Response, Snapshot, Tokens,
    TransportError,
};
use device_flow::server::{Cause, Reply, Status, Subject};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::{ACCESS_TOKEN, BACKEND, CLI, NOW, SECRET, alice, subject};
use refresh::Refreshes;
use server::Server;

pub(crate) use dialogue::{Client, Commit, Dialogue, Granted, Heard, Meddler, Op, Setup, User};

mod dialogue;
mod ending;
mod refresh;
mod server;

const ASKED: &str = "openid profile offline_access";

/// The most turns that a run may take.
const MAX_TURNS: usize = 20_000;

/// How long the client waits for an answer.
const TIMEOUT: i64 = 10_000;

/// The result of a dialogue, for tests that count results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// How many requests reached the server.
    pub(crate) messages: u64,
    pub(crate) ending: &'static str,
    /// The ending that the user chose, if the user decided.
    pub(crate) chosen: Option<&'static str>,
    pub(crate) slowed_down: bool,
    /// The refreshes, after a grant with a refresh token.
    pub(crate) refreshes: Refreshes,
    /// Whether the login is active at the end.
    pub(crate) is_active: bool,
}

/// Plays a dialogue to its end.
pub(crate) fn play(dialogue: &Dialogue) -> Summary {
    run(dialogue, None)
}

/// Plays a dialogue, and writes it to `lines`, line by line. If this panics, the lines up to there have been written.
pub(crate) fn transcribe(dialogue: &Dialogue, lines: &mut String) {
    let _ = run(dialogue, Some(lines));
}

fn run(dialogue: &Dialogue, lines: Option<&mut String>) -> Summary {
    let (mut pair, login) = Pair::new(dialogue.setup, lines);
    let (outcome, left) = pair.play(login, &dialogue.turns);
    let mut summary = pair.ends_in(&outcome);
    if let Ok(tokens) = &outcome
        && let Some(token) = tokens.refresh_token()
    {
        summary.refreshes = pair.refreshes(token, left);
        summary.is_active = pair.server.status() == Some(Status::Active);
        summary.messages = pair.server.messages;
    }
    summary
}

/// A copy of a request that comes later.
enum Late {
    Poll(Request),
    /// With this token.
    Refresh(Request, String),
}

/// How a login ended.
type Outcome = Result<Tokens, LoginError>;

// The pair.

/// What happens to the next exchange.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what may go wrong")]
struct Weather {
    request_lost: bool,
    answer_lost: bool,
    /// A gateway answers. If `true`, the server has seen the request.
    gateway: Option<bool>,
    twice: Option<Heard>,
    /// After how many turns a copy of the request arrives.
    late_copy: Option<u8>,
    dies: bool,
    delays: [i64; 2],
    commit: Commit,
    skew: i64,
}

const FAIR: Weather = Weather {
    request_lost: false,
    answer_lost: false,
    gateway: None,
    twice: None,
    late_copy: None,
    dies: false,
    delays: [0, 0],
    commit: Commit::Heard,
    skew: 0,
};

impl Weather {
    /// Returns whether the server decides, and its answer reaches the client.
    fn is_fair(&self) -> bool {
        !self.request_lost
            && !self.answer_lost
            && !self.dies
            && self.gateway.is_none()
            && self.twice.is_none()
            && self.commit == Commit::Heard
    }
}

#[allow(clippy::struct_excessive_bools, reason = "what went wrong")]
struct Pair<'l> {
    setup: Setup,
    server: Server,
    flow: DeviceFlow,
    secrets: Vec<String>,
    device_code: String,
    user_code: String,
    /// The true time that has passed, in milliseconds.
    real: i64,
    /// How far the server's clock was set forwards.
    stepped: i64,
    /// The client's clock.
    reading: i64,
    /// How fast the client's clock runs, in thousandths: 1000 is right.
    rate: i64,
    /// The latest clock reading that the client has had.
    held: i64,
    /// When the last answer arrived. This and `deadline` are readings of the client's clock, too.
    answered: i64,
    floor: i64,
    deadline: i64,
    polls: i64,
    /// Whether the client polled at the deadline or later.
    asked_last: bool,
    /// Until when the client said that it waits.
    due: Option<i64>,
    weather: Weather,
    late: Vec<(u8, Late)>,
    /// The refresh token that a thief may have copied from the device.
    copied: Option<String>,
    /// Whether an answer did not reach the client, or its process died before it had the answer.
    lost: bool,
    /// Whether the server, or a gateway, said that it could not answer.
    failed: bool,
    twice: bool,
    unheard: bool,
    /// Whether the clock of the server was set back.
    set_back: bool,
    fastest: i64,
    /// How far the clocks of the server's processes were behind and ahead at most, in milliseconds.
    skews: [i64; 2],
    /// The cause of the last reply that reached the client.
    told: Option<Cause>,
    lines: Option<&'l mut String>,
}

impl<'l> Pair<'l> {
    fn new(setup: Setup, lines: Option<&'l mut String>) -> (Self, Login) {
        let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
        let endpoints = endpoints.unwrap();
        let mut flow = match setup.client {
            Client::Public => DeviceFlow::new(endpoints, CLI),
            Client::SecretInHeader => DeviceFlow::new(endpoints, BACKEND).secret_basic(SECRET),
            Client::SecretInBody => DeviceFlow::new(endpoints, BACKEND).secret_post(SECRET),
        };
        flow = flow.scope(ASKED);
        if setup.polls_at_once {
            flow = flow.first_poll_at_once();
        }
        if !setup.polls_at_the_end {
            flow = flow.no_final_poll();
        }
        let mut server = Server::new(setup);
        let start = 1_000_000;
        let mut login = flow.login().unwrap();
        let Next::Send(ask) = login.next(span(start)) else {
            panic!("it asks for codes first")
        };
        let request = ask.request().clone();
        let reply = server.issue(&request);
        let body: Value = serde_json::from_str(reply.response().body()).unwrap();
        let answer = Response::new(reply.response().status(), reply.response().body());
        ask.answer(Ok(answer), span(start));
        let Next::Show(prompt) = login.next(span(start)) else {
            panic!("nothing is shown")
        };
        let device_code = body["device_code"].as_str().unwrap().to_owned();
        let secrets = vec![
            device_code.clone(),
            prompt.user_code.clone(),
            prompt.user_code.replace('-', ""),
            ACCESS_TOKEN.to_owned(),
            SECRET.to_owned(),
        ];
        let mut pair = Self {
            setup,
            floor: server.interval,
            deadline: start + server.lifetime,
            server,
            flow,
            secrets,
            device_code,
            user_code: prompt.user_code.clone(),
            real: 0,
            stepped: 0,
            reading: start,
            rate: 1000,
            held: start,
            answered: start,
            polls: 0,
            asked_last: false,
            due: None,
            weather: FAIR,
            late: Vec::new(),
            copied: None,
            lost: false,
            failed: false,
            twice: false,
            unheard: false,
            set_back: false,
            fastest: 1000,
            skews: [0, 0],
            told: None,
            lines,
        };
        assert!(pair.server.status().is_some());
        pair.shows(&(&prompt, &login, &request, &reply));
        (pair, login)
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let real = self.real;
        if let Some(lines) = &mut self.lines {
            writeln!(
                lines,
                "{:>9.3} s  {}",
                Duration::from_millis(real.unsigned_abs()).as_secs_f64(),
                what()
            )
            .unwrap();
        }
    }

    /// Asserts that the `Debug` output of a value shows no secret.
    fn shows(&mut self, value: &dyn Debug) {
        let shown = format!("{value:?}");
        for secret in &self.secrets {
            assert!(!shown.contains(secret.as_str()), "a secret is shown");
        }
    }

    /// Lets this many milliseconds pass.
    fn pass(&mut self, millis: i64) {
        self.real += millis;
        self.reading += millis * self.rate / 1000;
    }

    /// Lets the time pass until the client's clock reads `until`.
    fn sleep(&mut self, until: i64) {
        let wait = (until - self.reading).max(0);
        self.real += wait * 1000 / self.rate;
        self.reading = self.reading.max(until);
    }

    fn now(&mut self) -> Duration {
        self.held = self.held.max(self.reading);
        span(self.reading)
    }

    /// Returns the reading of the clock of the server's first process.
    fn wall(&self) -> i64 {
        self.real + self.stepped
    }

    /// Plays until the client is done. Returns its outcome, and the turns that are left.
    fn play<'t>(&mut self, mut login: Login, turns: &'t [Vec<Op>]) -> (Outcome, &'t [Vec<Op>]) {
        let mut left = turns;
        for _ in 0..MAX_TURNS {
            let turn = left.split_off_first().map_or(&[][..], Vec::as_slice);
            let partly = self.happens(&mut login, turn);
            let now = self.now();
            match login.next(now) {
                Next::Wait { until } => {
                    let until = millis(until);
                    assert!(until > self.held, "the time to wait until is past");
                    // If the client is asked again too early, it names the same moment as before (P1).
                    assert!(self.due.is_none_or(|due| due == until));
                    self.due = Some(until);
                    self.shows(&login);
                    let wait = (until - self.reading).max(0);
                    let part = partly.unwrap_or(10);
                    self.note(|| format!("the client waits for {} ms", wait * part / 10));
                    self.sleep(self.reading + wait * part / 10);
                }
                Next::Send(ask) => {
                    self.due = None;
                    self.shows(&(&ask, ask.request()));
                    self.may_send();
                    let (choice, resumed) = self.exchange(ask);
                    login = resumed.unwrap_or(login);
                    let outcome = self.outcome(&mut login);
                    if let Some(choice) = choice {
                        // The user's decision must arrive with the first answer that reaches the client.
                        let is_right = match &outcome {
                            Some(Ok(_)) => choice == Status::Approved,
                            Some(Err(LoginError::Denied(_))) => choice == Status::Denied,
                            Some(Err(_)) | None => false,
                        };
                        assert!(
                            is_right,
                            "the user's choice did not arrive: {choice:?}, but {outcome:?}"
                        );
                    }
                    if let Some(outcome) = outcome {
                        return (outcome, left);
                    }
                }
                Next::Done(outcome) => {
                    // The client asks the server once more before it expires, unless this last poll is switched off or would come too late.
                    let too_late =
                        self.answered > self.deadline || self.floor > self.server.lifetime;
                    let excused = !self.setup.polls_at_the_end || too_late;
                    assert!(self.asked_last || excused, "it ended without a last poll");
                    return (outcome, left);
                }
                Next::Show(_) => panic!("the prompt is shown twice"),
            }
        }
        panic!("no end");
    }

    /// Returns the outcome if the login ended with the last answer.
    fn outcome(&mut self, login: &mut Login) -> Option<Outcome> {
        if login.deadline().is_some() {
            return None;
        }
        match login.next(self.now()) {
            Next::Done(outcome) => Some(outcome),
            other => panic!("{other:?} after the end"),
        }
    }

    /// Asserts that the client may poll now: not sooner than its interval allows, and not more often than the lifetime allows.
    fn may_send(&mut self) {
        let first_at_once = self.setup.polls_at_once && self.polls == 0;
        let gap = self.held - self.answered;
        assert!(
            first_at_once || gap >= self.floor,
            "polled {gap} ms after an answer, but the interval is {} ms",
            self.floor
        );
        self.polls += 1;
        self.asked_last |= self.held >= self.deadline;
        assert!(
            self.polls <= self.server.lifetime / self.server.interval + 2,
            "too many polls"
        );
    }

    /// Polls once, with the faults of the turn. Returns the decision that must be the outcome, if the user has decided and the client
    /// learns it. Also returns the login of another process, if this one died.
    fn exchange(&mut self, ask: Ask<'_>) -> (Option<Status>, Option<Login>) {
        let request = &ask.request().clone();
        let weather = core::mem::replace(&mut self.weather, FAIR);
        let mut reply = None;
        if let Some(turns) = weather.late_copy {
            self.late.push((turns, Late::Poll(request.clone())));
        }
        self.note(|| "the client polls".into());
        self.pass(weather.delays[0]);
        // The user's decision, if the server can still announce it.
        let mut choice = None;
        if !weather.request_lost && weather.gateway != Some(false) {
            let now = self.wall() + weather.skew;
            let redeemable = now < self.server.redeemable_until;
            choice = self.server.status().filter(|status| match status {
                Status::Denied => true,
                Status::Approved => redeemable,
                Status::Pending | Status::Claimed | Status::Active | Status::Ended => false,
            });
            let first = self.server.poll(request, weather.commit, now);
            self.unheard |= weather.commit == Commit::UnheardButDone;
            reply = Some(first);
            if let Some(heard) = weather.twice {
                self.twice = true;
                let second = self.server.poll(request, Commit::Heard, now);
                if heard == Heard::Second {
                    reply = Some(second);
                }
            }
        }
        self.shows(&reply);
        let said = reply.as_ref().map(Reply::cause);
        self.note(|| format!("the server says {said:?}"));
        if weather.dies {
            // The answer is lost; another process goes on.
            self.lost = true;
            let snapshot = ask.snapshot(self.now()).unwrap();
            self.answered = self.held;
            self.told = None;
            return (None, Some(self.resume(&snapshot)));
        }
        if let Some(after) = weather.gateway {
            self.unheard |= after;
            self.pass(weather.delays[1]);
            self.answers(None);
            self.failed = true;
            let answer = Response::new(502, "<html>Bad Gateway</html>");
            ask.answer(Ok(answer), self.now());
            return (None, None);
        }
        let Some(reply) = reply.filter(|_| !weather.answer_lost) else {
            self.lost = true;
            self.pass(TIMEOUT);
            self.answers(None);
            let failure = if weather.request_lost {
                TransportError::ConnectionTimeout
            } else {
                TransportError::Other
            };
            ask.answer::<&str>(Err(failure), self.now());
            return (None, None);
        };
        self.pass(weather.delays[1]);
        self.answers(Some(&reply));
        let response = reply.response();
        self.failed |= response.status() >= 500;
        ask.answer(Ok(answer_of(&reply)), self.now());
        (choice.filter(|_| weather.is_fair()), None)
    }

    /// Notes that an answer reaches the client, or that the client learns that it gets none.
    fn answers(&mut self, reply: Option<&Reply>) {
        let _ = self.now();
        self.answered = self.held;
        self.told = reply.map(Reply::cause);
        if let Some(reply) = reply
            && reply.cause() == Cause::TooFast
        {
            let interval = reply.response().header("retry-after").unwrap();
            let interval: i64 = interval.parse().unwrap();
            self.floor = (self.floor + 5000).max(interval * 1000);
        }
    }

    /// Resumes the login in another process.
    fn resume(&mut self, snapshot: &Snapshot) -> Login {
        let kept = serde_json::to_string(snapshot).unwrap();
        let snapshot = serde_json::from_str(&kept).unwrap();
        // If the clock was set back, the new process has not seen the latest reading. So all moments move back with the clock.
        let back = self.held - self.reading;
        self.held -= back;
        self.answered -= back;
        self.deadline -= back;
        let now = span(self.reading);
        self.flow
            .resume(snapshot, Some(Duration::ZERO), now)
            .unwrap()
    }

    /// Plays what happens before the client's next step. Returns how many tenths of the next wait it sleeps, or `None` for the whole wait.
    fn happens(&mut self, login: &mut Login, turn: &[Op]) -> Option<i64> {
        self.late_copies();
        let mut partly = None;
        for &op in turn {
            self.note(|| format!("{op:?}"));
            match op {
                Op::WakesEarly(tenths) => partly = Some(tenths),
                Op::Jitter(jitter) => {
                    self.due = None;
                    login.jitter(span(jitter));
                }
                Op::TakenOver => {
                    let now = self.now();
                    self.due = None;
                    *login = self.resume(&login.snapshot(now).unwrap());
                }
                other => self.befalls(other),
            }
        }
        partly
    }

    /// Plays what happens to the next exchange, to the clocks or to the server. Skips what happens to the login itself.
    fn befalls(&mut self, op: Op) {
        match op {
            Op::WakesEarly(_) | Op::Jitter(_) | Op::TakenOver => {}
            Op::LoseRequest => self.weather.request_lost = true,
            Op::LoseAnswer => self.weather.answer_lost = true,
            Op::GatewayBefore => self.weather.gateway = Some(false),
            Op::GatewayAfter => self.weather.gateway = Some(true),
            Op::Twice(heard) => self.weather.twice = Some(heard),
            Op::LateCopy(turns) => self.weather.late_copy = Some(turns),
            Op::DelayRequest(delay) => self.weather.delays[0] = delay,
            Op::DelayAnswer(delay) => self.weather.delays[1] = delay,
            Op::Dies => self.weather.dies = true,
            Op::Commits(commit) => self.weather.commit = commit,
            Op::OtherServer(skew) => {
                self.weather.skew = skew;
                let [behind, ahead] = self.skews;
                self.skews = [behind.min(skew), ahead.max(skew)];
            }
            Op::Rate(rate) => {
                self.rate = rate;
                self.fastest = self.fastest.max(rate);
            }
            Op::Suspended(millis) => self.pass(millis),
            Op::SuspendedClock(millis) => self.real += millis,
            Op::ClientClockBack(millis) => self.reading -= millis.min(self.reading),
            Op::ServerClock(step) => {
                self.stepped += step;
                self.set_back |= step < 0;
            }
            Op::Enter(_)
            | Op::Approve(..)
            | Op::Deny
            | Op::Withdraw
            | Op::Release
            | Op::Purge
            | Op::Meddles(_) => self.is_done_to_the_server(op),
        }
    }

    fn late_copies(&mut self) {
        for (turns, request) in core::mem::take(&mut self.late) {
            if let Some(turns) = turns.checked_sub(1).filter(|turns| *turns > 0) {
                self.late.push((turns, request));
                continue;
            }
            self.twice = true;
            let now = self.wall();
            self.note(|| "a late copy".into());
            match request {
                Late::Refresh(request, token) => {
                    let _ = self.refresh(&request, &token, Commit::Heard, now);
                }
                Late::Poll(request) => {
                    let reply = self.server.poll(&request, Commit::Heard, now);
                    self.note(|| format!("the server says {:?}", reply.cause()));
                    self.shows(&reply);
                }
            }
        }
    }

    fn is_done_to_the_server(&mut self, op: Op) {
        let now = self.wall();
        if let (Op::Meddles(Meddler::Thief), Some(token)) = (op, self.copied.clone()) {
            let request = self.flow.refresh(&token).unwrap().request().clone();
            let _ = self.refresh(&request, &token, Commit::Heard, now);
            return;
        }
        let of = |user| match user {
            User::Alice => alice(),
            User::Bob => bob(),
        };
        let server = &mut self.server;
        match op {
            Op::Enter(user) => {
                let _ = server.enter(&of(user), &self.user_code, now);
            }
            Op::Approve(user, granted) => server.approve(&of(user), granted, now),
            Op::Deny => server.deny(&alice(), now),
            Op::Withdraw => server.withdraw(&alice(), now),
            Op::Release => server.release(&alice(), now),
            Op::Purge => server.purge(now),
            Op::Meddles(Meddler::Thief) => {
                // The poll of the thief looks like a request that the network repeats.
                let body = format!(
                    r#"{{"device_code":"{}","user_code":"A","verification_uri":"https://as.example/","expires_in":900}}"#,
                    self.device_code
                );
                let mut login = self.flow.login().unwrap();
                if let Next::Send(ask) = login.next(Duration::ZERO) {
                    ask.answer(Ok(Response::new(200, body)), Duration::ZERO);
                }
                assert!(matches!(login.next(Duration::ZERO), Next::Show(_)));
                let Next::Send(ask) = login.next(span(9000)) else {
                    panic!("a thief does not wait");
                };
                let request = ask.request().clone();
                self.twice = true;
                let _ = self.server.poll(&request, Commit::Heard, now);
            }
            Op::Meddles(meddler) => server.meddle(meddler, &self.device_code, now),
            other => unreachable!("{other:?} is of the client or the network"),
        }
    }
}

/// Returns a reply as the client receives it.
fn answer_of(reply: &Reply) -> Response<&str> {
    let response = reply.response();
    let answer = Response::new(response.status(), response.body());
    match response.header("retry-after") {
        Some(pause) => answer.retry_after(pause),
        None => answer,
    }
}

/// Returns the moment this many milliseconds after the codes were issued.
fn at(millis: i64) -> OffsetDateTime {
    NOW + time::Duration::milliseconds(millis)
}

fn bob() -> Subject {
    subject("bob")
}

fn span(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap())
}

/// Returns a span in milliseconds, rounded up so that nobody wakes too early.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
