//! The world of the properties: the operations, the crate on its embedded store, a host that behaves as one should, and the
//! oracle beside them.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::sync::LazyLock;

use device_flow::digest::UserCodeKeys;
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Change, DecisionError, Entered, Entry, HostError, HostValue, Policy, Polled,
    Registration, Reply, Session, Stored, Subject, Written, WrongCode,
};
use serde_json::{Value, json};

use crate::login::{self, at, bob, bytes, stored_at};
use crate::oracle::{
    self, Client, Commit, LIFETIME, Oracle, Page, Polling, Stale, Told, Typed, User, Verdict,
};
use crate::support::{self, Codes, NOW, alice, backend, builder, cli, keys};

// The operations.

#[derive(Clone, Copy)]
pub(crate) enum Op {
    Clock(Clock),
    Poll(Polling),
    Enter {
        by: User,
        typed: Typed,
        /// Guesses of the same user that get in before the write of this one.
        rivals: u8,
        stale: Stale,
    },
    Approve(User, &'static str, Stale),
    Deny(User, Stale),
    Withdraw(User, Stale),
    Release(User, Stale),
    Purge,
    LosePace,
}

/// Each on one line, also in a list that is printed at length: a failure is read as a list of operations.
impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock(clock) => write!(f, "Clock({clock:?})"),
            Self::Poll(polling) => write!(f, "{polling:?}"),
            Self::Enter {
                by,
                typed,
                rivals,
                stale,
            } => write!(f, "Enter({by:?}, {typed:?}, {rivals} rivals, {stale:?})"),
            Self::Approve(by, scope, stale) => write!(f, "Approve({by:?}, {scope:?}, {stale:?})"),
            Self::Deny(by, stale) => write!(f, "Deny({by:?}, {stale:?})"),
            Self::Withdraw(by, stale) => write!(f, "Withdraw({by:?}, {stale:?})"),
            Self::Release(by, stale) => write!(f, "Release({by:?}, {stale:?})"),
            Self::Purge => f.write_str("Purge"),
            Self::LosePace => f.write_str("LosePace"),
        }
    }
}

/// Where the clock goes: by so many milliseconds, or to a boundary and so many milliseconds past it. A boundary in the past
/// is a clock that goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Clock {
    By(i64),
    /// The first moment at which the next poll is not early.
    PollDue(i64),
    /// The whole interval after the last accepted poll.
    WholeInterval(i64),
    LastAcceptedPoll(i64),
    Expiry(i64),
    EndOfGrace(i64),
    EndOfRetryWindow(i64),
    PurgeTime(i64),
}

impl Clock {
    fn from(self, now: i64, oracle: &Oracle) -> i64 {
        let session = oracle.session.as_ref();
        let (grant, redeemed) = match session.map(|session| &session.state) {
            Some(oracle::State::Approved(grant) | oracle::State::Revoked(grant)) => {
                (Some(grant), None)
            }
            Some(oracle::State::Redeemed(grant, at)) => (Some(grant), Some(*at)),
            Some(oracle::State::Pending | oracle::State::Claimed(_) | oracle::State::Denied(_))
            | None => (None, None),
        };
        let (boundary, past) = match self {
            Self::By(past) => (Some(now), past),
            Self::PollDue(past) => (oracle.pace.map(oracle::Pace::due), past),
            Self::WholeInterval(past) => (oracle.pace.map(|pace| pace.last + pace.interval), past),
            Self::LastAcceptedPoll(past) => (oracle.pace.map(|pace| pace.last), past),
            Self::Expiry(past) => (Some(LIFETIME), past),
            Self::EndOfGrace(past) => (grant.map(|grant| grant.redeemable_until), past),
            Self::EndOfRetryWindow(past) => (redeemed.map(|at| at + 10_000), past),
            Self::PurgeTime(past) => (session.map(|session| session.purge_at), past),
        };
        boundary.unwrap_or(now) + past
    }
}

// The world: the crate, its store, and a host that behaves as one should.

pub(crate) struct World {
    policy: &'static Policy,
    own: Registration,
    foreign: Registration,
    keys: UserCodeKeys,
    sessions: Memory,
    /// Apart, so that a pace can be lost by putting the session alone into a new store.
    quotas: Memory,
    pub(crate) codes: Codes,
    wrong_code: &'static str,
    history: Vec<Option<Stored>>,
    /// Everything that was formatted, where that is asked for.
    pub(crate) shown: Option<String>,
}

/// One operation and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) now: i64,
    pub(crate) before: Record,
    pub(crate) after: Record,
    pub(crate) outcome: Outcome,
}

