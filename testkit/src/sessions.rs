//! The sessions of a case, and the decisions about them. The crate's own exchanges make both.

use std::sync::OnceLock;

use device_flow::code::Entropy;
use device_flow::digest::{QuotaKey, SessionKey};
use device_flow::memory::Memory;
use device_flow::server::{
    Change, Client, ClientAuthMethod, Consent, Exchange, Finish, Found, Next, Pace, Policy,
    PolicyOptions, RateLimit, RateLimited, RateState, Request, Server, ServerKeys, Session, Store,
    Stored, Subject, Take, Tokens, Unavailable, Write,
};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

const FORM: &str = "application/x-www-form-urlencoded";
const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

/// The sessions and decisions of one case in one round.
pub(crate) struct Set {
    pub(crate) session: Session,
    pub(crate) same_device: Session,
    pub(crate) same_user: Session,
    pub(crate) another: Session,
    pub(crate) pace: Pace,
    pub(crate) claim: Decision,
    pub(crate) claim_by_another: Decision,
    pub(crate) approval: Decision,
    pub(crate) late_approval: Decision,
    pub(crate) denial: Decision,
    pub(crate) redemption: Decision,
    pub(crate) withdrawal: Decision,
    pub(crate) refresh: Decision,
    pub(crate) sign_out: Decision,
    /// Takes one from a quota of three.
    pub(crate) take: Take,
    /// The answer to `take` when all three are taken.
    pub(crate) spent: RateLimited,
    pub(crate) now: OffsetDateTime,
}

/// A change, kept as the action that makes it and the session that was read for it.
#[derive(Clone)]
pub(crate) struct Decision {
    action: Action,
    read: Session,
    /// The session after the change.
    pub(crate) after: Session,
    now: OffsetDateTime,
}

impl core::fmt::Debug for Decision {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} to {:?}", self.read, self.after)
    }
}

#[derive(Clone)]
enum Action {
    Enter { code: String, user: &'static str },
    Approve,
    Deny,
    Withdraw,
    Redeem { code: String },
    Refresh { token: String },
}

impl Set {
    pub(crate) fn new(seed: &str, now: OffsetDateTime) -> Self {
        let [device, user, other_device, other_user] =
            ["device", "user", "other device", "other user"].map(|what| octets(seed, what));
        let first = Issued::new(device, user, now);
        let session = first.session.clone();
        let entering = |user| {
            let code = first.user_code.clone();
            Decision::new(Action::Enter { code, user }, &session, now)
        };
        let claim = entering("alice");
        let approval = Decision::new(Action::Approve, &claim.after, now);
        let last = before(session.expires_at());
        let code = first.device_code.clone();
        let redeem = Action::Redeem { code };
        let (redemption, token) = Decision::with_token(redeem, &approval.after, now);
        let token = token.expect("a redemption has a refresh token");
        let key = QuotaKey::of_host("testkit", &[seed]);
        let limit = RateLimit::new(BURST, core::time::Duration::from_hours(1));
        let take = limit.expect("the limit is legal").take(key, now);
        Self {
            same_device: Issued::new(device, other_user, now).session,
            same_user: Issued::new(other_device, user, now).session,
            another: Issued::new(other_device, other_user, now).session,
            pace: first.pace(now),
            claim_by_another: entering("bob"),
            late_approval: Decision::new(Action::Approve, &claim.after, last),
            denial: Decision::new(Action::Deny, &claim.after, now),
            withdrawal: Decision::new(Action::Withdraw, &approval.after, now),
            refresh: Decision::new(Action::Refresh { token }, &redemption.after, now),
            sign_out: Decision::new(Action::Withdraw, &redemption.after, now),
            spent: take.refused(RateState::from_millis(
                take.now_millis() + take.room_millis() + 1000,
            )),
            take,
            redemption,
            approval,
            claim,
            session,
            now,
        }
    }
}

/// How many can be taken from the quota of a case at once.
pub(crate) const BURST: u32 = 3;

/// Returns the last moment before this one.
pub(crate) const fn before(moment: OffsetDateTime) -> OffsetDateTime {
    moment.saturating_sub(Duration::MILLISECOND)
}

/// Returns a moment that is later even in a store that counts in seconds.
pub(crate) const fn past(moment: OffsetDateTime) -> OffsetDateTime {
    moment.saturating_add(Duration::SECOND)
}

/// A session and its codes.
struct Issued {
    session: Session,
    device_code: String,
    user_code: String,
}

impl Issued {
    fn new(device: [u8; 32], user: [u8; 32], now: OffsetDateTime) -> Self {
        let mut drawn = [0; Entropy::OCTETS];
        for (octet, random) in drawn.iter_mut().zip(device.iter().chain(&user)) {
            *octet = *random;
        }
        let request = Request::new("POST", b"client_id=testkit").content_type(Some(FORM));
        let exchange = server().device_authorization(request, "", Some("192.0.2.1"), now);
        let mut scratch = Scratch::new(None, drawn);
        let reply = scratch.run(exchange);
        let member = |name| member(reply.response().body(), name);
        Self {
            device_code: member("device_code").expect("the codes were issued"),
            user_code: member("user_code").expect("the codes were issued"),
            session: scratch.inserted.expect("the session was inserted"),
        }
    }

