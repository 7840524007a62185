//! The floor of the server half.
//!
//! Its responses are made like those of this crate: static bytes where possible, otherwise bytes of their own, as HTTP servers take them.

use core::hint::black_box;
use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hashbrown::HashTable;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::operations::host::{
    CONFIDENTIAL, FOREIGN, FORM, Host, ISSUING_BURST, Minted, PAGE, PUBLIC, Request, SCOPE, SECRET,
    SERVER_KEY, SOURCE, shape,
};
use crate::operations::{Moment, Out};

const GRANT: &[u8] = b"urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
const CONSONANTS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

const PENDING: &[u8] =
    br#"{"error":"authorization_pending","error_description":"the user has not decided yet"}"#;
const EXPIRED: &[u8] =
    br#"{"error":"expired_token","error_description":"the device code has expired"}"#;
const UNKNOWN: &[u8] =
    br#"{"error":"invalid_grant","error_description":"the device code is not valid"}"#;
const MISSING: &[u8] =
    br#"{"error":"invalid_request","error_description":"device_code is missing"}"#;

const LIFETIME: i64 = 300_000;
const INTERVAL: u8 = 5;
const STEP: u8 = 5;
const CAP: u8 = 60;

/// Five guesses at once, then one a minute.
const GUESS_PERIOD: i64 = 60_000;
const GUESS_ROOM: i64 = 4 * GUESS_PERIOD;

/// Twenty refreshes of a login at once, then one a minute.
const REFRESH_PERIOD: i64 = 60_000;
const REFRESH_ROOM: i64 = 19 * REFRESH_PERIOD;
const IDLE: i64 = 30 * 24 * 3_600_000;
const GRACE: i64 = 30_000;

/// For how long an approval can be redeemed at least, in milliseconds: the cap plus one interval.
const REDEEM_TIME: i64 = 65_000;

/// The most bytes of a response that are not a code, a token, or text from the policy.
const FRAME: usize = 128;

/// A digest; its first word is its hash.
type Key = [u8; 32];

fn hash(key: &Key) -> u64 {
    u64::from_le_bytes(*key.first_chunk().unwrap())
}

struct Client {
    id: &'static str,
    secret: Option<Key>,
    /// The scope that it may ask for. The sessions that ask for all of it share it.
    scope: Arc<str>,
}

/// A session, with the least that a correct one holds.
struct Record {
    device: Key,
    user: Key,
    client: Arc<Client>,
    scope: Arc<str>,
    expires: i64,
    version: u64,
    state: State,
    pace: Pace,
}

enum State {
    Pending,
    Claimed(Box<Decision>),
    Approved(Box<Decision>),
    Active(Box<Login>),
}

/// A redeemed session, which the refresh token continues.
struct Login {
    decision: Box<Decision>,
    current: Key,
    previous: Option<Key>,
    rotated: i64,
    until: i64,
}

struct Decision {
    user: Box<str>,
    scope: Arc<str>,
    /// Until when the approval may be redeemed, or when it was redeemed.
    at: i64,
}

struct Pace {
    /// The moment of the last accepted poll, or `i64::MIN` if no poll was accepted yet.
    last: i64,
    interval: u8,
    widened: bool,
}

/// The host without this crate.
pub(crate) struct Floor {
    clients: HashMap<String, Arc<Client>>,
    sessions: HashTable<Record>,
    users: HashTable<(u64, u64)>,
    /// For each user: when all guesses that were taken are given back.
    guesses: HashMap<String, i64>,
    /// For each client and source: the same for issuing.
    issuing: HashMap<(&'static str, String), i64>,
    /// For each login: the same for refreshes.
    refreshes: HashMap<Key, i64>,
    key: Hmac<Sha256>,
    tags: Hmac<Sha256>,
    length: usize,
    after_code: String,
    minted: Minted,
}

impl Host for Floor {
    type User = String;
    type Session = Key;

