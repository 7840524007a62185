//! What the tests of the server half share: a default policy, two clients, one user, one moment, and the whole of a response.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::std_instead_of_alloc,
    reason = "a panic is how a test fails"
)]

pub(crate) mod client;
pub(crate) mod login;
pub(crate) mod oracle;
pub(crate) mod pair;
pub(crate) mod world;

use core::fmt::Write as _;
use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_flow::code::Entropy;
use device_flow::digest::{SecretDigest, SessionKey};
use device_flow::memory::Memory;
use device_flow::scope::Scope;
use device_flow::server::{
    Cause, Client, ClientAuthMethod, Consent, Exchange, Finish, Found, GrantRefusal, Inserted,
    Next, PageError, Policy, PolicyBuilder, Reply, Request, Review, Server, ServerKeys, Session,
    Subject, Unavailable, Write,
};
use device_flow::wire::response::Response;
use device_flow::wire::tokens::Tokens;
use time::OffsetDateTime;
use time::macros::datetime;

/// The moment at which tests begin.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-03-21 12:00:00 UTC);

/// Where users enter their codes.
pub(crate) const PAGE: &str = "https://login.example.com/device";

/// The media type of both endpoints.
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// The grant type, as a client encodes it.
pub(crate) const GRANT: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

/// The id of the public client.
pub(crate) const CLI: &str = "client_cli";

/// The id of the confidential client.
pub(crate) const BACKEND: &str = "client_backend";

/// The secret of the confidential client.
pub(crate) const SECRET: &str = "7Fjfp0ZBr1KtDRbnfVdmIw";

/// A device code that no test is issued: the right length, never drawn.
pub(crate) const NO_CODE: &str = "GmRhmhcxhwAzkoEqiMEg_DnyEysNkuNhszIySk9eS00";

/// The access token of [`tokens`].
pub(crate) const ACCESS_TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";

/// A builder with everything at its default.
pub(crate) fn builder() -> PolicyBuilder {
    Policy::builder(PAGE)
}

/// The default policy.
pub(crate) fn policy() -> Policy {
    builder().build().unwrap()
}

/// A server of the default policy.
pub(crate) fn server() -> Server {
    server_of(policy())
}

/// A server of this policy, with the usual keys.
pub(crate) fn server_of(policy: Policy) -> Server {
    Server::new(policy, keys())
}

/// A public client that may ask for `openid profile email`, and asks for `openid` by default.
pub(crate) fn cli() -> Client {
    Client::new(CLI, ClientAuthMethod::None)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile email"))
        .default_scope(scope("openid"))
}

/// A confidential client with [`SECRET`], anywhere; the same scopes.
pub(crate) fn backend() -> Client {
    let method = ClientAuthMethod::secret(SecretDigest::of(SECRET));
    Client::new(BACKEND, method)
        .unwrap()
        .allow_device_grant()
        .allow_scope(scope("openid profile email"))
        .default_scope(scope("openid"))
}

pub(crate) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

pub(crate) fn subject(sub: &str) -> Subject {
    Subject::new(sub).unwrap()
}

/// The user who decides.
pub(crate) fn alice() -> Subject {
    subject("alice")
}

/// The secret keys of the server.
pub(crate) fn keys() -> ServerKeys {
    ServerKeys::new(&key(7)).unwrap()
}

/// A key of the server, another one for each seed.
pub(crate) fn key(seed: u8) -> [u8; 32] {
    octets(seed)[..32].try_into().unwrap()
}

/// The entropy of one issuance: other codes for each seed.
pub(crate) fn entropy(seed: u8) -> Entropy {
    Entropy::from(octets(seed))
}

/// Entropy with one device code per first and one user code per second argument.
pub(crate) fn entropy_of(device: u8, user: u8) -> Entropy {
    let mut octets = octets(device);
    octets[32..].copy_from_slice(&self::octets(user)[32..]);
    Entropy::from(octets)
}

fn octets(seed: u8) -> [u8; Entropy::OCTETS] {
    let mut octets = [seed; Entropy::OCTETS];
    for (place, octet) in (0_u8..).zip(&mut octets) {
        *octet = octet.wrapping_mul(31).wrapping_add(place);
    }
    octets
}

/// Tokens with an access token alone.
pub(crate) fn tokens() -> Tokens<'static> {
    Tokens::bearer(ACCESS_TOKEN).unwrap()
}

/// A request as a client sends it, without an `Authorization` header.
pub(crate) fn post(body: &(impl AsRef<[u8]> + ?Sized)) -> Request<'_> {
    Request::new("POST", body.as_ref()).content_type(Some(FORM))
}

/// The value of an `Authorization` header. Give the halves form-encoded (see [`encoded`]) where they need it.
pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// Every octet as an escape: no reader may tell it from the plain text.
pub(crate) fn encoded(text: &str) -> String {
    escaped(text.as_bytes())
}

/// The same for octets that are no text.
pub(crate) fn escaped(octets: &[u8]) -> String {
    let mut out = String::new();
    for octet in octets {
        write!(out, "%{octet:02X}").unwrap();
    }
    out
}

