//! The embedded store keeps the contract, and the check finds any one fault in a store.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::sync::Mutex;

use device_flow::digest::{QuotaKey, SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::server::{
    Change, Inserted, Pace, RateLimited, RateState, Session, Store, Stored, Take, Unavailable,
    Write,
};
use device_flow_testkit::{Check, Violation, check_store, check_store_on_threads};
use time::{Duration, OffsetDateTime};

/// In how many runs in a row the check must find a race in a store.
const RUNS: u32 = 20;

#[test]
fn the_embedded_store_keeps_the_contract_on_threads() {
    let store = Mutex::new(Memory::new());
    check_store_on_threads(&store, &Check::default()).unwrap();
}

#[tokio::test]
async fn the_embedded_store_keeps_the_contract_in_one_task() {
    let store = Mutex::new(Memory::new());
    check_store(&store, &Check::default().rounds(3))
        .await
        .unwrap();
}

#[test]
fn two_runs_on_one_store_do_not_meet() {
    let store = Mutex::new(Memory::new());
    for seed in ["one", "two"] {
        let check = Check::default().seed(seed).rounds(1).without_purges();
        check_store_on_threads(&store, &check).unwrap();
    }
}

/// What a store may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    KeepsNoPaces,
    InsertOverwrites,
    InsertIgnoresUserCodes,
    ChangeHasNoGuard,
    ChangeInserts,
    ChangeKeepsTheVersion,
    ChangeKeepsThePurgeTime,
    PaceBumpsTheVersion,
    PaceRevives,
    PaceOutlivesItsSession,
    PurgeIsEarly,
    PurgeIsNever,
    TakeIsNotCounted,
    QuotaIsPurgedEarly,
    /// Every operation reads under one lock and writes under another.
    Torn,
    /// Only quotas are read under one lock and written under another.
    TakeIsTorn,
    /// Only changes are read under one lock and written under another.
    ChangeIsTorn,
    /// The pace is saved by writing the whole row back.
    PaceWritesTheRowBack,
    DoesNotAnswer,
}

/// A very plain store, with at most one fault.
struct Plain {
    fault: Fault,
    rows: Mutex<Rows>,
}

#[derive(Clone, Default)]
struct Rows {
    sessions: BTreeMap<SessionKey, Row>,
    paces: BTreeMap<SessionKey, Pace>,
    quotas: BTreeMap<QuotaKey, RateState>,
}

#[derive(Clone)]
struct Row {
    session: Session,
    purge_at: OffsetDateTime,
    is_purged: bool,
}

impl Row {
    fn new(session: &Session) -> Self {
        Self {
            session: session.clone(),
            purge_at: session.purge_at(),
            is_purged: false,
        }
    }
}

impl Rows {
    fn find(&self, of: impl Fn(&Session) -> bool) -> Option<&Session> {
        let mut rows = self.sessions.values().filter(|row| !row.is_purged);
        rows.find_map(|row| of(&row.session).then_some(&row.session))
    }

    fn stored(&self, session: Option<&Session>) -> Option<Stored> {
        let session = session?.clone();
        let pace = self.paces.get(session.key()).copied();
        Some(Stored { pace, session })
    }
}

