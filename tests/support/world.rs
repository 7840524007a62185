//! The world of the properties: the operations, the crate with its embedded store, a host that behaves as each operation says, and the
//! oracle.

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use device_flow::code::Entropy;
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Client as Registration, Consent, Exchange, Finish, GrantRefusal, Next, PageError,
    PolicyOptions, RateLimit, RefreshOptions, Reply, Review, Server, Session, Stored, Subject,
    Unavailable, Write,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::login::{at, bob, bytes, stored_at};
use crate::support::oracle::{
    self, ASKED, Client, Commit, How, LIFETIME, Oracle, Page, Part, Registered, Token, Told, Typed,
    User, Verdict,
};
use crate::support::{self, Codes, Host, NOW, SOURCE, alice, backend, scope};

// The operations.

#[derive(Clone, Copy)]
pub(crate) enum Op {
    Clock(Clock),
    Poll(Client, How),
    Refresh(Client, Token, Option<&'static str>, How),
    Revoke(Client, Token, How),
    Enter(User, Typed, How),
    Approve(User, &'static str, How),
    Deny(User, How),
    Withdraw(User, How),
    Release(User, How),
    /// The registration of the own client changes. The own client is the one that got the codes.
    Register(Registered),
    Purge,
    LosePace,
}

/// Each operation is on one line, even in pretty-printed output (`{:#?}`), so that a failure reads as a list of operations.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock(clock) => write!(f, "Clock({clock:?})"),
            Self::Poll(by, how) => write!(f, "Poll({by:?}, {how:?})"),
            Self::Refresh(by, token, scope, how) => {
                write!(f, "Refresh({by:?}, {token:?}, {scope:?}, {how:?})")
            }
            Self::Revoke(by, token, how) => write!(f, "Revoke({by:?}, {token:?}, {how:?})"),
            Self::Enter(by, typed, how) => write!(f, "Enter({by:?}, {typed:?}, {how:?})"),
            Self::Approve(by, scope, how) => write!(f, "Approve({by:?}, {scope:?}, {how:?})"),
            Self::Deny(by, how) => write!(f, "Deny({by:?}, {how:?})"),
            Self::Withdraw(by, how) => write!(f, "Withdraw({by:?}, {how:?})"),
            Self::Release(by, how) => write!(f, "Release({by:?}, {how:?})"),
            Self::Register(registered) => write!(f, "Register({registered:?})"),
            Self::Purge => f.write_str("Purge"),
            Self::LosePace => f.write_str("LosePace"),
        }
    }
}

/// How the clock moves: by some milliseconds, or to a boundary plus some milliseconds. If the boundary is in the past, the clock goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    By(i64),
    /// The first moment at which the next poll is not early.
    PollDue(i64),
    /// One interval after the last accepted poll.
    WholeInterval(i64),
    LastAcceptedPoll(i64),
    Expiry(i64),
    EndOfRedeemTime(i64),
    EndOfRetryWindow(i64),
    PurgeTime(i64),
    /// A second after the last accepted poll. From then on a poll no longer counts as repeated.
    EndOfRepetition(i64),
    EndOfGrace(i64),
    IdleEnd(i64),
    AbsoluteEnd(i64),
}

impl Clock {
    fn from(self, now: i64, oracle: &Oracle) -> i64 {
        let session = oracle.session.as_ref();
        let (grant, login) = match session.map(|session| &session.state) {
            Some(oracle::State::Approved(grant) | oracle::State::Ended(grant)) => {
                (Some(grant), None)
            }
            Some(oracle::State::Active(login)) => (Some(&login.grant), Some(login)),
            Some(oracle::State::Pending | oracle::State::Claimed(_) | oracle::State::Denied(_))
            | None => (None, None),
        };
        let refresh = login.and_then(|login| login.refresh);
        let redeemed = login.map(|login| login.redeemed_at);
        let (boundary, past) = match self {
            Self::By(past) => (Some(now), past),
            Self::PollDue(past) => (oracle.pace.map(oracle::Pace::due), past),
            Self::WholeInterval(past) => (oracle.pace.map(|pace| pace.last + pace.interval), past),
            Self::LastAcceptedPoll(past) => (oracle.pace.map(|pace| pace.last), past),
            Self::Expiry(past) => (Some(LIFETIME), past),
            Self::EndOfRedeemTime(past) => (grant.map(|grant| grant.redeemable_until), past),
            Self::EndOfRetryWindow(past) => (redeemed.map(|at| at + oracle::RETRY_WINDOW), past),
            Self::PurgeTime(past) => (session.map(|session| session.purge_at), past),
            Self::EndOfRepetition(past) => (oracle.pace.map(|pace| pace.last + 1000), past),
            Self::EndOfGrace(past) => (
                refresh.map(|refresh| refresh.rotated_at + oracle::GRACE),
                past,
            ),
            Self::IdleEnd(past) => (refresh.map(|refresh| refresh.until), past),
            Self::AbsoluteEnd(past) => (redeemed.map(|at| at + oracle::ABSOLUTE), past),
        };
        boundary.unwrap_or(now) + past
    }
}

