//! The oracle: a model of one login, written from the tables of the server half and not from the code.
//!
//! The oracle does not use the crate under test. Moments are in milliseconds after issuance, states are plain data, and each answer names
//! its row. The interval and the cap are chosen so that both parts of the tolerance matter, the second and the quarter, and so that the
//! last step to the cap is shorter than the others: 3 s, 8 s, 11 s. A refresh token lives as short a time as a policy allows, so that tests
//! reach its ends. The retry window and the quota of refreshes are not the default ones either. All else is the default policy: step 5 s,
//! lifetime 300 s, retention 300 s, grace 30 s, five guesses at once and one a minute.

use core::{fmt, mem};

pub(crate) const INTERVAL: i64 = 3000;
const STEP: i64 = 5000;
pub(crate) const CAP: i64 = 11_000;
pub(crate) const LIFETIME: i64 = 300_000;
const RETENTION: i64 = 300_000;
pub(crate) const RETRY_WINDOW: i64 = 1500;
pub(crate) const GRACE: i64 = 30_000;
pub(crate) const IDLE: i64 = 600_000;
pub(crate) const ABSOLUTE: i64 = 900_000;
/// A poll that comes sooner than this after an accepted one counts as the same poll, repeated on the way (C20).
const REPEATED: i64 = 1000;
const ATTEMPTS: u8 = 3;

/// How many may be taken at once from a quota, and the time until one is given back.
type Limit = (i64, i64);
const GUESSES: Limit = (5, 60_000);
pub(crate) const REFRESHES: Limit = (4, 20_000);
/// By how much the clocks of servers may differ.
const DRIFT: i64 = 60_000;
/// For how long a quota is kept after everything was given back.
const QUOTA_KEPT: i64 = 60_000;

/// What the device asked for.
pub(crate) const ASKED: &str = "openid profile offline_access";

/// The scope token that asks for a refresh token.
const OFFLINE: &str = "offline_access";

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

/// The current registration of the own client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It may ask for this scope.
    For(&'static str),
    WithoutDeviceGrant,
    Disabled,
    Removed,
}

/// What the host decides about a grant before it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Mints,
    CheckFails,
    ConsentGone,
    MintingFails,
}

/// Whether the host learns the outcome of its guarded write, and if not, whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    Heard,
    UnheardButDone,
    UnheardAndNotDone,
}

/// A part of the host that cannot answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Registry,
    Quotas,
    Sessions,
    Generator,
}

/// How many of the first reads of an operation return an older copy, and by how many operations that copy is older.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    pub(crate) reads: u8,
    pub(crate) age: u8,
}

impl Stale {
    pub(crate) const FRESH: Self = Self { reads: 0, age: 0 };
}

/// How the host behaves during one exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct How {
    pub(crate) verdict: Verdict,
    pub(crate) commit: Commit,
    pub(crate) stale: Stale,
    /// How many other requests take from the same quota first.
    pub(crate) rivals: u8,
    pub(crate) down: Option<Part>,
    pub(crate) saves_pace: bool,
}

impl How {
    /// The host behaves well.
    pub(crate) const WELL: Self = Self {
        verdict: Verdict::Mints,
        commit: Commit::Heard,
        stale: Stale::FRESH,
        rivals: 0,
        down: None,
        saves_pace: true,
    };
}

/// Shows only what differs from [`How::WELL`].
impl fmt::Debug for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("host")?;
        if self.verdict != Verdict::Mints {
            write!(f, " {:?}", self.verdict)?;
        }
        if self.commit != Commit::Heard {
            write!(f, " {:?}", self.commit)?;
        }
        if self.stale.reads > 0 {
            write!(f, " {} reads stale by {}", self.stale.reads, self.stale.age)?;
        }
        if self.rivals > 0 {
            write!(f, " {} rivals", self.rivals)?;
        }
        if let Some(part) = self.down {
            write!(f, " without {part:?}")?;
        }
        f.write_str(if self.saves_pace { "" } else { " pace lost" })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    Right,
    Wrong,
    Malformed,
}