    fn new(outstanding: u64) -> Self {
        let scope: Arc<str> = SCOPE.into();
        let clients = [
            (PUBLIC, None),
            (FOREIGN, None),
            (CONFIDENTIAL, Some(Sha256::digest(SECRET).into())),
        ];
        let clients = clients.map(|(id, secret)| {
            let scope = scope.clone();
            (id.to_owned(), Arc::new(Client { id, secret, scope }))
        });
        Self {
            clients: clients.into(),
            sessions: HashTable::new(),
            users: HashTable::new(),
            guesses: HashMap::new(),
            issuing: HashMap::new(),
            refreshes: HashMap::new(),
            key: derived(b"user codes"),
            tags: derived(b"refresh tokens"),
            length: shape(outstanding).length().into(),
            after_code: format!(
                r#"","verification_uri":"{PAGE}","expires_in":{},"interval":{INTERVAL}}}"#,
                LIFETIME / 1000
            ),
            minted: Minted::new(),
        }
    }

    fn user(name: String) -> String {
        name
    }

    #[inline(never)]
    fn device_authorization(
        &mut self,
        request: Request<'_>,
        mut entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    ) {
        if request.content_type != FORM {
            return invalid(out);
        }
        let (mut client_id, mut scope) = (None, None);
        for segment in Segments(Some(request.body)) {
            if let Some(value) = segment.strip_prefix(b"client_id=") {
                client_id = Some(value);
            } else if let Some(value) = segment.strip_prefix(b"scope=") {
                scope = Some(value);
            }
        }
        let Some(scope) = scope else {
            return invalid(out);
        };
        let Some(client) = authenticate(&self.clients, request.authorization, client_id) else {
            return unauthorized(out);
        };
        // The request must ask for the whole scope that is allowed.
        let decoded = scope
            .iter()
            .map(|&byte| if byte == b'+' { b' ' } else { byte });
        if !decoded.eq(client.scope.bytes()) {
            return invalid(out);
        }
        let client = client.clone();
        if !take(
            &mut self.issuing,
            (client.id, SOURCE.to_owned()),
            1,
            i64::from(ISSUING_BURST) - 1,
            now.millis,
        ) {
            return invalid(out);
        }
        let entropy = entropy();
        let (device, random) = entropy.split_at(32);
        let mut device_code = [0; 43];
        URL_SAFE_NO_PAD
            .encode_slice(device, &mut device_code)
            .unwrap();
        let mut number = u128::from_be_bytes(random.try_into().unwrap());
        number %= 20_u128.pow(u32::try_from(self.length).unwrap());
        let mut number = u64::try_from(number).unwrap();
        let mut user_code = [0; 16];
        let user_code = &mut user_code[..self.length];
        for slot in &mut *user_code {
            *slot = CONSONANTS[usize::try_from(number % 20).unwrap()];
            number /= 20;
        }
        let record = Record {
            device: Sha256::digest(device_code).into(),
            user: self
                .key
                .clone()
                .chain_update(&*user_code)
                .finalize()
                .into_bytes()
                .into(),
            client: client.clone(),
            scope: client.scope.clone(),
            expires: now.millis + LIFETIME,
            version: 1,
            state: State::Pending,
            pace: Pace {
                last: i64::MIN,
                interval: INTERVAL,
                widened: false,
            },
        };
        if !self.insert(record) {
            return invalid(out);
        }
        let room = 43 + user_code.len() + self.after_code.len();
        let mut body = Vec::with_capacity(FRAME + room);
        body.extend_from_slice(br#"{"device_code":""#);
        body.extend_from_slice(&device_code);
        body.extend_from_slice(br#"","user_code":""#);
        let group = [4, 5, 3]
            .into_iter()
            .find(|group| user_code.len().is_multiple_of(*group));
        for (place, group) in user_code.chunks(group.unwrap_or(16)).enumerate() {
            if place > 0 {
                body.extend_from_slice(b"-");
            }
            body.extend_from_slice(group);
        }
        body.extend_from_slice(self.after_code.as_bytes());
        made(out, &black_box(body));
    }

    #[inline(never)]
    fn token(
        &mut self,
        request: Request<'_>,
        entropy: impl FnMut() -> [u8; 48],
        now: Moment,
        out: &mut Out,
    ) {
        if request.content_type != FORM {
            return invalid(out);
        }
        let (mut grant, mut code, mut client_id) = (None, None, None);
        for segment in Segments(Some(request.body)) {
            if let Some(value) = segment.strip_prefix(b"grant_type=") {
                grant = Some(value);
            } else if let Some(value) = segment.strip_prefix(b"device_code=") {
                code = Some(value);
            } else if let Some(value) = segment.strip_prefix(b"client_id=") {
                client_id = Some(value);
            } else if let Some(value) = segment.strip_prefix(b"refresh_token=") {
                code = Some(value);
            }
        }
        if grant == Some(b"refresh_token") {
            return self.refresh(request, client_id, code, entropy, now.millis, out);
        }
        if grant != Some(GRANT) {
            return invalid(out);
        }
        let Some(code) = code else {
            return refuse(out, MISSING);
        };
        let Some(client) = authenticate(&self.clients, request.authorization, client_id) else {
            return unauthorized(out);
        };
        let key: Key = Sha256::digest(code).into();
        let found = self
            .sessions
            .find_mut(hash(&key), |record| record.device == key);
        let Some(record) = found.filter(|record| Arc::ptr_eq(&record.client, client)) else {
            return refuse(out, UNKNOWN);
        };
        match record.state {
            State::Pending | State::Claimed(_) if now.millis < record.expires => {
                record.pace.step(now.millis, out);
            }
            State::Approved(ref decision) if now.millis < decision.at => {
                redeem(record, &self.tags, &self.minted, entropy, now.millis, out);
            }
            State::Pending | State::Claimed(_) | State::Approved(_) | State::Active(_) => {
                refuse(out, EXPIRED);
            }
        }
    }

    #[inline(never)]
    fn enter(&mut self, typed: &str, user: &String, now: Moment) -> Option<Key> {
        let now = now.millis;
        if !take(
            &mut self.guesses,
            user.clone(),
            GUESS_PERIOD,
            GUESS_ROOM,
            now,
        ) {
            return None;
        }
        let mut code = [0; 16];
        let mut slots = code[..self.length].iter_mut();
        for byte in typed.bytes().map(|byte| byte.to_ascii_uppercase()) {
            if CONSONANTS.contains(&byte) {
                *slots.next()? = byte;
            }
        }
        if slots.next().is_some() {
            return None;
        }
        let code = &code[..self.length];
        let key: Key = self
            .key
            .clone()
            .chain_update(code)
            .finalize()
            .into_bytes()
            .into();
        let sessions = &mut self.sessions;
        let mut entries = self.users.iter_hash(hash(&key));
        let is_ours = |&&(_, session): &&(u64, u64)| {
            sessions
                .find(session, |record| record.user == key)
                .is_some()
        };
        let &(_, session) = entries.find(is_ours)?;
        let record = self
            .sessions
            .find_mut(session, |record| record.user == key)?;
        if now >= record.expires {
            return None;
        }
        let State::Pending = record.state else {
            return None;
        };
        record.state = State::Claimed(Box::new(Decision {
            user: user.as_str().into(),
            scope: record.scope.clone(),
            at: now,
        }));
        record.version += 1;
        Some(record.device)
    }

    #[inline(never)]
    fn approve(&mut self, session: Key, user: &String, now: Moment) -> bool {
        let found = self
            .sessions
            .find_mut(hash(&session), |record| record.device == session);
        let Some(record) = found.filter(|record| now.millis < record.expires) else {
            return false;
        };
        match core::mem::replace(&mut record.state, State::Pending) {
            State::Claimed(mut decision) if *decision.user == **user => {
                decision.at = record.expires.max(now.millis + REDEEM_TIME);
                record.state = State::Approved(decision);
                record.version += 1;
                true
            }
            other
            @ (State::Pending | State::Claimed(_) | State::Approved(_) | State::Active(_)) => {
                record.state = other;
                false
            }
        }
    }

    fn forget(&mut self) {
        self.sessions.clear();
        self.users.clear();
        self.guesses.clear();
        self.issuing.clear();
        self.refreshes.clear();
    }
}

fn derived(label: &[u8]) -> Hmac<Sha256> {
    let key = Hmac::<Sha256>::new_from_slice(SERVER_KEY).unwrap();
    let key = key.chain_update(label).finalize().into_bytes();
    Hmac::new_from_slice(&key).unwrap()
}

/// Takes one from a quota, and returns whether there was one left. One is given back per `period`, and the stored moment may be ahead of
/// the clock by `room`. Both are in milliseconds.
fn take<K: Eq + core::hash::Hash>(
    quotas: &mut HashMap<K, i64>,
    key: K,
    period: i64,
    room: i64,
    now: i64,
) -> bool {
    let full = quotas.entry(key).or_insert(now);
    let at = now.max(*full);
    if at - now > room {
        return false;
    }
    *full = at + period;
    true
}

/// Returns a refresh token: the key of the login, a secret and a tag.
fn refresh_token(tags: &Hmac<Sha256>, login: &Key, secret: &[u8]) -> [u8; 107] {
    let mut octets = [0; 80];
    octets[..32].copy_from_slice(login);
    octets[32..64].copy_from_slice(secret);
    let tag = tags
        .clone()
        .chain_update(&octets[..64])
        .finalize()
        .into_bytes();
    octets[64..].copy_from_slice(&tag[..16]);
    let mut text = [0; 107];
    URL_SAFE_NO_PAD.encode_slice(octets, &mut text).unwrap();
    text
}

impl Floor {
    #[inline(never)]
    fn refresh(
        &mut self,
        request: Request<'_>,
        client_id: Option<&[u8]>,
        token: Option<&[u8]>,
        mut entropy: impl FnMut() -> [u8; 48],
        now: i64,
        out: &mut Out,
    ) {
        let Some(token) = token else {
            return invalid(out);
        };
        let Some(client) = authenticate(&self.clients, request.authorization, client_id) else {
            return unauthorized(out);
        };
        let mut octets = [0; 80];
        if !matches!(URL_SAFE_NO_PAD.decode_slice(token, &mut octets), Ok(80)) {
            return invalid(out);
        }
        let tag = self
            .tags
            .clone()
            .chain_update(&octets[..64])
            .finalize()
            .into_bytes();
        if !bool::from(tag[..16].ct_eq(&octets[64..])) {
            return invalid(out);
        }
        let key: Key = octets[..32].try_into().unwrap();
        let found = self
            .sessions
            .find_mut(hash(&key), |record| record.device == key);
        let Some(record) = found.filter(|record| Arc::ptr_eq(&record.client, client)) else {
            return invalid(out);
        };
        let State::Active(login) = &mut record.state else {
            return invalid(out);
        };
        let presented: Key = Sha256::digest(&octets[32..64]).into();
        let is_current = bool::from(presented.ct_eq(&login.current));
        let is_previous = login
            .previous
            .is_some_and(|own| presented.ct_eq(&own).into());
        if now >= login.until || !(is_current || is_previous && now - login.rotated < GRACE) {
            return invalid(out);
        }
        if !take(&mut self.refreshes, key, REFRESH_PERIOD, REFRESH_ROOM, now) {
            return invalid(out);
        }
        let entropy = entropy();
        let secret = &entropy[..32];
        if is_current {
            login.previous = Some(presented);
            login.rotated = now;
        }
        login.current = Sha256::digest(secret).into();
        login.until = now + IDLE;
        record.version += 1;
        let token = refresh_token(&self.tags, &key, secret);
        answer(&self.minted, &token, &login.decision.scope, out);
    }

    /// Inserts a session and returns `true`, unless one of its codes is taken. Never overwrites.
    fn insert(&mut self, record: Record) -> bool {
        let (device, user) = (hash(&record.device), hash(&record.user));
        let sessions = &mut self.sessions;
        let is_taken = sessions
            .find(device, |own| own.device == record.device)
            .is_some()
            || self.users.iter_hash(user).any(|&(_, session)| {
                sessions
                    .find(session, |own| own.user == record.user)
                    .is_some()
            });
        if !is_taken {
            sessions.insert_unique(device, record, |own| hash(&own.device));
            self.users
                .insert_unique(user, (user, device), |&(user, _)| user);
        }
        !is_taken
    }
}

impl Pace {
    fn step(&mut self, now: i64, out: &mut Out) {
        let interval = i64::from(self.interval) * 1000;
        let least = interval - (interval / 4).max(1000);
        if now.saturating_sub(self.last) >= least {
            *self = Self {
                last: now,
                interval: self.interval,
                widened: false,
            };
            return refuse(out, PENDING);
        }
        if now - self.last < 1000 {
            return refuse(out, PENDING);
        }
        if !self.widened && self.interval < CAP {
            self.interval = (self.interval + STEP).min(CAP);
            self.widened = true;
        }
        let digits = [b'0' + self.interval / 10, b'0' + self.interval % 10];
        let digits = &digits[usize::from(self.interval < 10)..];
        head(out, 400);
        Out::header("retry-after", core::str::from_utf8(digits).unwrap());
        out.push(br#"{"error":"slow_down","error_description":"polling too fast","interval":"#);
        out.push(digits);
        out.push(b"}");
    }
}

/// Redeems an approved session, and writes the response.
fn redeem(
    record: &mut Record,
    tags: &Hmac<Sha256>,
    minted: &Minted,
    mut entropy: impl FnMut() -> [u8; 48],
    now: i64,
    out: &mut Out,
) {
    if let State::Approved(mut decision) = core::mem::replace(&mut record.state, State::Pending) {
        decision.at = now;
        let entropy = entropy();
        let secret = &entropy[..32];
        let token = refresh_token(tags, &record.device, secret);
        answer(minted, &token, &decision.scope, out);
        record.state = State::Active(Box::new(Login {
            decision,
            current: Sha256::digest(secret).into(),
            previous: None,
            rotated: now,
            until: now + IDLE,
        }));
        record.version += 1;
    }
}

fn answer(minted: &Minted, refresh: &[u8; 107], scope: &str, out: &mut Out) {
    let room = minted.access.len() + refresh.len() + minted.id.len();
    let mut body = Vec::with_capacity(FRAME + room + scope.len());
    body.extend_from_slice(br#"{"access_token":""#);
    body.extend_from_slice(minted.access.as_bytes());
    body.extend_from_slice(br#"","token_type":"Bearer","refresh_token":""#);
    body.extend_from_slice(refresh);
    body.extend_from_slice(br#"","id_token":""#);
    body.extend_from_slice(minted.id.as_bytes());
    body.extend_from_slice(br#"","scope":""#);
    body.extend_from_slice(scope.as_bytes());
    body.extend_from_slice(br#"","expires_in":300}"#);
    made(out, &black_box(body));
}

/// The parts of a form between `&`.
struct Segments<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        match memchr::memchr(b'&', rest) {
            Some(end) => {
                self.0 = Some(&rest[end + 1..]);
                Some(&rest[..end])
            }
            None => self.0.take(),
        }
    }
}

/// Returns the client that a request names, by its id or by its header.
#[inline]
fn authenticate<'a>(
    clients: &'a HashMap<String, Arc<Client>>,
    header: Option<&str>,
    id: Option<&[u8]>,
) -> Option<&'a Arc<Client>> {
    match (header, id) {
        (None, Some(id)) => find(clients, id).filter(|client| client.secret.is_none()),
        (Some(header), None) => basic(clients, header),
        _ => None,
    }
}

fn find<'a>(clients: &'a HashMap<String, Arc<Client>>, id: &[u8]) -> Option<&'a Arc<Client>> {
    clients.get(core::str::from_utf8(id).ok()?)
}

/// Returns the client of an `Authorization` header, if the secret is right.
#[inline(never)]
fn basic<'a>(clients: &'a HashMap<String, Arc<Client>>, header: &str) -> Option<&'a Arc<Client>> {
    let mut pair = [0; 256];
    let length = STANDARD
        .decode_slice(header.strip_prefix("Basic ")?, &mut pair)
        .ok()?;
    let pair = &pair[..length];
    let colon = memchr::memchr(b':', pair)?;
    let secret: Key = Sha256::digest(&pair[colon + 1..]).into();
    let client = find(clients, &pair[..colon])?;
    bool::from(secret.ct_eq(client.secret.as_ref()?)).then_some(client)
}

#[inline]
fn head(out: &mut Out, status: u16) {
    out.head(status);
    Out::header("content-type", "application/json");
    Out::header("cache-control", "no-store");
    Out::header("pragma", "no-cache");
}

#[inline]
fn made(out: &mut Out, body: &[u8]) {
    head(out, 200);
    out.push(body);
}

#[inline]
fn refuse(out: &mut Out, body: &[u8]) {
    head(out, 400);
    out.push(body);
}

/// Refuses a request. None of the requests of the benches gets here.
#[cold]
fn invalid(out: &mut Out) {
    refuse(out, br#"{"error":"invalid_request"}"#);
}

#[cold]
fn unauthorized(out: &mut Out) {
    head(out, 401);
    Out::header("www-authenticate", "Basic realm=\"oauth\"");
    out.push(br#"{"error":"invalid_client","error_description":"client authentication failed"}"#);
}
