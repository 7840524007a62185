//! Whatever network and clocks do, an obedient client and the server end in what the user chose, in expiry, or, where an answer was lost or a request came twice, in rejection; one success at most, no `slow_down` without loss, nothing shown.
//!
//! An input is a set-up of four bytes and a list of operations, one letter each; some have a parameter, a byte that counts
//! from the digit `0` on. `fuzz/README.md` has the letters. Once the input is at its end, nothing goes wrong any more.

use core::fmt::Debug;
use core::time::Duration;

use arbitrary::{Result, Unstructured};
use device_flow::client::{
    DeviceFlow, Endpoints, Expiry, Failure, Next, Outcome, Received, Request, Sent, Step, Waiting,
};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Change, Entered, Entry, Form, Grant, HostValue, Incoming, Policy, Polled, Registration,
    Reply, Status, Subject, Written,
};
use serde_json::Value;

use crate::login::{at, bob};
use crate::support::{self, ACCESS_TOKEN, BACKEND, CLI, SECRET, alice};

const ASKED: &str = "openid profile";

/// No run takes as many turns.
const MAX_TURNS: usize = 20_000;

/// How long the client waits for an answer, in milliseconds.
const TIMEOUT: i64 = 10_000;

pub(crate) fn run(data: &[u8]) {
    let mut script = Unstructured::new(data);
    let Ok((mut game, waiting)) = Game::new(&mut script) else {
        return;
    };
    let outcome = game.play(waiting, &mut script);
    game.ends_in(&outcome);
}

/// A number under `choices`, from one byte.
fn pick(script: &mut Unstructured<'_>, choices: u8) -> Result<u8> {
    Ok(script.arbitrary::<u8>()?.wrapping_sub(b'0') % choices)
}

// The server: the crate on its embedded store.

struct Server {
    policy: Policy,
    client: Registration,
    store: Memory,
    successes: u8,
    told_to_slow_down: bool,
}

/// What becomes of the next guarded write of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Heard,
    UnheardButDone,
    UnheardAndNotDone,
    /// The store does not even answer.
    Down,
}

impl Server {
    fn incoming<'a>(request: &'a Request, authorization: &'a [&'a str]) -> Incoming<'a> {
        let headers = request.headers();
        let types = headers.filter(|(name, _)| *name == "content-type");
        let types: Vec<_> = types.map(|(_, value)| value).collect();
        assert_eq!(types, [support::FORM]);
        assert!(!request.url().contains('?'));
        Incoming::new(request.method(), request.body().as_bytes())
            .content_type(Some(support::FORM))
            .authorization(authorization.iter().copied())
    }

    fn issue(&mut self, request: &Request, now: i64) -> Reply {
        let authorization = authorization(request);
        let incoming = Self::incoming(request, &authorization);
        let reply = support::with_issuing(&self.policy, incoming, Some(&self.client), |issuing| {
            let keys = support::keys();
            let issuance = issuing.draw(support::entropy(1), &keys, at(now)).unwrap();
            let inserted = self.store.insert(issuance.session());
            issuance.settle(inserted).unwrap()
        });
        reply.unwrap()
    }

    fn poll(&mut self, request: &Request, commit: Commit, now: i64) -> Reply {
        let authorization = authorization(request);
        let form = Form::read(Self::incoming(request, &authorization), &self.policy).unwrap();
        let Grant::DeviceCode(unauthenticated) = form.grant().unwrap() else {
            panic!("another grant");
        };
        let mut poll = unauthenticated.authenticate(Some(&self.client)).unwrap();
        if commit == Commit::Down {
            return Reply::store_failed();
        }
        let key = *poll.session_key().unwrap();
        let reply = match poll.decide(self.store.load(&key), at(now)) {
            Polled::Reply(reply) => reply,
            Polled::Paced(key, pace, reply) => {
                self.store.save_pace(key, pace);
                reply
            }
            Polled::Redeem(redemption) => {
                let tokens = support::tokens();
                let written = match commit {
                    Commit::Heard => self.store.change(redemption.change()),
                    Commit::UnheardButDone => {
                        let _ = self.store.change(redemption.change());
                        Written::Unknown
                    }
                    Commit::UnheardAndNotDone | Commit::Down => Written::Unknown,
                };
                redemption.settle(written, &tokens).unwrap()
            }
        };
        self.successes += u8::from(reply.cause() == Cause::Granted);
        assert!(self.successes <= 1, "two successes");
        self.told_to_slow_down |= reply.cause() == Cause::TooFast;
        reply
    }

    fn enter(&mut self, user: &Subject, code: &str, now: i64) {
        let keys = support::keys();
        let mut entry = Entry::new(code, user, &keys, &self.policy);
        let quota = self.store.load_quota(entry.quota_key());
        let Ok(guess) = entry.pay(quota, at(now)) else {
            return;
        };
        let written = self.store.change_quota(guess.change());
        let paid = guess.settle(written).unwrap();
        let found = paid
            .user_keys()
            .find_map(|key| self.store.load_by_user_key(&key));
        let entered = paid.enter(found.map(|stored| &stored.session), at(now));
        if let Ok(Entered::Claim(claim)) = entered {
            let written = self.store.change(claim.change());
            assert!(claim.settle(written).is_ok());
        }
    }
}