/// A refresh token that somebody presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A token that was sent: 0 is the last one, 1 the one before it, and so on. If there is no such token: a malformed one.
    Sent(u8),
    /// A token of a login that is not stored.
    OfAnotherLogin,
    /// A token of the right form, with a tag that the server did not make.
    Forged,
    /// Something that does not have the form of a token.
    Malformed,
}

/// The secret of a refresh token: the number of the operation that drew it.
type Secret = usize;

/// The answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) row: &'static str,
    pub(crate) status: u16,
    /// The error code; `None` for a success.
    pub(crate) error: Option<String>,
    /// The member `interval`, in seconds.
    pub(crate) interval: Option<i64>,
    /// The header `Retry-After`, in seconds. In a 503 it is 0, because any value is right there.
    pub(crate) retry_after: Option<i64>,
    /// The time since the redemption in milliseconds, if the cause carries it.
    pub(crate) since: Option<i64>,
    /// The scope of a success.
    pub(crate) scope: Option<String>,
    pub(crate) has_refresh_token: bool,
}

/// The answer to the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// U1: too many attempts, with the milliseconds until the next one.
    RateLimited(i64),
    WrongCode(&'static str),
    Review,
    /// It is done now, or was done already.
    Done,
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
pub(crate) struct Login {
    pub(crate) grant: Grant,
    pub(crate) redeemed_at: i64,
    pub(crate) refresh: Option<Rotation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) current: Secret,
    pub(crate) previous: Option<Secret>,
    pub(crate) rotated_at: i64,
    pub(crate) until: i64,
}

impl Rotation {
    /// Returns the `rotated_at` that the login has after this refresh, or `None` if the presented secret may not be used (R6, R8).
    fn rotated_at(self, presented: Secret, now: i64) -> Option<i64> {
        let is_recent = (now - self.rotated_at).max(0) < GRACE;
        if presented == self.current {
            Some(self.rotated_at.max(now)) // R10
        } else if self.previous == Some(presented) && is_recent {
            Some(self.rotated_at) // R7
        } else {
            None
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Claimed(User),
    Approved(Grant),
    Denied(User),
    Active(Login),
    Ended(Grant),
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
    /// Returns the first moment at which a poll is not early.
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
    registered: Registered,
    /// The quota of each user, as the moment at which everything is given back.
    guesses: [Option<i64>; 2],
    refreshes: Option<i64>,
    /// The refresh tokens that were sent, in order.
    sent: Vec<Secret>,
    /// What was stored after each operation so far.
    history: Vec<Read>,
}

enum Written {
    Committed,
    Conflict,
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
            registered: Registered::For(ASKED),
            guesses: [None, None],
            refreshes: None,
            sent: Vec::new(),
            history: vec![(session, None)],
        }
    }

    pub(crate) fn register(&mut self, registered: Registered) {
        self.registered = registered;
    }

    /// Keeps what is stored now, for stale reads. To be called after each operation.
    pub(crate) fn remember(&mut self) {
        self.history.push((self.session.clone(), self.pace));
    }

    /// Returns the number of the current operation, which is also the secret that it draws.
    fn operation(&self) -> usize {
        self.history.len()
    }

    fn read(&self, attempt: u8, how: How) -> Read {
        if attempt >= how.stale.reads {
            return (self.session.clone(), self.pace);
        }
        let newest = self.history.len() - 1;
        self.history[newest.saturating_sub(how.stale.age.into())].clone()
    }

