//! The steps of a task: each is one operation on the store, with the real function that decided on it.

use core::cell::RefCell;

use device_flow::server::{Cause, Status, Written};

use crate::model::real::{
    self, Answer, Client, Decision, Memo, Moment, PaceForm, PollStep, Row, User, Write,
};
use crate::model::world::{
    CLAIMANT, Commit, Covered, Did, EXPIRED, FINAL, FOREIGN, Fault, INTERVAL, Job, Machine,
    ONE_EFFECT, ONE_SUCCESS, PENDING_WRITES, POLL_CHANGES, PURGE, Phase, Seen, Step, TOO_LATE,
    Task, Verdict, World,
};

/// How often a host tries a decision or a claim whose write was lost. The core counts for polls and guesses.
const ATTEMPTS: u8 = 3;

/// The interval that the default policy advertises, and the one it stops at.
const INTERVALS: core::ops::RangeInclusive<u32> = 5..=60;

const COMMITS: [Commit; 4] = [
    Commit::Heard,
    Commit::Unheard,
    Commit::Dropped,
    Commit::Crashed,
];

/// The steps that one task of a world can take.
pub(super) struct Run<'a> {
    machine: &'a Machine,
    world: &'a World,
    place: usize,
    task: Task,
    steps: &'a mut Vec<(Step, Box<World>)>,
    rests: bool,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        machine: &'a Machine,
        world: &'a World,
        place: usize,
        steps: &'a mut Vec<(Step, Box<World>)>,
    ) -> Self {
        Self {
            machine,
            world,
            place,
            task: world.tasks[place],
            steps,
            rests: false,
        }
    }

    pub(super) fn steps(&mut self) {
        match self.task.phase {
            Phase::Idle if self.task.runs == 0 => {}
            Phase::Idle => {
                let runs = self.task.runs - 1;
                self.task.runs = runs;
                match self.task.job {
                    Job::Purge => self.purge(),
                    Job::Decide(user) => {
                        for decision in &self.machine.decisions {
                            self.load_to_decide(user, *decision, 0);
                        }
                    }
                    Job::Poll(client) => self.load_to_poll(client, 0),
                    Job::Enter(user) => self.load_to_enter(user, 0),
                }
            }
            Phase::Loading(losses, decision) => {
                self.rest(Did::Crashed);
                match (self.task.job, decision) {
                    (Job::Poll(client), _) => self.load_to_poll(client, losses),
                    (Job::Enter(user), _) => self.load_to_enter(user, losses),
                    (Job::Decide(user), Some(decision)) => {
                        self.load_to_decide(user, decision, losses);
                    }
                    (Job::Decide(_), None) | (Job::Purge, _) => unreachable!("not such a task"),
                }
            }
            Phase::Polling(losses, row, pace, now) => {
                self.rest(Did::Crashed);
                self.write_poll(losses, row, pace, now);
            }
            Phase::Claiming(losses, row, now) => {
                self.rest(Did::Crashed);
                self.write_claim(losses, row, now);
            }
            Phase::Deciding(losses, decision, row, now) => {
                self.rest(Did::Crashed);
                self.write_decision(losses, decision, row, now);
            }
        }
    }

    /// Adds a step: the task goes on in `phase`, the world is changed by `change`.
    fn step(&mut self, did: Did, phase: Phase, change: impl FnOnce(&mut World)) {
        let mut next = self.world.clone();
        next.tasks[self.place] = Task { phase, ..self.task };
        next.tasks.sort_unstable();
        change(&mut next);
        self.steps.push((Step(self.task.job, did), Box::new(next)));
    }

    /// Adds the step by which the task is done and nothing else has changed, if it was not added before: whether it answered
    /// or crashed, the store and the other tasks cannot tell.
    fn rest(&mut self, did: Did) {
        if !self.rests {
            self.rests = true;
            self.step(did, Phase::Idle, |_| {});
        }
    }

    fn cover(&self, what: Covered) {
        thread_local! {
            static COVERED: Memo<Covered, ()> = RefCell::default();
        }
        if COVERED.with_borrow_mut(|covered| covered.insert(what, ()).is_none()) {
            self.machine.covered.lock().unwrap().insert(what);
        }
    }

    /// Adds a step that has read, and goes on or rests.
    fn read(&mut self, did: Did, phase: Phase, seen: Seen) {
        if phase == Phase::Idle && seen == self.world.seen {
            self.rest(did);
        } else {
            self.step(did, phase, |next| next.seen = seen);
        }
    }

    /// What a read may return: the row as it is, or as it was.
    fn reads(&self) -> Vec<Option<Row>> {
        let past = self.world.past.iter().copied().map(Some);
        let past = past.filter(|row| *row != self.world.row);
        core::iter::once(self.world.row).chain(past).collect()
    }

    /// The clock reading that the host decides at.
    fn clock(&self, now: Moment) -> Moment {
        match self.machine.fault {
            Some(Fault::ExpiryIgnored) => self.machine.moments[0],
            _ => now,
        }
    }

    // Polls.

    fn load_to_poll(&mut self, client: Client, losses: u8) {
        let mut paces = vec![None];
        if self.machine.keeps_paces {
            paces.extend(self.world.pace.map(Some));
        }
        for row in self.reads() {
            for &pace in paces.iter().filter(|pace| row.is_some() || pace.is_none()) {
                for &now in &self.machine.moments {
                    self.decide_poll(client, losses, row, pace, now);
                }
            }
        }
    }

    fn decide_poll(
        &mut self,
        client: Client,
        losses: u8,
        row: Option<Row>,
        pace: Option<PaceForm>,
        now: Moment,
    ) {
        let asks_as = match self.machine.fault {
            Some(Fault::HostSkipsTheClient) => Client::Own,
            _ => client,
        };
        let poll = real::poll((asks_as, losses, row, pace, self.clock(now)));
        let did = Did::Read(row, pace, now);
        let writes = !matches!(poll, PollStep::Reply(_));
        let answer = match poll {
            PollStep::Reply(answer) | PollStep::Paced(_, answer) => Some(answer),
            PollStep::Redeem(_) => None,
        };
        let mut seen = self.world.seen;
        if client == Client::Foreign {
            let PollStep::Reply(unknown) = real::poll((client, 0, None, None, now)) else {
                unreachable!("there is nothing to write for no session");
            };
            let bytes = answer.map(|answer| answer.bytes);
            seen.must(FOREIGN, !writes && bytes == Some(unknown.bytes));
        }
        let phase = match (poll, row) {
            (PollStep::Reply(_), _) | (_, None) => Phase::Idle,
            (PollStep::Paced(..) | PollStep::Redeem(_), Some(row)) => {
                Phase::Polling(losses, row, pace, now)
            }
        };
        if let Some(row) = row {
            // C18: the third time the poll gives up, whatever is stored, and it says nothing about that.
            let gives_up = answer.is_some_and(|answer| answer.cause == Cause::LostRace);
            if !(gives_up && losses == ATTEMPTS) {
                judge(&mut seen, client, row, pace, now, &poll);
            }
        }
        if let PollStep::Reply(answer) = poll {
            self.cover(Covered::Poll(answer.cause));
            // C18: a lost race is no replay, on which the host would revoke the winner's tokens.
            seen.must(ONE_SUCCESS, !(answer.cause == Cause::Replay && losses > 0));
        }
        self.read(did, phase, seen);
    }

    fn write_poll(&mut self, losses: u8, row: Row, pace: Option<PaceForm>, now: Moment) {
        let Job::Poll(client) = self.task.job else {
            unreachable!("it polls");
        };
        let client = match self.machine.fault {
            Some(Fault::HostSkipsTheClient) => Client::Own,
            _ => client,
        };
        match real::poll((client, losses, Some(row), pace, self.clock(now))) {
            PollStep::Reply(_) => unreachable!("it has something to write"),
            PollStep::Paced(save, answer) => {
                self.cover(Covered::Poll(answer.cause));
                self.save_pace(row, pace, save);
            }
            PollStep::Redeem(step) => {
                for answer in [step.host_check, step.minting_failed] {
                    self.cover(Covered::Poll(answer.cause));
                    self.rest(Did::Refused);
                }
                self.settle_poll(losses, now, Verdict::Redeem, step.redeem, step.granted);
                self.settle_poll(losses, now, Verdict::Revoke, step.revoke, step.consent_gone);
                self.cover(Covered::Poll(step.unknown.cause));
            }
        }
    }

    fn save_pace(&mut self, read: Row, pace: Option<PaceForm>, save: PaceForm) {
        if !self.machine.keeps_paces {
            return self.rest(Did::LostPace);
        }
        self.step(Did::LostPace, Phase::Idle, |next| {
            next.seen.pace_lost = true;
        });
        let before = self.world.row;
        let row = match (self.machine.fault, before) {
            (Some(Fault::PaceCarriesTheSession), Some(_)) | (Some(Fault::PaceRevives), None) => {
                Some(read)
            }
            (Some(Fault::PaceBumpsTheVersion), Some(row)) => Some(row.bumped()),
            (_, row) => row,
        };
        self.step(Did::SavedPace, Phase::Idle, |next| {
            next.store(row);
            let seen = &mut next.seen;
            seen.must(PURGE, before.is_some() || row.is_none());
            if let (Some(before), Some(row)) = (before, row) {
                seen.must(POLL_CHANGES, before.content() == row.content());
            }
            if row.is_none() {
                return;
            }
            // Invariant 4 asks that none is lost, and what was made without the stored one loses it.
            seen.pace_lost |= next.pace != pace;
            let least = next.pace.map_or(*INTERVALS.start(), |pace| pace.interval);
            seen.must(INTERVAL, seen.pace_lost || save.interval >= least);
            let is_later = seen.pace_lost || next.pace.is_some();
            seen.must(INTERVAL, is_later || save.interval == *INTERVALS.start());
            seen.must(INTERVAL, INTERVALS.contains(&save.interval));
            next.pace = Some(save);
        });
    }

    fn settle_poll(
        &mut self,
        losses: u8,
        now: Moment,
        verdict: Verdict,
        write: Write,
        won: Answer,
    ) {
        let Job::Poll(client) = self.task.job else {
            unreachable!("it polls");
        };
        for commit in COMMITS {
            let (stored, written) = self.commit(write, commit);
            let phase = match written {
                Written::Lost => Phase::Loading(losses + 1, None),
                Written::Won | Written::Unknown => Phase::Idle,
            };
            let is_sent = match (written, commit) {
                (_, Commit::Crashed) | (Written::Lost, _) => false,
                (Written::Won, _) => true,
                (Written::Unknown, _) => self.machine.fault == Some(Fault::UnknownIsWon),
            };
            let phase = if commit == Commit::Crashed {
                Phase::Idle
            } else {
                phase
            };
            if is_sent {
                self.cover(Covered::Poll(won.cause));
            }
            let before = self.world.row;
            self.step(Did::Wrote(verdict, commit), phase, |next| {
                next.change(write, stored, written);
                let seen = &mut next.seen;
                if let (Some(before), Some(after)) = (before, stored) {
                    let scope = before.scope() == after.scope();
                    let claimant = before.claimant() == after.claimant();
                    let decision = before.status() == Status::Approved;
                    seen.must(POLL_CHANGES, scope && claimant && decision);
                    seen.must(FOREIGN, client == Client::Own);
                }
                if is_sent && won.cause == Cause::Granted {
                    seen.successes = seen.successes.saturating_add(1);
                    seen.must(ONE_SUCCESS, seen.successes == 1);
                    seen.must(ONE_EFFECT, !seen.denied && !seen.withdrawn);
                    seen.must(TOO_LATE, now < write.read().ends());
                    seen.must(CLAIMANT, write.read().claimant() == seen.claimant);
                }
            });
        }
    }

    // Users.

    fn load_to_enter(&mut self, user: User, losses: u8) {
        for row in self.reads() {
            for &now in &self.machine.moments {
                let entered = real::enter(user, row, self.clock(now));
                if let Err(wrong) = entered {
                    self.cover(Covered::Enter(wrong));
                }
                let phase = match (entered, row) {
                    (Ok(Some(_)), Some(row)) => Phase::Claiming(losses, row, now),
                    (Ok(_) | Err(_), _) => Phase::Idle,
                };
                let late = row.is_some_and(|row| now >= row.ends());
                let mut seen = self.world.seen;
                seen.must(TOO_LATE, !(late && phase != Phase::Idle));
                self.read(Did::Read(row, None, now), phase, seen);
            }
        }
    }

    fn write_claim(&mut self, losses: u8, row: Row, now: Moment) {
        let Job::Enter(user) = self.task.job else {
            unreachable!("it enters");
        };
        let entered = real::enter(user, Some(row), self.clock(now));
        let write = entered.unwrap().expect("there is a claim to write");
        for commit in COMMITS {
            let (stored, written) = self.commit(write, commit);
            let again = losses + 1 < ATTEMPTS && commit != Commit::Crashed;
            let phase = match written {
                Written::Lost | Written::Unknown if again => Phase::Loading(losses + 1, None),
                Written::Lost | Written::Unknown | Written::Won => Phase::Idle,
            };
            self.step(Did::Wrote(Verdict::Decide, commit), phase, |next| {
                next.change(write, stored, written);
                if stored.is_some() {
                    next.seen.claimant = Some(user);
                }
            });
        }
    }

    fn load_to_decide(&mut self, user: User, decision: Decision, losses: u8) {
        for row in self.reads() {
            for &now in &self.machine.moments {
                let made = row.map(|row| {
                    let named = self.named(user, row);
                    real::decision(named, decision, row, self.clock(now))
                });
                if let Some(Err(error)) = made {
                    self.cover(Covered::Decide(error));
                }
                let phase = match (made, row) {
                    (Some(Ok(Some(_))), Some(row)) => Phase::Deciding(losses, decision, row, now),
                    (Some(Ok(None) | Err(_)) | None, _) | (_, None) => Phase::Idle,
                };
                let is_timed = match decision {
                    Decision::Approve | Decision::ApproveLess | Decision::Deny => true,
                    Decision::Withdraw | Decision::Release => false,
                };
                let late = row.is_some_and(|row| now >= row.ends());
                let mut seen = self.world.seen;
                seen.must(TOO_LATE, !(late && is_timed && phase != Phase::Idle));
                self.read(Did::ReadFor(decision, row, now), phase, seen);
            }
        }
    }

    /// Whom the host names as the user who decides.
    fn named(&self, user: User, row: Row) -> User {
        match self.machine.fault {
            Some(Fault::NamesTheClaimant) => row.claimant().unwrap_or(user),
            _ => user,
        }
    }

    fn write_decision(&mut self, losses: u8, decision: Decision, row: Row, now: Moment) {
        let Job::Decide(user) = self.task.job else {
            unreachable!("it decides");
        };
        let made = real::decision(self.named(user, row), decision, row, self.clock(now));
        let write = made.unwrap().expect("there is a decision to write");
        for commit in COMMITS {
            let (stored, written) = self.commit(write, commit);
            let again = losses + 1 < ATTEMPTS && commit != Commit::Crashed;
            let phase = match written {
                Written::Lost if again => Phase::Loading(losses + 1, Some(decision)),
                Written::Lost | Written::Won | Written::Unknown => Phase::Idle,
            };
            let is_told = written == Written::Won && commit == Commit::Heard;
            self.step(Did::Wrote(Verdict::Decide, commit), phase, |next| {
                next.change(write, stored, written);
                let seen = &mut next.seen;
                if let Some(after) = stored {
                    let is_subject = after.claimant().is_none_or(|claimant| claimant == user);
                    seen.must(CLAIMANT, seen.claimant == Some(user) && is_subject);
                    match decision {
                        Decision::Release => seen.claimant = None,
                        Decision::Approve
                        | Decision::ApproveLess
                        | Decision::Deny
                        | Decision::Withdraw => {}
                    }
                }
                if is_told {
                    seen.denied |= decision == Decision::Deny;
                    seen.withdrawn |= decision == Decision::Withdraw;
                    let taken_back = seen.denied || seen.withdrawn;
                    seen.must(ONE_EFFECT, !(taken_back && seen.successes > 0));
                }
            });
        }
    }

    // The store.

    /// What a guarded write leaves, if it is stored, and what is heard of it.
    fn commit(&self, write: Write, commit: Commit) -> (Option<Row>, Written) {
        let allowed = match (self.machine.fault, self.world.row) {
            (_, None) => None,
            (Some(Fault::NoGuard), Some(_)) => Some(write.unguarded()),
            (_, Some(row)) => write.guarded(row),
        };
        let heard = allowed.map_or(Written::Lost, |_| Written::Won);
        match commit {
            Commit::Heard | Commit::Crashed => (allowed, heard),
            Commit::Unheard => (allowed, Written::Unknown),
            Commit::Dropped => (None, Written::Unknown),
        }
    }

    fn purge(&mut self) {
        let Some(row) = self.world.row else {
            return;
        };
        let early = self.machine.fault == Some(Fault::PurgesEarly);
        for &now in &self.machine.moments {
            if now >= row.purge_at() || early {
                self.step(Did::Purged(now), Phase::Idle, |next| {
                    next.seen.must(PURGE, now >= row.purge_at());
                    next.row = None;
                    next.pace = None;
                });
            }
        }
    }
}