/// The `Authorization` header of a client of this module: none for a public one.
pub(crate) fn authorization(client: &Client) -> Option<String> {
    (!client.is_public()).then(|| basic(client.id(), SECRET))
}

/// The body of a poll that names a client.
pub(crate) fn poll_body(client_id: &str, device_code: &str) -> String {
    format!("grant_type={GRANT}&device_code={device_code}&client_id={client_id}")
}

// Responses.

/// Asserts the whole of a response: the status, every header in order, the body. `headers` are those after the three that
/// every response has.
#[track_caller]
pub(crate) fn assert_response(
    response: &Response,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) {
    // RFC 6749, sections 5.1 and 5.2.
    let always = [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("pragma", "no-cache"),
    ];
    let wanted: Vec<_> = always
        .iter()
        .chain(headers)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let given: Vec<_> = response
        .headers()
        .map(|(name, value)| (name.to_owned(), (*value).to_owned()))
        .collect();
    let given = (response.status(), given, response.body().to_owned());
    assert_eq!(given, (status, wanted, body.to_owned()));
}

/// Asserts the cause and the whole response.
#[track_caller]
pub(crate) fn assert_reply(
    reply: &Reply,
    cause: Cause,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) {
    assert_eq!(reply.cause(), cause);
    assert_response(reply.response(), status, headers, body);
}

/// Asserts an error with status 400 and no header of its own.
#[track_caller]
pub(crate) fn assert_refused(reply: &Reply, cause: Cause, error: &str, description: &str) {
    assert_reply(reply, cause, 400, &[], &error_body(error, description));
}

/// Asserts the one 401 of the rows A11 and B2 to B7.
#[track_caller]
pub(crate) fn assert_invalid_client(reply: &Reply, cause: Cause) {
    let challenge = [("www-authenticate", r#"Basic realm="oauth""#)];
    let body = error_body("invalid_client", "client authentication failed");
    assert_reply(reply, cause, 401, &challenge, &body);
}

/// Asserts the 503, which says when to come back.
#[track_caller]
pub(crate) fn assert_unavailable(reply: &Reply, cause: Cause) {
    let body = error_body("temporarily_unavailable", "try again later");
    assert_reply(reply, cause, 503, &[("retry-after", "5")], &body);
}

/// The body of an error.
pub(crate) fn error_body(error: &str, description: &str) -> String {
    format!(r#"{{"error":"{error}","error_description":"{description}"}}"#)
}

// The host.

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
    pub(crate) drawn: u8,
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
            minted: Vec::new(),
        }
    }

    /// Runs an exchange to its end. `asked` starts anew.
    pub(crate) fn run<'r, T: Finish<'r>>(&mut self, mut exchange: Exchange<'r, T>) -> T {
        self.asked.clear();
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
                    ask.answer(self.ask(Question::Take).map(|()| self.store.take(&take)));
                }
                Next::Load(key, ask) => {
                    ask.answer(self.ask(Question::Load).map(|()| self.store.load(key)));
                }
                Next::LoadByUserKey(key, ask) => {
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
            entropy(99 + self.drawn)
        })
    }

    fn change(&mut self, change: device_flow::server::Change<'_>) -> Result<Write, Unavailable> {
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
        let header = authorization(client);
        let request = post(&body).authorization(header.as_ref());
        self.entropy.push_front(entropy(seed));
        let reply = self.run(server.device_authorization(request, SOURCE, None, now));
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
        let header = authorization(client);
        let request = post(body).authorization(header.as_ref());
        self.run(server.token(request, SOURCE, now))
    }

    /// One revocation by `client`.
    pub(crate) fn revoke(
        &mut self,
        server: &Server,
        client: &Client,
        token: &str,
        now: OffsetDateTime,
    ) -> Reply {
        let body = format!("token={token}&client_id={}", client.id());
        let header = authorization(client);
        let request = post(&body).authorization(header.as_ref());
        self.run(server.revocation(request, SOURCE, now))
    }
}

/// Where requests come from.
pub(crate) const SOURCE: &str = "203.0.113.7";

/// The body of a refresh that names a client.
pub(crate) fn refresh_body(client_id: &str, token: &str) -> String {
    format!("grant_type=refresh_token&refresh_token={token}&client_id={client_id}")
}

/// The codes that a device was given, and the key of its session.
#[derive(Clone, Debug)]
pub(crate) struct Codes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
    pub(crate) key: SessionKey,
}

impl Codes {
    /// Those of a response.
    pub(crate) fn of(reply: &Reply) -> Self {
        let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
        let device_code = body["device_code"].as_str().unwrap().to_owned();
        Self {
            key: key_of(&device_code),
            user_code: body["user_code"].as_str().unwrap().to_owned(),
            device_code,
        }
    }
}

/// The key of a session: the SHA-256 of its device code.
pub(crate) fn key_of(device_code: &str) -> SessionKey {
    SessionKey::from_bytes(*SecretDigest::of(device_code).as_bytes())
}

/// The refresh token of a response.
pub(crate) fn refresh_token(reply: &Reply) -> String {
    let body: serde_json::Value = serde_json::from_str(reply.response().body()).unwrap();
    body["refresh_token"].as_str().unwrap().to_owned()
}