// The world: the crate, its store, and a host.

pub(crate) struct World {
    server: &'static Server,
    /// The current registration of the own client, or `None` if it was removed.
    own: Option<Registration>,
    foreign: Registration,
    sessions: Memory,
    /// A store of its own for the quotas. So they survive when a pace is lost, because then only the session is put into a new store.
    quotas: Memory,
    pub(crate) codes: Codes,
    wrong_code: &'static str,
    history: Vec<Option<Stored>>,
    /// The refresh tokens that were sent, in order.
    pub(crate) sent: Vec<String>,
    /// The `Debug` output of everything, if a test asks for it.
    pub(crate) shown: Option<String>,
}

/// One operation: its time, what was stored before and after it, and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) now: i64,
    pub(crate) before: Record,
    pub(crate) after: Record,
    pub(crate) outcome: Outcome,
}

/// What is stored: the stored forms of the session and of the pace, or null.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) session: Value,
    pub(crate) pace: Value,
}

/// Which request of a client was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Poll,
    Refresh,
    Revoke,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Quiet,
    Page(Page),
    Reply {
        asked: Asked,
        told: Told,
        bytes: (u16, Vec<(&'static str, String)>, String),
        by: Client,
        fresh: bool,
    },
}

/// A server with the default policy, except for the numbers of the [oracle].
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let (burst, period) = oracle::REFRESHES;
    let refreshes = RateLimit::new(u32::try_from(burst).unwrap(), millis(period)).unwrap();
    let refresh = RefreshOptions {
        idle: millis(oracle::IDLE),
        absolute: Some(millis(oracle::ABSOLUTE)),
        grace: millis(oracle::GRACE),
        limit: refreshes,
        ..RefreshOptions::default()
    };
    support::server_of(support::policy_of(PolicyOptions {
        interval: millis(oracle::INTERVAL),
        cap: millis(oracle::CAP),
        retry_window: Some(millis(oracle::RETRY_WINDOW)),
        refresh: Some(refresh),
        ..PolicyOptions::default()
    }))
});

/// A refresh token of the same server, of a login that is not in the store of the world.
static TOKEN_OF_ANOTHER_LOGIN: LazyLock<String> = LazyLock::new(|| {
    let client = own(ASKED);
    let mut host = Host::new([client.clone()]);
    let codes = host.issue_for(&SERVER, &client, 2, "openid+offline_access", NOW);
    host.approve(&SERVER, &alice(), &codes, NOW);
    support::refresh_token(&host.poll(&SERVER, &client, &codes.device_code, NOW))
});

fn millis(span: i64) -> Duration {
    Duration::from_millis(u64::try_from(span).unwrap())
}

/// Returns the own client, which may ask for this scope.
fn own(allowed: &str) -> Registration {
    let method = device_flow::server::ClientAuthMethod::None;
    let client = Registration::new(support::CLI, method).unwrap();
    client.allow_device_grant().allow_scope(scope(allowed))
}

pub(crate) fn subject(user: User) -> Subject {
    match user {
        User::Alice => alice(),
        User::Bob => bob(),
    }
}

/// Returns the octets that are drawn in the operation with this number.
fn drawn(operation: usize) -> [u8; Entropy::OCTETS] {
    super::octets(u8::try_from(operation % 251).unwrap() + 1)
}

