//! The steps of a task: each is one operation on the store, with the real exchange that asked for it.

use core::cell::RefCell;

use device_flow::server::{Cause, Status};

use crate::real::{
    self, Asked, Choice, Client, Decision, End, Flight, GRACE, Lost, Memo, PaceForm, Request, Row,
    Setup, Write, Writing,
};
use crate::world::{
    AFTER_THE_END, CLAIMANT, Commit, Covered, Did, EXPIRED, FINAL, FOREIGN, Fault, INTERVAL, Job,
    Machine, ONE_EFFECT, ONE_SUCCESS, PENDING_WRITES, POLL_CHANGES, PURGE, Phase, REFUSED, REVOKED,
    SENT_AGAIN, Seen, Step, THEFT, TOO_LATE, Task, Who, World,
};

/// From the first interval of the default policy to its cap, in seconds.
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
                self.task.runs -= 1;
                if self.task.job == Job::Purge {
                    return self.purge();
                }
                for request in self.requests() {
                    for &now in &self.machine.moments {
                        self.load(Flight::new(self.machine.setup(), request, now));
                    }
                }
            }
            Phase::Loading(flight) => {
                self.rest(Did::Crashed);
                self.load(flight);
            }
            Phase::Writing(flight, row, pace) => {
                self.rest(Did::Crashed);
                match real::ask(self.as_handled(flight, Some(row)), Some(row), pace) {
                    Asked::Done(_) => unreachable!("it has something to write"),
                    Asked::Pace(save, end) => self.save_pace(flight, row, pace, save, end),
                    Asked::Write(writing) => self.write(flight, writing),
                }
            }
        }
    }

    /// Returns the requests with which a task may start.
    fn requests(&self) -> Vec<Request> {
        let mut seen = self.world.seen;
        match self.task.job {
            Job::Poll(client) => vec![Request::Poll(client)],
            Job::Enter(user) => vec![Request::Enter(user)],
            Job::Refresh(who) => {
                let party = *seen.party(who);
                let held = party.held.filter(|_| !party.is_over);
                held.map(Request::Refresh).into_iter().collect()
            }
            Job::Revoke(who) => {
                let held = seen.party(who).held;
                held.map(Request::Revoke).into_iter().collect()
            }
            Job::Decide(user) => {
                let decisions = self.machine.decisions.iter();
                decisions
                    .map(|decision| Request::Decide(user, *decision))
                    .collect()
            }
            Job::Purge => Vec::new(),
        }
    }

    /// Returns the exchange that the host runs. It differs from `flight` only if the machine has a fault.
    fn as_handled(&self, flight: Flight, row: Option<Row>) -> Flight {
        let request = match (self.machine.fault, flight.request) {
            (Some(Fault::HostSkipsTheClient), Request::Poll(_)) => Request::Poll(Client::Own),
            (Some(Fault::NamesTheClaimant), Request::Decide(user, decision)) => {
                let claimant = row.and_then(Row::claimant);
                Request::Decide(claimant.unwrap_or(user), decision)
            }
            (_, request) => request,
        };
        Flight {
            request,
            now: self.machine.clock(flight.now),
            ..flight
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

    /// Adds the step that ends the task and changes nothing else, unless it was added before. One such step is enough, because the store
    /// and the other tasks cannot tell whether the task answered or crashed.
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

    /// Notes that an exchange ended.
    fn cover_end(&self, end: End) {
        match (end, self.task.job) {
            (End::Reply(answer), _) => self.cover(Covered::Answer(answer.cause)),
            (End::Page(Err(error)), Job::Enter(_)) => self.cover(Covered::Enter(error)),
            (End::Page(Err(error)), _) => self.cover(Covered::Decide(error)),
            (End::Page(Ok(())), _) => {}
        }
    }

    /// Returns what a read may return: the row as it is, or as it was at an earlier time.
    fn reads(&self) -> Vec<Option<Row>> {
        let past = self.world.past.iter().copied().map(Some);
        let past = past.filter(|row| *row != self.world.row);
        core::iter::once(self.world.row).chain(past).collect()
    }

    // Reading.

    fn load(&mut self, flight: Flight) {
        let mut paces = vec![None];
        if self.machine.keeps_paces && matches!(flight.request, Request::Poll(_)) {
            paces.extend(self.world.pace.map(Some));
        }
        for row in self.reads() {
            for &pace in paces.iter().filter(|pace| row.is_some() || pace.is_none()) {
                self.loaded(flight, row, pace);
            }
        }
    }

    fn loaded(&mut self, flight: Flight, row: Option<Row>, pace: Option<PaceForm>) {
        let secret = flight.secret.unwrap_or_else(|| self.world.free_secret());
        let drawing = Flight {
            secret: Some(secret),
            ..flight
        };
        let asked = real::ask(self.as_handled(drawing, row), row, pace);
        let mut seen = self.world.seen;
        if let Job::Refresh(who) = self.task.job {
            let since = &mut seen.party(who).since;
            *since = Some(since.map_or(flight.now, |since| since.min(flight.now)));
        }
        judge(&mut seen, flight, row, pace, &asked);
        let phase = match (&asked, row) {
            (Asked::Done(_), _) | (_, None) => Phase::Idle,
            (Asked::Pace(..), Some(row)) => Phase::Writing(flight, row, pace),
            // It has drawn a secret only if it mints, or if the host refreshes for a token that was used before.
            (Asked::Write(writing), Some(row)) => {
                let draws = writing.mints || self.machine.fault == Some(Fault::ReuseIsRefreshed);
                Phase::Writing(if draws { drawing } else { flight }, row, pace)
            }
        };
        let did = Did::Read(flight.request, row, pace, flight.now);
        let end = match asked {
            Asked::Done(end) => Some(end),
            Asked::Pace(..) | Asked::Write(_) => None,
        };
        if let Some(end) = end {
            self.cover_end(end);
            self.answer(&mut seen, self.world, end);
        }
        if phase == Phase::Idle && seen == self.world.seen {
            self.rest(did);
        } else {
            self.step(did, phase, |next| next.seen = seen);
        }
    }

    /// Notes what an observer learns from an answer, in the world after it.
    fn answer(&self, seen: &mut Seen, after: &World, end: End) {
        let (End::Reply(answer), is_over) = (end, after.is_over()) else {
            return;
        };
        match self.task.job {
            Job::Refresh(who) if answer.error == Some("invalid_grant") => {
                seen.party(who).is_over = true;
                seen.must(REFUSED, is_over);
            }
            Job::Revoke(_) if answer.error.is_none() => seen.must(REVOKED, is_over),
            Job::Refresh(_)
            | Job::Revoke(_)
            | Job::Poll(_)
            | Job::Enter(_)
            | Job::Decide(_)
            | Job::Purge => {}
        }
    }

    // Writing.

    fn save_pace(
        &mut self,
        flight: Flight,
        read: Row,
        pace: Option<PaceForm>,
        save: PaceForm,
        end: End,
    ) {
        assert!(matches!(flight.request, Request::Poll(_)));
        self.cover_end(end);
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
            // Invariant 4 holds only while no pace is lost. A pace that was made without the stored one loses the stored one.
            seen.pace_lost |= next.pace != pace;
            let least = next.pace.map_or(*INTERVALS.start(), |pace| pace.interval);
            seen.must(INTERVAL, seen.pace_lost || save.interval >= least);
            let is_later = seen.pace_lost || next.pace.is_some();
            seen.must(INTERVAL, is_later || save.interval == *INTERVALS.start());
            seen.must(INTERVAL, INTERVALS.contains(&save.interval));
            next.pace = Some(save);
        });
    }

    fn write(&mut self, flight: Flight, writing: &'static Writing) {
        for &end in &writing.refused {
            self.cover_end(end);
            self.rest(Did::Refused);
        }
        let choices = if self.machine.withdraws_consent {
            &writing.choices[..]
        } else {
            &writing.choices[..1]
        };
        for &choice in choices {
            for commit in COMMITS {
                self.commit(flight, choice, commit);
            }
        }
        self.cover_end(writing.unknown);
    }

    fn commit(&mut self, flight: Flight, choice: Choice, commit: Commit) {
        let write = choice.write;
        let is_reuse = choice.committed.cause() == Some(Cause::Reuse);
        let is_refreshed = is_reuse && self.machine.fault == Some(Fault::ReuseIsRefreshed);
        let allowed = match (self.machine.fault, self.world.row) {
            (_, None) => None,
            (Some(Fault::ReuseIsForgiven), Some(row)) if is_reuse => Some(row),
            (Some(Fault::ReuseIsRefreshed), Some(row)) if is_reuse => write
                .guarded(row)
                .map(|_| row.forced(flight.secret.unwrap())),
            (Some(Fault::NoGuard), Some(_)) => Some(write.unguarded()),
            (_, Some(row)) => write.guarded(row),
        };
        let is_heard = matches!(commit, Commit::Heard | Commit::Crashed);
        let stored = allowed.filter(|_| commit != Commit::Dropped);
        let is_lost = is_heard && allowed.is_none();
        let is_unknown_done = !is_heard && self.machine.fault == Some(Fault::UnknownIsDone);
        let is_sent = commit == Commit::Heard && allowed.is_some() || is_unknown_done;
        let mut end = is_sent.then_some(choice.committed);
        let mut phase = Phase::Idle;
        if is_lost && commit == Commit::Heard {
            match choice.conflict {
                // At the next try, the host could name another claimant.
                Ok(_) if self.machine.fault == Some(Fault::NamesTheClaimant) => {}
                Ok(lost) => {
                    phase = Phase::Loading(Flight {
                        losses: flight.losses + 1,
                        lost: Some(lost),
                        ..flight
                    });
                }
                Err(gives_up) => end = Some(gives_up),
            }
        }
        if let Some(end) = end {
            self.cover_end(end);
        }
        let (machine, before, job) = (self.machine, self.world.row, self.task.job);
        let mut next = self.world.clone();
        next.tasks[self.place] = Task { phase, ..self.task };
        next.tasks.sort_unstable();
        next.change(machine, write, stored, is_lost);
        let mut seen = next.seen;
        if let (Some(before), Some(after)) = (before, stored) {
            observe_write(&mut seen, job, flight, before, after);
            let since = seen.owner.since.unwrap_or(flight.now);
            let is_recent = flight.now - since < GRACE;
            let is_wrong = is_reuse && is_recent && self.machine.is_alone();
            seen.must(SENT_AGAIN, !is_wrong);
        }
        if let Some(end) = end {
            if is_sent {
                self.observe_sent(&mut seen, flight, write, end, is_refreshed);
            }
            if !is_refreshed {
                self.answer(&mut seen, &next, end);
            }
        }
        next.seen = seen;
        let did = Did::Wrote(choice.committed.cause(), commit);
        if phase == Phase::Idle && next.row == before && next.seen == self.world.seen {
            self.rest(did);
        } else {
            self.steps.push((Step(job, did), Box::new(next)));
        }
    }

    /// Notes what an observer learns from the end of an exchange whose write was committed, or was taken for committed.
    fn observe_sent(
        &self,
        seen: &mut Seen,
        flight: Flight,
        write: Write,
        end: End,
        is_refreshed: bool,
    ) {
        match (self.task.job, end) {
            (Job::Poll(_), _) if end.cause() == Some(Cause::Granted) => {
                seen.successes = seen.successes.saturating_add(1);
                seen.must(ONE_SUCCESS, seen.successes == 1);
                seen.must(ONE_EFFECT, seen.refused.is_none());
                seen.must(TOO_LATE, flight.now < write.read().ends());
                seen.must(CLAIMANT, write.read().claimant() == seen.claimant);
                seen.owner.held = flight.secret.filter(|_| flight.setup != Setup::Plain);
            }
            (Job::Refresh(who), _) if end.cause() == Some(Cause::Refreshed) || is_refreshed => {
                seen.must(AFTER_THE_END, !seen.ended);
                seen.must(THEFT, seen.loser != Some(who));
                let other = match who {
                    Who::Owner => Who::Thief,
                    Who::Thief => Who::Owner,
                };
                let is_first = !seen.party(who).has_refreshed;
                if is_first && seen.party(other).has_refreshed {
                    seen.loser = Some(other);
                }
                let party = seen.party(who);
                party.held = flight.secret;
                party.since = None;
                party.has_refreshed = true;
            }
            (Job::Decide(_), End::Page(Ok(()))) => {
                let Request::Decide(_, decision) = flight.request else {
                    unreachable!("it decides");
                };
                if let Decision::Deny | Decision::Withdraw = decision {
                    seen.refused = Some(decision);
                }
                let is_denial = decision == Decision::Deny;
                seen.must(ONE_EFFECT, !(is_denial && seen.successes > 0));
            }
            (
                Job::Poll(_)
                | Job::Refresh(_)
                | Job::Revoke(_)
                | Job::Enter(_)
                | Job::Decide(_)
                | Job::Purge,
                _,
            ) => {}
        }
    }

    // The store.

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