impl Plain {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            rows: Mutex::default(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn rows<T>(&self, use_them: impl FnOnce(&mut Rows) -> T) -> T {
        use_them(&mut self.rows.lock().unwrap())
    }

    /// Changes the rows. If `is_torn`, it reads them first, changes the copy, and writes it back later.
    async fn update<T>(
        &self,
        is_torn: bool,
        change: impl FnOnce(&mut Rows) -> T,
        put_back: impl FnOnce(&mut Rows, &Rows),
    ) -> T {
        if !is_torn {
            return self.rows(change);
        }
        let mut read = self.rows(|rows| rows.clone());
        pause().await;
        let answer = change(&mut read);
        self.rows(|rows| put_back(rows, &read));
        answer
    }
}

/// Lets other tasks and other threads go on.
async fn pause() {
    let mut is_over = false;
    std::future::poll_fn(|context| {
        if is_over {
            return std::task::Poll::Ready(());
        }
        is_over = true;
        std::thread::yield_now();
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

impl Store for Plain {
    async fn insert(&self, session: &Session) -> Result<Inserted, Unavailable> {
        if self.is(Fault::DoesNotAnswer) {
            return Err(Unavailable);
        }
        let (overwrites, ignores) = (
            self.is(Fault::InsertOverwrites),
            self.is(Fault::InsertIgnoresUserCodes),
        );
        let insert = |rows: &mut Rows| {
            let is_taken = rows.find(|row| row.key() == session.key()).is_some();
            if is_taken && !overwrites {
                return Inserted::DeviceCodeTaken;
            }
            let user_key = session.user_key();
            if rows.find(|row| row.user_key() == user_key).is_some() && !ignores {
                return Inserted::UserCodeTaken;
            }
            rows.sessions.insert(*session.key(), Row::new(session));
            Inserted::New
        };
        let put_back = |rows: &mut Rows, read: &Rows| put_row(rows, read, session.key());
        Ok(self.update(self.is(Fault::Torn), insert, put_back).await)
    }

    async fn load(&self, key: &SessionKey) -> Result<Option<Stored>, Unavailable> {
        Ok(self.rows(|rows| rows.stored(rows.find(|session| session.key() == key))))
    }

    async fn load_by_user_key(&self, key: &UserKey) -> Result<Option<Stored>, Unavailable> {
        let is_it = |session: &Session| session.user_key() == Some(key);
        Ok(self.rows(|rows| rows.stored(rows.find(is_it))))
    }

    async fn change(&self, change: Change<'_>) -> Result<Write, Unavailable> {
        let (unguarded, inserts) = (
            self.is(Fault::ChangeHasNoGuard),
            self.is(Fault::ChangeInserts),
        );
        let (keeps_version, keeps_time) = (
            self.is(Fault::ChangeKeepsTheVersion),
            self.is(Fault::ChangeKeepsThePurgeTime),
        );
        let write = |rows: &mut Rows| {
            let row = rows
                .sessions
                .get_mut(change.key())
                .filter(|row| !row.is_purged);
            let Some(row) = row else {
                if inserts {
                    rows.sessions
                        .insert(*change.key(), Row::new(change.session()));
                    return Write::Committed;
                }
                return Write::Conflict;
            };
            if row.session.version() != change.expected_version() && !unguarded {
                return Write::Conflict;
            }
            let purge_at = row.purge_at;
            *row = Row::new(change.session());
            if keeps_version {
                row.session = with_version(&row.session, change.expected_version());
            }
            if keeps_time {
                row.purge_at = purge_at;
            }
            Write::Committed
        };
        let is_torn = self.is(Fault::Torn) || self.is(Fault::ChangeIsTorn);
        let put_back = |rows: &mut Rows, read: &Rows| put_row(rows, read, change.key());
        Ok(self.update(is_torn, write, put_back).await)
    }

    async fn save_pace(&self, key: &SessionKey, pace: Pace) {
        if self.is(Fault::KeepsNoPaces) {
            return;
        }
        let fault = self.fault;
        let save = |rows: &mut Rows| {
            let Some(row) = rows.sessions.get_mut(key) else {
                return;
            };
            if row.is_purged && fault != Fault::PaceRevives {
                return;
            }
            row.is_purged = false;
            if fault == Fault::PaceBumpsTheVersion {
                row.session = with_version(&row.session, row.session.version() + 1);
            }
            rows.paces.insert(*key, pace);
        };
        let put_back = |rows: &mut Rows, read: &Rows| {
            put_row(rows, read, key);
            rows.paces
                .extend(read.paces.get(key).map(|pace| (*key, *pace)));
        };
        self.update(self.is(Fault::PaceWritesTheRowBack), save, put_back)
            .await;
    }

    async fn take(&self, take: Take) -> Result<Result<(), RateLimited>, Unavailable> {
        let counts = !self.is(Fault::TakeIsNotCounted);
        let apply = |rows: &mut Rows| {
            let next = take.apply(rows.quotas.get(take.key()).copied())?;
            if let Some(next) = next.filter(|_| counts) {
                rows.quotas.insert(*take.key(), next);
            }
            Ok(())
        };
        let is_torn = self.is(Fault::Torn) || self.is(Fault::TakeIsTorn);
        let put_back = |rows: &mut Rows, read: &Rows| {
            let quota = read.quotas.get(take.key());
            rows.quotas.extend(quota.map(|quota| (*take.key(), *quota)));
        };
        Ok(self.update(is_torn, apply, put_back).await)
    }

    async fn purge(&self, now: OffsetDateTime) -> Result<usize, Unavailable> {
        let (mut sessions, mut quotas) = (now, now);
        match self.fault {
            Fault::PurgeIsNever => return Ok(0),
            Fault::PurgeIsEarly => sessions += Duration::MINUTE,
            Fault::QuotaIsPurgedEarly => quotas += Duration::days(1),
            _ => {}
        }
        let keeps_paces = self.is(Fault::PaceOutlivesItsSession);
        Ok(self.rows(|rows| {
            for (key, row) in &mut rows.sessions {
                if row.purge_at <= sessions && !row.is_purged {
                    row.is_purged = true;
                    if !keeps_paces {
                        rows.paces.remove(key);
                    }
                }
            }
            rows.quotas.retain(|_, state| state.purge_at() > quotas);
            0
        }))
    }
}

fn put_row(rows: &mut Rows, read: &Rows, key: &SessionKey) {
    let row = read.sessions.get(key).cloned();
    rows.sessions.extend(row.map(|row| (*key, row)));
}

fn with_version(session: &Session, version: u64) -> Session {
    let mut form = serde_json::to_value(session).unwrap();
    form["version"] = version.into();
    serde_json::from_value(form).unwrap()
}

fn on_threads(fault: Fault) -> Result<(), Violation> {
    check_store_on_threads(&Plain::new(fault), &Check::default())
}

#[test]
fn a_plain_store_keeps_the_contract_with_paces_and_without() {
    for fault in [Fault::None, Fault::KeepsNoPaces] {
        let check = Check::default().rounds(20);
        check_store_on_threads(&Plain::new(fault), &check).unwrap();
    }
}

#[test]
fn a_store_with_any_one_fault_is_found_out() {
    let faults = [
        Fault::InsertOverwrites,
        Fault::InsertIgnoresUserCodes,
        Fault::ChangeHasNoGuard,
        Fault::ChangeInserts,
        Fault::ChangeKeepsTheVersion,
        Fault::ChangeKeepsThePurgeTime,
        Fault::PaceBumpsTheVersion,
        Fault::PaceRevives,
        Fault::PaceOutlivesItsSession,
        Fault::PurgeIsEarly,
        Fault::PurgeIsNever,
        Fault::TakeIsNotCounted,
        Fault::QuotaIsPurgedEarly,
        Fault::DoesNotAnswer,
    ];
    for fault in faults {
        let violation = on_threads(fault).expect_err(&format!("{fault:?} got through"));
        println!("{fault:?}: {}", violation.case);
    }
}

#[test]
fn a_store_that_reads_and_writes_apart_is_found_out_in_every_run_on_threads() {
    for fault in [
        Fault::Torn,
        Fault::TakeIsTorn,
        Fault::ChangeIsTorn,
        Fault::PaceWritesTheRowBack,
    ] {
        for run in 0..RUNS {
            assert!(
                on_threads(fault).is_err(),
                "{fault:?} got through run {run}"
            );
        }
    }
}

#[tokio::test]
async fn a_store_that_reads_and_writes_apart_is_found_out_in_every_run_in_one_task() {
    for fault in [
        Fault::Torn,
        Fault::TakeIsTorn,
        Fault::ChangeIsTorn,
        Fault::PaceWritesTheRowBack,
    ] {
        for run in 0..RUNS {
            let found = check_store(&Plain::new(fault), &Check::default()).await;
            assert!(found.is_err(), "{fault:?} got through run {run}");
        }
    }
}