/// Returns the digest of the secret that was drawn in an operation, as a record holds it.
fn digest(operation: usize) -> Value {
    json!(URL_SAFE_NO_PAD.encode(Sha256::digest(&drawn(operation)[..32])))
}

impl World {
    pub(crate) fn new() -> Self {
        let own = own(ASKED);
        let mut host = Host::new([own.clone()]);
        let asked = ASKED.replace(' ', "+");
        let codes = host.issue_for(&SERVER, &own, 1, &asked, NOW);
        let sessions = host.store;
        let wrong_code = ["BBBBBBBB", "CCCCCCCC"]
            .into_iter()
            .find(|code| *code != codes.user_code.replace('-', ""))
            .unwrap();
        let history = vec![sessions.load(&codes.key).cloned()];
        Self {
            server: &SERVER,
            own: Some(own),
            foreign: backend(),
            sessions,
            quotas: Memory::new(),
            codes,
            wrong_code,
            history,
            sent: Vec::new(),
            shown: None,
        }
    }

    fn stored(&self) -> Option<&Stored> {
        self.sessions.load(&self.codes.key)
    }

    fn record(&self) -> Record {
        let stored = self.stored();
        let session = stored.map(|stored| serde_json::to_value(&stored.session).unwrap());
        let pace = stored.and_then(|stored| stored.pace);
        Record {
            session: session.unwrap_or_default(),
            pace: pace
                .map(|pace| serde_json::to_value(pace).unwrap())
                .unwrap_or_default(),
        }
    }

    fn read(&self, attempt: u8, how: How) -> Option<Stored> {
        if attempt >= how.stale.reads {
            return self.stored().cloned();
        }
        let newest = self.history.len() - 1;
        self.history[newest.saturating_sub(how.stale.age.into())].clone()
    }

    fn show(&mut self, value: &dyn fmt::Debug) {
        if let Some(shown) = &mut self.shown {
            write!(shown, "{value:?} {value:#?} ").unwrap();
        }
    }

    pub(crate) fn play(&mut self, op: Op, now: i64) -> Outcome {
        let outcome = match op {
            Op::Clock(_) => Outcome::Quiet,
            Op::Poll(by, how) => {
                let code = self.codes.device_code.clone();
                let body = support::poll_body(self.client(by).id(), &code);
                self.request(Asked::Poll, by, &body, how, now)
            }
            Op::Refresh(by, token, scope, how) => {
                let token = self.token(token);
                let mut body = support::refresh_body(self.client(by).id(), &token);
                if let Some(scope) = scope {
                    write!(body, "&scope={}", support::encoded(scope)).unwrap();
                }
                self.request(Asked::Refresh, by, &body, how, now)
            }
            Op::Revoke(by, token, how) => {
                let body = format!(
                    "token={}&client_id={}",
                    self.token(token),
                    self.client(by).id()
                );
                self.request(Asked::Revoke, by, &body, how, now)
            }
            Op::Enter(user, typed, how) => {
                let typed = match typed {
                    Typed::Right => self.codes.user_code.to_lowercase(),
                    Typed::Wrong => self.wrong_code.to_owned(),
                    Typed::Malformed => format!("{}X", self.codes.user_code),
                };
                let user = subject(user);
                let entered: Result<Review, _> =
                    self.run(self.server.enter(&typed, &user, "", at(now)), how);
                self.show(&entered);
                Outcome::Page(page(entered.map(|_| Page::Review)))
            }
            Op::Approve(user, scope, how) => {
                let consent = match scope {
                    ASKED => Consent::to_all(),
                    scope => Consent::to(scope.parse().unwrap()),
                };
                let (user, key) = (subject(user), self.codes.key);
                self.decide(self.server.approve(&key, &user, &consent, at(now)), how)
            }
            Op::Deny(user, how) => {
                let (user, key) = (subject(user), self.codes.key);
                self.decide(self.server.deny(&key, &user, at(now)), how)
            }
            Op::Withdraw(user, how) => {
                let (user, key) = (subject(user), self.codes.key);
                self.decide(self.server.withdraw(&key, &user, at(now)), how)
            }
            Op::Release(user, how) => {
                let (user, key) = (subject(user), self.codes.key);
                self.decide(self.server.release(&key, &user, at(now)), how)
            }
            Op::Register(registered) => {
                self.own = match registered {
                    Registered::For(allowed) => Some(own(allowed)),
                    Registered::WithoutDeviceGrant => {
                        let method = device_flow::server::ClientAuthMethod::None;
                        Some(Registration::new(support::CLI, method).unwrap())
                    }
                    Registered::Disabled => Some(own(ASKED).disabled()),
                    Registered::Removed => None,
                };
                Outcome::Quiet
            }
            Op::Purge => {
                let _ = self.sessions.purge(at(now));
                let _ = self.quotas.purge(at(now));
                Outcome::Quiet
            }
            Op::LosePace => {
                if let Some(stored) = self.stored().cloned() {
                    self.sessions = Memory::new();
                    let _ = self.sessions.insert(&stored.session);
                }
                Outcome::Quiet
            }
        };
        self.history.push(self.stored().cloned());
        outcome
    }

