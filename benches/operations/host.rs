//! The host of the server half: what an authorization server does around the core, with [`Memory`] as its store.

use core::hint::black_box;
use core::time::Duration;
use std::collections::HashMap;

use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::{SecretDigest, SessionKey, UserKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Change, Client, ClientAuthMethod, Consent, Exchange, Finish, Inserted, Next, Pace, Policy,
    PolicyOptions, RateLimit, RateLimited, Reply, Request as Incoming, Server, ServerKeys, Session,
    Stored, Subject, Take, TokenError, Tokens, Write,
};
use time::OffsetDateTime;

use super::{Moment, Out, Random};

pub(crate) const PUBLIC: &str = "client_01KAFZ2BN9JV8PDPZQ4D0GWXYZ";
pub(crate) const FOREIGN: &str = "client_01KAFZ2BN9JV8PDPZQ4D0GFRGN";
pub(crate) const CONFIDENTIAL: &str = "client_01KAFZ2BN9JV8PDPZQ4D0GCNFD";
pub(crate) const SECRET: &str = "yLKPyKyVUxgmRhmhcxhwAzkoEqiMEgDnyEysNkuNhsz";
pub(crate) const SCOPE: &str = "openid profile email offline_access";
pub(crate) const SERVER_KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
pub(crate) const SOURCE: &str = "203.0.113.7";

/// How often a client may ask for codes: as many at once as a bench needs, then one per millisecond.
pub(crate) const ISSUING_BURST: u32 = 100_000_000;

pub(crate) const PAGE: &str = "https://login.example.com/device";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// Returns the name of the user with this number, a `sub`.
pub(crate) fn user(number: usize) -> String {
    format!("user_01KAFZ2BN9JV8PDPZQ4D0{number:07}")
}

/// What the host mints: 1.2 KB in all.
pub(crate) struct Minted {
    pub(crate) access: String,
    pub(crate) id: String,
}

impl Minted {
    pub(crate) fn new() -> Self {
        let mut random = Random(1);
        Self {
            access: random.token(600),
            id: random.token(400),
        }
    }

    /// Returns the same as this crate takes it. It is minted once for a bench, before anything is measured, and never freed.
    fn tokens() -> Result<Tokens<'static>, TokenError> {
        let minted: &'static Self = Box::leak(Box::new(Self::new()));
        Tokens::bearer(&*minted.access)?
            .expires_in(Duration::from_mins(5))
            .id_token(&*minted.id)
    }
}

/// Returns the shortest shape of user codes that a policy accepts for this many outstanding sessions.
pub(crate) fn shape(outstanding: u64) -> UserCodeShape {
    (8..=16)
        .filter_map(|length| UserCodeShape::new(UserCodeShape::CONSONANTS, length).ok())
        .find(|shape| policy(shape.clone(), outstanding).is_some())
        .unwrap()
}

fn policy(shape: UserCodeShape, outstanding: u64) -> Option<Policy> {
    let issuing = RateLimit::new(ISSUING_BURST, Duration::from_millis(1)).ok()?;
    let options = PolicyOptions {
        user_code: shape,
        outstanding,
        issuing_limit: issuing,
        ..PolicyOptions::default()
    };
    Policy::new(PAGE, options).ok()
}

/// A request as it came over HTTP.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// Returns a request of a public client.
    pub(crate) fn new(body: &'a str) -> Self {
        black_box(Self {
            method: "POST",
            content_type: FORM,
            authorization: None,
            body: body.as_bytes(),
        })
    }

    fn incoming(self) -> Incoming<'a> {
        Incoming::new(self.method, self.body)
            .content_type(Some(self.content_type))
            .authorization(self.authorization)
    }
}

/// An authorization server: two endpoints, and a page.
pub(crate) trait Host {
    /// Who is signed in.
    type User;

    /// What the page keeps of a session between entering a code and deciding.
    type Session: Copy;

    /// Returns a host that expects this many sessions at once.
    fn new(outstanding: u64) -> Self;

    /// Returns the user with this name.
    fn user(name: String) -> Self::User;

    /// Serves `POST /device_authorization`, with 48 random bytes for each draw.
    fn device_authorization(
        &mut self,
        request: Request<'_>,
        entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    );

    /// Serves `POST /token`, with 48 random bytes for each refresh token.
    fn token(
        &mut self,
        request: Request<'_>,
        entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    );

    /// Enters a code for a user: takes a guess, looks the code up, and claims the session.
    fn enter(&mut self, typed: &str, user: &Self::User, now: Moment) -> Option<Self::Session>;

    /// Approves for the user, with the scope that was asked for.
    fn approve(&mut self, session: Self::Session, user: &Self::User, now: Moment) -> bool;

    /// Removes every session and quota, but keeps the memory for them.
    fn forget(&mut self);
}

/// A store: [`Memory`], or one around it that counts.
pub(crate) trait Store: Default {
    fn insert(&mut self, session: &Session) -> Inserted;
    fn load(&self, key: &SessionKey) -> Option<&Stored>;
    fn load_by_user_key(&self, key: &UserKey) -> Option<&Stored>;
    fn change(&mut self, change: Change<'_>) -> Write;
    fn save_pace(&mut self, key: &SessionKey, pace: Pace);
    fn take(&mut self, take: &Take) -> Result<(), RateLimited>;
    fn purge(&mut self, now: OffsetDateTime) -> usize;
}

/// The host that uses this crate.
pub(crate) struct Ours<S = Memory> {
    pub(crate) server: Server,
    around: Around<S>,
}

/// What a host has around the core.
struct Around<S> {
    store: S,
    clients: HashMap<String, Client>,
    tokens: Tokens<'static>,
}

impl<S: Store> Host for Ours<S> {
    type User = Subject;
    type Session = SessionKey;