    /// Returns the pace after the first poll.
    fn pace(&self, now: OffsetDateTime) -> Pace {
        let body = format!(
            "grant_type={GRANT}&device_code={}&client_id=testkit",
            self.device_code
        );
        let request = Request::new("POST", body.as_bytes()).content_type(Some(FORM));
        let mut scratch = Scratch::new(Some(&self.session), [0; Entropy::OCTETS]);
        let _ = scratch.run(server().token(request, "", now));
        scratch.pace.expect("the first poll saves a pace")
    }
}

impl Decision {
    fn new(action: Action, read: &Session, now: OffsetDateTime) -> Self {
        Self::with_token(action, read, now).0
    }

    /// Returns also the refresh token of the response.
    fn with_token(action: Action, read: &Session, now: OffsetDateTime) -> (Self, Option<String>) {
        let mut scratch = Scratch::new(Some(read), random(&action));
        let body = action.body();
        let token = match &action {
            Action::Redeem { .. } | Action::Refresh { .. } => {
                let reply = scratch.run(server().token(request(&body), "", now));
                member(reply.response().body(), "refresh_token")
            }
            Action::Enter { code, user } => {
                let _ = scratch.run(server().enter(code, &subject(user), "", now));
                None
            }
            Action::Approve | Action::Deny | Action::Withdraw => {
                let _ = scratch.run(action.page(read.key(), &subject("alice"), &CONSENT, now));
                None
            }
        };
        let after = scratch.written.expect("the decision changes the session");
        let read = read.clone();
        let decision = Self {
            action,
            read,
            after,
            now,
        };
        (decision, token)
    }

    /// Writes the change to a store.
    pub(crate) async fn write<S: Store>(&self, store: &S) -> Result<Write, Unavailable> {
        let scratch = Scratch::new(Some(&self.read), random(&self.action));
        let body = self.action.body();
        match &self.action {
            Action::Redeem { .. } | Action::Refresh { .. } => {
                let exchange = server().token(request(&body), "", self.now);
                scratch.write(exchange, store).await
            }
            Action::Enter { code, user } => {
                let user = subject(user);
                let exchange = server().enter(code, &user, "", self.now);
                scratch.write(exchange, store).await
            }
            Action::Approve | Action::Deny | Action::Withdraw => {
                let user = subject("alice");
                let exchange = self.action.page(self.read.key(), &user, &CONSENT, self.now);
                scratch.write(exchange, store).await
            }
        }
    }
}

impl Action {
    fn body(&self) -> String {
        match self {
            Self::Redeem { code } => {
                format!("grant_type={GRANT}&device_code={code}&client_id=testkit")
            }
            Self::Refresh { token } => {
                format!("grant_type=refresh_token&refresh_token={token}&client_id=testkit")
            }
            Self::Enter { .. } | Self::Approve | Self::Deny | Self::Withdraw => String::new(),
        }
    }

    fn page<'r>(
        &self,
        key: &SessionKey,
        user: &'r Subject,
        consent: &'r OnceLock<Consent>,
        now: OffsetDateTime,
    ) -> Exchange<'r, Result<Session, device_flow::server::PageError>> {
        match self {
            Self::Deny => server().deny(key, user, now),
            Self::Withdraw => server().withdraw(key, user, now),
            Self::Enter { .. } | Self::Approve | Self::Redeem { .. } | Self::Refresh { .. } => {
                server().approve(key, user, consent.get_or_init(Consent::to_all), now)
            }
        }
    }
}

static CONSENT: OnceLock<Consent> = OnceLock::new();