    /// Returns the client that sends a request, regardless of its current registration.
    fn client(&self, by: Client) -> Registration {
        match by {
            Client::Own => own(ASKED),
            Client::Foreign => self.foreign.clone(),
        }
    }

    fn token(&self, token: Token) -> String {
        let last = self.sent.last().unwrap_or(&TOKEN_OF_ANOTHER_LOGIN);
        match token {
            Token::Sent(ago) => {
                let place = self.sent.len().checked_sub(usize::from(ago) + 1);
                place.map_or("none".to_owned(), |place| self.sent[place].clone())
            }
            Token::OfAnotherLogin => TOKEN_OF_ANOTHER_LOGIN.clone(),
            Token::Forged => {
                // The second to last character encodes only bits of the tag.
                let (head, tail) = last.split_at(last.len() - 2);
                let other = if tail.starts_with('A') { 'B' } else { 'A' };
                format!("{head}{other}{}", &tail[1..])
            }
            Token::Malformed => self.codes.device_code.clone(),
        }
    }

    fn request(&mut self, asked: Asked, by: Client, body: &str, how: How, now: i64) -> Outcome {
        let server = self.server;
        let reply = support::sent_by(&self.client(by), body, |request| {
            self.show(&request);
            let exchange = match asked {
                Asked::Poll | Asked::Refresh => server.token(request, SOURCE, at(now)),
                Asked::Revoke => server.revocation(request, SOURCE, at(now)),
            };
            self.run(exchange, how)
        });
        // Also the `Debug` output of a success must not show the tokens.
        self.show(&reply);
        let told = told(&reply);
        if told.has_refresh_token {
            self.sent.push(support::refresh_token(&reply));
        }
        Outcome::Reply {
            asked,
            told,
            bytes: bytes(&reply),
            by,
            fresh: how.stale.reads == 0,
        }
    }

    fn decide(&mut self, exchange: Exchange<'_, Result<Session, PageError>>, how: How) -> Outcome {
        let decided = self.run(exchange, how);
        self.show(&decided);
        Outcome::Page(page(decided.map(|_| Page::Done)))
    }

