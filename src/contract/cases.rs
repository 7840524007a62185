//! What a store must survive.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use time::{Duration, OffsetDateTime};

use super::{Case, Operation, Outcome, Rule, Step};
use crate::code::{DeviceCode, Entropy, UserCode, UserCodeShape};
use crate::digest::{Digest, QuotaKey, UserCodeKey, UserCodeKeys};
use crate::server::{
    Authentication, Change, Entered, Entry, Form, Grant, HostValue, Incoming, Inserted, Origin,
    Pace, Policy, Polled, QuotaChange, Registration, Session, Stored, Subject, Written,
};

pub(super) const CASES: &[fn(&Set) -> Case] = &[
    |set| {
        Case::new("an insert is found by both keys, and nothing else is")
            .misses(&set.session)
            .inserts(&set.session)
            .finds(&set.session)
            .misses(&set.another)
    },
    |set| {
        Case::new("an insert never overwrites a device code that is taken")
            .inserts(&set.session)
            .wins(&set.claim)
            .ask(
                insert(&set.same_device),
                Outcome::Inserted(Inserted::DeviceCodeTaken),
            )
            .finds(&set.claim.after)
            .ask(by_user(&set.same_device), Outcome::Found(None))
    },
    |set| {
        Case::new("an insert never takes the user code of another session")
            .inserts(&set.session)
            .ask(
                insert(&set.same_user),
                Outcome::Inserted(Inserted::UserCodeTaken),
            )
            .finds(&set.session)
            .ask(by_device(&set.same_user), Outcome::Found(None))
    },
    |set| {
        let both = [&set.session, &set.same_user];
        let outcomes = [Inserted::New, Inserted::UserCodeTaken];
        Case::new("of inserts of one user code at once exactly one wins")
            .one_wins(both.map(insert), outcomes.map(Outcome::Inserted))
            .any_of(by_user(&set.session), both.map(|one| found(one, None)))
    },
    |set| {
        Case::new("a change wins where the version is the one read, and is found whole")
            .inserts(&set.session)
            .wins(&set.claim)
            .finds(&set.claim.after)
            .wins(&set.approval)
            .finds(&set.approval.after)
            .wins(&set.redemption)
            .finds(&set.redemption.after)
    },
    |set| {
        Case::new("a change made for an older version loses and changes nothing")
            .inserts(&set.session)
            .wins(&set.claim)
            .loses(&set.claim)
            .loses(&set.claim_by_another)
            .finds(&set.claim.after)
            .wins(&set.denial)
            .loses(&set.approval)
            .loses(&set.claim_by_another)
            .finds(&set.denial.after)
    },
    |set| {
        Case::new("a change never inserts")
            .loses(&set.claim)
            .misses(&set.session)
    },
    |set| {
        Case::new("of claims by two users at once exactly one wins")
            .inserts(&set.session)
            .race([&set.claim, &set.claim_by_another])
    },
    |set| {
        Case::new("of an approval and a denial at once exactly one wins")
            .inserts(&set.session)
            .wins(&set.claim)
            .race([&set.approval, &set.denial])
    },
    |set| {
        Case::new("of redemptions at once exactly one wins")
            .inserts(&set.session)
            .wins(&set.claim)
            .wins(&set.approval)
            .race([&set.redemption; 4])
    },
    |set| {
        Case::new("of a redemption and a withdrawal at once exactly one wins")
            .inserts(&set.session)
            .wins(&set.claim)
            .wins(&set.approval)
            .race([&set.redemption, &set.withdrawal])
    },
    |set| {
        Case::new("a pace is saved beside the session and does not touch it")
            .inserts(&set.session)
            .saves(set)
            .finds_with(&set.session, set.pace)
            .wins(&set.claim)
            .saves(set)
            .finds_with(&set.claim.after, set.pace)
    },
    |set| {
        let won = Outcome::Written(Written::Won);
        Case::new("paces saved at once with a decision take nothing from it")
            .inserts(&set.session)
            .wins(&set.claim)
            .each([
                (set.save(), Outcome::Done),
                (set.denial.operation(), won),
                (set.save(), Outcome::Done),
            ])
            .finds_with(&set.denial.after, set.pace)
    },
    |set| {
        Case::new("a pace never inserts a session")
            .saves(set)
            .misses(&set.session)
    },
    |set| {
        Case::new("a quota is written only where the stored one is the one read")
            .finds_quota(set, None)
            .refuses(set.second_guess)
            .finds_quota(set, None)
            .pays(set.guess)
            .refuses(set.guess)
            .finds_quota(set, Some(set.guess))
            .pays(set.second_guess)
            .refuses(set.guess)
            .finds_quota(set, Some(set.second_guess))
    },
    |set| {
        Case::new("of guesses paid at once from one reading exactly one wins")
            .one_pays(set.guess)
            .one_pays(set.second_guess)
            .finds_quota(set, Some(set.second_guess))
    },
    |set| {
        Case::new("a purge keeps a quota that still limits")
            .pays(set.guess)
            .purged(before(set.guess.to().purge_at()))
            .finds_quota(set, Some(set.guess))
    },
    |set| {
        Case::new("a purge removes what is past its purge time, and nothing before")
            .inserts(&set.session)
            .purged(before(set.session.purge_at()))
            .finds(&set.session)
            .purged(past(set.session.purge_at()))
            .misses(&set.session)
            .inserts(&set.same_user)
            .finds(&set.same_user)
    },
    |set| {
        let approved = &set.late_approval.after;
        Case::new("a change moves the purge time")
            .inserts(&set.session)
            .wins(&set.claim)
            .wins(&set.late_approval)
            .purged(before(approved.purge_at()))
            .finds(approved)
            .purged(past(approved.purge_at()))
            .misses(approved)
    },
    |set| {
        Case::new("nothing written late brings a purged session back")
            .inserts(&set.session)
            .purged(past(set.session.purge_at()))
            .saves(set)
            .misses(&set.session)
            .loses(&set.claim)
            .misses(&set.session)
    },
];

