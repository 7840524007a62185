//! The host of the tests: it answers every question of an exchange, honestly unless it is told to fail, and notes what it was asked.

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

/// What the store says to a guarded write, against what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// That it lost, though nobody else wrote.
    Conflict,
    /// That it does not know; nothing was written.
    UnknownNotDone,
    /// That it does not know; it was written.
    UnknownDone,
}

/// What becomes of the session before a guarded write: somebody else was faster.
pub(crate) type Meanwhile = Box<dyn FnOnce(&mut Memory)>;

/// A host over [`Memory`]. It is honest unless a field says otherwise, and tells what it was asked and what was written.
pub(crate) struct Host {
    pub(crate) store: Memory,
    pub(crate) clients: Vec<Client>,
    /// What the registry says instead of looking into `clients`.
    pub(crate) found: Option<Found<Client>>,
    /// The entropy of the next draws; then that of [`entropy`] for 100, 101 and so on.
    pub(crate) entropy: VecDeque<Entropy>,
    pub(crate) drawn: u16,
    /// What is minted.
    pub(crate) tokens: Tokens<'static>,
    /// Why nothing is minted.
    pub(crate) refusal: Option<GrantRefusal>,
    /// The question that fails: its answer is `Unavailable`.
    pub(crate) fails: Option<Question>,
    /// What the store says to the next guarded writes, in order.
    pub(crate) says: VecDeque<Says>,
    /// What the store says to the next inserts, in order.
    pub(crate) inserts: VecDeque<Inserted>,
    /// What happens before the next guarded write.
    pub(crate) meanwhile: VecDeque<Meanwhile>,
    /// What was asked, in order.
    pub(crate) asked: Vec<Question>,
    /// The quotas that were asked for, in order.
    pub(crate) takes: Vec<Take>,
    /// The user keys that were looked up, in order.
    pub(crate) user_keys: Vec<UserKey>,
    /// What was minted for, as (scope, is a refresh).
    pub(crate) minted: Vec<(String, bool)>,
}

impl Host {
    /// An honest host of these clients, with an empty store.
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

    /// Runs an exchange to its end. `asked`, `takes` and `user_keys` start anew.
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

    /// How often this was asked in the last exchange.
    pub(crate) fn count(&self, question: Question) -> usize {
        self.asked
            .iter()
            .filter(|asked| **asked == question)
            .count()
    }

    /// The session of this key, as it is stored.
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

    /// The same with a scope, form-encoded.
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

    /// `user` enters a code, and so claims its session.
    pub(crate) fn claim(
        &mut self,
        server: &Server,
        user: &Subject,
        user_code: &str,
        now: OffsetDateTime,
    ) -> Result<Review, PageError> {
        self.run(server.enter(user_code, user, "", now))
    }

    /// `user` claims and approves, with all of the scope.
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

    /// `user` claims and denies.
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

    /// One poll of `client`.
    pub(crate) fn poll(
        &mut self,
        server: &Server,
        client: &Client,
        device_code: &str,
        now: OffsetDateTime,
    ) -> Reply {
        self.token(server, client, &poll_body(client.id(), device_code), now)
    }

    /// One refresh by `client`.
    pub(crate) fn refresh(
        &mut self,
        server: &Server,
        client: &Client,
        token: &str,
        now: OffsetDateTime,
    ) -> Reply {
        self.token(server, client, &refresh_body(client.id(), token), now)
    }

    /// One request of `client` at the token endpoint.
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

    /// One revocation by `client`.
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