    /// Runs an exchange to its end, with a host that behaves as `how` says.
    fn run<'r, T: Finish<'r>>(&mut self, mut exchange: Exchange<'r, T>, how: How) -> T {
        let mut reads = 0;
        let part = |part| match how.down {
            Some(down) if down == part => Err(Unavailable),
            Some(_) | None => Ok(()),
        };
        loop {
            self.show(&exchange);
            let next = exchange.next();
            self.show(&next);
            match next {
                Next::Client(claim, ask) => {
                    self.show(&claim);
                    let known = [self.own.as_ref(), Some(&self.foreign)];
                    let mut known = known.into_iter().flatten();
                    let known = known.find(|known| Some(known.id()) == claim.client_id());
                    ask.answer(part(Part::Registry).map(|()| known));
                }
                Next::Take(take, ask) => {
                    self.show(&take);
                    let taken = part(Part::Quotas).map(|()| {
                        for _ in 0..how.rivals {
                            let _ = self.quotas.take(&take);
                        }
                        self.quotas.take(&take)
                    });
                    ask.answer(taken);
                }
                Next::Load(key, ask) => {
                    let stored = self.read(reads, how);
                    let stored = stored.filter(|stored| stored.session.key() == key);
                    reads += 1;
                    ask.answer(part(Part::Sessions).map(|()| stored.as_ref()));
                }
                Next::LoadByUserKey(key, ask) => {
                    let stored = self.read(reads, how);
                    let stored = stored.filter(|stored| stored.session.user_key() == Some(key));
                    reads += 1;
                    ask.answer(part(Part::Sessions).map(|()| stored.as_ref()));
                }
                Next::Draw(ask) => {
                    let entropy = Entropy::from(drawn(self.history.len()));
                    ask.answer(part(Part::Generator).map(|()| entropy));
                }
                Next::Insert(..) => unreachable!("nothing is issued"),
                Next::Mint(grant, change, ask) => {
                    self.show(&grant);
                    match how.verdict {
                        Verdict::Mints => ask.answer(self.write(change, how), &support::tokens()),
                        Verdict::CheckFails => {
                            ask.refuse(GrantRefusal::error("use_dpop_nonce", "").unwrap());
                        }
                        Verdict::ConsentGone => ask.refuse(GrantRefusal::consent_gone()),
                        Verdict::MintingFails => ask.refuse(GrantRefusal::failed()),
                    }
                }
                Next::Change(change, ask) => ask.answer(self.write(change, how)),
                Next::SavePace(key, pace) => {
                    self.show(&pace);
                    if how.saves_pace {
                        self.sessions.save_pace(key, pace);
                    }
                }
                Next::Done(end) => return end,
            }
        }
    }

    fn write(
        &mut self,
        change: device_flow::server::Change<'_>,
        how: How,
    ) -> Result<Write, Unavailable> {
        self.show(&change);
        match how.commit {
            Commit::Heard => Ok(self.sessions.change(change)),
            Commit::UnheardButDone => {
                let _ = self.sessions.change(change);
                Err(Unavailable)
            }
            Commit::UnheardAndNotDone => Err(Unavailable),
        }
    }
}

fn page(done: Result<Page, PageError>) -> Page {
    match done {
        Ok(page) => page,
        Err(PageError::RateLimited(limited)) => {
            Page::RateLimited(i64::try_from(limited.retry_after.as_millis()).unwrap())
        }
        Err(PageError::MalformedCode) => Page::WrongCode("U2 malformed"),
        Err(PageError::UnknownCode) => Page::WrongCode("U2"),
        Err(PageError::ExpiredCode) => Page::WrongCode("U3 expired"),
        Err(PageError::UsedCode) => Page::WrongCode("U3 decided"),
        Err(PageError::ClaimedByAnother) => Page::WrongCode("U3 claimed"),
        Err(PageError::NotYours) => Page::Error("U5"),
        Err(PageError::Expired) => Page::Error("U6"),
        Err(PageError::Scope) => Page::Error("U8"),
        Err(PageError::Decided) => Page::Error("U10"),
        Err(PageError::Undecided) => Page::Error("U11 undecided"),
        Err(PageError::ClientGone) => Page::Error("U14"),
        Err(PageError::Unavailable) => Page::Error("unavailable"),
        Err(other) => panic!("{other:?} is in no table"),
    }
}

