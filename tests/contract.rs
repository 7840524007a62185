//! The store's contract, run: the embedded store keeps it, and a store with any one fault is found out.
//!
//! Races run on real threads. That they bite is no luck: a torn store holds every operation of a step between its reading and
//! its writing until all of them have read.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a test fails"
)]
#![expect(clippy::std_instead_of_alloc, reason = "a test has std")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Barrier, Mutex};
use std::thread;

use device_flow::contract::{self, Case, Operation, Outcome, Violation};
use device_flow::digest::{QuotaKey, SessionKey};
use device_flow::memory::Memory;
use device_flow::server::{Inserted, Quota, Session, Stored, Written};
use support::NOW;
use time::{Duration, OffsetDateTime};

/// How many cases there are: none may fail to be made.
const CASES: usize = 20;

/// How often each race is run.
const ROUNDS: usize = 20;

fn cases(seed: &str) -> Vec<Case> {
    let cases: Vec<_> = contract::cases(seed, NOW).collect();
    assert_eq!(cases.len(), CASES, "a case was not made");
    cases
}

/// Takes a store through a case, the operations of a step on threads of their own.
fn take<S: Sync>(
    store: &S,
    case: &Case,
    run: impl Fn(&S, &Operation, &Barrier) -> Outcome + Sync,
) -> Result<(), Violation> {
    for step in case.steps() {
        let together = &Barrier::new(step.operations().len());
        let run = &run;
        let outcomes: Vec<_> = thread::scope(|scope| {
            let spawn = |operation| scope.spawn(move || run(store, operation, together));
            let workers: Vec<_> = step.operations().iter().map(spawn).collect();
            let joined = workers.into_iter().map(|worker| worker.join().unwrap());
            joined.collect()
        });
        step.check(&outcomes)?;
    }
    Ok(())
}

fn on_memory(store: &Mutex<Memory>, operation: &Operation, together: &Barrier) -> Outcome {
    together.wait();
    let mut store = store.lock().unwrap();
    match operation {
        Operation::Insert(session) => Outcome::Inserted(store.insert(session)),
        Operation::Load(key) => Outcome::Found(store.load(key).cloned()),
        Operation::LoadByUserKey(key) => Outcome::Found(store.load_by_user_key(key).cloned()),
        Operation::Change(_, change) => Outcome::Written(store.change(change)),
        Operation::SavePace(key, pace) => {
            store.save_pace(key, *pace);
            Outcome::Done
        }
        Operation::LoadQuota(key) => Outcome::Quota(store.load_quota(key)),
        Operation::ChangeQuota(change) => Outcome::Written(store.change_quota(change)),
        Operation::Purge(now) => {
            store.purge(*now);
            Outcome::Done
        }
    }
}

#[test]
fn the_embedded_store_behind_a_lock_keeps_the_contract() {
    let store = Mutex::new(Memory::new());
    let mut operations = 0;
    for round in 0..ROUNDS {
        for case in cases(&round.to_string()) {
            take(&store, &case, on_memory).unwrap();
            let steps = case.steps().iter();
            operations += steps.map(|step| step.operations().len()).sum::<usize>();
        }
    }
    println!("contract: {CASES} cases, {ROUNDS} rounds, {operations} operations on one store");
}

#[test]
fn a_store_that_keeps_no_paces_keeps_the_contract() {
    let no_paces = |store: &Mutex<Memory>, operation: &Operation, together: &Barrier| {
        if let Operation::SavePace(..) = operation {
            together.wait();
            return Outcome::Done;
        }
        on_memory(store, operation, together)
    };
    let store = Mutex::new(Memory::new());
    for case in cases("no paces") {
        take(&store, &case, no_paces).unwrap();
    }
}