/// A host that has one session, and keeps what it should write.
struct Scratch {
    stored: Option<Stored>,
    drawn: [u8; Entropy::OCTETS],
    /// Holds only the quotas.
    quotas: Memory,
    inserted: Option<Session>,
    written: Option<Session>,
    pace: Option<Pace>,
}

impl Scratch {
    fn new(session: Option<&Session>, drawn: [u8; Entropy::OCTETS]) -> Self {
        let session = session.cloned();
        Self {
            stored: session.map(|session| Stored {
                pace: None,
                session,
            }),
            drawn,
            quotas: Memory::new(),
            inserted: None,
            written: None,
            pace: None,
        }
    }

    /// Answers the question, or returns the change to write.
    fn answer<'x, T>(&mut self, next: Next<'x, T>) -> Asked<'x, T> {
        let stored = self.stored.as_ref();
        match next {
            Next::Client(_, ask) => ask.answer(Ok(Found::Registered(client()))),
            Next::Take(take, ask) => ask.answer(Ok(self.quotas.take(&take))),
            Next::Load(_, ask) | Next::LoadByUserKey(_, ask) => ask.answer(Ok(stored)),
            Next::Draw(ask) => ask.answer(Ok(Entropy::from(self.drawn))),
            Next::Insert(session, ask) => {
                self.inserted = Some(session.clone());
                ask.answer(Ok(device_flow::server::Inserted::New));
            }
            Next::SavePace(_, pace) => self.pace = Some(pace),
            Next::Mint(_, change, ask) => {
                self.written = Some(change.session().clone());
                let tokens = Tokens::bearer("testkit").expect("the token is legal");
                return Asked::Change(
                    change,
                    Box::new(move |written| ask.answer(written, &tokens)),
                );
            }
            Next::Change(change, ask) => {
                self.written = Some(change.session().clone());
                return Asked::Change(change, Box::new(move |written| ask.answer(written)));
            }
            Next::Done(end) => return Asked::Done(end),
        }
        Asked::Answered
    }

    /// Runs an exchange to its end.
    fn run<'r, T: Finish<'r>>(&mut self, mut exchange: Exchange<'r, T>) -> T {
        loop {
            match self.answer(exchange.next()) {
                Asked::Answered => {}
                Asked::Change(_, ask) => ask(Ok(Write::Committed)),
                Asked::Done(end) => return end,
            }
        }
    }

    /// Runs an exchange up to its change, and writes the change to a store.
    async fn write<'r, T: Finish<'r>, S: Store>(
        mut self,
        mut exchange: Exchange<'r, T>,
        store: &S,
    ) -> Result<Write, Unavailable> {
        loop {
            match self.answer(exchange.next()) {
                Asked::Answered => {}
                Asked::Change(change, _) => return store.change(change).await,
                Asked::Done(_) => return Err(Unavailable),
            }
        }
    }
}

/// What `answer` did with a question.
enum Asked<'x, T> {
    Answered,
    Change(Change<'x>, Box<dyn FnOnce(Result<Write, Unavailable>) + 'x>),
    Done(T),
}

/// The server that makes the sessions.
fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let policy = Policy::new("https://login.example.com/device", PolicyOptions::default());
        let keys = ServerKeys::new(&octets("server", "key"));
        Server::new(
            policy.expect("the policy is legal"),
            keys.expect("the key is legal"),
        )
    })
}

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let scope: device_flow::scope::Scope =
            "openid offline_access".parse().expect("it is a scope");
        let client = Client::new("testkit", ClientAuthMethod::None).expect("the id is legal");
        let client = client.allow_device_grant().allow_scope(scope.clone());
        client.default_scope(scope)
    })
}

fn subject(name: &str) -> Subject {
    Subject::new(name).expect("the name is legal")
}

fn request(body: &str) -> Request<'_> {
    Request::new("POST", body.as_bytes()).content_type(Some(FORM))
}

fn member(body: &str, name: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(body.get(name)?.as_str()?.to_owned())
}

fn octets(seed: &str, what: &str) -> [u8; 32] {
    let digest = Sha256::new()
        .chain_update(seed)
        .chain_update([0])
        .chain_update(what);
    digest.finalize().into()
}

/// Returns the same octets each time that the same action is run.
fn random(action: &Action) -> [u8; Entropy::OCTETS] {
    let half = octets(&action.body(), "secret");
    let mut drawn = [0; Entropy::OCTETS];
    for (octet, random) in drawn.iter_mut().zip(half.iter().chain(&half)) {
        *octet = *random;
    }
    drawn
}
