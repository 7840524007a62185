//! The oracle: a model of one login, written from the tables of the server half and not from the code.
//!
//! It knows nothing of the crate under test. Moments are milliseconds after issuance, states are plain data, and each answer
//! names its row. Interval and cap are chosen so that both halves of the tolerance matter, and so that no number of steps
//! ends at the cap: 2 s, 7 s, 11 s. All else is the default policy: step 5 s, lifetime 300 s, retention 300 s,
//! retry window 10 s, five guesses at once and one a minute.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use core::fmt;

pub(crate) const INTERVAL: i64 = 2000;
const STEP: i64 = 5000;
pub(crate) const CAP: i64 = 11_000;
pub(crate) const LIFETIME: i64 = 300_000;
const RETENTION: i64 = 300_000;
const RETRY_WINDOW: i64 = 10_000;
const GUESSES: i64 = 5;
const GUESS_PERIOD: i64 = 60_000;
const ATTEMPTS: u8 = 3;

/// What the device asked for.
pub(crate) const ASKED: &str = "openid profile";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Alice,
    Bob,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Own,
    Foreign,
}

/// What the host says of a redemption before it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Mints,
    CheckFails,
    ConsentGone,
    MintingFails,
}

/// Whether the host hears what became of its guarded write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Heard,
    UnheardButDone,
    UnheardAndNotDone,
}

/// Which of the reads of an operation are of an older copy, and how many operations older.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) reads: u8,
    pub(crate) age: u8,
}

impl fmt::Debug for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reads {
            0 => f.write_str("fresh"),
            reads => write!(f, "{reads} reads stale by {}", self.age),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Polling {
    pub(crate) by: Client,
    pub(crate) verdict: Verdict,
    pub(crate) commit: Commit,
    pub(crate) stale: Stale,
    pub(crate) saves_pace: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Right,
    Wrong,
    Malformed,
}

/// What a poll is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) row: &'static str,
    pub(crate) status: u16,
    /// The error code; none for a success.
    pub(crate) error: Option<String>,
    /// The member `interval`, in seconds.
    pub(crate) interval: Option<i64>,
    /// The header `Retry-After`, in seconds; 0 where any will do.
    pub(crate) retry_after: Option<i64>,
    /// The time since redemption, where the cause carries it.
    pub(crate) since: Option<i64>,
    /// The scope of a success.
    pub(crate) scope: Option<String>,
}

/// What the page is told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// U1, with the time to try again where the quota says it.
    Refused(Option<i64>),
    WrongCode(&'static str),
    Review,
    Done,
    StandsAlready,
    Error(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) subject: User,
    pub(crate) scope: &'static str,
    pub(crate) approved_at: i64,
    pub(crate) redeemable_until: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Claimed(User),
    Approved(Grant),
    Denied(User),
    Redeemed(Grant, i64),
    Revoked(Grant),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) state: State,
    pub(crate) version: u64,
    pub(crate) purge_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) last: i64,
    pub(crate) interval: i64,
    pub(crate) widened: bool,
}

impl Pace {
    /// The first moment that is not early.
    pub(crate) fn due(self) -> i64 {
        let tolerance = (self.interval / 4).max(1000);
        self.last + self.interval - tolerance
    }
}

/// What a read of the store returns.
type Read = (Option<Session>, Option<Pace>);

#[derive(Clone, Debug)]
pub(crate) struct Oracle {
    pub(crate) session: Option<Session>,
    pub(crate) pace: Option<Pace>,
    guesses: [Option<i64>; 2],
    /// What was stored after each operation so far.
    history: Vec<Read>,
}

enum Written {
    Won,
    Lost,
    Unknown,
}

impl Oracle {
    pub(crate) fn new() -> Self {
        let session = Some(Session {
            state: State::Pending,
            version: 1,
            purge_at: LIFETIME + RETENTION,
        });
        Self {
            session: session.clone(),
            pace: None,
            guesses: [None, None],
            history: vec![(session, None)],
        }
    }

    /// To be called after each operation.
    pub(crate) fn remember(&mut self) {
        self.history.push((self.session.clone(), self.pace));
    }

    fn read(&self, attempt: u8, stale: Stale) -> Read {
        if attempt >= stale.reads {
            return (self.session.clone(), self.pace);
        }
        let newest = self.history.len() - 1;
        self.history[newest.saturating_sub(stale.age.into())].clone()
    }

    /// A guarded write: where the version is still the one that was read; never inserts.
    fn write(&mut self, version: u64, state: State, commit: Commit) -> Written {
        let mut written = Written::Lost;
        if commit == Commit::UnheardAndNotDone {
            return Written::Unknown;
        }
        if let Some(session) = &mut self.session
            && session.version == version
        {
            if let State::Approved(grant) = &state {
                session.purge_at = LIFETIME.max(grant.redeemable_until) + RETENTION;
            }
            session.state = state;
            session.version += 1;
            written = Written::Won;
        }
        match commit {
            Commit::Heard => written,
            Commit::UnheardButDone | Commit::UnheardAndNotDone => Written::Unknown,
        }
    }