/// Checks a stored write against the invariants.
fn observe_write(seen: &mut Seen, job: Job, flight: Flight, before: Row, after: Row) {
    let scope = before.scope() == after.scope();
    let claimant = before.claimant() == after.claimant();
    match job {
        Job::Poll(client) => {
            let decision = matches!(before.status(), Status::Approved | Status::Active);
            seen.must(POLL_CHANGES, scope && claimant && decision);
            seen.must(FOREIGN, client == Client::Own);
        }
        Job::Refresh(_) | Job::Revoke(_) => {
            let is_active = before.status() == Status::Active;
            seen.must(POLL_CHANGES, scope && claimant && is_active);
        }
        Job::Enter(user) => seen.claimant = Some(user),
        Job::Decide(user) => {
            let is_subject = after.claimant().is_none_or(|claimant| claimant == user);
            seen.must(CLAIMANT, seen.claimant == Some(user) && is_subject);
            if let Request::Decide(_, Decision::Release) = flight.request {
                seen.claimant = None;
            }
        }
        Job::Purge => {}
    }
}

/// Checks what an exchange asks for against the invariants, by the row and the clock reading on which it was decided.
fn judge(seen: &mut Seen, flight: Flight, row: Option<Row>, pace: Option<PaceForm>, asked: &Asked) {
    let late = row.is_some_and(|row| flight.now >= row.ends());
    let writing = match asked {
        Asked::Write(writing) => Some(*writing),
        Asked::Done(_) | Asked::Pace(..) => None,
    };
    match (flight.request, row) {
        (Request::Poll(client), row) => {
            if client == Client::Foreign {
                let asks = Flight::new(flight.setup, flight.request, flight.now);
                let Asked::Done(End::Reply(unknown)) = real::ask(asks, None, None) else {
                    unreachable!("there is nothing to write for no session");
                };
                let same = match asked {
                    Asked::Done(End::Reply(answer)) => answer.bytes == unknown.bytes,
                    Asked::Done(End::Page(_)) | Asked::Pace(..) | Asked::Write(_) => false,
                };
                seen.must(FOREIGN, same);
            }
            if let Some(row) = row {
                judge_poll(seen, flight, client, row, pace, asked);
            }
        }
        (Request::Enter(_), _) => seen.must(TOO_LATE, !(late && writing.is_some())),
        (Request::Decide(_, decision), _) => {
            let is_timed = match decision {
                Decision::Approve | Decision::ApproveLess | Decision::Deny => true,
                Decision::Withdraw | Decision::Release => false,
            };
            seen.must(TOO_LATE, !(late && is_timed && writing.is_some()));
        }
        (Request::Refresh(_) | Request::Revoke(_), Some(row)) => {
            // R4, R16: a login that is not active does not change.
            let is_active = row.status() == Status::Active;
            seen.must(FINAL, is_active || writing.is_none());
        }
        (Request::Refresh(_) | Request::Revoke(_), None) => {
            seen.must(FINAL, writing.is_none());
        }
    }
}

