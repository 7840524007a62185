//! One exchange between two answers of its host, as a value that a checker can keep: what it was made of, and what it was
//! answered so far. To go on, it is run again from the start.
//!
//! Clients, quotas and random octets are the same whenever they are asked for, and are answered here. What is left is what can
//! interleave: loading, writing and saving a pace.

use core::hash::{Hash, Hasher};
use std::hash::DefaultHasher;

use device_flow::digest::SessionKey;
use device_flow::server::{
    Cause, Change, Client, Consent, Exchange, Finish, GrantRefusal, Next, Pace, PageError, Server,
    Session, Stored, Subject, Unavailable, Write,
};
use time::OffsetDateTime;

use crate::support::{self, SOURCE};

/// What a store has for the session, compared by its stored forms.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    form: u64,
    pub(crate) stored: Stored,
}

impl Row {
    pub(crate) fn new(stored: Stored) -> Self {
        let mut hasher = DefaultHasher::new();
        serde_json::to_string(&(&stored.session, stored.pace))
            .unwrap()
            .hash(&mut hasher);
        let form = hasher.finish();
        Self { form, stored }
    }

    pub(crate) fn with(&self, session: Session) -> Self {
        let pace = self.stored.pace;
        Self::new(Stored { pace, session })
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.form == other.form
    }
}

impl Eq for Row {}

impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.form.hash(state);
    }
}

/// An answer of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Loaded(Option<Row>),
    Written(Result<Write, Unavailable>),
    /// Nothing is minted, because the consent is gone, or because minting failed.
    Refused {
        is_gone: bool,
    },
    /// The pace was saved, or not.
    Paced,
}

/// What an exchange needs next.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Load,
    Write {
        to: Session,
        expected: u64,
        mints: bool,
    },
    Pace(Pace),
    Done(End),
}

/// How an exchange ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct End {
    pub(crate) cause: Option<Cause>,
    pub(crate) refused: Option<PageError>,
    pub(crate) refresh_token: Option<String>,
}

/// What an exchange is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Made {
    Poll { client: String, device_code: String },
    Refresh { client: String, token: String },
    Revoke { client: String, token: String },
    Enter { user: &'static str, code: String },
    Decide { user: String, deed: Deed },
}

/// What a user decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deed {
    Approve,
    ApproveLess,
    Deny,
    Withdraw,
    Release,
}

/// An exchange on its way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) made: Made,
    /// Milliseconds after [`support::NOW`].
    pub(crate) now: i64,
    /// Of its entropy.
    pub(crate) seed: u8,
    pub(crate) answers: Vec<Answer>,
    /// Follows from all else.
    pub(crate) asked: Asked,
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        (&self.made, self.now, self.seed, &self.answers)
            == (&other.made, other.now, other.seed, &other.answers)
    }
}

impl Eq for Flight {}

impl Hash for Flight {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.made, self.now, self.seed, &self.answers).hash(state);
    }
}

/// What all flights share.
#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) clients: Vec<Client>,
    pub(crate) key: SessionKey,
}

impl Flight {
    pub(crate) fn new(fixture: &Fixture, made: Made, now: i64, seed: u8) -> Self {
        let mut flight = Self {
            made,
            now,
            seed,
            answers: Vec::new(),
            asked: Asked::Load,
        };
        flight.asked = flight.replay(fixture);
        flight
    }

    pub(crate) fn answer(&mut self, fixture: &Fixture, answer: Answer) {
        self.answers.push(answer);
        self.asked = self.replay(fixture);
    }

    /// The session that it loaded last.
    pub(crate) fn loaded(&self) -> Option<&Row> {
        self.answers.iter().rev().find_map(|answer| match answer {
            Answer::Loaded(row) => row.as_ref(),
            Answer::Written(_) | Answer::Refused { .. } | Answer::Paced => None,
        })
    }

