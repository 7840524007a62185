//! The real transition functions, with values in and out that a checker can hash and compare.
//!
//! Nothing is decided here. A session stands for its stored form; a handler in flight is what it has read, and its next step
//! is made by the real functions from that. They are pure, so what they made of an input is kept: everything is called twice
//! at its first use, and must give the same bytes (invariant 10), without a secret in any `Debug` (invariant 11).

use core::cell::RefCell;
use core::fmt;
use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::{BTreeMap, HashMap};
use std::hash::DefaultHasher;
use std::sync::{LazyLock, Mutex};

use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Change, DecisionError, Entered, Entry, HostError, HostValue, Pace, Policy, Poll, Polled,
    Redemption, Registration, Reply, Session, Status, Stored, Subject, Written, WrongCode,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::support::{self, ACCESS_TOKEN, Codes, NOW};

/// A moment: milliseconds after the codes were issued.
pub(crate) type Moment = i64;

/// When the default policy lets a code expire.
pub(crate) const EXPIRY: Moment = 300_000;

/// Twice the default interval: the grace of an approval.
pub(crate) const GRACE: Moment = 10_000;

/// How long the default policy keeps a session after its end.
pub(crate) const RETENTION: Moment = 300_000;

fn at(moment: Moment) -> OffsetDateTime {
    NOW + Duration::milliseconds(moment)
}

fn moment(at: OffsetDateTime) -> Moment {
    (at - NOW).whole_milliseconds().try_into().unwrap()
}

/// Who may be signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum User {
    Alice,
    Bob,
}

impl User {
    fn subject(self) -> Subject {
        support::subject(match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
        })
    }
}

/// Whose device polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Client {
    /// The client that the codes were issued to.
    Own,
    /// Another one that got hold of the device code.
    Foreign,
}

/// What a user does with a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Decision {
    Approve,
    /// With less than the device asked for.
    ApproveLess,
    Deny,
    Withdraw,
    Release,
}

/// What the codes are drawn from.
const SEED: u8 = 1;

/// One login, its policy and two clients.
struct Fixture {
    policy: Policy,
    own: Registration,
    foreign: Registration,
    codes: Codes,
    issued: Row,
    approved: Session,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let (policy, own) = (support::policy(), support::cli());
    let mut store = Memory::new();
    let codes = support::issue(&mut store, &policy, &own, SEED, NOW);
    let issued = Row::of(&store.load(&codes.key).unwrap().session);
    support::approve(&mut store, &policy, &support::alice(), &codes, NOW);
    let approved = store.load(&codes.key).unwrap().session.clone();
    Fixture {
        policy,
        own,
        foreign: support::backend(),
        codes,
        issued,
        approved,
    }
});

// Sessions.