/// Checks the answer to a poll against the invariants.
fn judge_poll(
    seen: &mut Seen,
    flight: Flight,
    client: Client,
    row: Row,
    pace: Option<PaceForm>,
    asked: &Asked,
) {
    let answer = match asked {
        Asked::Done(End::Reply(answer)) | Asked::Pace(_, End::Reply(answer)) => Some(answer),
        Asked::Done(End::Page(_)) | Asked::Pace(_, End::Page(_)) | Asked::Write(_) => None,
    };
    let write = match asked {
        Asked::Write(writing) => writing.choices[0].committed.cause(),
        Asked::Done(_) | Asked::Pace(..) => None,
    };
    let error = answer.and_then(|answer| answer.error);
    let waits = matches!(error, Some("authorization_pending" | "slow_down"));
    let late = flight.now >= row.ends();
    match row.status() {
        Status::Pending | Status::Claimed => {
            seen.must(EXPIRED, !(waits && late));
            seen.must(PENDING_WRITES, write.is_none());
            let rejected = error == Some("slow_down");
            let before = pace.is_some_and(|pace| pace.widened);
            let saves = matches!(asked, Asked::Pace(..));
            seen.must(PENDING_WRITES, !(rejected && before && saves));
        }
        Status::Approved => {
            seen.must(EXPIRED, !waits);
            seen.must(TOO_LATE, !(late && write.is_some()));
        }
        Status::Denied => {
            let expected = match client {
                Client::Own => "access_denied",
                Client::Foreign => "invalid_grant",
            };
            seen.must(FINAL, error == Some(expected));
        }
        Status::Active => {
            // C4: the poll is refused, or it ends the login as a replay. C18: a poll that lost a race is no replay.
            let replayed = write == Some(Cause::Replay);
            seen.must(FINAL, error == Some("invalid_grant") || replayed);
            let after_a_race = flight.losses > 0 && flight.lost != Some(Lost::Replay);
            seen.must(ONE_SUCCESS, !(replayed && after_a_race));
        }
        Status::Ended => seen.must(FINAL, error == Some("invalid_grant")),
    }
}