    fn new(outstanding: u64) -> Self {
        let scope: Scope = SCOPE.parse().unwrap();
        let secret = ClientAuthMethod::secret(SecretDigest::of(SECRET));
        let clients = [
            (PUBLIC, ClientAuthMethod::None),
            (FOREIGN, ClientAuthMethod::None),
            (CONFIDENTIAL, secret),
        ];
        let clients = clients.map(|(id, method)| {
            let client = Client::new(id, method).unwrap();
            let client = client.allow_device_grant().allow_scope(scope.clone());
            (id.to_owned(), client)
        });
        let policy = policy(shape(outstanding), outstanding).unwrap();
        Self {
            server: Server::new(policy, ServerKeys::new(SERVER_KEY).unwrap()),
            around: Around {
                store: S::default(),
                clients: clients.into(),
                tokens: Minted::tokens().unwrap(),
            },
        }
    }

    fn user(name: String) -> Subject {
        Subject::new(name).unwrap()
    }

    #[inline(never)]
    fn device_authorization(
        &mut self,
        request: Request<'_>,
        entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    ) {
        let incoming = request.incoming();
        let exchange = self
            .server
            .device_authorization(incoming, SOURCE, None, now.date);
        send(&self.around.run(exchange, entropy), out);
    }

    #[inline(never)]
    fn token(
        &mut self,
        request: Request<'_>,
        entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    ) {
        let exchange = self.server.token(request.incoming(), SOURCE, now.date);
        send(&self.around.run(exchange, entropy), out);
    }

    #[inline(never)]
    fn enter(&mut self, typed: &str, user: &Subject, now: Moment) -> Option<SessionKey> {
        let exchange = self.server.enter(typed, user, "", now.date);
        let review = self.around.run(exchange, no_entropy).ok()?;
        Some(*review.session_key())
    }

    #[inline(never)]
    fn approve(&mut self, session: SessionKey, user: &Subject, now: Moment) -> bool {
        let consent = Consent::to_all();
        let exchange = self.server.approve(&session, user, &consent, now.date);
        self.around.run(exchange, no_entropy).is_ok()
    }

    fn forget(&mut self) {
        self.around
            .store
            .purge(time::Date::MAX.midnight().assume_utc());
    }
}

/// Returns octets that nobody uses, because actions on the page draw nothing.
fn no_entropy() -> [u8; 48] {
    [0; 48]
}

impl<S: Store> Ours<S> {
    /// Denies for the user.
    pub(crate) fn deny(&mut self, session: SessionKey, user: &Subject, now: Moment) -> bool {
        let exchange = self.server.deny(&session, user, now.date);
        self.around.run(exchange, no_entropy).is_ok()
    }

    pub(crate) const fn store(&self) -> &S {
        &self.around.store
    }

    pub(crate) const fn store_mut(&mut self) -> &mut S {
        &mut self.around.store
    }

    pub(crate) fn into_store(self) -> S {
        self.around.store
    }
}

impl<S: Store> Around<S> {
    #[inline(always)]
    fn run<'r, T: Finish<'r>>(
        &mut self,
        mut exchange: Exchange<'r, T>,
        mut entropy: impl FnMut() -> [u8; 48],
    ) -> T {
        let store = &mut self.store;
        loop {
            match exchange.next() {
                Next::Client(claim, ask) => {
                    ask.answer(Ok(claim.client_id().and_then(|id| self.clients.get(id))));
                }
                Next::Take(take, ask) => ask.answer(Ok(store.take(&take))),
                Next::Load(key, ask) => ask.answer(Ok(store.load(key))),
                Next::LoadByUserKey(key, ask) => ask.answer(Ok(store.load_by_user_key(key))),
                Next::Draw(ask) => ask.answer(Ok(Entropy::from(entropy()))),
                Next::Insert(session, ask) => ask.answer(Ok(store.insert(session))),
                Next::Mint(_, change, ask) => ask.answer(Ok(store.change(change)), &self.tokens),
                Next::Change(change, ask) => ask.answer(Ok(store.change(change))),
                Next::SavePace(key, pace) => store.save_pace(key, pace),
                Next::Done(end) => return end,
            }
        }
    }
}

/// Calls the methods of the same names.
impl Store for Memory {
    #[inline]
    fn insert(&mut self, session: &Session) -> Inserted {
        self.insert(session)
    }

    #[inline]
    fn load(&self, key: &SessionKey) -> Option<&Stored> {
        self.load(key)
    }

    #[inline]
    fn load_by_user_key(&self, key: &UserKey) -> Option<&Stored> {
        self.load_by_user_key(key)
    }

    #[inline]
    fn change(&mut self, change: Change<'_>) -> Write {
        self.change(change)
    }

    #[inline]
    fn save_pace(&mut self, key: &SessionKey, pace: Pace) {
        self.save_pace(key, pace);
    }

    #[inline]
    fn take(&mut self, take: &Take) -> Result<(), RateLimited> {
        self.take(take)
    }

    fn purge(&mut self, now: OffsetDateTime) -> usize {
        self.purge(now)
    }
}

#[inline(always)]
fn send(reply: &Reply, out: &mut Out) {
    let response = reply.response();
    out.head(response.status());
    for (name, value) in response.headers() {
        Out::header(name, value);
    }
    out.push(response.body().as_bytes());
}