#[test]
fn every_case_has_keys_of_its_own_and_every_seed_has_others() {
    let key_of = |operation: &Operation| match operation {
        Operation::Insert(session) | Operation::Change(session, _) => *session.key().as_bytes(),
        Operation::Load(key) | Operation::SavePace(key, _) => *key.as_bytes(),
        Operation::LoadByUserKey(key) => *key.as_bytes(),
        Operation::LoadQuota(key) => *key.as_bytes(),
        Operation::ChangeQuota(change) => *change.key().as_bytes(),
        Operation::Purge(_) => [0; 32],
    };
    let mut seen = BTreeSet::new();
    for case in cases("one").into_iter().chain(cases("two")) {
        let operations = case.steps().iter().flat_map(contract::Step::operations);
        let mut keys: BTreeSet<_> = operations.map(key_of).collect();
        keys.remove(&[0; 32]);
        for key in keys {
            assert!(seen.insert(key), "{} shares a key", case.name());
        }
    }
}

#[test]
fn a_host_can_leave_the_cases_out_that_purge() {
    let cases = cases("names");
    let purging = cases.iter().filter(|case| case.purges()).map(Case::name);
    let expected = [
        "a purge keeps a quota that still limits",
        "a purge removes what is past its purge time, and nothing before",
        "a change moves the purge time",
        "nothing written late brings a purged session back",
    ];
    assert_eq!(purging.collect::<Vec<_>>(), expected);
}

#[test]
fn an_answer_of_another_kind_or_too_few_or_too_many_violate_the_contract() {
    let wrong = [
        Outcome::Inserted(Inserted::Unknown),
        Outcome::Written(Written::Unknown),
    ];
    for case in cases("answers") {
        for step in case.steps() {
            let count = step.operations().len();
            for outcome in &wrong {
                assert!(step.check(&vec![outcome.clone(); count]).is_err());
            }
            // One that wins does not make up for one that does neither.
            if count > 1 {
                let mut won = vec![wrong[1].clone(); count];
                won[0] = Outcome::Written(Written::Won);
                assert!(step.check(&won).is_err());
            }
            for count in [0, count - 1, count + 1] {
                assert!(step.check(&vec![Outcome::Done; count]).is_err());
            }
        }
    }
}

/// What a store may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    InsertOverwrites,
    InsertIgnoresUserCodes,
    ChangeHasNoGuard,
    ChangeInserts,
    ChangeKeepsTheVersion,
    ChangeKeepsThePurgeTime,
    PaceBumpsTheVersion,
    PaceRevives,
    PurgeIsEarly,
    PurgeIsNever,
    QuotaHasNoGuard,
    QuotaIsPurgedEarly,
}

/// A store as plain as can be, with at most one fault.
#[derive(Clone, Debug, Default)]
struct Plain {
    fault: Option<Fault>,
    sessions: BTreeMap<SessionKey, Row>,
    quotas: BTreeMap<QuotaKey, Quota>,
}

#[derive(Clone, Debug)]
struct Row {
    stored: Stored,
    purge_at: OffsetDateTime,
    is_purged: bool,
}

impl Plain {
    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn row(&self, of: impl Fn(&Session) -> bool) -> Option<&Row> {
        let mut rows = self.sessions.values();
        rows.find(|row| !row.is_purged && of(&row.stored.session))
    }

    fn put(&mut self, session: Session) {
        let pace = None;
        let row = Row {
            purge_at: session.purge_at(),
            stored: Stored { pace, session },
            is_purged: false,
        };
        self.sessions.insert(*row.stored.session.key(), row);
    }