/// Returns a reply in the form that the oracle uses.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other causes are of requests that nobody sends here"
)]
pub(crate) fn told(reply: &Reply) -> Told {
    let response = reply.response();
    let body: Value = match response.body() {
        "" => Value::Null,
        body => serde_json::from_str(body).unwrap(),
    };
    let row = match reply.cause() {
        Cause::UnknownClient => "B2",
        Cause::ClientDisabled => "B7",
        Cause::GrantNotAllowed => "B9",
        Cause::StoreFailed => "B8 C1 R14",
        Cause::UnknownCode | Cause::MalformedCode => "C2",
        Cause::ForeignClient => "C3 R3",
        Cause::Duplicate => "C4 Duplicate",
        Cause::Replay => "C4 Replay",
        Cause::Ended => "C5 R4",
        Cause::Denied => "C6",
        Cause::Expired => "C7",
        Cause::ApprovalExpired => "C8",
        Cause::Pending => "C9 C10 C11",
        Cause::Repeated => "C20",
        Cause::TooFast => "C12 C13",
        Cause::HostCheck => "C14",
        Cause::ConsentGone => "C15 R11",
        Cause::MintingFailed => "C16 R12",
        Cause::Granted => "C17",
        Cause::LostRace => "C18",
        Cause::Contended => "C18 R13 R18 503",
        Cause::OutcomeUnknown => "C19 R14",
        Cause::MalformedRefreshToken | Cause::UnknownRefreshToken => "R2",
        Cause::LoginExpired => "R5",
        Cause::Reuse => "R6 R8",
        Cause::ScopeMalformed | Cause::ScopeNotAllowed => "R9",
        Cause::Refreshed => "R7 R10",
        Cause::RefreshQuotaSpent => "R quota",
        Cause::NothingToRevoke => "R16",
        Cause::Revoked => "R17",
        other => panic!("{other:?} is in no row of these requests"),
    };
    let text = |member: &str| Some(body.get(member)?.as_str()?.to_owned());
    let grants = matches!(row, "C17" | "R7 R10");
    assert_eq!(body.get("access_token").is_some(), grants);
    Told {
        row,
        status: response.status(),
        error: text("error"),
        interval: body
            .get("interval")
            .map(|interval| interval.as_i64().unwrap()),
        retry_after: response.header("retry-after").map(|seconds| {
            let seconds: i64 = seconds.parse().unwrap();
            assert!(seconds > 0);
            if response.status() == 503 { 0 } else { seconds }
        }),
        since: reply
            .since_redemption()
            .map(|since| i64::try_from(since.as_millis()).unwrap()),
        scope: text("scope"),
        has_refresh_token: body.get("refresh_token").is_some(),
    }
}

// Playing.

/// Plays the operations. Returns for each what the crate did, and the outcome and the record that the oracle expects.
pub(crate) fn play(world: &mut World, ops: &[Op]) -> Vec<(Event, Outcome, Record)> {
    let mut oracle = Oracle::new();
    let mut now = 0;
    let mut events = Vec::with_capacity(ops.len());
    for &op in ops {
        if let Op::Clock(clock) = op {
            now = clock.from(now, &oracle);
        }
        let before = world.record();
        let outcome = world.play(op, now);
        let after = world.record();
        let event = Event {
            now,
            before,
            after,
            outcome,
        };
        let wanted = foretell(&mut oracle, op, now, &event);
        let record = foretold(&oracle, &event);
        events.push((event, wanted, record));
    }
    events
}

/// Returns the outcome that the oracle expects of an operation.
pub(crate) fn foretell(oracle: &mut Oracle, op: Op, now: i64, event: &Event) -> Outcome {
    let reply = |foretold: Told| {
        let mut outcome = event.outcome.clone();
        // The oracle does not predict the bytes, so they are taken from the outcome of the crate.
        if let Outcome::Reply { told, .. } = &mut outcome {
            *told = foretold;
        }
        outcome
    };
    let outcome = match op {
        Op::Poll(by, how) => reply(oracle.poll(by, how, now)),
        Op::Refresh(by, token, scope, how) => reply(oracle.refresh(by, token, scope, how, now)),
        Op::Revoke(by, token, how) => reply(oracle.revoke(by, token, how, now)),
        Op::Enter(user, typed, how) => Outcome::Page(oracle.enter(user, typed, how, now)),
        Op::Approve(user, scope, how) => Outcome::Page(oracle.approve(user, scope, how, now)),
        Op::Deny(user, how) => Outcome::Page(oracle.deny(user, how, now)),
        Op::Withdraw(user, how) => Outcome::Page(oracle.withdraw(user, how, now)),
        Op::Release(user, how) => Outcome::Page(oracle.release(user, how, now)),
        Op::Clock(_) => Outcome::Quiet,
        Op::Register(registered) => {
            oracle.register(registered);
            Outcome::Quiet
        }
        Op::Purge => {
            oracle.purge(now);
            Outcome::Quiet
        }
        Op::LosePace => {
            oracle.lose_pace();
            Outcome::Quiet
        }
    };
    oracle.remember();
    outcome
}