fn authorization(request: &Request) -> Vec<&str> {
    let headers = request
        .headers()
        .filter(|(name, _)| *name == "authorization");
    headers.map(|(_, value)| value).collect()
}

// The game.

/// What becomes of the next exchange.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "what may go wrong")]
struct Weather {
    request_lost: bool,
    answer_lost: bool,
    /// The answer is that of a gateway: before the server saw the request, or after.
    gateway: Option<bool>,
    /// The request comes twice, and this is the answer that the client gets.
    twice: Option<u8>,
    /// A copy of the request comes late.
    late_copy: bool,
    /// The process dies in flight.
    dies: bool,
    delays: [i64; 2],
    commit: Commit,
}

const FAIR: Weather = Weather {
    request_lost: false,
    answer_lost: false,
    gateway: None,
    twice: None,
    late_copy: false,
    dies: false,
    delays: [0, 0],
    commit: Commit::Heard,
};

#[allow(clippy::struct_excessive_bools, reason = "what went wrong")]
struct Game {
    server: Server,
    flow: DeviceFlow,
    secrets: Vec<String>,
    user_code: String,
    key: device_flow::digest::SessionKey,
    /// The server's clock, in milliseconds after the start.
    real: i64,
    /// The client's clock, in milliseconds.
    reading: i64,
    /// How fast that runs: a thousand is right.
    rate: i64,
    /// The latest reading that the poller saw.
    held: i64,
    /// The rest is in the client's time too.
    answered: i64,
    floor: i64,
    deadline: i64,
    lifetime: i64,
    interval: i64,
    at_once: bool,
    polls: i64,
    /// Until when the poller said to wait.
    due: Option<i64>,
    weather: Weather,
    late: Vec<Request>,
    /// What the client does not know, or knows as a loss, of what it asked.
    lost: bool,
    twice: bool,
    unheard: bool,
    /// The cause of the last reply that reached the client.
    told: Option<Cause>,
}