    fn run(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Insert(session) => Outcome::Inserted(self.insert(session)),
            Operation::Load(key) => {
                let row = self.row(|session| session.key() == key);
                Outcome::Found(row.map(|row| row.stored.clone()))
            }
            Operation::LoadByUserKey(key) => {
                let row = self.row(|session| session.user_key() == key);
                Outcome::Found(row.map(|row| row.stored.clone()))
            }
            Operation::Change(read, change) => {
                Outcome::Written(self.change(read, read.apply(change).unwrap()))
            }
            Operation::SavePace(key, pace) => {
                let (revives, bumps) = (
                    self.has(Fault::PaceRevives),
                    self.has(Fault::PaceBumpsTheVersion),
                );
                if let Some(row) = self.sessions.get_mut(key) {
                    row.stored.pace = Some(*pace);
                    row.is_purged &= !revives;
                    if bumps {
                        row.stored.session = bumped(&row.stored.session);
                    }
                }
                Outcome::Done
            }
            Operation::LoadQuota(key) => Outcome::Quota(self.quotas.get(key).copied()),
            Operation::ChangeQuota(change) => {
                let is_same = self.quotas.get(change.key()).copied() == change.from();
                if !is_same && !self.has(Fault::QuotaHasNoGuard) {
                    return Outcome::Written(Written::Lost);
                }
                self.quotas.insert(*change.key(), change.to());
                Outcome::Written(Written::Won)
            }
            Operation::Purge(now) => {
                self.purge(*now);
                Outcome::Done
            }
        }
    }

    fn insert(&mut self, session: &Session) -> Inserted {
        let device = self.row(|row| row.key() == session.key()).is_some();
        let user = self.row(|row| row.user_key() == session.user_key());
        if device && !self.has(Fault::InsertOverwrites) {
            return Inserted::DeviceCodeTaken;
        }
        if user.is_some() && !self.has(Fault::InsertIgnoresUserCodes) {
            return Inserted::UserCodeTaken;
        }
        self.put(session.clone());
        Inserted::New
    }

    fn change(&mut self, read: &Session, mut after: Session) -> Written {
        if self.row(|row| row.key() == read.key()).is_none() {
            if !self.has(Fault::ChangeInserts) {
                return Written::Lost;
            }
            self.put(read.clone());
        }
        let (unguarded, keeps_version, keeps_purge_time) = (
            self.has(Fault::ChangeHasNoGuard),
            self.has(Fault::ChangeKeepsTheVersion),
            self.has(Fault::ChangeKeepsThePurgeTime),
        );
        let row = self.sessions.get_mut(read.key()).unwrap();
        if row.stored.session.version() != read.version() && !unguarded {
            return Written::Lost;
        }
        if keeps_version {
            after = with_version(&after, read.version());
        }
        if !keeps_purge_time {
            row.purge_at = after.purge_at();
        }
        row.stored.session = after;
        Written::Won
    }

    fn purge(&mut self, now: OffsetDateTime) {
        let early = Duration::MINUTE;
        let (sessions, quotas) = match self.fault {
            Some(Fault::PurgeIsNever) => return,
            Some(Fault::PurgeIsEarly) => (now + early, now),
            Some(Fault::QuotaIsPurgedEarly) => (now, now + early),
            _ => (now, now),
        };
        for row in self.sessions.values_mut() {
            row.is_purged |= row.purge_at <= sessions;
        }
        self.quotas.retain(|_, quota| quota.purge_at() > quotas);
    }
}

fn with_version(session: &Session, version: u64) -> Session {
    let mut form = serde_json::to_value(session).unwrap();
    form["version"] = version.into();
    serde_json::from_value(form).unwrap()
}

fn bumped(session: &Session) -> Session {
    with_version(session, session.version() + 1)
}

/// The cases that a store violates, each on a store of its own.
fn violated(
    fault: Option<Fault>,
    run: impl Fn(&Mutex<Plain>, &Operation, &Barrier) -> Outcome + Sync,
) -> Vec<&'static str> {
    let mut violated = Vec::new();
    for case in cases("faults") {
        let store = Plain {
            fault,
            ..Plain::default()
        };
        if let Err(violation) = take(&Mutex::new(store), &case, &run) {
            if let Some(fault) = fault {
                println!("{fault:?}: {violation}");
            }
            violated.push(violation.case);
        }
    }
    violated
}

fn whole(store: &Mutex<Plain>, operation: &Operation, together: &Barrier) -> Outcome {
    together.wait();
    store.lock().unwrap().run(operation)
}