/// Returns the record that the oracle expects, in the stored form. Members that never change are taken from what was stored before.
pub(crate) fn foretold(oracle: &Oracle, event: &Event) -> Record {
    let sub = |user: User| json!(subject(user).as_str());
    let grant = |grant: &oracle::Grant| {
        json!({
            "subject": sub(grant.subject),
            "scope": grant.scope,
            "value": [],
            "approved_at": stored_at(grant.approved_at),
            "redeemable_until": stored_at(grant.redeemable_until),
        })
    };
    let session = oracle.session.as_ref().map(|session| {
        let mut form = event.before.session.clone();
        form["version"] = json!(session.version);
        form["issued_at"] = json!(stored_at(0));
        form["expires_at"] = json!(stored_at(LIFETIME));
        form["purge_at"] = json!(stored_at(session.purge_at));
        form["state"] = match &session.state {
            oracle::State::Pending => json!("pending"),
            oracle::State::Claimed(user) => json!({ "claimed": sub(*user) }),
            oracle::State::Approved(own) => json!({ "approved": grant(own) }),
            oracle::State::Denied(user) => json!({ "denied": sub(*user) }),
            oracle::State::Active(login) => {
                let refresh = login.refresh.map(|refresh| {
                    json!({
                        "current": digest(refresh.current),
                        "previous": refresh.previous.map(digest),
                        "rotated_at": stored_at(refresh.rotated_at),
                        "until": stored_at(refresh.until),
                    })
                });
                json!({ "active": {
                    "approval": grant(&login.grant),
                    "redeemed_at": stored_at(login.redeemed_at),
                    "refresh": refresh,
                } })
            }
            oracle::State::Ended(own) => json!({ "ended": grant(own) }),
        };
        // The code of a redeemed or ended session can no longer be looked up.
        if let oracle::State::Active(_) | oracle::State::Ended(_) = session.state {
            form["user_key"] = Value::Null;
        }
        form
    });
    let pace = oracle.pace.map(|pace| {
        json!({
            "v": 2,
            "last": stored_at(pace.last),
            "interval": pace.interval / 1000,
            "widened": pace.widened,
        })
    });
    Record {
        session: session.unwrap_or_default(),
        pace: pace.unwrap_or_default(),
    }
}

/// Plays the operations, and returns what the crate did.
pub(crate) fn transcript(ops: &[Op]) -> Vec<Event> {
    let events = play(&mut World::new(), ops);
    events.into_iter().map(|(event, ..)| event).collect()
}

// Reading a transcript.

impl Event {
    /// Returns the answer to a poll, who polled, and whether no read was stale. Returns `None` for other operations.
    pub(crate) fn poll(&self) -> Option<(&Told, Client, bool)> {
        let (asked, told, by, fresh) = self.reply()?;
        (asked == Asked::Poll).then_some((told, by, fresh))
    }

    /// Returns the same for any request of a client, and which request it was.
    pub(crate) fn reply(&self) -> Option<(Asked, &Told, Client, bool)> {
        match &self.outcome {
            Outcome::Reply {
                asked,
                told,
                by,
                fresh,
                ..
            } => Some((*asked, told, *by, *fresh)),
            Outcome::Quiet | Outcome::Page(_) => None,
        }
    }
}

impl Record {
    /// Returns the name of the state, or an empty string if there is no session.
    pub(crate) fn state(&self) -> &str {
        match &self.session["state"] {
            Value::String(name) => name,
            Value::Object(named) => named.keys().next().unwrap(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => "",
        }
    }

    /// Returns the user who claimed or decided.
    pub(crate) fn claimant(&self) -> Option<&str> {
        match self.state() {
            name @ ("claimed" | "denied") => self.session["state"][name].as_str(),
            _ => self.approval()["subject"].as_str(),
        }
    }

    /// Returns the approval, wherever it is in this state.
    pub(crate) fn approval(&self) -> &Value {
        let state = &self.session["state"];
        match self.state() {
            "active" => &state["active"]["approval"],
            name => &state[name],
        }
    }

    /// Returns what is stored of the refresh tokens, or null.
    pub(crate) fn rotation(&self) -> &Value {
        &self.session["state"]["active"]["refresh"]
    }

    /// Returns what no request may change: everything but the state, the version, and the members that depend on the state.
    pub(crate) fn fixed(&self) -> Value {
        let mut fixed = self.session.clone();
        if let Value::Object(members) = &mut fixed {
            for member in ["state", "version", "purge_at", "user_key"] {
                members.remove(member);
            }
        }
        fixed
    }
}