impl Game {
    fn new(script: &mut Unstructured<'_>) -> Result<(Self, Waiting)> {
        let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token");
        let endpoints = endpoints.unwrap();
        let (client, mut flow) = match pick(script, 3)? {
            0 => (support::cli(), DeviceFlow::new(endpoints, CLI)),
            1 => (
                support::backend(),
                DeviceFlow::new(endpoints, BACKEND).secret_basic(SECRET),
            ),
            _ => (
                support::backend(),
                DeviceFlow::new(endpoints, BACKEND).secret_post(SECRET),
            ),
        };
        flow = flow.scope(ASKED);
        let interval = [5_u8, 1, 2, 10][usize::from(pick(script, 4)?)];
        let lifetime = [300_u16, 600, 60, 30][usize::from(pick(script, 4)?)];
        let wishes = pick(script, 4)?;
        let at_once = wishes & 1 == 1;
        if at_once {
            flow = flow.first_poll_at_once();
        }
        if wishes & 2 == 2 {
            flow = flow.no_final_poll();
        }
        let policy = support::builder()
            .interval(Duration::from_secs(interval.into()))
            .lifetime(Duration::from_secs(lifetime.into()))
            .guess_limit(device_flow::server::Limit::new(5, Duration::from_mins(2)).unwrap())
            .build()
            .unwrap();
        let (lifetime, interval) = (i64::from(lifetime) * 1000, i64::from(interval) * 1000);
        let mut server = Server {
            policy,
            client,
            store: Memory::new(),
            successes: 0,
            told_to_slow_down: false,
        };
        let start = 1_000_000;
        let (starting, request) = flow.start(span(start)).unwrap();
        let reply = server.issue(&request, 0);
        let body: Value = serde_json::from_str(reply.response().body()).unwrap();
        let answer = Received::new(reply.response().status(), reply.response().body());
        let (waiting, prompt) = starting.answer(Ok(answer), span(start)).unwrap();
        let device_code = body["device_code"].as_str().unwrap().to_owned();
        let secrets = vec![
            device_code.clone(),
            prompt.user_code.clone(),
            prompt.user_code.replace('-', ""),
            ACCESS_TOKEN.to_owned(),
            SECRET.to_owned(),
        ];
        let keys = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(
            device_code.as_bytes(),
        ));
        let mut game = Self {
            server,
            flow,
            secrets,
            user_code: prompt.user_code.clone(),
            key: device_flow::digest::SessionKey::from_bytes(keys.into()),
            real: 0,
            reading: start,
            rate: 1000,
            held: start,
            answered: start,
            floor: interval,
            deadline: start + lifetime,
            lifetime,
            interval,
            at_once,
            polls: 0,
            due: None,
            weather: FAIR,
            late: Vec::new(),
            lost: false,
            twice: false,
            unheard: false,
            told: None,
        };
        assert!(game.server.store.load(&game.key).is_some());
        game.shows(&(&prompt, &waiting, &request, &reply));
        Ok((game, waiting))
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

    fn status(&self) -> Option<Status> {
        let stored = self.server.store.load(&self.key)?;
        Some(stored.session.status())
    }

    fn play(&mut self, mut waiting: Waiting, script: &mut Unstructured<'_>) -> Outcome {
        for _ in 0..MAX_TURNS {
            let (same, partly) = self.happens(waiting, script);
            let now = self.now();
            match same.next(now) {
                Next::Wait(same, until) => {
                    let until = millis(until);
                    assert!(until > self.held, "the time to wait until is past");
                    // Asked early, and however often, it says the same.
                    assert!(self.due.is_none_or(|due| due == until));
                    self.due = Some(until);
                    self.shows(&same);
                    waiting = same;
                    if let Some(part) = partly {
                        let wait = (until - self.reading).max(0);
                        self.sleep(self.reading + wait * part / 10);
                    } else {
                        self.sleep(until);
                    }
                }
                Next::Send(sent, request) => {
                    self.due = None;
                    self.shows(&(&sent, &request));
                    self.may_send();
                    match self.exchange(sent, &request) {
                        Step::Again(later) => waiting = later,
                        Step::Done(outcome) => return outcome,
                    }
                }
                Next::Done(outcome) => return outcome,
            }
        }
        panic!("no end");
    }

    /// Invariants 1 and 7 of the client's tables.
    fn may_send(&mut self) {
        let first_at_once = self.at_once && self.polls == 0;
        let gap = self.held - self.answered;
        assert!(
            first_at_once || gap >= self.floor,
            "{gap} ms after an answer"
        );
        self.polls += 1;
        assert!(self.polls <= self.lifetime / self.interval + 2);
    }

