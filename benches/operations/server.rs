//! The operations of the server half.
//!
//! With few sessions, which fit the cache, a batch is one turn for each of [`TURNS`] sessions. Among a million sessions, it is one turn for
//! each of as many of them, in random order, so that no cache helps. Requests are made just before, as if they had just been received.

use core::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::host::{CONFIDENTIAL, FOREIGN, Host, Ours, PUBLIC, Request, SECRET, user};
use super::{Moment, Out, Random, Side, Sides};
use crate::floor::server::Floor;

/// How many turns a batch has, and sessions in all but `pending_million`.
pub(crate) const TURNS: usize = 64;

/// How many sessions a host expects at least.
const FEW: u64 = 10_000;

/// How many sessions there are in `pending_million`.
pub(crate) const MILLION: usize = 1_000_000;

/// Returns both sides of an operation of this half.
pub(crate) fn sides(name: &str) -> Option<Sides> {
    Some(match name {
        "issue" => (
            Box::new(Issue::<Ours>::new()),
            Box::new(Issue::<Floor>::new()),
        ),
        "enter" => (
            Box::new(Page::<Ours>::new(false)),
            Box::new(Page::<Floor>::new(false)),
        ),
        "approve" => (
            Box::new(Page::<Ours>::new(true)),
            Box::new(Page::<Floor>::new(true)),
        ),
        "pending" => polls(Kind::Pending, TURNS),
        "pending_million" => pending_among(MILLION),
        "too_soon" => polls(Kind::TooSoon, TURNS),
        "success" => polls(Kind::Success, TURNS),
        "refresh" => polls(Kind::Refresh, TURNS),
        "unknown" => polls(Kind::Unknown, TURNS),
        "foreign" => polls(Kind::Foreign, TURNS),
        "malformed" => polls(Kind::Missing, TURNS),
        "basic" => polls(Kind::Basic, TURNS),
        _ => return None,
    })
}

/// Returns both sides of pending polls among this many sessions.
pub(crate) fn pending_among(sessions: usize) -> Sides {
    polls(Kind::Pending, sessions)
}

fn polls(kind: Kind, sessions: usize) -> Sides {
    let ours = Polls::<Ours>::new(kind, sessions);
    (
        Box::new(ours),
        Box::new(Polls::<Floor>::new(kind, sessions)),
    )
}

/// The device grant as most clients encode it.
const DEVICE_GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

/// What is asked of the token endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nobody has decided, and the device keeps to the interval.
    Pending,
    /// Nobody has decided, and the device has been told before that it polls too fast.
    TooSoon,
    /// The user approved.
    Success,
    /// The device has its tokens, and refreshes them.
    Refresh,
    /// Nobody has this code.
    Unknown,
    /// The code was issued to another client.
    Foreign,
    /// There is no code.
    Missing,
    /// As pending, by a confidential client.
    Basic,
}

/// Codes as a device reads them.
struct Codes {
    device: String,
    user: String,
}

/// Asks for codes.
fn issue<H: Host>(
    host: &mut H,
    client: &str,
    random: &mut Random,
    now: Moment,
    out: &mut Out,
) -> Codes {
    let id = if client == CONFIDENTIAL { "" } else { client };
    let body = issuing(id);
    let mut request = Request::new(&body);
    let basic = basic();
    request.authorization = (client == CONFIDENTIAL).then_some(&basic);
    host.device_authorization(request, || random.entropy(), now, out);
    let text = core::str::from_utf8(&out.body).unwrap();
    let mut quoted = text.split('"');
    Codes {
        device: quoted.nth(3).unwrap().to_owned(),
        user: quoted.nth(3).unwrap().to_owned(),
    }
}

pub(crate) fn issuing(id: &str) -> String {
    let id = if id.is_empty() {
        String::new()
    } else {
        format!("client_id={id}&")
    };
    format!("{id}scope=openid+profile+email+offline_access")
}

fn basic() -> String {
    format!(
        "Basic {}",
        STANDARD.encode(format!("{CONFIDENTIAL}:{SECRET}"))
    )
}

/// Polls of the token endpoint.
struct Polls<H> {
    kind: Kind,
    host: H,
    out: Out,
    random: Random,
    /// The device codes, in the order in which they poll.
    codes: Vec<String>,
    /// Which of them is the next.
    next: usize,
    /// Milliseconds since the beginning.
    clock: i64,
    now: Moment,
    authorization: Option<String>,
    bodies: Vec<String>,
}

impl<H: Host> Polls<H> {
    fn new(kind: Kind, sessions: usize) -> Self {
        let mut polls = Self {
            kind,
            host: H::new(FEW.max(u64::try_from(sessions).unwrap())),
            out: Out::default(),
            random: Random(2),
            codes: Vec::with_capacity(sessions),
            next: 0,
            clock: 0,
            now: Moment::after(0),
            authorization: (kind == Kind::Basic).then(basic),
            bodies: vec![String::new(); TURNS],
        };
        polls.begin(sessions);
        polls
    }

    /// Makes new sessions, in the state in which the polls must find them.
    fn begin(&mut self, sessions: usize) {
        self.host.forget();
        self.codes.clear();
        self.now = Moment::after(self.clock);
        let client = if self.kind == Kind::Basic {
            CONFIDENTIAL
        } else {
            PUBLIC
        };
        for number in 0..sessions {
            let codes = issue(
                &mut self.host,
                client,
                &mut self.random,
                self.now,
                &mut self.out,
            );
            if matches!(self.kind, Kind::Success | Kind::Refresh) {
                let user = H::user(user(number));
                let session = self.host.enter(&codes.user, &user, self.now).unwrap();
                assert!(self.host.approve(session, &user, self.now));
            }
            let code = match self.kind {
                Kind::Unknown => self.random.token(43),
                Kind::Refresh => self.redeem(&codes.device),
                _ => codes.device,
            };
            self.codes.push(code);
        }
        for place in (1..sessions).rev() {
            let other = self.random.below(place + 1);
            self.codes.swap(place, other);
        }
        self.next = 0;
        // Every device must have polled before.
        for _ in 0..sessions / TURNS {
            if matches!(self.kind, Kind::Pending | Kind::Basic | Kind::TooSoon) {
                self.poll();
            }
        }
        if self.kind == Kind::TooSoon {
            // First a poll in time, then one that is too fast.
            self.clock += 5_000;
            self.poll();
            self.clock += 1_500;
            self.poll();
        }
    }