#[test]
fn a_store_with_any_one_fault_violates_the_contract_in_the_case_of_that_fault() {
    assert_eq!(violated(None, whole), <[&str; 0]>::default());
    let faults = [
        (
            Fault::InsertOverwrites,
            "an insert never overwrites a device code that is taken",
        ),
        (
            Fault::InsertIgnoresUserCodes,
            "an insert never takes the user code of another session",
        ),
        (
            Fault::ChangeHasNoGuard,
            "a change made for an older version loses and changes nothing",
        ),
        (
            Fault::ChangeHasNoGuard,
            "of redemptions at once exactly one wins",
        ),
        (Fault::ChangeInserts, "a change never inserts"),
        (
            Fault::ChangeKeepsTheVersion,
            "a change wins where the version is the one read, and is found whole",
        ),
        (
            Fault::ChangeKeepsThePurgeTime,
            "a change moves the purge time",
        ),
        (
            Fault::PaceBumpsTheVersion,
            "a pace is saved beside the session and does not touch it",
        ),
        (
            Fault::PaceRevives,
            "nothing written late brings a purged session back",
        ),
        (
            Fault::PurgeIsEarly,
            "a purge removes what is past its purge time, and nothing before",
        ),
        (
            Fault::PurgeIsNever,
            "a purge removes what is past its purge time, and nothing before",
        ),
        (
            Fault::QuotaHasNoGuard,
            "a quota is written only where the stored one is the one read",
        ),
        (
            Fault::QuotaHasNoGuard,
            "of guesses paid at once from one reading exactly one wins",
        ),
        (
            Fault::QuotaIsPurgedEarly,
            "a purge keeps a quota that still limits",
        ),
    ];
    for (fault, case) in faults {
        let violated = violated(Some(fault), whole);
        assert!(violated.contains(&case), "{fault:?} got through {case:?}");
    }
}

/// Reads, waits until every operation of the step has read, writes back what it touched: no operation is one atomic step.
fn torn(store: &Mutex<Plain>, operation: &Operation, together: &Barrier) -> Outcome {
    let mut read = store.lock().unwrap().clone();
    together.wait();
    let outcome = read.run(operation);
    let mut store = store.lock().unwrap();
    match operation {
        Operation::Insert(session) | Operation::Change(session, _) => {
            let row = read.sessions.remove(session.key());
            store.sessions.extend(row.map(|row| (*session.key(), row)));
        }
        Operation::SavePace(key, _) => {
            let row = read.sessions.remove(key);
            store.sessions.extend(row.map(|row| (*key, row)));
        }
        Operation::ChangeQuota(change) => {
            let quota = read.quotas.remove(change.key());
            store
                .quotas
                .extend(quota.map(|quota| (*change.key(), quota)));
        }
        Operation::Purge(_) => *store = read,
        Operation::Load(_) | Operation::LoadByUserKey(_) | Operation::LoadQuota(_) => {}
    }
    outcome
}

#[test]
fn a_store_whose_operations_are_not_atomic_loses_every_race() {
    let races = [
        "of inserts of one user code at once exactly one wins",
        "of claims by two users at once exactly one wins",
        "of an approval and a denial at once exactly one wins",
        "of redemptions at once exactly one wins",
        "of a redemption and a withdrawal at once exactly one wins",
        "of guesses paid at once from one reading exactly one wins",
    ];
    for _ in 0..ROUNDS {
        let mut violated = violated(None, torn);
        // Whether a torn pace takes the decision back depends on who writes last.
        violated.retain(|case| *case != "paces saved at once with a decision take nothing from it");
        assert_eq!(violated, races);
    }
}

#[test]
fn a_pace_saved_by_writing_the_whole_record_back_violates_the_contract() {
    // The order that a torn store comes to by chance: the pace is read before the decision and written after it.
    let last = |store: &Mutex<Plain>, operation: &Operation, together: &Barrier| {
        let is_pace = matches!(operation, Operation::SavePace(..));
        let read = store.lock().unwrap().clone();
        together.wait();
        if !is_pace {
            let outcome = store.lock().unwrap().run(operation);
            together.wait();
            return outcome;
        }
        together.wait();
        let Operation::SavePace(key, pace) = operation else {
            unreachable!("it is a pace");
        };
        if let Some(mut row) = read.sessions.get(key).cloned() {
            row.stored.pace = Some(*pace);
            store.lock().unwrap().sessions.insert(*key, row);
        }
        Outcome::Done
    };
    assert_eq!(
        violated(None, last),
        ["paces saved at once with a decision take nothing from it"]
    );
}