    // Table C.

    pub(crate) fn poll(&mut self, polling: Polling, now: i64) -> Told {
        for attempt in 0..ATTEMPTS {
            let (session, pace) = self.read(attempt, polling.stale);
            let Some(session) = session else {
                return refused("C2", "invalid_grant");
            };
            if polling.by == Client::Foreign {
                return refused("C3", "invalid_grant");
            }
            let (next, row) = match session.state {
                State::Redeemed(..) if attempt > 0 => return refused("C18", "invalid_grant"),
                State::Redeemed(_, at) => {
                    let since = (now - at).max(0);
                    let row = if since < RETRY_WINDOW {
                        "C4 Duplicate"
                    } else {
                        "C4 Replay"
                    };
                    return Told {
                        since: Some(since),
                        ..refused(row, "invalid_grant")
                    };
                }
                State::Revoked(_) => return refused("C5", "invalid_grant"),
                State::Denied(_) => return refused("C6", "access_denied"),
                State::Pending | State::Claimed(_) if now >= LIFETIME => {
                    return refused("C7", "expired_token");
                }
                State::Approved(grant) if now >= grant.redeemable_until => {
                    return refused("C8", "expired_token");
                }
                State::Pending | State::Claimed(_) => {
                    return self.wait(pace, polling.saves_pace, now);
                }
                State::Approved(grant) => match polling.verdict {
                    Verdict::CheckFails => return refused("C14", "use_dpop_nonce"),
                    Verdict::ConsentGone => (State::Revoked(grant), "C15"),
                    Verdict::MintingFails => return unavailable("C16"),
                    Verdict::Mints => (State::Redeemed(grant, now), "C17"),
                },
            };
            let scope = match &next {
                State::Redeemed(grant, _) => grant.scope,
                State::Pending
                | State::Claimed(_)
                | State::Approved(_)
                | State::Denied(_)
                | State::Revoked(_) => "",
            };
            match self.write(session.version, next, polling.commit) {
                Written::Won if row == "C15" => return refused("C15", "invalid_grant"),
                Written::Won => return granted(scope),
                Written::Unknown => return unavailable("C19"),
                Written::Lost => {}
            }
        }
        unavailable("C18")
    }

    fn wait(&mut self, pace: Option<Pace>, saves: bool, now: i64) -> Told {
        let accepted = |interval| Pace {
            last: now,
            interval,
            widened: false,
        };
        let (told, next) = match pace {
            None => (pending(), Some(accepted(INTERVAL))), // C10
            Some(pace) if now < pace.last => (pending(), Some(accepted(pace.interval))), // C9
            Some(pace) if now >= pace.due() => (pending(), Some(accepted(pace.interval))), // C11
            Some(pace) if pace.widened || pace.interval >= CAP => (slow_down(pace.interval), None), // C13
            Some(pace) => {
                let interval = (pace.interval + STEP).min(CAP);
                let wider = Pace {
                    interval,
                    widened: true,
                    ..pace
                };
                (slow_down(interval), Some(wider)) // C12
            }
        };
        // Saving never inserts or revives a session.
        if saves && self.session.is_some() && next.is_some() {
            self.pace = next;
        }
        told
    }

    // Table U.

    pub(crate) fn enter(
        &mut self,
        user: User,
        typed: Typed,
        rivals: u8,
        stale: Stale,
        now: i64,
    ) -> Page {
        // A rival guess of the same user gets in before the write, so many times; each pays for itself.
        for attempt in 0..=rivals {
            if attempt == ATTEMPTS {
                return Page::Refused(None);
            }
            let guesses = &mut self.guesses[usize::from(user == User::Bob)];
            let from = guesses.map_or(now, |until| until.max(now));
            let over = from - now - (GUESSES - 1) * GUESS_PERIOD;
            if over > 0 {
                return Page::Refused(Some(over));
            }
            *guesses = Some(from + GUESS_PERIOD);
        }
        match typed {
            Typed::Malformed => return Page::WrongCode("U2 malformed"),
            Typed::Wrong => return Page::WrongCode("U2"),
            Typed::Right => {}
        }
        for attempt in 0..10 {
            let (Some(session), _) = self.read(attempt, stale) else {
                return Page::WrongCode("U2");
            };
            match session.state {
                State::Approved(_) | State::Denied(_) | State::Redeemed(..) | State::Revoked(_) => {
                    return Page::WrongCode("U3 decided");
                }
                State::Pending | State::Claimed(_) if now >= LIFETIME => {
                    return Page::WrongCode("U3 expired");
                }
                State::Claimed(other) if other != user => return Page::WrongCode("U3 claimed"),
                State::Claimed(_) => return Page::Review,
                State::Pending => {
                    let claim = self.write(session.version, State::Claimed(user), Commit::Heard);
                    if matches!(claim, Written::Won) {
                        return Page::Review;
                    }
                }
            }
        }
        unreachable!("a fresh read wins")
    }