/// What is stored: the forms of session and pace, null where there is none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) session: Value,
    pub(crate) pace: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Quiet,
    Page(Page),
    Poll {
        told: Told,
        bytes: (u16, Vec<(&'static str, String)>, String),
        by: Client,
        fresh: bool,
    },
}

/// The default but for interval and cap: see the [oracle].
static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let builder = builder().interval(millis(oracle::INTERVAL));
    builder.cap(millis(oracle::CAP)).build().unwrap()
});

fn millis(span: i64) -> Duration {
    Duration::from_millis(u64::try_from(span).unwrap())
}

pub(crate) fn subject(user: User) -> Subject {
    match user {
        User::Alice => alice(),
        User::Bob => bob(),
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let (policy, own) = (&*POLICY, cli());
        let mut sessions = Memory::new();
        let codes = support::issue(&mut sessions, policy, &own, 1, NOW);
        let wrong_code = ["BBBBBBBB", "CCCCCCCC"]
            .into_iter()
            .find(|code| *code != codes.user_code.replace('-', ""))
            .unwrap();
        let history = vec![sessions.load(&codes.key).cloned()];
        Self {
            policy,
            own,
            foreign: backend(),
            keys: keys(),
            sessions,
            quotas: Memory::new(),
            codes,
            wrong_code,
            history,
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

    fn read(&self, attempt: u8, stale: Stale) -> Option<Stored> {
        if attempt >= stale.reads {
            return self.stored().cloned();
        }
        let newest = self.history.len() - 1;
        self.history[newest.saturating_sub(stale.age.into())].clone()
    }

    fn show(&mut self, value: &dyn fmt::Debug) {
        if let Some(shown) = &mut self.shown {
            write!(shown, "{value:?} {value:#?} ").unwrap();
        }
    }

    fn play(&mut self, op: Op, now: i64) -> Outcome {
        let outcome = match op {
            Op::Clock(_) => Outcome::Quiet,
            Op::Poll(polling) => {
                let reply = self.poll(polling, now);
                self.show(&reply);
                Outcome::Poll {
                    told: told(&reply),
                    bytes: bytes(&reply),
                    by: polling.by,
                    fresh: polling.stale.reads == 0,
                }
            }
            Op::Enter {
                by,
                typed,
                rivals,
                stale,
            } => Outcome::Page(self.enter(by, typed, rivals, stale, now)),
            Op::Approve(user, scope, stale) => {
                let (user, scope): (_, Scope) = (subject(user), scope.parse().unwrap());
                Outcome::Page(self.decide(stale, |session, policy| {
                    let value = HostValue::default();
                    session.approve(&user, &scope, value, policy, at(now))
                }))
            }
            Op::Deny(user, stale) => Outcome::Page(
                self.decide(stale, |session, _| session.deny(&subject(user), at(now))),
            ),
            Op::Withdraw(user, stale) => {
                Outcome::Page(self.decide(stale, |session, _| session.withdraw(&subject(user))))
            }
            Op::Release(user, stale) => Outcome::Page(self.decide(stale, |session, _| {
                session.release(&subject(user)).map(Some)
            })),
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

    pub(crate) fn poll(&mut self, polling: Polling, now: i64) -> Reply {
        let client = match polling.by {
            Client::Own => self.own.clone(),
            Client::Foreign => self.foreign.clone(),
        };
        let policy = self.policy;
        let code = self.codes.device_code.clone();
        login::with_poll_of(policy, &client, &code, |poll| {
            for attempt in 0..10 {
                self.show(poll);
                let stored = self.read(attempt, polling.stale);
                match poll.decide(stored.as_ref(), at(now)) {
                    Polled::Reply(reply) => return reply,
                    Polled::Paced(key, pace, reply) => {
                        self.show(&pace);
                        if polling.saves_pace {
                            self.sessions.save_pace(key, pace);
                        }
                        return reply;
                    }
                    Polled::Redeem(redemption) => {
                        self.show(&redemption);
                        self.show(&redemption.approval());
                        let settled = match polling.verdict {
                            Verdict::CheckFails => {
                                let error = HostError::new("use_dpop_nonce", "").unwrap();
                                return redemption.refuse(error);
                            }
                            Verdict::MintingFails => return redemption.minting_failed(),
                            Verdict::ConsentGone => {
                                let revocation = redemption.revoke();
                                let written = self.write(revocation.change(), polling.commit);
                                revocation.settle(written)
                            }
                            Verdict::Mints => {
                                let change = redemption.change().clone();
                                self.show(&change);
                                let written = self.write(&change, polling.commit);
                                redemption.settle(written, &support::tokens())
                            }
                        };
                        if let Ok(reply) = settled {
                            return reply;
                        }
                    }
                }
            }
            unreachable!("the core gives up after three losses")
        })
    }

    fn write(&mut self, change: &Change, commit: Commit) -> Written {
        match commit {
            Commit::Heard => self.sessions.change(change),
            Commit::UnheardButDone => {
                let _ = self.sessions.change(change);
                Written::Unknown
            }
            Commit::UnheardAndNotDone => Written::Unknown,
        }
    }

    fn enter(&mut self, by: User, typed: Typed, rivals: u8, stale: Stale, now: i64) -> Page {
        let typed = match typed {
            Typed::Right => self.codes.user_code.to_lowercase(),
            Typed::Wrong => self.wrong_code.to_owned(),
            Typed::Malformed => format!("{}X", self.codes.user_code),
        };
        let user = subject(by);
        let mut entry = Entry::new(&typed, &user, &self.keys, self.policy);
        let key = *entry.quota_key();
        let limit = self.policy.guess_limit();
        let mut losses = 0;
        let paid = loop {
            if let Some(shown) = &mut self.shown {
                write!(shown, "{entry:?} {entry:#?}").unwrap();
            }
            let stored = self.quotas.load_quota(&key);
            let guess = match entry.pay(stored, at(now)) {
                Ok(guess) => guess,
                Err(_) if losses == 3 => return Page::Refused(None),
                Err(spent) => {
                    let millis = i64::try_from(spent.retry_after.as_millis()).unwrap();
                    return Page::Refused(Some(millis));
                }
            };
            if losses < rivals {
                let rival = limit.take(key, stored, at(now)).unwrap();
                assert_eq!(self.quotas.change_quota(&rival), Written::Won);
            }
            let written = self.quotas.change_quota(guess.change());
            match guess.settle(written) {
                Ok(paid) => break paid,
                Err(_) => losses += 1,
            }
        };
        for attempt in 0..10 {
            let stored = self.read(attempt, stale);
            let stored = stored.filter(|stored| {
                paid.user_keys()
                    .any(|key| key == *stored.session.user_key())
            });
            match paid.enter(stored.as_ref().map(|stored| &stored.session), at(now)) {
                Err(WrongCode::Malformed) => return Page::WrongCode("U2 malformed"),
                Err(WrongCode::Unknown) => return Page::WrongCode("U2"),
                Err(WrongCode::Expired) => return Page::WrongCode("U3 expired"),
                Err(WrongCode::Decided) => return Page::WrongCode("U3 decided"),
                Err(WrongCode::ClaimedByAnother) => return Page::WrongCode("U3 claimed"),
                Err(other) => panic!("{other:?} is in no table"),
                Ok(Entered::Review(review)) => {
                    if let Some(shown) = &mut self.shown {
                        write!(shown, "{review:?} {review:#?}").unwrap();
                    }
                    return Page::Review;
                }
                Ok(Entered::Claim(claim)) => {
                    if let Some(shown) = &mut self.shown {
                        write!(shown, "{claim:?} {claim:#?}").unwrap();
                    }
                    let written = self.sessions.change(claim.change());
                    if claim.settle(written).is_ok() {
                        return Page::Review;
                    }
                }
            }
        }
        unreachable!("a fresh read wins")
    }

    fn decide(
        &mut self,
        stale: Stale,
        event: impl Fn(&Session, &Policy) -> Result<Option<Change>, DecisionError>,
    ) -> Page {
        for attempt in 0..10 {
            let Some(stored) = self.read(attempt, stale) else {
                return Page::Error("gone");
            };
            match event(&stored.session, self.policy) {
                Err(error) => return Page::Error(row_of(error)),
                Ok(None) => return Page::StandsAlready,
                Ok(Some(change)) => {
                    if self.sessions.change(&change) == Written::Won {
                        return Page::Done;
                    }
                }
            }
        }
        unreachable!("a fresh read wins")
    }
}

pub(crate) fn row_of(error: DecisionError) -> &'static str {
    match error {
        DecisionError::NotYours => "U5",
        DecisionError::Expired => "U6",
        DecisionError::Scope => "U8",
        DecisionError::Decided => "U10",
        DecisionError::Redeemed => "U11 redeemed",
        DecisionError::Undecided => "U11 undecided",
        other => panic!("{other:?} is in no table"),
    }
}

/// A reply in the words of the oracle.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other causes are not of a poll"
)]
pub(crate) fn told(reply: &Reply) -> Told {
    let response = reply.response();
    let body: Value = serde_json::from_str(response.body()).unwrap();
    let row = match reply.cause() {
        Cause::StoreFailed => "C1",
        Cause::UnknownCode | Cause::MalformedCode => "C2",
        Cause::ForeignClient => "C3",
        Cause::Duplicate => "C4 Duplicate",
        Cause::Replay => "C4 Replay",
        Cause::Revoked => "C5",
        Cause::Denied => "C6",
        Cause::Expired => "C7",
        Cause::ApprovalExpired => "C8",
        Cause::Pending => "C9 C10 C11",
        Cause::TooFast => "C12 C13",
        Cause::HostCheck => "C14",
        Cause::ConsentGone => "C15",
        Cause::MintingFailed => "C16",
        Cause::Granted => "C17",
        Cause::LostRace => "C18",
        Cause::OutcomeUnknown => "C19",
        other => panic!("{other:?} is in no row of the poll"),
    };
    let text = |member: &str| Some(body.get(member)?.as_str()?.to_owned());
    assert_eq!(body.get("access_token").is_some(), row == "C17");
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
    }
}