const WRITTEN: [Outcome; 2] = [
    Outcome::Written(Written::Won),
    Outcome::Written(Written::Lost),
];

/// The steps, by what must come of them.
impl Case {
    pub(super) const fn new(name: &'static str) -> Self {
        let steps = Vec::new();
        Self { name, steps }
    }

    fn step(mut self, rule: Rule, operations: Vec<Operation>, expected: Vec<Outcome>) -> Self {
        self.steps.push(Step {
            case: self.name,
            operations,
            rule,
            expected,
        });
        self
    }

    fn each<const N: usize>(self, asked: [(Operation, Outcome); N]) -> Self {
        let (operations, expected) = asked.into_iter().unzip();
        self.step(Rule::Each, operations, expected)
    }

    fn any_of<const N: usize>(self, operation: Operation, expected: [Outcome; N]) -> Self {
        self.step(Rule::AnyOf, vec![operation], expected.into())
    }

    fn one_wins<const N: usize>(self, operations: [Operation; N], outcomes: [Outcome; 2]) -> Self {
        self.step(Rule::OneWins, operations.into(), outcomes.into())
    }

    fn ask(self, operation: Operation, expected: Outcome) -> Self {
        self.each([(operation, expected)])
    }

    fn inserts(self, session: &Session) -> Self {
        self.ask(insert(session), Outcome::Inserted(Inserted::New))
    }

    fn finds(self, session: &Session) -> Self {
        self.ask(by_device(session), found(session, None))
            .ask(by_user(session), found(session, None))
    }

    fn finds_with(self, session: &Session, pace: Pace) -> Self {
        self.ask(by_device(session), found(session, Some(pace)))
    }

    fn misses(self, session: &Session) -> Self {
        self.ask(by_device(session), Outcome::Found(None))
            .ask(by_user(session), Outcome::Found(None))
    }

    fn wins(self, write: &Write) -> Self {
        self.ask(write.operation(), Outcome::Written(Written::Won))
    }

    fn loses(self, write: &Write) -> Self {
        self.ask(write.operation(), Outcome::Written(Written::Lost))
    }

    /// One of the writes wins, and its session is found.
    fn race<const N: usize>(self, writes: [&Write; N]) -> Self {
        let left = writes.map(|write| found(&write.after, None));
        let loads = writes.map(|write| by_device(&write.after));
        let case = self.one_wins(writes.map(Write::operation), WRITTEN);
        let load = loads.into_iter().take(1).collect();
        case.step(Rule::AnyOf, load, left.into())
    }

