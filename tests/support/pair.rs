//! Both halves of the crate, joined by a network that delays, loses, repeats and reorders, with clocks that drift and jump,
//! processes that die, stores that fail, and others who meddle.
//!
//! A [`Dialogue`] is a set-up and a list of turns: what happens before the client is asked what is next. Once the turns are at
//! their end nothing goes wrong any more. A client that has its tokens before that refreshes them in the turns that are left.
//! [`play`] asserts, at every step and at the end, what must hold: the last section of the client's tables, table R, and the
//! invariants of both halves.
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

/// No run takes as many turns.
const MAX_TURNS: usize = 20_000;

/// How long the client waits for an answer.
const TIMEOUT: i64 = 10_000;

/// What a dialogue came to, for whoever counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The requests that reached the server.
    pub(crate) messages: u64,
    pub(crate) ending: &'static str,
    /// The ending that the user chose, if they did.
    pub(crate) chosen: Option<&'static str>,
    pub(crate) slowed_down: bool,
    /// After a grant with a refresh token.
    pub(crate) refreshes: Refreshes,
    /// Whether the login is active in the end.
    pub(crate) is_active: bool,
}

/// Plays a dialogue to its end.
pub(crate) fn play(dialogue: &Dialogue) -> Summary {
    run(dialogue, None)
}

/// The same, written down line by line: what is there is right even where this panics.
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

/// What becomes of the next exchange.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what may go wrong")]
struct Weather {
    request_lost: bool,
    answer_lost: bool,
    /// The answer is that of a gateway: before the server saw the request, or after.
    gateway: Option<bool>,
    twice: Option<Heard>,
    /// So many turns later.
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
    /// Whether the server decides, and the client hears what it says.
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
    /// The time that passes for both.
    real: i64,
    /// How far the server's clock was set forwards.
    stepped: i64,
    /// The client's clock.
    reading: i64,
    /// How fast that runs: a thousand is right.
    rate: i64,
    /// The latest reading that the poller saw.
    held: i64,
    /// The rest is in the client's time too.
    answered: i64,
    floor: i64,
    deadline: i64,
    polls: i64,
    /// Whether it polled at the deadline or after it.
    asked_last: bool,
    /// Until when the poller said to wait.
    due: Option<i64>,
    weather: Weather,
    late: Vec<(u8, Late)>,
    /// The refresh token that a thief may have copied from the device.
    copied: Option<String>,
    /// What the client does not know, or knows as a loss, of what it asked.
    lost: bool,
    /// Whether the server, or a gateway, said that it could not answer.
    failed: bool,
    twice: bool,
    unheard: bool,
    /// What the server's clocks did.
    set_back: bool,
    fastest: i64,
    /// The clocks of the processes: the furthest behind and the furthest ahead.
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

    /// Nothing that is formatted holds a secret.
    fn shows(&mut self, value: &dyn Debug) {
        let shown = format!("{value:?}");
        for secret in &self.secrets {
            assert!(!shown.contains(secret.as_str()), "a secret is shown");
        }
    }

    /// Lets so many milliseconds pass.
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

    /// The clock of the server's first process.
    fn wall(&self) -> i64 {
        self.real + self.stepped
    }

    /// Plays until the client is done. Gives the turns that are left.
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
                    // Asked early, and however often, it says the same.
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
                        // What the user chose arrives with the first answer that does.
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
                    // Expiry is the server's word, unless the caller does not want to hear it, or it would come too late.
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

    /// How the login ended with the last answer, if it did.
    fn outcome(&mut self, login: &mut Login) -> Option<Outcome> {
        if login.deadline().is_some() {
            return None;
        }
        match login.next(self.now()) {
            Next::Done(outcome) => Some(outcome),
            other => panic!("{other:?} after the end"),
        }
    }

    /// Invariants 1 and 7 of the client's tables.
    fn may_send(&mut self) {
        let first_at_once = self.setup.polls_at_once && self.polls == 0;
        let gap = self.held - self.answered;
        assert!(
            first_at_once || gap >= self.floor,
            "{gap} ms after an answer, {} were told",
            self.floor
        );
        self.polls += 1;
        self.asked_last |= self.held >= self.deadline;
        assert!(
            self.polls <= self.server.lifetime / self.server.interval + 2,
            "too many polls"
        );
    }

    /// One poll, in the weather of the turn. Gives what must be the outcome, where the user has decided, and the login of another
    /// process, where this one died.
    fn exchange(&mut self, ask: Ask<'_>) -> (Option<Status>, Option<Login>) {
        let request = &ask.request().clone();
        let weather = core::mem::replace(&mut self.weather, FAIR);
        let mut reply = None;
        if let Some(turns) = weather.late_copy {
            self.late.push((turns, Late::Poll(request.clone())));
        }
        self.note(|| "the client polls".into());
        self.pass(weather.delays[0]);
        // Whether the user has decided, and the server can still say so.
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

    /// An answer reaches the client, or the news that none will.
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

    /// Another process takes the login up.
    fn resume(&mut self, snapshot: &Snapshot) -> Login {
        let kept = serde_json::to_string(snapshot).unwrap();
        let snapshot = serde_json::from_str(&kept).unwrap();
        // Its clock begins where it stands now: all else is counted from there.
        let back = self.held - self.reading;
        self.held -= back;
        self.answered -= back;
        self.deadline -= back;
        let now = span(self.reading);
        self.flow
            .resume(snapshot, Some(Duration::ZERO), now)
            .unwrap()
    }

    /// What happens before the client asks what is next. Gives how many tenths of the wait it sleeps, if not all.
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

    /// What happens to the next exchange, to the clocks or to the server. The rest is of the poller alone.
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
                // As the network would repeat a request: nobody can tell.
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

/// A reply as it reaches the client.
fn answer_of(reply: &Reply) -> Response<&str> {
    let response = reply.response();
    let answer = Response::new(response.status(), response.body());
    match response.header("retry-after") {
        Some(pause) => answer.retry_after(pause),
        None => answer,
    }
}

/// The moment so many milliseconds after the codes were issued.
fn at(millis: i64) -> OffsetDateTime {
    NOW + time::Duration::milliseconds(millis)
}

fn bob() -> Subject {
    subject("bob")
}

fn span(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap())
}

/// Rounded up: nobody wakes before it is time.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