// Playing.

/// Plays the operations, and gives what the crate did beside what the oracle would have done.
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
        let record = foretold(&oracle, &event.after);
        events.push((event, wanted, record));
    }
    events
}

/// What the oracle says of an operation.
pub(crate) fn foretell(oracle: &mut Oracle, op: Op, now: i64, event: &Event) -> Outcome {
    let outcome = match op {
        Op::Clock(_) => Outcome::Quiet,
        Op::Poll(polling) => {
            let Outcome::Poll {
                bytes, by, fresh, ..
            } = event.outcome.clone()
            else {
                panic!("a poll has an answer")
            };
            let told = oracle.poll(polling, now);
            // The bytes are not the oracle's to say.
            Outcome::Poll {
                told,
                bytes,
                by,
                fresh,
            }
        }
        Op::Enter {
            by,
            typed,
            rivals,
            stale,
        } => Outcome::Page(oracle.enter(by, typed, rivals, stale, now)),
        Op::Approve(user, scope, stale) => Outcome::Page(oracle.approve(user, scope, stale, now)),
        Op::Deny(user, stale) => Outcome::Page(oracle.deny(user, stale, now)),
        Op::Withdraw(user, stale) => Outcome::Page(oracle.withdraw(user, stale)),
        Op::Release(user, stale) => Outcome::Page(oracle.release(user, stale)),
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

/// The record that the oracle would have stored, in the stored form. What is fixed at issuance is taken from `stored`.
pub(crate) fn foretold(oracle: &Oracle, stored: &Record) -> Record {
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
        let mut form = stored.session.clone();
        form["version"] = json!(session.version);
        form["issued_at"] = json!(stored_at(0));
        form["expires_at"] = json!(stored_at(LIFETIME));
        form["purge_at"] = json!(stored_at(session.purge_at));
        form["state"] = match &session.state {
            oracle::State::Pending => json!("pending"),
            oracle::State::Claimed(user) => json!({ "claimed": sub(*user) }),
            oracle::State::Approved(own) => json!({ "approved": grant(own) }),
            oracle::State::Denied(user) => json!({ "denied": sub(*user) }),
            oracle::State::Redeemed(own, at) => {
                json!({ "redeemed": { "grant": grant(own), "at": stored_at(*at) } })
            }
            oracle::State::Revoked(own) => json!({ "revoked": grant(own) }),
        };
        form
    });
    let pace = oracle.pace.map(|pace| {
        json!({
            "v": 1,
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

/// What the crate did.
pub(crate) fn transcript(ops: &[Op]) -> Vec<Event> {
    let events = play(&mut World::new(), ops);
    events.into_iter().map(|(event, ..)| event).collect()
}

// Reading a transcript.

impl Event {
    pub(crate) fn poll(&self) -> Option<(&Told, Client, bool)> {
        match &self.outcome {
            Outcome::Poll {
                told, by, fresh, ..
            } => Some((told, *by, *fresh)),
            Outcome::Quiet | Outcome::Page(_) => None,
        }
    }
}

impl Record {
    /// The name of the state; empty where there is no session.
    pub(crate) fn state(&self) -> &str {
        match &self.session["state"] {
            Value::String(name) => name,
            Value::Object(named) => named.keys().next().unwrap(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => "",
        }
    }

    /// Who claimed or decided.
    pub(crate) fn claimant(&self) -> Option<&str> {
        let state = &self.session["state"];
        match self.state() {
            "claimed" | "denied" => state[self.state()].as_str(),
            "approved" | "revoked" => state[self.state()]["subject"].as_str(),
            "redeemed" => state["redeemed"]["grant"]["subject"].as_str(),
            _ => None,
        }
    }

    /// The grant, wherever the state has it.
    pub(crate) fn grant(&self) -> &Value {
        let state = &self.session["state"];
        match self.state() {
            "redeemed" => &state["redeemed"]["grant"],
            name => &state[name],
        }
    }

    /// All but state and version: what no poll may change.
    pub(crate) fn fixed(&self) -> Value {
        let mut fixed = self.session.clone();
        if let Value::Object(members) = &mut fixed {
            members.remove("state");
            members.remove("version");
        }
        fixed
    }
}