    fn saves(self, set: &Set) -> Self {
        self.ask(set.save(), Outcome::Done)
    }

    fn pays(self, change: QuotaChange) -> Self {
        let won = Outcome::Written(Written::Won);
        self.ask(Operation::ChangeQuota(change), won)
    }

    fn refuses(self, change: QuotaChange) -> Self {
        let lost = Outcome::Written(Written::Lost);
        self.ask(Operation::ChangeQuota(change), lost)
    }

    fn one_pays(self, change: QuotaChange) -> Self {
        self.one_wins([change; 4].map(Operation::ChangeQuota), WRITTEN)
    }

    fn finds_quota(self, set: &Set, last: Option<QuotaChange>) -> Self {
        let load = Operation::LoadQuota(*set.guess.key());
        self.ask(load, Outcome::Quota(last.map(|change| change.to())))
    }

    fn purged(self, now: OffsetDateTime) -> Self {
        self.ask(Operation::Purge(now), Outcome::Done)
    }
}

fn insert(session: &Session) -> Operation {
    Operation::Insert(session.clone())
}

fn by_device(session: &Session) -> Operation {
    Operation::Load(*session.key())
}

fn by_user(session: &Session) -> Operation {
    Operation::LoadByUserKey(*session.user_key())
}

fn found(session: &Session, pace: Option<Pace>) -> Outcome {
    let session = session.clone();
    Outcome::Found(Some(Stored { pace, session }))
}

/// The last moment before.
const fn before(moment: OffsetDateTime) -> OffsetDateTime {
    moment.saturating_sub(Duration::MILLISECOND)
}

/// Surely past, also where a store counts in seconds.
const fn past(moment: OffsetDateTime) -> OffsetDateTime {
    moment.saturating_add(Duration::SECOND)
}

/// A guarded write: the session read, the change, the session it leaves.
pub(super) struct Write {
    read: Session,
    change: Change,
    after: Session,
}

impl Write {
    fn new(read: &Session, change: Change) -> Option<Self> {
        let after = read.apply(&change)?;
        let read = read.clone();
        Some(Self {
            read,
            change,
            after,
        })
    }

    fn operation(&self) -> Operation {
        Operation::Change(self.read.clone(), self.change.clone())
    }
}

/// What one case is about: sessions and writes, made by the transitions that a server makes them by.
pub(super) struct Set {
    session: Session,
    same_device: Session,
    same_user: Session,
    another: Session,
    pace: Pace,
    claim: Write,
    claim_by_another: Write,
    approval: Write,
    late_approval: Write,
    denial: Write,
    redemption: Write,
    withdrawal: Write,
    guess: QuotaChange,
    second_guess: QuotaChange,
}

impl Set {
    pub(super) fn new(seed: &str, case: u8, now: OffsetDateTime) -> Option<Self> {
        let server = Server::new(now)?;
        let octets = |one| Digest::of_parts([seed.as_bytes(), &[case, one]]);
        let codes = [0, 1, 2, 3].map(octets);
        let [device, user, other_device, other_user] = codes.each_ref().map(Digest::octets);
        let (alice, bob) = (Subject::new("alice").ok()?, Subject::new("bob").ok()?);

        let session = server.issue(device, user)?;
        let claim = server.claim(&session, user, &alice)?;
        let approval = server.approve(&claim.after, now)?;
        let last = before(session.expires_at());
        let key = QuotaKey::guesses_from(&format!("{seed} {case}"));
        let limit = server.policy.guess_limit();
        let guess = limit.take(key, None, now).ok()?;
        Some(Self {
            same_device: server.issue(device, other_user)?,
            same_user: server.issue(other_device, user)?,
            another: server.issue(other_device, other_user)?,
            pace: server.poll(&session, device, |polled| match polled {
                Polled::Paced(_, pace, _) => Some(pace),
                Polled::Reply(_) | Polled::Redeem(_) => None,
            })?,
            claim_by_another: server.claim(&session, user, &bob)?,
            late_approval: server.approve(&claim.after, last)?,
            denial: Write::new(&claim.after, claim.after.deny(&alice, now).ok()??)?,
            redemption: server.poll(&approval.after, device, |polled| match polled {
                Polled::Redeem(redemption) => {
                    Write::new(&approval.after, redemption.change().clone())
                }
                Polled::Reply(_) | Polled::Paced(..) => None,
            })?,
            withdrawal: Write::new(&approval.after, approval.after.withdraw(&alice).ok()??)?,
            second_guess: limit.take(key, Some(guess.to()), now).ok()?,
            guess,
            approval,
            claim,
            session,
        })
    }