    fn replay(&self, fixture: &Fixture) -> Asked {
        let server = &fixture.server;
        let now = support::NOW + time::Duration::milliseconds(self.now);
        match &self.made {
            Made::Poll {
                client,
                device_code,
            } => {
                let body = support::poll_body(client, device_code);
                self.request(fixture, client, &body, now)
            }
            Made::Refresh { client, token } => {
                let body = support::refresh_body(client, token);
                self.request(fixture, client, &body, now)
            }
            Made::Revoke { client, token } => {
                let body = format!("token={token}&client_id={client}");
                self.request(fixture, client, &body, now)
            }
            Made::Enter { user, code } => {
                let user = support::subject(user);
                self.run(fixture, server.enter(code, &user, "", now), page)
            }
            Made::Decide { user, deed } => {
                let user = support::subject(user);
                self.decide(fixture, &user, *deed, now)
            }
        }
    }

    fn request(&self, fixture: &Fixture, client: &str, body: &str, now: OffsetDateTime) -> Asked {
        let server = &fixture.server;
        let client = fixture.clients.iter().find(|known| known.id() == client);
        let header = support::authorization(client.unwrap());
        let request = support::post(body).authorization(header.as_ref());
        let exchange = match self.made {
            Made::Revoke { .. } => server.revocation(request, SOURCE, now),
            _ => server.token(request, SOURCE, now),
        };
        self.run(fixture, exchange, |reply| {
            let body = reply.response().body();
            let tells = body.contains("refresh_token") && reply.response().status() == 200;
            End {
                cause: Some(reply.cause()),
                refused: None,
                refresh_token: tells.then(|| support::refresh_token(&reply)),
            }
        })
    }

    fn decide(&self, fixture: &Fixture, user: &Subject, deed: Deed, now: OffsetDateTime) -> Asked {
        let Fixture { server, key, .. } = fixture;
        let (all, less) = (Consent::to_all(), Consent::to(support::scope("openid")));
        let exchange = match deed {
            Deed::Approve => server.approve(key, user, &all, now),
            Deed::ApproveLess => server.approve(key, user, &less, now),
            Deed::Deny => server.deny(key, user, now),
            Deed::Withdraw => server.withdraw(key, user, now),
            Deed::Release => server.release(key, user, now),
        };
        self.run(fixture, exchange, page)
    }

    fn run<'r, T: Finish<'r>>(
        &self,
        fixture: &Fixture,
        mut exchange: Exchange<'r, T>,
        end: impl FnOnce(T) -> End,
    ) -> Asked {
        let mut answers = self.answers.iter();
        let mut seed = self.seed;
        loop {
            match exchange.next() {
                Next::Client(claim, ask) => {
                    let mut known = fixture.clients.iter();
                    ask.answer(Ok(known.find(|known| Some(known.id()) == claim.client_id())));
                }
                Next::Take(_, ask) => ask.answer(Ok(Ok(()))),
                Next::Draw(ask) => {
                    seed += 1;
                    ask.answer(Ok(support::entropy(seed)));
                }
                Next::Load(_, ask) | Next::LoadByUserKey(_, ask) => match answers.next() {
                    Some(Answer::Loaded(row)) => {
                        ask.answer(Ok(row.as_ref().map(|row| &row.stored)));
                    }
                    _ => return Asked::Load,
                },
                Next::Mint(_, change, ask) => match answers.next() {
                    Some(Answer::Written(written)) => ask.answer(*written, &support::tokens()),
                    Some(Answer::Refused { is_gone: true }) => {
                        ask.refuse(GrantRefusal::consent_gone());
                    }
                    Some(Answer::Refused { is_gone: false }) => ask.refuse(GrantRefusal::failed()),
                    _ => return write(change, true),
                },
                Next::Change(change, ask) => match answers.next() {
                    Some(Answer::Written(written)) => ask.answer(*written),
                    _ => return write(change, false),
                },
                Next::SavePace(_, pace) => {
                    if answers.next().is_none() {
                        return Asked::Pace(pace);
                    }
                }
                Next::Insert(..) => unreachable!("nothing is issued"),
                Next::Done(done) => return Asked::Done(end(done)),
            }
        }
    }
}

fn write(change: Change<'_>, mints: bool) -> Asked {
    Asked::Write {
        to: change.session().clone(),
        expected: change.expected_version(),
        mints,
    }
}

fn page<T>(result: Result<T, PageError>) -> End {
    End {
        refused: result.err(),
        ..End::default()
    }
}