    /// Redeems the code of a device that was approved, and returns its refresh token.
    fn redeem(&mut self, code: &str) -> String {
        let body = format!("grant_type={DEVICE_GRANT}&device_code={code}&client_id={PUBLIC}");
        let random = &mut self.random;
        let request = Request::new(&body);
        self.host
            .token(request, || random.entropy(), self.now, &mut self.out);
        let text = core::str::from_utf8(&self.out.body).unwrap();
        let (_, rest) = text.split_once(r#""refresh_token":""#).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    /// Polls one batch.
    fn poll(&mut self) {
        self.write();
        self.run(0..TURNS);
    }

    /// Writes the requests of the next batch.
    fn write(&mut self) {
        if self.next + TURNS > self.codes.len() {
            self.next = 0;
            if matches!(self.kind, Kind::Pending | Kind::Basic) {
                self.clock += 5_000;
            }
        }
        self.now = Moment::after(self.clock);
        let client = match self.kind {
            Kind::Basic => None,
            Kind::Foreign => Some(FOREIGN),
            _ => Some(PUBLIC),
        };
        for (body, code) in self.bodies.iter_mut().zip(&self.codes[self.next..]) {
            let code = (self.kind != Kind::Missing).then_some(&**code);
            body.clear();
            body.push_str("grant_type=");
            let code_name = if self.kind == Kind::Refresh {
                body.push_str("refresh_token");
                "&refresh_token="
            } else {
                body.push_str(DEVICE_GRANT);
                "&device_code="
            };
            for (name, value) in [(code_name, code), ("&client_id=", client)] {
                if let Some(value) = value {
                    body.push_str(name);
                    body.push_str(value);
                }
            }
        }
        self.next += TURNS;
    }

    /// Returns whether the sessions are used up, or expire within a minute.
    fn is_over(&self) -> bool {
        matches!(self.kind, Kind::Success | Kind::Refresh) || self.clock >= 240_000
    }
}

impl<H: Host> Side for Polls<H> {
    fn prepare(&mut self) {
        if self.is_over() {
            self.clock = 0;
            self.begin(self.codes.len());
        }
        self.write();
    }

    fn run(&mut self, turns: Range<usize>) {
        for body in &self.bodies[turns] {
            let mut request = Request::new(body);
            request.authorization = self.authorization.as_deref();
            let random = &mut self.random;
            self.host
                .token(request, || random.entropy(), self.now, &mut self.out);
        }
    }

    fn answer(&self) -> String {
        self.out.text()
    }
}

/// Requests at the device authorization endpoint.
struct Issue<H> {
    host: H,
    out: Out,
    random: Random,
    body: String,
    entropies: Vec<[u8; 48]>,
}

impl<H: Host> Issue<H> {
    fn new() -> Self {
        Self {
            host: H::new(FEW),
            out: Out::default(),
            random: Random(3),
            body: issuing(PUBLIC),
            entropies: Vec::new(),
        }
    }
}

impl<H: Host> Side for Issue<H> {
    fn prepare(&mut self) {
        self.host.forget();
        self.entropies.clear();
        self.entropies
            .extend((0..TURNS).map(|_| self.random.entropy()));
    }

    fn run(&mut self, turns: Range<usize>) {
        let now = Moment::after(0);
        for entropy in &self.entropies[turns] {
            let request = Request::new(&self.body);
            self.host
                .device_authorization(request, || *entropy, now, &mut self.out);
        }
    }

    fn answer(&self) -> String {
        self.out.text()
    }
}

/// Users at the verification page, each with a session. They enter its code, or approve after the code was entered.
struct Page<H: Host> {
    approves: bool,
    host: H,
    out: Out,
    random: Random,
    users: Vec<H::User>,
    typed: Vec<String>,
    sessions: Vec<H::Session>,
    done: usize,
}

impl<H: Host> Page<H> {
    fn new(approves: bool) -> Self {
        Self {
            approves,
            host: H::new(FEW),
            out: Out::default(),
            random: Random(4),
            users: (0..TURNS).map(|number| H::user(user(number))).collect(),
            typed: Vec::new(),
            sessions: Vec::new(),
            done: 0,
        }
    }
}

impl<H: Host> Side for Page<H> {
    fn prepare(&mut self) {
        let now = Moment::after(0);
        self.host.forget();
        self.typed.clear();
        self.sessions.clear();
        self.done = 0;
        for user in &self.users {
            let codes = issue(&mut self.host, PUBLIC, &mut self.random, now, &mut self.out);
            if self.approves {
                self.sessions
                    .push(self.host.enter(&codes.user, user, now).unwrap());
            }
            self.typed.push(codes.user);
        }
    }

    fn run(&mut self, turns: Range<usize>) {
        let now = Moment::after(20_000);
        for turn in turns {
            let user = &self.users[turn];
            self.done += usize::from(if self.approves {
                self.host.approve(self.sessions[turn], user, now)
            } else {
                self.host.enter(&self.typed[turn], user, now).is_some()
            });
        }
    }

    fn answer(&self) -> String {
        self.done.to_string()
    }
}