/// Holds the answer to a poll against the invariants, by the row and the clock it was decided on.
fn judge(
    seen: &mut Seen,
    client: Client,
    row: Row,
    pace: Option<PaceForm>,
    now: Moment,
    poll: &PollStep,
) {
    let answer = match poll {
        PollStep::Reply(answer) | PollStep::Paced(_, answer) => Some(answer),
        PollStep::Redeem(_) => None,
    };
    let error = answer.and_then(|answer| answer.error);
    let waits = matches!(error, Some("authorization_pending" | "slow_down"));
    let late = now >= row.ends();
    let writes = !matches!(poll, PollStep::Reply(_));
    match row.status() {
        Status::Pending | Status::Claimed => {
            seen.must(EXPIRED, !(waits && late));
            seen.must(PENDING_WRITES, !matches!(poll, PollStep::Redeem(_)));
            let rejected = error == Some("slow_down");
            let before = pace.is_some_and(|pace| pace.widened);
            seen.must(PENDING_WRITES, !(rejected && before && writes));
        }
        Status::Approved => {
            seen.must(EXPIRED, !waits);
            seen.must(TOO_LATE, !(late && matches!(poll, PollStep::Redeem(_))));
        }
        Status::Denied => {
            let expected = match client {
                Client::Own => "access_denied",
                Client::Foreign => "invalid_grant",
            };
            seen.must(FINAL, error == Some(expected) && !writes);
        }
        Status::Redeemed | Status::Revoked => {
            seen.must(FINAL, error == Some("invalid_grant") && !writes);
        }
    }
}
