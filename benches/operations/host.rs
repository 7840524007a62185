//! The host of the server half: what an authorization server does around the core, with [`Memory`] as its store.

use core::hint::black_box;
use core::time::Duration;
use std::collections::HashMap;

use device_flow::code::{Entropy, UserCodeShape};
use device_flow::digest::{QuotaKey, SecretDigest, SessionKey, UserCodeKey, UserCodeKeys, UserKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Authentication, Change, DecisionError, Entered, Entry, Form, Grant, HostValue, Incoming,
    Inserted, Pace, Policy, Polled, Quota, QuotaChange, Registration, Reply, Session, Stored,
    Subject, Written,
};
use device_flow::wire::tokens::{TokenError, Tokens};
use time::OffsetDateTime;

use super::{Moment, Out, Random};

pub(crate) const PUBLIC: &str = "client_01KAFZ2BN9JV8PDPZQ4D0GWXYZ";
pub(crate) const FOREIGN: &str = "client_01KAFZ2BN9JV8PDPZQ4D0GFRGN";
pub(crate) const CONFIDENTIAL: &str = "client_01KAFZ2BN9JV8PDPZQ4D0GCNFD";
pub(crate) const SECRET: &str = "yLKPyKyVUxgmRhmhcxhwAzkoEqiMEgDnyEysNkuNhsz";
pub(crate) const SCOPE: &str = "openid profile email offline_access";
pub(crate) const USER_CODE_KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
pub(crate) const PAGE: &str = "https://login.example.com/device";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// The name of the user of this number, a `sub`.
pub(crate) fn user(number: usize) -> String {
    format!("user_01KAFZ2BN9JV8PDPZQ4D0{number:07}")
}

/// What the host mints: 1.2 KB in all.
pub(crate) struct Minted {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) id: String,
}

impl Minted {
    pub(crate) fn new() -> Self {
        let mut random = Random(1);
        Self {
            access: random.token(600),
            refresh: random.token(43),
            id: random.token(400),
        }
    }

    /// The same as this crate takes it. It is minted once for a bench, off the clock, and never freed.
    fn tokens() -> Result<Tokens<'static>, TokenError> {
        let minted: &'static Self = Box::leak(Box::new(Self::new()));
        Tokens::bearer(&minted.access)?
            .expires_in(Duration::from_mins(5))
            .refresh_token(&minted.refresh)?
            .id_token(&minted.id)
    }
}

/// The shape of user codes that a policy asks for where so many sessions are outstanding: the shortest that it accepts.
pub(crate) fn shape(outstanding: u64) -> UserCodeShape {
    (8..=16)
        .filter_map(|length| UserCodeShape::new(UserCodeShape::CONSONANTS, length).ok())
        .find(|shape| policy(shape.clone(), outstanding).is_some())
        .unwrap()
}