    fn exchange(&mut self, sent: Sent, request: &Request) -> Step {
        let weather = core::mem::replace(&mut self.weather, FAIR);
        let mut reply = None;
        if weather.late_copy {
            self.late.push(request.clone());
        }
        self.pass(weather.delays[0]);
        if !weather.request_lost && weather.gateway != Some(false) {
            let first = self.server.poll(request, weather.commit, self.real);
            self.unheard |= weather.commit == Commit::UnheardButDone;
            if weather.twice.is_some() {
                self.twice = true;
                let second = self.server.poll(request, Commit::Heard, self.real);
                reply = Some(if weather.twice == Some(1) {
                    second
                } else {
                    first
                });
            } else {
                reply = Some(first);
            }
        }
        self.shows(&reply);
        if weather.dies {
            // The answer is lost; another process goes on.
            self.lost = true;
            let snapshot = sent.snapshot(self.now());
            self.answered = self.held;
            self.told = None;
            return Step::Again(self.resume(&snapshot));
        }
        if let Some(after) = weather.gateway {
            self.unheard |= after;
            self.pass(weather.delays[1]);
            self.answers(None);
            let answer = Received::new(502, "<html>Bad Gateway</html>");
            return sent.answer(Ok(answer), self.now());
        }
        let reply = reply.filter(|_| !weather.answer_lost);
        let Some(reply) = reply else {
            self.lost = true;
            self.pass(TIMEOUT);
            self.answers(None);
            let failure = if weather.request_lost {
                Failure::ConnectionTimeout
            } else {
                Failure::Other
            };
            return sent.answer::<&str>(Err(failure), self.now());
        };
        self.pass(weather.delays[1]);
        self.answers(Some(&reply));
        let response = reply.response();
        let mut answer = Received::new(response.status(), response.body());
        if let Some(pause) = response.header("retry-after") {
            answer = answer.retry_after(&pause);
        }
        sent.answer(Ok(answer), self.now())
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

    /// Another process takes the poller up.
    fn resume(&mut self, snapshot: &device_flow::client::Snapshot) -> Waiting {
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

    // The script.

    /// What happens before the client asks what is next. Gives how many tenths of the wait it sleeps, if not all.
    fn happens(
        &mut self,
        mut waiting: Waiting,
        script: &mut Unstructured<'_>,
    ) -> (Waiting, Option<i64>) {
        for request in core::mem::take(&mut self.late) {
            self.twice = true;
            let reply = self.server.poll(&request, Commit::Heard, self.real);
            self.shows(&reply);
        }
        let mut partly = None;
        while !script.is_empty() {
            let letter = script.arbitrary::<u8>().unwrap_or_default();
            let number = |script: &mut Unstructured<'_>| {
                i64::from(script.arbitrary::<u8>().unwrap_or(b'0').wrapping_sub(b'0'))
            };
            match letter {
                b'\n' => break,
                // The network and the server, at the next exchange.
                b'q' => self.weather.request_lost = true,
                b'z' => self.weather.answer_lost = true,
                b'b' => self.weather.gateway = Some(false),
                b'B' => self.weather.gateway = Some(true),
                b'u' => self.weather.twice = Some(0),
                b'v' => self.weather.twice = Some(1),
                b'k' => self.weather.late_copy = true,
                b'X' => self.weather.dies = true,
                b'm' => self.weather.delays[0] = number(script) * 100,
                b'n' => self.weather.delays[1] = number(script) * 100,
                b's' => self.weather.commit = Commit::Down,
                b'j' => self.weather.commit = Commit::UnheardButDone,
                b'i' => self.weather.commit = Commit::UnheardAndNotDone,
                // The users.
                b'e' => self.server.enter(&alice(), &self.user_code, self.real),
                b'E' => self.server.enter(&bob(), &self.user_code, self.real),
                b'a' => self.approves(&alice(), ASKED),
                b'o' => self.approves(&alice(), "openid"),
                b'A' => self.approves(&bob(), ASKED),
                b'd' => self.decides(|game, session| session.deny(&alice(), at(game.real)).ok()?),
                b'w' => self.decides(|_, session| session.withdraw(&alice()).ok()?),
                b'r' => self.decides(|_, session| session.release(&alice()).ok()),
                // The clocks.
                b'g' => self.rate = 700 + number(script) * 600 / 255,
                b'f' => self.rate = 1300,
                b't' => partly = Some(number(script) % 10),
                b'y' => self.pass(number(script) * 10_000),
                b'Y' => self.reading -= (number(script) * 1000).min(self.reading),
                b'h' => {
                    let margin = Duration::from_millis(number(script).unsigned_abs() * 100);
                    self.due = None;
                    waiting = waiting.with_margin(margin);
                }
                b'S' => {
                    let now = self.now();
                    self.due = None;
                    waiting = self.resume(&waiting.snapshot(now));
                }
                b'x' => {
                    let _ = self.server.store.purge(at(self.real));
                }
                _ => {}
            }
        }
        (waiting, partly)
    }

    fn approves(&mut self, user: &Subject, scope: &str) {
        let scope: Scope = scope.parse().unwrap();
        self.decides(|game, session| {
            let (value, policy) = (HostValue::default(), &game.server.policy);
            session
                .approve(user, &scope, value, policy, at(game.real))
                .ok()?
        });
    }

    fn decides(
        &mut self,
        decision: impl FnOnce(&Self, &device_flow::server::Session) -> Option<Change>,
    ) {
        let Some(stored) = self.server.store.load(&self.key) else {
            return;
        };
        if let Some(change) = decision(self, &stored.session) {
            assert_eq!(self.server.store.change(&change), Written::Won);
        }
    }

    // The end.

    fn ends_in(&mut self, outcome: &Outcome) {
        self.shows(outcome);
        let status = self.status();
        let past_deadline = self.held >= self.deadline;
        match outcome {
            Outcome::Granted(tokens) => {
                assert_eq!(self.told, Some(Cause::Granted));
                assert_eq!(status, Some(Status::Redeemed));
                assert_eq!(tokens.bearer(), Some(ACCESS_TOKEN));
                let withheld: &[String] = match tokens.scope() {
                    Some(ASKED) => &[],
                    Some("openid") => &["profile".to_owned()],
                    other => panic!("{other:?} was granted"),
                };
                assert_eq!(tokens.withheld(), withheld);
            }
            Outcome::Denied(_) => {
                assert_eq!(self.told, Some(Cause::Denied));
                assert_eq!(status, Some(Status::Denied));
            }
            Outcome::Expired(Expiry::ByServer(refusal)) => match refusal.code() {
                Some("expired_token") => {
                    assert!(matches!(
                        self.told,
                        Some(Cause::Expired | Cause::ApprovalExpired)
                    ));
                    assert!(self.real >= self.lifetime);
                }
                Some("invalid_grant") => assert!(past_deadline && !self.lost),
                other => panic!("{other:?}"),
            },
            Outcome::Expired(Expiry::ByClock(_)) => {
                assert!(past_deadline);
                // Nobody was told of a decision, or else it were the outcome.
                let undecided = [
                    Cause::Pending,
                    Cause::TooFast,
                    Cause::StoreFailed,
                    Cause::OutcomeUnknown,
                ];
                assert!(self.told.is_none_or(|told| undecided.contains(&told)));
            }
            Outcome::Rejected(refusal) => {
                assert_eq!(refusal.code(), Some("invalid_grant"));
                assert_eq!(refusal.possibly_redeemed, self.lost);
                assert!(self.lost || !past_deadline);
                match status {
                    // An answer was lost, a request came twice, or the server lost its own word.
                    Some(Status::Redeemed) => assert!(self.lost || self.twice || self.unheard),
                    Some(Status::Revoked) | None => {}
                    other => panic!("rejected while {other:?}"),
                }
            }
            other @ (Outcome::Failed(_)
            | Outcome::Redirected(_)
            | Outcome::Malformed(_)
            | Outcome::Cancelled(_)) => panic!("{other:?}"),
        }
        let granted = matches!(outcome, Outcome::Granted(_));
        assert!(!granted || self.server.successes == 1);
        if !self.lost && !self.twice {
            assert!(!self.server.told_to_slow_down, "slowed down without a loss");
        }
    }
}

fn span(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap())
}

/// Rounded up: nobody wakes before it is time.
fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}