    /// Writes if the stored version is still `version`. Never inserts.
    fn write(&mut self, version: u64, state: State, how: How, now: i64) -> Written {
        let mut written = Written::Conflict;
        if how.commit == Commit::UnheardAndNotDone {
            return Written::Unknown;
        }
        if let Some(session) = &mut self.session
            && session.version == version
        {
            session.purge_at = match &state {
                State::Approved(grant) => LIFETIME.max(grant.redeemable_until) + RETENTION,
                State::Active(login) => {
                    let until = login.refresh.map(|refresh| refresh.until + RETENTION);
                    until.map_or(session.purge_at, |until| session.purge_at.max(until))
                }
                State::Ended(grant) => grant.redeemable_until.max(now) + RETENTION,
                State::Pending | State::Claimed(_) | State::Denied(_) => session.purge_at,
            };
            session.state = state;
            session.version += 1;
            written = Written::Committed;
        }
        match how.commit {
            Commit::Heard => written,
            Commit::UnheardButDone | Commit::UnheardAndNotDone => Written::Unknown,
        }
    }

    // Table B. The client sends no secret, or it sends the right one.

    fn client(&self, by: Client, how: How) -> Option<Told> {
        let row = match (by, self.registered) {
            // The quota of wrong secrets is checked before the secret is compared.
            (Client::Foreign, _) if how.down == Some(Part::Quotas) => return Some(down()),
            _ if how.down == Some(Part::Registry) => return Some(down()),
            (Client::Foreign, _) | (Client::Own, Registered::For(_)) => return None,
            (Client::Own, Registered::WithoutDeviceGrant) => {
                return Some(refused("B9", "unauthorized_client"));
            }
            (Client::Own, Registered::Disabled) => "B7",
            (Client::Own, Registered::Removed) => "B2",
        };
        Some(Told {
            status: 401,
            ..refused(row, "invalid_client")
        })
    }

    /// Returns the part of a scope that the client may ask for now, or `None` if no part is left.
    fn allowed(&self, scope: &str) -> Option<String> {
        let Registered::For(allowed) = self.registered else {
            return None;
        };
        let kept = |token: &&str| tokens(allowed).any(|allowed| allowed == *token);
        let kept: Vec<_> = tokens(scope).filter(kept).collect();
        (!kept.is_empty()).then(|| kept.join(" "))
    }

    // Table C.

    pub(crate) fn poll(&mut self, by: Client, how: How, now: i64) -> Told {
        if let Some(told) = self.client(by, how) {
            return told;
        }
        let mut lost = "";
        for attempt in 0..ATTEMPTS {
            if how.down == Some(Part::Sessions) {
                return down();
            }
            let (session, pace) = self.read(attempt, how);
            let Some(session) = session else {
                return refused("C2", "invalid_grant");
            };
            if by == Client::Foreign {
                return refused("C3 R3", "invalid_grant");
            }
            let mut told = refused("", "invalid_grant");
            let (next, row) = match session.state {
                State::Active(_) if attempt > 0 && lost != "C4 Replay" => {
                    return refused("C18", "invalid_grant");
                }
                State::Active(login) => {
                    let since = (now - login.redeemed_at).max(0);
                    told.since = Some(since);
                    if since < RETRY_WINDOW {
                        let row = "C4 Duplicate";
                        return Told { row, ..told };
                    }
                    (State::Ended(login.grant), "C4 Replay")
                }
                State::Ended(_) => return refused("C5 R4", "invalid_grant"),
                State::Denied(_) => return refused("C6", "access_denied"),
                State::Pending | State::Claimed(_) if now >= LIFETIME => {
                    return refused("C7", "expired_token");
                }
                State::Approved(grant) if now >= grant.redeemable_until => {
                    return refused("C8", "expired_token");
                }
                State::Pending | State::Claimed(_) => return self.wait(pace, how, now),
                State::Approved(grant) => match self.allowed(grant.scope) {
                    None => (State::Ended(grant), "C15 R11"),
                    Some(scope) => {
                        let is_refreshable = tokens(&scope).any(|token| token == OFFLINE);
                        if is_refreshable && how.down == Some(Part::Generator) {
                            return down();
                        }
                        told = granted("C17", &scope, is_refreshable);
                        match how.verdict {
                            Verdict::CheckFails => return refused("C14", "use_dpop_nonce"),
                            Verdict::ConsentGone => {
                                told = refused("", "invalid_grant");
                                (State::Ended(grant), "C15 R11")
                            }
                            Verdict::MintingFails => return unavailable("C16 R12"),
                            Verdict::Mints => {
                                let refresh = is_refreshable.then(|| Rotation {
                                    current: self.operation(),
                                    previous: None,
                                    rotated_at: now,
                                    until: (now + IDLE).min(now + ABSOLUTE),
                                });
                                let login = Login {
                                    grant,
                                    redeemed_at: now,
                                    refresh,
                                };
                                (State::Active(login), "C17")
                            }
                        }
                    }
                },
            };
            told.row = row;
            match self.write(session.version, next, how, now) {
                Written::Committed => return self.send(told),
                Written::Unknown => return unavailable("C19 R14"),
                Written::Conflict => lost = row,
            }
        }
        unavailable("C18 R13 R18 503")
    }