fn policy(shape: UserCodeShape, outstanding: u64) -> Option<Policy> {
    let builder = Policy::builder(PAGE).user_code(shape);
    builder.outstanding(outstanding).build().ok()
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
    /// A request of a public client.
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

    /// A host that expects so many sessions at once.
    fn new(outstanding: u64) -> Self;

    /// The user of this name.
    fn user(name: String) -> Self::User;

    /// `POST /device_authorization`, with 48 random bytes for each draw.
    fn device_authorization(
        &mut self,
        request: Request<'_>,
        entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    );

    /// `POST /token`
    fn token(&mut self, request: Request<'_>, now: Moment, out: &mut Out);

    /// A user enters a code: pays a guess, looks it up, claims the session.
    fn enter(&mut self, typed: &str, user: &Self::User, now: Moment) -> Option<Self::Session>;

    /// The user approves, with the scope asked for.
    fn approve(&mut self, session: Self::Session, user: &Self::User, now: Moment) -> bool;

    /// Removes every session and quota, and keeps the room.
    fn forget(&mut self);
}

/// A store: [`Memory`], or one around it that counts.
pub(crate) trait Store: Default {
    fn insert(&mut self, session: &Session) -> Inserted;
    fn load(&self, key: &SessionKey) -> Option<&Stored>;
    fn load_by_user_key(&self, key: &UserKey) -> Option<&Stored>;
    fn change(&mut self, change: &Change) -> Written;
    fn save_pace(&mut self, key: &SessionKey, pace: Pace);
    fn load_quota(&self, key: &QuotaKey) -> Option<Quota>;
    fn change_quota(&mut self, change: &QuotaChange) -> Written;
    fn purge(&mut self, now: OffsetDateTime) -> usize;
}

/// The host that uses this crate.
pub(crate) struct Ours<S = Memory> {
    pub(crate) policy: Policy,
    pub(crate) store: S,
    clients: HashMap<String, Registration>,
    keys: UserCodeKeys,
    scope: Scope,
    tokens: Tokens<'static>,
}

impl<S: Store> Host for Ours<S> {
    type User = Subject;
    type Session = SessionKey;

    fn new(outstanding: u64) -> Self {
        let scope: Scope = SCOPE.parse().unwrap();
        let secret = Authentication::secret(SecretDigest::of(SECRET));
        let clients = [
            (PUBLIC, Authentication::Public),
            (FOREIGN, Authentication::Public),
            (CONFIDENTIAL, secret),
        ];
        let clients = clients.map(|(id, authentication)| {
            let registration = Registration::new(id, authentication).unwrap();
            let registration = registration.allow_device_grant().allow_scope(scope.clone());
            (id.to_owned(), registration)
        });
        Self {
            policy: policy(shape(outstanding), outstanding).unwrap(),
            store: S::default(),
            clients: clients.into(),
            keys: UserCodeKeys::new(UserCodeKey::new(USER_CODE_KEY).unwrap()),
            scope,
            tokens: Minted::tokens().unwrap(),
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
        match self.issue(request.incoming(), entropy, now.date) {
            Ok(reply) | Err(reply) => send(&reply, out),
        }
    }

    #[inline(never)]
    fn token(&mut self, request: Request<'_>, now: Moment, out: &mut Out) {
        match self.poll(request.incoming(), now.date) {
            Ok(reply) | Err(reply) => send(&reply, out),
        }
    }

    #[inline(never)]
    fn enter(&mut self, typed: &str, user: &Subject, now: Moment) -> Option<SessionKey> {
        let Self { store, .. } = self;
        let mut entry = Entry::new(typed, user, &self.keys, &self.policy);
        let quota = store.load_quota(entry.quota_key());
        let guess = entry.pay(quota, now.date).ok()?;
        let written = store.change_quota(guess.change());
        let paid = guess.settle(written).ok()?;
        let mut keys = paid.user_keys();
        let found = keys.find_map(|key| store.load_by_user_key(&key));
        let session = found.map(|stored| &stored.session);
        let review = match paid.enter(session, now.date).ok()? {
            Entered::Review(review) => review,
            Entered::Claim(claim) => {
                let written = store.change(claim.change());
                claim.settle(written).ok()?
            }
        };
        Some(*review.session_key())
    }

    #[inline(never)]
    fn approve(&mut self, session: SessionKey, user: &Subject, now: Moment) -> bool {
        let decided = self.store.load(&session).map(|stored| {
            let (scope, value) = (&self.scope, HostValue::default());
            let session = &stored.session;
            session.approve(user, scope, value, &self.policy, now.date)
        });
        self.decide(decided)
    }

    fn forget(&mut self) {
        self.store.purge(time::Date::MAX.midnight().assume_utc());
    }
}

impl<S: Store> Ours<S> {
    /// The user denies.
    pub(crate) fn deny(&mut self, session: SessionKey, user: &Subject, now: Moment) -> bool {
        let found = self.store.load(&session);
        let decided = found.map(|stored| stored.session.deny(user, now.date));
        self.decide(decided)
    }

    fn decide(&mut self, decided: Option<Result<Option<Change>, DecisionError>>) -> bool {
        match decided {
            Some(Ok(Some(change))) => self.store.change(&change) == Written::Won,
            Some(Ok(None)) => true,
            Some(Err(_)) | None => false,
        }
    }

    #[inline]
    fn issue(
        &mut self,
        incoming: Incoming<'_>,
        mut entropy: impl FnMut() -> [u8; 48],
        now: OffsetDateTime,
    ) -> Result<Reply, Reply> {
        let form = Form::read(incoming, &self.policy)?;
        let request = form.device_authorization()?;
        let registration = request.client_id().and_then(|id| self.clients.get(id));
        let mut issuing = request.authenticate(registration)?;
        loop {
            let issuance = issuing.draw(Entropy::from(entropy()), &self.keys, now)?;
            let inserted = self.store.insert(issuance.session());
            if let Ok(reply) = issuance.settle(inserted) {
                return Ok(reply);
            }
        }
    }

    #[inline]
    fn poll(&mut self, incoming: Incoming<'_>, now: OffsetDateTime) -> Result<Reply, Reply> {
        let form = Form::read(incoming, &self.policy)?;
        let request = match form.grant()? {
            Grant::DeviceCode(request) => request,
            Grant::Other(form) => return Ok(form.unsupported_grant()),
        };
        let registration = request.client_id().and_then(|id| self.clients.get(id));
        let mut poll = request.authenticate(registration)?;
        loop {
            let stored = poll.session_key().and_then(|key| self.store.load(key));
            match poll.decide(stored, now) {
                Polled::Reply(reply) => return Ok(reply),
                Polled::Paced(key, pace, reply) => {
                    self.store.save_pace(key, pace);
                    return Ok(reply);
                }
                Polled::Redeem(redemption) => {
                    let written = self.store.change(redemption.change());
                    if let Ok(reply) = redemption.settle(written, &self.tokens) {
                        return Ok(reply);
                    }
                }
            }
        }
    }
}

/// Hands on to the methods of the same names.
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
    fn change(&mut self, change: &Change) -> Written {
        self.change(change)
    }

    #[inline]
    fn save_pace(&mut self, key: &SessionKey, pace: Pace) {
        self.save_pace(key, pace);
    }

    #[inline]
    fn load_quota(&self, key: &QuotaKey) -> Option<Quota> {
        self.load_quota(key)
    }

    #[inline]
    fn change_quota(&mut self, change: &QuotaChange) -> Written {
        self.change_quota(change)
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
