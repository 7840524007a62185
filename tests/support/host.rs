//! The host of the tests. It answers every question of an exchange, and notes what it was asked. It is honest unless a test tells it to
//! fail.

use std::collections::VecDeque;

use device_flow::code::Entropy;
use device_flow::digest::{SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::server::{
    Cause, Change, Client, Consent, Exchange, Finish, Found, GrantRefusal, Inserted, Next,
    PageError, Reply, Review, Server, Session, Subject, Take, Tokens, Unavailable, Write,
};
use time::OffsetDateTime;

use super::{
    Codes, SOURCE, entropy, nth_entropy, poll_body, refresh_body, revocation_body, sent_by, tokens,
};

/// A question of an exchange, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    Client,
    Take,
    Load,
    LoadByUserKey,
    Draw,
    Insert,
    Mint,
    Change,
    SavePace,
}

/// A wrong answer of the store to a guarded write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// A conflict, although nobody else wrote.
    Conflict,
    /// The outcome is unknown. Nothing was written.
    UnknownNotDone,
    /// The outcome is unknown. The change was written.
    UnknownDone,
}

/// What somebody else does to the store just before a guarded write.
pub(crate) type Meanwhile = Box<dyn FnOnce(&mut Memory)>;

/// A host over [`Memory`]. It is honest unless a field says otherwise, and it notes what it was asked.
pub(crate) struct Host {
    pub(crate) store: Memory,
    pub(crate) clients: Vec<Client>,
    /// The answer of the registry. If `None`, the registry looks into `clients`.
    pub(crate) found: Option<Found<Client>>,
    /// The entropy of the next draws. After that, draws return the [`nth_entropy`] of 100, 101 and so on.
    pub(crate) entropy: VecDeque<Entropy>,
    pub(crate) drawn: u16,
    /// The tokens that the host mints.
    pub(crate) tokens: Tokens<'static>,
    /// If set, the host refuses to mint, for this reason.
    pub(crate) refusal: Option<GrantRefusal>,
    /// The question that the host answers with `Unavailable`.
    pub(crate) fails: Option<Question>,
    /// The wrong answers to the next guarded writes, in order.
    pub(crate) says: VecDeque<Says>,
    /// The answers of the store to the next inserts, in order. Only with `New` the session is inserted.
    pub(crate) inserts: VecDeque<Inserted>,
    /// What somebody else does before each of the next guarded writes, in order.
    pub(crate) meanwhile: VecDeque<Meanwhile>,
    /// The questions of the last exchange, in order.
    pub(crate) asked: Vec<Question>,
    /// What the last exchange asked to take from quotas, in order.
    pub(crate) takes: Vec<Take>,
    /// The user keys that the last exchange looked up, in order.
    pub(crate) user_keys: Vec<UserKey>,
    /// For each grant that the host was asked to mint for: its scope, and whether it is a refresh.
    pub(crate) minted: Vec<(String, bool)>,
}

impl Host {
    /// Returns an honest host that knows these clients, with an empty store.
    pub(crate) fn new(clients: impl IntoIterator<Item = Client>) -> Self {
        Self {
            store: Memory::new(),
            clients: clients.into_iter().collect(),
            found: None,
            entropy: VecDeque::new(),
            drawn: 0,
            tokens: tokens(),
            refusal: None,
            fails: None,
            says: VecDeque::new(),
            inserts: VecDeque::new(),
            meanwhile: VecDeque::new(),
            asked: Vec::new(),
            takes: Vec::new(),
            user_keys: Vec::new(),
            minted: Vec::new(),
        }
    }

    /// Runs an exchange to its end. Clears `asked`, `takes` and `user_keys` first.
    pub(crate) fn run<'r, T: Finish<'r>>(&mut self, mut exchange: Exchange<'r, T>) -> T {
        self.asked.clear();
        self.takes.clear();
        self.user_keys.clear();
        loop {
            match exchange.next() {
                Next::Client(claim, ask) => match self.ask(Question::Client) {
                    Ok(()) => {
                        let mut known = self.clients.iter();
                        let known = known.find(|known| Some(known.id()) == claim.client_id());
                        let known = Found::from(known);
                        ask.answer(Ok(self.found.as_ref().map_or(known, Found::as_ref)));
                    }
                    Err(unavailable) => ask.answer(Err::<Found<_>, _>(unavailable)),
                },
                Next::Take(take, ask) => {
                    self.takes.push(take);
                    ask.answer(self.ask(Question::Take).map(|()| self.store.take(&take)));
                }
                Next::Load(key, ask) => {
                    ask.answer(self.ask(Question::Load).map(|()| self.store.load(key)));
                }
                Next::LoadByUserKey(key, ask) => {
                    self.user_keys.push(*key);
                    let asked = self.ask(Question::LoadByUserKey);
                    ask.answer(asked.map(|()| self.store.load_by_user_key(key)));
                }
                Next::Draw(ask) => ask.answer(self.ask(Question::Draw).map(|()| self.draw())),
                Next::Insert(session, ask) => {
                    let asked = self.ask(Question::Insert);
                    ask.answer(asked.map(|()| match self.inserts.pop_front() {
                        None | Some(Inserted::New) => self.store.insert(session),
                        Some(said) => said,
                    }));
                }
                Next::Mint(grant, change, ask) => {
                    self.asked.push(Question::Mint);
                    self.minted
                        .push((grant.scope().to_string(), grant.is_refresh()));
                    match self.refusal {
                        Some(refusal) => ask.refuse(refusal),
                        None => ask.answer(self.change(change), &self.tokens),
                    }
                }
                Next::Change(change, ask) => ask.answer(self.change(change)),
                Next::SavePace(key, pace) => {
                    if self.ask(Question::SavePace).is_ok() {
                        self.store.save_pace(key, pace);
                    }
                }
                Next::Done(end) => return end,
            }
        }
    }