/// A session, by its stored form.
#[derive(Clone, Copy)]
pub(crate) struct Row(&'static Kept);

struct Kept {
    id: u64,
    form: String,
    session: Session,
    /// The form without the version.
    content: String,
    status: Status,
    claimant: Option<User>,
    scope: String,
    ends: Moment,
}

static ROWS: LazyLock<Mutex<HashMap<u64, Row>>> = LazyLock::new(Mutex::default);

impl Row {
    /// The session as it was issued.
    pub(crate) fn issued() -> Self {
        FIXTURE.issued
    }

    fn of(session: &Session) -> Self {
        let form = serde_json::to_string(session).unwrap();
        let mut hasher = DefaultHasher::new();
        form.hash(&mut hasher);
        let id = hasher.finish();
        let mut rows = ROWS.lock().unwrap();
        let row = *rows.entry(id).or_insert_with(|| {
            // The form is all there is: what comes out of a store again is the same session.
            let session: Session = serde_json::from_str(&form).unwrap();
            Self(Box::leak(Box::new(Kept::new(id, form.clone(), session))))
        });
        assert_eq!(row.0.form, form, "two sessions have one digest");
        row
    }

    pub(crate) fn status(self) -> Status {
        self.0.status
    }

    pub(crate) fn claimant(self) -> Option<User> {
        self.0.claimant
    }

    /// The scope granted, or asked for while none is.
    pub(crate) fn scope(self) -> &'static str {
        &self.0.scope
    }

    /// The moment from which on the device gets no tokens: the expiry, and after an approval the end of its grace.
    pub(crate) fn ends(self) -> Moment {
        self.0.ends
    }

    pub(crate) fn purge_at(self) -> Moment {
        moment(self.0.session.purge_at())
    }

    /// Nobody decides after these, and the device is done.
    pub(crate) fn is_final(self) -> bool {
        match self.status() {
            Status::Denied | Status::Redeemed | Status::Revoked => true,
            Status::Pending | Status::Claimed | Status::Approved => false,
        }
    }

    pub(crate) fn version(self) -> u64 {
        self.0.session.version()
    }

    /// Everything but the version.
    pub(crate) fn content(self) -> &'static str {
        &self.0.content
    }

    /// The same with the next version: what no store may do but for a change.
    pub(crate) fn bumped(self) -> Self {
        let mut form: serde_json::Value = serde_json::from_str(&self.0.form).unwrap();
        form["version"] = (self.version() + 1).into();
        Self::of(&serde_json::from_value(form).unwrap())
    }
}

impl Kept {
    fn new(id: u64, form: String, session: Session) -> Self {
        let claimant = session.claimant().map(|subject| match subject.as_str() {
            "alice" => User::Alice,
            _ => User::Bob,
        });
        let mut content: BTreeMap<String, serde_json::Value> = serde_json::from_str(&form).unwrap();
        content.remove("version");
        let state = &content["state"];
        let grant = match session.status() {
            Status::Approved => &state["approved"],
            Status::Revoked => &state["revoked"],
            Status::Redeemed => &state["redeemed"]["grant"],
            Status::Pending | Status::Claimed | Status::Denied => &serde_json::Value::Null,
        };
        let scope = grant["scope"].as_str().unwrap_or(session.scope().as_str());
        let expiry = moment(session.expires_at());
        // From the table: redeemable_until = max(expires_at, approved_at + twice the initial interval).
        let approved_at = grant["approved_at"].as_i64();
        let approved_at = approved_at.map(|millis| millis - NOW.unix_timestamp() * 1000);
        let kept = Self {
            id,
            status: session.status(),
            claimant,
            scope: scope.to_owned(),
            ends: approved_at.map_or(expiry, |approved_at| expiry.max(approved_at + GRACE)),
            content: serde_json::to_string(&content).unwrap(),
            form,
            session,
        };
        assert_no_secret(&kept.form);
        assert_no_secret(&format!("{:?}", kept.session));
        kept
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Row {}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept {
            status, claimant, ..
        } = &self.0;
        write!(f, "{status:?} v{}", self.version())?;
        claimant.map_or(Ok(()), |user| write!(f, " by {user:?}"))
    }
}

// Writes and paces.

/// A guarded change, with the session that it was made from.
#[derive(Clone, Copy)]
pub(crate) struct Write {
    read: Row,
    change: &'static Change,
    after: Row,
}

impl Write {
    fn new(read: Row, change: &Change) -> Self {
        let after = read.0.session.apply(change).unwrap();
        Self {
            read,
            change: Box::leak(Box::new(change.clone())),
            after: Row::of(&after),
        }
    }

    pub(crate) fn read(self) -> Row {
        self.read
    }

    /// What the store holds after the change if its key and version are those expected: the guard.
    pub(crate) fn guarded(self, stored: Row) -> Option<Row> {
        remembered(&APPLIED, (stored, self.read, self.after), || {
            stored
                .0
                .session
                .apply(self.change)
                .map(|session| Row::of(&session))
        })
    }