    pub(crate) fn approve(
        &mut self,
        user: User,
        scope: &'static str,
        stale: Stale,
        now: i64,
    ) -> Page {
        self.decide(user, stale, |state| match state {
            State::Pending | State::Claimed(_) if now >= LIFETIME => Err("U6"),
            State::Pending | State::Claimed(_) => {
                let within = scope
                    .split(' ')
                    .all(|token| ASKED.split(' ').any(|a| a == token));
                if scope.is_empty() || !within {
                    return Err("U8");
                }
                Ok(Some(State::Approved(Grant {
                    subject: user,
                    scope,
                    approved_at: now,
                    redeemable_until: LIFETIME.max(now + 2 * INTERVAL),
                })))
            }
            State::Approved(grant) | State::Redeemed(grant, _) if grant.scope == scope => Ok(None),
            State::Approved(_) | State::Redeemed(..) | State::Denied(_) | State::Revoked(_) => {
                Err("U10")
            }
        })
    }

    pub(crate) fn deny(&mut self, user: User, stale: Stale, now: i64) -> Page {
        self.decide(user, stale, |state| match state {
            State::Pending | State::Claimed(_) if now >= LIFETIME => Err("U6"),
            State::Pending | State::Claimed(_) => Ok(Some(State::Denied(user))),
            State::Denied(_) => Ok(None),
            State::Approved(_) | State::Redeemed(..) | State::Revoked(_) => Err("U10"),
        })
    }

    pub(crate) fn withdraw(&mut self, user: User, stale: Stale) -> Page {
        self.decide(user, stale, |state| match state {
            State::Approved(grant) => Ok(Some(State::Revoked(grant.clone()))),
            State::Revoked(_) => Ok(None),
            State::Redeemed(..) => Err("U11 redeemed"),
            State::Denied(_) => Err("U10"),
            State::Pending | State::Claimed(_) => Err("U11 undecided"),
        })
    }

    pub(crate) fn release(&mut self, user: User, stale: Stale) -> Page {
        self.decide(user, stale, |state| match state {
            State::Pending | State::Claimed(_) => Ok(Some(State::Pending)),
            State::Approved(_) | State::Redeemed(..) | State::Denied(_) | State::Revoked(_) => {
                Err("U10")
            }
        })
    }

    /// U5 first, then the event; a write that lost is decided again.
    fn decide(
        &mut self,
        user: User,
        stale: Stale,
        event: impl Fn(&State) -> Result<Option<State>, &'static str>,
    ) -> Page {
        for attempt in 0..10 {
            let (Some(session), _) = self.read(attempt, stale) else {
                return Page::Error("gone");
            };
            let claimant = match &session.state {
                State::Pending => None,
                State::Claimed(user) | State::Denied(user) => Some(*user),
                State::Approved(grant) | State::Redeemed(grant, _) | State::Revoked(grant) => {
                    Some(grant.subject)
                }
            };
            if claimant != Some(user) {
                return Page::Error("U5");
            }
            match event(&session.state) {
                Err(row) => return Page::Error(row),
                Ok(None) => return Page::StandsAlready,
                Ok(Some(next)) => {
                    let written = self.write(session.version, next, Commit::Heard);
                    if matches!(written, Written::Won) {
                        return Page::Done;
                    }
                }
            }
        }
        unreachable!("a fresh read wins")
    }

    /// Removes only what is past its purge time.
    pub(crate) fn purge(&mut self, now: i64) {
        if self.session.as_ref().is_some_and(|own| now >= own.purge_at) {
            self.session = None;
            self.pace = None;
        }
        for guesses in &mut self.guesses {
            if guesses.is_some_and(|until| now >= until) {
                *guesses = None;
            }
        }
    }

    pub(crate) fn lose_pace(&mut self) {
        self.pace = None;
    }
}

fn refused(row: &'static str, error: &'static str) -> Told {
    Told {
        row,
        status: 400,
        error: Some(error.to_owned()),
        interval: None,
        retry_after: None,
        since: None,
        scope: None,
    }
}

fn unavailable(row: &'static str) -> Told {
    Told {
        status: 503,
        retry_after: Some(0),
        ..refused(row, "temporarily_unavailable")
    }
}

fn pending() -> Told {
    refused("C9 C10 C11", "authorization_pending")
}

fn slow_down(interval: i64) -> Told {
    Told {
        interval: Some(interval / 1000),
        retry_after: Some(interval / 1000),
        ..refused("C12 C13", "slow_down")
    }
}

fn granted(scope: &str) -> Told {
    Told {
        status: 200,
        error: None,
        scope: Some(scope.to_owned()),
        ..refused("C17", "")
    }
}