    /// Remembers a refresh token that is sent.
    fn send(&mut self, told: Told) -> Told {
        if told.has_refresh_token {
            self.sent.push(self.operation());
        }
        told
    }

    fn wait(&mut self, pace: Option<Pace>, how: How, now: i64) -> Told {
        let accepted = |interval| Pace {
            last: now,
            interval,
            widened: false,
        };
        let (told, next) = match pace {
            None => (pending(), Some(accepted(INTERVAL))), // C10
            Some(pace) if now < pace.last => (pending(), Some(accepted(pace.interval))), // C9
            Some(pace) if now >= pace.due() => (pending(), Some(accepted(pace.interval))), // C11
            Some(pace) if now - pace.last < REPEATED => {
                (refused("C20", "authorization_pending"), None)
            }
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
        if how.saves_pace && self.session.is_some() && next.is_some() {
            self.pace = next;
        }
        told
    }

    // Table R.

    /// Returns the secret of a token that this login was sent, `None` for a token of another login, and an error for a token that the
    /// server did not make.
    fn presented(&self, token: Token) -> Result<Option<Secret>, ()> {
        match token {
            Token::Sent(ago) => {
                let place = self.sent.len().checked_sub(usize::from(ago) + 1);
                place.map(|place| Some(self.sent[place])).ok_or(())
            }
            Token::OfAnotherLogin => Ok(None),
            Token::Forged | Token::Malformed => Err(()),
        }
    }

    pub(crate) fn refresh(
        &mut self,
        by: Client,
        token: Token,
        scope: Option<&str>,
        how: How,
        now: i64,
    ) -> Told {
        if let Some(told) = self.client(by, how) {
            return told;
        }
        let Ok(presented) = self.presented(token) else {
            return refused("R2", "invalid_grant");
        };
        let mut lost = "";
        let mut is_metered = false;
        for attempt in 0..ATTEMPTS {
            if how.down == Some(Part::Sessions) {
                return down();
            }
            let (Some(session), Some(presented)) = (self.read(attempt, how).0, presented) else {
                return refused("R2", "invalid_grant");
            };
            if by == Client::Foreign {
                return refused("C3 R3", "invalid_grant");
            }
            let State::Active(
                login @ Login {
                    refresh: Some(refresh),
                    ..
                },
            ) = session.state
            else {
                return refused("C5 R4", "invalid_grant");
            };
            let mut told = refused("", "invalid_grant");
            let is_over = now >= refresh.until.min(login.redeemed_at + ABSOLUTE);
            let rotated_at = refresh.rotated_at(presented, now);
            let (next, row) = match rotated_at {
                _ if is_over => (State::Ended(login.grant), "R5"),
                None if attempt > 0 && lost != "R6 R8" => return unavailable("C18 R13 R18 503"),
                None => (State::Ended(login.grant), "R6 R8"),
                Some(rotated_at) => {
                    let of_grant = |token| tokens(login.grant.scope).any(|own| own == token);
                    if scope.is_some_and(|scope| !is_scope(scope) || !tokens(scope).all(of_grant)) {
                        return refused("R9", "invalid_scope");
                    }
                    match self.allowed(login.grant.scope) {
                        None => (State::Ended(login.grant), "C15 R11"),
                        Some(granted_now) => {
                            let wanted = scope.unwrap_or(&granted_now);
                            let Some(scope) = self.allowed(wanted) else {
                                return refused("R9", "invalid_scope");
                            };
                            if !mem::replace(&mut is_metered, true)
                                && let Err(told) = self.meter(how, now)
                            {
                                return told;
                            }
                            if how.down == Some(Part::Generator) {
                                return down();
                            }
                            match how.verdict {
                                Verdict::CheckFails => return refused("C14", "use_dpop_nonce"),
                                Verdict::ConsentGone => (State::Ended(login.grant), "C15 R11"),
                                Verdict::MintingFails => return unavailable("C16 R12"),
                                Verdict::Mints => {
                                    told = granted("R7 R10", &scope, true);
                                    let idle = rotated_at.max(now) + IDLE;
                                    let is_current = presented == refresh.current;
                                    let rotation = Rotation {
                                        current: self.operation(),
                                        previous: is_current
                                            .then_some(presented)
                                            .or(refresh.previous),
                                        rotated_at,
                                        until: idle.min(login.redeemed_at + ABSOLUTE),
                                    };
                                    let login = Login {
                                        refresh: Some(rotation),
                                        ..login
                                    };
                                    (State::Active(login), "R7 R10")
                                }
                            }
                        }
                    }
                }
            };
            told.row = row;
            match self.write(session.version, next, how, now) {
                Written::Committed => return self.send(told),
                Written::Unknown => return unavailable("C19 R14"),
                Written::Conflict => lost = row,
            }
        }
        unavailable("C18 R13 R18 503")
    }

    /// Takes one from the quota of refreshes of this login.
    fn meter(&mut self, how: How, now: i64) -> Result<(), Told> {
        if how.down == Some(Part::Quotas) {
            return Err(down());
        }
        take(&mut self.refreshes, REFRESHES, how.rivals, now).map_err(|over| Told {
            status: 429,
            retry_after: Some((over + 999).div_euclid(1000)),
            ..refused("R quota", "temporarily_unavailable")
        })
    }

    pub(crate) fn revoke(&mut self, by: Client, token: Token, how: How, now: i64) -> Told {
        if let Some(told) = self.client(by, how) {
            return told;
        }
        let Ok(presented) = self.presented(token) else {
            return done("R16");
        };
        for attempt in 0..ATTEMPTS {
            if how.down == Some(Part::Sessions) {
                return down();
            }
            let (Some(session), Some(_), Client::Own) = (self.read(attempt, how).0, presented, by)
            else {
                return done("R16");
            };
            let State::Active(Login {
                grant,
                refresh: Some(_),
                ..
            }) = session.state
            else {
                return done("R16");
            };
            match self.write(session.version, State::Ended(grant), how, now) {
                Written::Committed => return done("R17"),
                Written::Unknown => return unavailable("C19 R14"),
                Written::Conflict => {}
            }
        }
        unavailable("C18 R13 R18 503")
    }

    // Table U.

    pub(crate) fn enter(&mut self, user: User, typed: Typed, how: How, now: i64) -> Page {
        if how.down == Some(Part::Quotas) {
            return Page::Error("unavailable");
        }
        let guesses = &mut self.guesses[usize::from(user == User::Bob)];
        if let Err(over) = take(guesses, GUESSES, how.rivals, now) {
            return Page::RateLimited(over);
        }
        if typed == Typed::Malformed {
            return Page::WrongCode("U2 malformed");
        }
        for attempt in 0..ATTEMPTS {
            if how.down == Some(Part::Sessions) {
                return Page::Error("unavailable");
            }
            let (Some(session), Typed::Right) = (self.read(attempt, how).0, typed) else {
                return Page::WrongCode("U2");
            };
            match session.state {
                // The code of a redeemed or ended session can no longer be looked up.
                State::Active(_) | State::Ended(_) => return Page::WrongCode("U2"),
                State::Approved(_) | State::Denied(_) => return Page::WrongCode("U3 decided"),
                State::Pending | State::Claimed(_) if now >= LIFETIME => {
                    return Page::WrongCode("U3 expired");
                }
                State::Claimed(other) if other != user => return Page::WrongCode("U3 claimed"),
                State::Pending | State::Claimed(_) => {}
            }
            if let Some(error) = self.client_of_session(how) {
                return error;
            }
            if session.state != State::Pending {
                return Page::Review;
            }
            match self.write(session.version, State::Claimed(user), how, now) {
                Written::Committed => return Page::Review,
                Written::Unknown => return Page::Error("unavailable"),
                Written::Conflict => {}
            }
        }
        Page::Error("unavailable")
    }

    /// Returns the error if the client of the session can no longer sign in (U14), or cannot be looked up.
    fn client_of_session(&self, how: How) -> Option<Page> {
        if how.down == Some(Part::Registry) {
            return Some(Page::Error("unavailable"));
        }
        match self.registered {
            Registered::For(_) => None,
            Registered::WithoutDeviceGrant | Registered::Disabled | Registered::Removed => {
                Some(Page::Error("U14"))
            }
        }
    }

    pub(crate) fn approve(&mut self, user: User, scope: &'static str, how: How, now: i64) -> Page {
        let is_same = |grant: &Grant| {
            let within =
                |one: &str, other: &str| tokens(one).all(|t| tokens(other).any(|o| o == t));
            within(grant.scope, scope) && within(scope, grant.scope)
        };
        self.decide(user, how, now, |state| match state {
            State::Pending | State::Claimed(_) if now >= LIFETIME => Err("U6"),
            State::Pending | State::Claimed(_) => {
                let within = tokens(scope).all(|token| tokens(ASKED).any(|asked| asked == token));
                if scope.is_empty() || !within {
                    return Err("U8");
                }
                Ok(Some(State::Approved(Grant {
                    subject: user,
                    scope,
                    approved_at: now,
                    redeemable_until: LIFETIME.max(now + CAP + INTERVAL),
                })))
            }
            State::Approved(grant) | State::Active(Login { grant, .. }) if is_same(grant) => {
                Ok(None)
            }
            State::Approved(_) | State::Active(_) | State::Denied(_) | State::Ended(_) => {
                Err("U10")
            }
        })
    }

    pub(crate) fn deny(&mut self, user: User, how: How, now: i64) -> Page {
        self.decide(user, how, now, |state| match state {
            State::Pending | State::Claimed(_) if now >= LIFETIME => Err("U6"),
            State::Pending | State::Claimed(_) => Ok(Some(State::Denied(user))),
            State::Denied(_) => Ok(None),
            State::Approved(_) | State::Active(_) | State::Ended(_) => Err("U10"),
        })
    }

    pub(crate) fn withdraw(&mut self, user: User, how: How, now: i64) -> Page {
        self.decide(user, how, now, |state| match state {
            State::Approved(grant) | State::Active(Login { grant, .. }) => {
                Ok(Some(State::Ended(grant.clone())))
            }
            State::Ended(_) => Ok(None),
            State::Denied(_) => Err("U10"),
            State::Pending | State::Claimed(_) => Err("U11 undecided"),
        })
    }

    pub(crate) fn release(&mut self, user: User, how: How, now: i64) -> Page {
        self.decide(user, how, now, |state| match state {
            State::Pending | State::Claimed(_) => Ok(Some(State::Pending)),
            State::Approved(_) | State::Active(_) | State::Denied(_) | State::Ended(_) => {
                Err("U10")
            }
        })
    }

    /// Checks first whether the user has claimed the session (U5), then applies the event. After a conflict it decides again.
    fn decide(
        &mut self,
        user: User,
        how: How,
        now: i64,
        event: impl Fn(&State) -> Result<Option<State>, &'static str>,
    ) -> Page {
        for attempt in 0..ATTEMPTS {
            if how.down == Some(Part::Sessions) {
                return Page::Error("unavailable");
            }
            let (Some(session), _) = self.read(attempt, how) else {
                return Page::Error("U6");
            };
            let claimant = match &session.state {
                State::Pending => None,
                State::Claimed(user) | State::Denied(user) => Some(*user),
                State::Approved(grant)
                | State::Active(Login { grant, .. })
                | State::Ended(grant) => Some(grant.subject),
            };
            if claimant != Some(user) {
                return Page::Error("U5");
            }
            let next = match event(&session.state) {
                Err(row) => return Page::Error(row),
                Ok(None) => return Page::Done,
                Ok(Some(next)) => next,
            };
            if let (State::Approved(_), Some(error)) = (&next, self.client_of_session(how)) {
                return error;
            }
            match self.write(session.version, next, how, now) {
                Written::Committed => return Page::Done,
                Written::Unknown => return Page::Error("unavailable"),
                Written::Conflict => {}
            }
        }
        Page::Error("unavailable")
    }

    /// Removes only what is past its purge time.
    pub(crate) fn purge(&mut self, now: i64) {
        if self.session.as_ref().is_some_and(|own| now >= own.purge_at) {
            self.session = None;
            self.pace = None;
        }
        for quota in self.guesses.iter_mut().chain([&mut self.refreshes]) {
            if quota.is_some_and(|until| now >= until + QUOTA_KEPT) {
                *quota = None;
            }
        }
    }

    pub(crate) fn lose_pace(&mut self) {
        self.pace = None;
    }
}

/// Takes one from a quota after `rivals` others did, or returns in how many milliseconds one is available.
fn take(quota: &mut Option<i64>, (burst, period): Limit, rivals: u8, now: i64) -> Result<(), i64> {
    let mut taken = Ok(());
    for _ in 0..=rivals {
        let from = match *quota {
            None => now,
            // A clock that was ahead wrote this moment. Then one is left.
            Some(until) if until > now + burst * period + DRIFT => now + (burst - 1) * period,
            Some(until) => until.max(now),
        };
        let over = from - now - (burst - 1) * period;
        taken = if over > 0 {
            Err(over)
        } else {
            *quota = Some(from + period);
            Ok(())
        };
    }
    taken
}

fn tokens(scope: &str) -> impl Iterator<Item = &str> {
    scope.split(' ').filter(|token| !token.is_empty())
}

/// Returns whether a text is a scope by RFC 6749, section 3.3, as far as the operations need it.
fn is_scope(scope: &str) -> bool {
    !scope.contains(['"', '\\']) && !scope.contains("  ")
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
        has_refresh_token: false,
    }
}

fn unavailable(row: &'static str) -> Told {
    Told {
        status: 503,
        retry_after: Some(0),
        ..refused(row, "temporarily_unavailable")
    }
}

/// Returns the answer of B8, C1 and R14: a part of the host could not answer.
fn down() -> Told {
    unavailable("B8 C1 R14")
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

fn done(row: &'static str) -> Told {
    Told {
        status: 200,
        error: None,
        ..refused(row, "")
    }
}

fn granted(row: &'static str, scope: &str, has_refresh_token: bool) -> Told {
    Told {
        scope: Some(scope.to_owned()),
        has_refresh_token,
        ..done(row)
    }
}