    /// The session read, with the change: what a store without the guard writes.
    pub(crate) fn unguarded(self) -> Row {
        self.after
    }

    fn form(self) -> (Row, Row) {
        (self.read, self.after)
    }
}

/// A pace, in its stored form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct PaceForm {
    pub(crate) v: u8,
    pub(crate) last: i64,
    pub(crate) interval: u32,
    pub(crate) widened: bool,
}

impl PaceForm {
    pub(crate) fn of(pace: Pace) -> Self {
        serde_json::from_value(serde_json::to_value(pace).unwrap()).unwrap()
    }

    pub(crate) fn pace(self) -> Pace {
        serde_json::from_value(serde_json::to_value(self).unwrap()).unwrap()
    }
}

impl fmt::Debug for PaceForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last - NOW.unix_timestamp() * 1000;
        write!(f, "{} s since {last}", self.interval)?;
        f.write_str(if self.widened { " widened" } else { "" })
    }
}

// Polls.

/// What a device is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) cause: Cause,
    /// Status, headers and body.
    pub(crate) bytes: &'static str,
    /// The `error` of the body, if it is one.
    pub(crate) error: Option<&'static str>,
}

impl Answer {
    fn of(reply: &Reply) -> Self {
        let response = reply.response();
        let headers = response.headers();
        let headers = headers.map(|(name, value)| format!("{name}: {value}"));
        let headers = headers.collect::<Vec<_>>().join("\n");
        let bytes = format!("{}\n{headers}\n\n{}", response.status(), response.body());
        assert_no_secret(&format!("{reply:?}"));
        if reply.cause() != Cause::Granted {
            assert_no_secret(&bytes);
        }
        let bytes: &str = String::leak(bytes);
        let error = bytes.split_once(r#""error":""#);
        Self {
            cause: reply.cause(),
            bytes,
            error: error.and_then(|(_, rest)| rest.split('"').next()),
        }
    }
}

/// What becomes of a poll.
#[derive(Clone, Copy)]
pub(crate) enum PollStep {
    Reply(Answer),
    Paced(PaceForm, Answer),
    Redeem(Redeeming),
}

/// All that a host can do with an approved session, and what the device is sent then.
#[derive(Clone, Copy)]
pub(crate) struct Redeeming {
    pub(crate) redeem: Write,
    pub(crate) granted: Answer,
    pub(crate) revoke: Write,
    pub(crate) consent_gone: Answer,
    pub(crate) unknown: Answer,
    pub(crate) host_check: Answer,
    pub(crate) minting_failed: Answer,
}

/// What a poll reads: by whom, after how many losses, and what the store and the clock said.
pub(crate) type PollInput = (Client, u8, Option<Row>, Option<PaceForm>, Moment);

/// The decision on a poll.
pub(crate) fn poll(input: PollInput) -> PollStep {
    remembered(&POLLS, input, || {
        let (one, other) = (decide(input), decide(input));
        assert!(same(&one, &other), "the same inputs gave other bytes");
        one
    })
}

fn decide(input: PollInput) -> PollStep {
    let (_, _, row, _, _) = input;
    let mut writes = None;
    let step = on_poll(input, |polled| {
        assert_no_secret(&format!("{polled:?}"));
        match polled {
            Polled::Reply(reply) => Some(PollStep::Reply(Answer::of(&reply))),
            Polled::Paced(_, pace, reply) => {
                Some(PollStep::Paced(PaceForm::of(pace), Answer::of(&reply)))
            }
            Polled::Redeem(redemption) => {
                assert_no_secret(&format!("{:?}", redemption.approval()));
                let redeem = Write::new(row.unwrap(), redemption.change());
                let revocation = redemption.revoke();
                writes = Some((redeem, Write::new(row.unwrap(), revocation.change())));
                None
            }
        }
    });
    let Some((redeem, revoke)) = writes else {
        return step.unwrap();
    };
    // What the host can do then, each on a poll of its own.
    let tokens = support::tokens();
    let error = HostError::new("invalid_target", "no such resource").unwrap();
    let then = |host: &dyn Fn(Redemption<'_>) -> Option<Reply>| {
        let reply = on_poll(input, |polled| host(redemption(polled)));
        reply.map(|reply| Answer::of(&reply))
    };
    let settled = |written| then(&|redemption| redemption.settle(written, &tokens).ok());
    let revoked = |written| then(&|redemption| redemption.revoke().settle(written).ok());
    assert_eq!(settled(Written::Lost), None);
    assert_eq!(revoked(Written::Lost), None);
    assert_eq!(revoked(Written::Unknown), settled(Written::Unknown));
    PollStep::Redeem(Redeeming {
        redeem,
        granted: settled(Written::Won).unwrap(),
        revoke,
        consent_gone: revoked(Written::Won).unwrap(),
        unknown: settled(Written::Unknown).unwrap(),
        host_check: then(&|redemption| Some(redemption.refuse(error))).unwrap(),
        minting_failed: then(&|redemption| Some(redemption.minting_failed())).unwrap(),
    })
}

fn on_poll<T>(
    (client, losses, row, pace, now): PollInput,
    then: impl FnOnce(Polled<'_>) -> T,
) -> T {
    let stored = row.map(|row| Stored {
        pace: pace.map(PaceForm::pace),
        session: row.0.session.clone(),
    });
    with_poll(client, losses, |poll| {
        then(poll.decide(stored.as_ref(), at(now)))
    })
}

fn redemption(polled: Polled<'_>) -> Redemption<'_> {
    match polled {
        Polled::Redeem(redemption) => redemption,
        Polled::Reply(_) | Polled::Paced(..) => unreachable!("it was a redemption before"),
    }
}

/// A poll through the form and authentication, after some lost writes: their number is all that a poll remembers of them.
fn with_poll<T>(client: Client, losses: u8, then: impl FnOnce(&mut Poll<'_>) -> T) -> T {
    let fixture = &*FIXTURE;
    let client = match client {
        Client::Own => &fixture.own,
        Client::Foreign => &fixture.foreign,
    };
    let body = support::poll_body(client.client_id(), &fixture.codes.device_code);
    let header = support::authorization(client);
    let incoming = support::post(&body).authorization(header.as_ref());
    let approved = Stored {
        pace: None,
        session: fixture.approved.clone(),
    };
    let polled = support::with_poll(&fixture.policy, incoming, Some(client), |poll| {
        for _ in 0..losses {
            let lost = redemption(poll.decide(Some(&approved), NOW));
            assert!(lost.settle(Written::Lost, &support::tokens()).is_err());
        }
        then(poll)
    });
    polled.unwrap()
}

fn same(one: &PollStep, other: &PollStep) -> bool {
    match (one, other) {
        (PollStep::Reply(one), PollStep::Reply(other)) => one == other,
        (PollStep::Paced(pace, one), PollStep::Paced(other_pace, other)) => {
            pace == other_pace && one == other
        }
        (PollStep::Redeem(one), PollStep::Redeem(other)) => {
            let answers = |of: &Redeeming| {
                let of = *of;
                [
                    of.granted,
                    of.consent_gone,
                    of.unknown,
                    of.host_check,
                    of.minting_failed,
                ]
            };
            answers(one) == answers(other)
                && one.redeem.form() == other.redeem.form()
                && one.revoke.form() == other.revoke.form()
        }
        (PollStep::Reply(_) | PollStep::Paced(..) | PollStep::Redeem(_), _) => false,
    }
}

// Users.

/// What entering the code leads to: a claim to write, or the review at once.
type Entering = Result<Option<Write>, WrongCode>;

/// What a decision leads to: a change to write, or nothing where it stands already.
type Deciding = Result<Option<Write>, DecisionError>;

pub(crate) fn enter(user: User, row: Option<Row>, now: Moment) -> Entering {
    remembered(&ENTERS, (user, row, now), || {
        let (subject, keys, policy) = (user.subject(), support::keys(), &FIXTURE.policy);
        let mut entry = Entry::new(&FIXTURE.codes.user_code, &subject, &keys, policy);
        let guess = entry.pay(None, at(now)).unwrap();
        let paid = guess.settle(Written::Won).unwrap();
        let enter = || paid.enter(row.map(|row| &row.0.session), at(now));
        let claim = || match enter().unwrap() {
            Entered::Claim(claim) => claim,
            Entered::Review(_) => unreachable!("it was a claim before"),
        };
        Ok(match enter()? {
            Entered::Review(_) => None,
            Entered::Claim(first) => {
                assert_no_secret(&format!("{first:?}"));
                assert!(claim().settle(Written::Won).is_ok());
                assert!(claim().settle(Written::Lost).is_err());
                assert!(claim().settle(Written::Unknown).is_err());
                Some(Write::new(row.unwrap(), first.change()))
            }
        })
    })
}

pub(crate) fn decision(user: User, decision: Decision, row: Row, now: Moment) -> Deciding {
    remembered(&DECISIONS, (user, decision, row, now), || {
        let (session, subject) = (&row.0.session, user.subject());
        let approve = |scope| {
            let (value, policy) = (HostValue::default(), &FIXTURE.policy);
            session.approve(&subject, scope, value, policy, at(now))
        };
        let change = match decision {
            Decision::Approve => approve(session.scope()),
            Decision::ApproveLess => approve(&support::scope("openid")),
            Decision::Deny => session.deny(&subject, at(now)),
            Decision::Withdraw => session.withdraw(&subject),
            Decision::Release => session.release(&subject).map(Some),
        };
        Ok(change?.map(|change| Write::new(row, &change)))
    })
}

// What was made of each input, by thread.

pub(crate) type Memo<K, V> = RefCell<HashMap<K, V, BuildHasherDefault<Mixer>>>;

/// A hash for keys that nobody chooses: what was made before is looked up at every step.
#[derive(Default)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(word.into());
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_i64(&mut self, word: i64) {
        self.write_u64(word.cast_unsigned());
    }

    fn write_isize(&mut self, discriminant: isize) {
        self.write_u64(u64::try_from(discriminant).unwrap_or_default());
    }

    fn write_u64(&mut self, word: u64) {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(ODD);
    }
}

thread_local! {
    static POLLS: Memo<PollInput, PollStep> = RefCell::default();
    static ENTERS: Memo<(User, Option<Row>, Moment), Entering> = RefCell::default();
    static DECISIONS: Memo<(User, Decision, Row, Moment), Deciding> = RefCell::default();
    static APPLIED: Memo<(Row, Row, Row), Option<Row>> = RefCell::default();
}

pub(crate) fn remembered<K: Copy + Eq + Hash, V: Copy>(
    kept: &'static std::thread::LocalKey<Memo<K, V>>,
    input: K,
    make: impl FnOnce() -> V,
) -> V {
    if let Some(before) = kept.with_borrow(|kept| kept.get(&input).copied()) {
        return before;
    }
    let fresh = make();
    kept.with_borrow_mut(|kept| kept.insert(input, fresh));
    fresh
}

/// Invariant 11, of a `Debug`, a stored form or a refusal: no code, no token.
fn assert_no_secret(text: &str) {
    static CODES: LazyLock<Codes> = LazyLock::new(|| {
        let mut store = Memory::new();
        support::issue(&mut store, &support::policy(), &support::cli(), SEED, NOW)
    });
    let Codes {
        device_code,
        user_code,
        ..
    } = &*CODES;
    let canonical = user_code.replace('-', "");
    for secret in [device_code, user_code, &canonical, ACCESS_TOKEN] {
        assert!(!text.contains(secret), "a secret is shown: {text}");
    }
}