    fn ask(&mut self, question: Question) -> Result<(), Unavailable> {
        self.asked.push(question);
        if self.fails == Some(question) {
            return Err(Unavailable);
        }
        Ok(())
    }

    fn draw(&mut self) -> Entropy {
        self.entropy.pop_front().unwrap_or_else(|| {
            self.drawn += 1;
            nth_entropy(99 + self.drawn)
        })
    }

    fn change(&mut self, change: Change<'_>) -> Result<Write, Unavailable> {
        self.ask(Question::Change)?;
        if let Some(meanwhile) = self.meanwhile.pop_front() {
            meanwhile(&mut self.store);
        }
        match self.says.pop_front() {
            None => Ok(self.store.change(change)),
            Some(Says::Conflict) => Ok(Write::Conflict),
            Some(Says::UnknownNotDone) => Err(Unavailable),
            Some(Says::UnknownDone) => {
                assert_eq!(self.store.change(change), Write::Committed);
                Err(Unavailable)
            }
        }
    }

    /// Returns how often the last exchange asked this question.
    pub(crate) fn count(&self, question: Question) -> usize {
        self.asked
            .iter()
            .filter(|asked| **asked == question)
            .count()
    }

    /// Returns the stored session with this key.
    pub(crate) fn session(&self, key: &SessionKey) -> Option<&Session> {
        self.store.load(key).map(|stored| &stored.session)
    }

    /// Issues codes for `client`, with the entropy of `seed` and the scope `openid profile`.
    pub(crate) fn issue(
        &mut self,
        server: &Server,
        client: &Client,
        seed: u8,
        now: OffsetDateTime,
    ) -> Codes {
        self.issue_for(server, client, seed, "openid+profile", now)
    }

    /// Issues codes as [`Self::issue`] does, but with this scope, which must be form-encoded.
    pub(crate) fn issue_for(
        &mut self,
        server: &Server,
        client: &Client,
        seed: u8,
        scope: &str,
        now: OffsetDateTime,
    ) -> Codes {
        let body = format!("client_id={}&scope={scope}", client.id());
        self.entropy.push_front(entropy(seed));
        let reply = sent_by(client, &body, |request| {
            self.run(server.device_authorization(request, SOURCE, None, now))
        });
        assert_eq!(reply.cause(), Cause::Issued);
        Codes::of(&reply)
    }

    /// Enters a code for `user`, and so claims its session.
    pub(crate) fn claim(
        &mut self,
        server: &Server,
        user: &Subject,
        user_code: &str,
        now: OffsetDateTime,
    ) -> Result<Review, PageError> {
        self.run(server.enter(user_code, user, "", now))
    }

    /// Claims and approves a session for `user`, with all of the scope.
    pub(crate) fn approve(
        &mut self,
        server: &Server,
        user: &Subject,
        codes: &Codes,
        now: OffsetDateTime,
    ) {
        self.claim(server, user, &codes.user_code, now).unwrap();
        let consent = Consent::to_all();
        self.run(server.approve(&codes.key, user, &consent, now))
            .unwrap();
    }

    /// Claims and denies a session for `user`.
    pub(crate) fn deny(
        &mut self,
        server: &Server,
        user: &Subject,
        codes: &Codes,
        now: OffsetDateTime,
    ) {
        self.claim(server, user, &codes.user_code, now).unwrap();
        self.run(server.deny(&codes.key, user, now)).unwrap();
    }

    /// Polls once as `client`.
    pub(crate) fn poll(
        &mut self,
        server: &Server,
        client: &Client,
        device_code: &str,
        now: OffsetDateTime,
    ) -> Reply {
        self.token(server, client, &poll_body(client.id(), device_code), now)
    }

    /// Refreshes once as `client`.
    pub(crate) fn refresh(
        &mut self,
        server: &Server,
        client: &Client,
        token: &str,
        now: OffsetDateTime,
    ) -> Reply {
        self.token(server, client, &refresh_body(client.id(), token), now)
    }

    /// Sends one request of `client` to the token endpoint.
    pub(crate) fn token(
        &mut self,
        server: &Server,
        client: &Client,
        body: &str,
        now: OffsetDateTime,
    ) -> Reply {
        sent_by(client, body, |request| {
            self.run(server.token(request, SOURCE, now))
        })
    }

    /// Revokes a token as `client`.
    pub(crate) fn revoke(
        &mut self,
        server: &Server,
        client: &Client,
        token: &str,
        now: OffsetDateTime,
    ) -> Reply {
        let body = revocation_body(client.id(), token);
        sent_by(client, &body, |request| {
            self.run(server.revocation(request, SOURCE, now))
        })
    }
}