    fn save(&self) -> Operation {
        Operation::SavePace(*self.session.key(), self.pace)
    }
}

/// A server that makes sessions.
struct Server {
    policy: Policy,
    client: Registration,
    keys: UserCodeKeys,
    now: OffsetDateTime,
}

const FORM: &str = "application/x-www-form-urlencoded";
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

impl Server {
    fn new(now: OffsetDateTime) -> Option<Self> {
        let key = Digest::of(b"contract");
        let scope = "openid profile".parse().ok()?;
        let client = Registration::new("contract", Authentication::Public).ok()?;
        Some(Self {
            policy: Policy::builder("https://login.example.com/device")
                .build()
                .ok()?,
            client: client.allow_device_grant().default_scope(scope),
            keys: UserCodeKeys::new(UserCodeKey::new(key.octets()).ok()?),
            now,
        })
    }

    fn issue(&self, device: &[u8; 32], user: &[u8; 32]) -> Option<Session> {
        let incoming = Incoming::new("POST", b"client_id=contract").content_type(Some(FORM));
        let form = Form::read(incoming, &self.policy).ok()?;
        let request = form.device_authorization().ok()?;
        let issuing = request.authenticate(Some(&self.client)).ok()?;
        let mut issuing = issuing.with_origin(Origin::new("192.0.2.1"));
        let issuance = issuing.draw(entropy(device, user), &self.keys, self.now);
        Some(issuance.ok()?.session().clone())
    }

    fn claim(&self, session: &Session, code: &[u8; 32], user: &Subject) -> Option<Write> {
        let (_, code) = codes(code, code);
        let mut entry = Entry::new(code.canonical(), user, &self.keys, &self.policy);
        let paid = entry.pay(None, self.now).ok()?.settle(Written::Won).ok()?;
        match paid.enter(Some(session), self.now).ok()? {
            Entered::Claim(claim) => Write::new(session, claim.change().clone()),
            Entered::Review(_) => None,
        }
    }

    fn approve(&self, claimed: &Session, now: OffsetDateTime) -> Option<Write> {
        let value = HostValue::new(*b"contract").ok()?;
        let user = claimed.claimant()?;
        let change = claimed.approve(user, claimed.scope(), value, &self.policy, now);
        Write::new(claimed, change.ok()??)
    }

    fn poll<T>(
        &self,
        session: &Session,
        code: &[u8; 32],
        then: impl FnOnce(Polled<'_>) -> Option<T>,
    ) -> Option<T> {
        let (code, _) = codes(code, code);
        let code = code.as_str();
        let body = format!("grant_type={GRANT}&device_code={code}&client_id=contract");
        let incoming = Incoming::new("POST", body.as_bytes()).content_type(Some(FORM));
        let form = Form::read(incoming, &self.policy).ok()?;
        let Grant::DeviceCode(request) = form.grant().ok()? else {
            return None;
        };
        let mut poll = request.authenticate(Some(&self.client)).ok()?;
        let stored = Stored {
            pace: None,
            session: session.clone(),
        };
        then(poll.decide(Some(&stored), self.now))
    }
}

fn entropy(device: &[u8; 32], user: &[u8; 32]) -> Entropy {
    let mut octets = [0; Entropy::OCTETS];
    for (octet, drawn) in octets.iter_mut().zip(device.iter().chain(user)) {
        *octet = *drawn;
    }
    Entropy::from(octets)
}

fn codes(device: &[u8; 32], user: &[u8; 32]) -> (DeviceCode, UserCode) {
    entropy(device, user).codes(&UserCodeShape::default())
}
