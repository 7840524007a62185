//! An authorization server that is built on the server half. It is in memory, on a port of loopback. A test can put its clock forward, and
//! can make requests go wrong.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use device_flow::code::Entropy;
use device_flow::memory::Memory;
use device_flow::server::{
    self, Claim, Client, ClientAuthMethod, Consent, Found, Grant, GrantRefusal, Policy,
    PolicyOptions, Reply, Request, Review, ServerKeys, Subject, Tokens, Unavailable,
};
use device_flow::wire::metadata::Metadata;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use time::OffsetDateTime;

pub(crate) const CLIENT: &str = "client_cli";

/// What matters of a request.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) content_type: Option<String>,
    pub(crate) body: String,
}

impl Asked {
    /// Returns a parameter of the form. What is sent here needs no unescaping.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// What a test does instead of the server. It returns whether it has dealt with the request.
type Trouble = Box<dyn Fn(&Asked, &mut TcpStream) -> bool + Send + Sync>;

/// A server that runs until the process ends.
pub(crate) struct Server {
    pub(crate) issuer: String,
    shared: Arc<Shared>,
}

struct Shared {
    issuer: String,
    host: Mutex<Host>,
    requests: Mutex<HashMap<String, usize>>,
    trouble: Trouble,
}

/// The state that changes.
struct Host {
    server: server::Server,
    client: Arc<Client>,
    store: Mutex<Memory>,
    issuer: String,
    /// How far the clock was put forward.
    ahead: Duration,
    /// The public keys, as a JSON document.
    published: String,
    signer: EncodingKey,
    claims: Value,
    algorithm: Algorithm,
    rotates: bool,
    refresh_tokens: Vec<String>,
    /// Everything secret that was ever sent or received.
    secrets: Vec<String>,
    revoked: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with_trouble(|_, _| false)
    }

    pub(crate) fn with_trouble(
        trouble: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let options = PolicyOptions {
            verification_uri_complete: true,
            interval: Duration::from_secs(1),
            refresh: None, // it has its own, so that tests can change what becomes of them
            ..PolicyOptions::default()
        };
        let policy = Policy::new(&format!("{issuer}/device"), options);
        let keys = ServerKeys::new(&random::<32>()).unwrap();
        let client = Client::new(CLIENT, ClientAuthMethod::None)
            .unwrap()
            .allow_device_grant()
            .allow_scope("openid profile email offline_access".parse().unwrap());
        let signer = signer();
        let shared = Arc::new(Shared {
            host: Mutex::new(Host {
                server: server::Server::new(policy.unwrap(), keys),
                client: Arc::new(client),
                store: Mutex::new(Memory::new()),
                issuer: issuer.clone(),
                ahead: Duration::ZERO,
                published: published(&signer),
                signer,
                claims: json!({}),
                algorithm: Algorithm::ES256,
                rotates: true,
                refresh_tokens: Vec::new(),
                secrets: Vec::new(),
                revoked: Vec::new(),
            }),
            issuer: issuer.clone(),
            requests: Mutex::default(),
            trouble: Box::new(trouble),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        Self { issuer, shared }
    }

    /// Returns how often a path was asked for.
    pub(crate) fn requests(&self, path: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap();
        requests.get(path).copied().unwrap_or_default()
    }

    pub(crate) fn approve(&self, user_code: &str) {
        let host = self.shared.host.lock().unwrap();
        let (session, user) = (*host.enter(user_code).session_key(), user());
        let consent = Consent::to_all();
        let mut approve = host.server.approve(&session, &user, &consent, host.now());
        approve.run_blocking(&*host).unwrap().unwrap();
    }

    pub(crate) fn deny(&self, user_code: &str) {
        let host = self.shared.host.lock().unwrap();
        let (session, user) = (*host.enter(user_code).session_key(), user());
        let mut deny = host.server.deny(&session, &user, host.now());
        deny.run_blocking(&*host).unwrap().unwrap();
    }

    /// Puts the clock of the server forward.
    pub(crate) fn put_forward(&self, span: Duration) {
        self.shared.host.lock().unwrap().ahead += span;
    }

    /// Puts these claims into ID tokens, instead of the right ones.
    pub(crate) fn claim(&self, claims: Value) {
        self.shared.host.lock().unwrap().claims = claims;
    }

    /// Signs with another key than the published one.
    pub(crate) fn sign_with_another_key(&self) {
        let mut host = self.shared.host.lock().unwrap();
        host.signer = signer();
    }

    /// Signs with a secret instead of a key pair.
    pub(crate) fn sign_with_a_secret(&self) {
        let mut host = self.shared.host.lock().unwrap();
        host.signer = EncodingKey::from_secret(b"a secret that both sides know");
        host.algorithm = Algorithm::HS256;
    }

    /// From now on, a refresh keeps the same refresh token, and does not return it.
    pub(crate) fn stop_rotating(&self) {
        self.shared.host.lock().unwrap().rotates = false;
    }

    /// Forgets every refresh token.
    pub(crate) fn forget_refresh_tokens(&self) {
        self.shared.host.lock().unwrap().refresh_tokens.clear();
    }

    /// Returns everything that must not be shown.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.shared.host.lock().unwrap().secrets.clone()
    }

    /// Returns the tokens that were revoked.
    pub(crate) fn revoked(&self) -> Vec<String> {
        self.shared.host.lock().unwrap().revoked.clone()
    }
}

fn user() -> Subject {
    Subject::new("user_ada").unwrap()
}

fn signer() -> EncodingKey {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref())
}

/// Returns the document of keys: one of an unknown kind, one for another use, and the right one.
fn published(signer: &EncodingKey) -> String {
    let mut key = Jwk::from_encoding_key(signer, Algorithm::ES256).unwrap();
    key.common.key_id = Some("key".to_owned());
    let mut other = json!(key);
    other["use"] = json!("enc");
    json!({ "keys": [{ "kty": "XYZ", "kid": "key" }, other, key] }).to_string()
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let Some(asked) = read(&mut stream) else {
            return;
        };
        *self
            .requests
            .lock()
            .unwrap()
            .entry(asked.path.clone())
            .or_default() += 1;
        if (self.trouble)(&asked, &mut stream) {
            return;
        }
        let (status, body) = self.answer(&asked);
        respond(&mut stream, status, "", &body);
    }

    fn answer(&self, asked: &Asked) -> (u16, String) {
        let mut host = self.host.lock().unwrap();
        let of = |reply: Reply| {
            let response = reply.response();
            (response.status(), response.body().to_owned())
        };
        match &*asked.path {
            "/.well-known/oauth-authorization-server" => (200, self.metadata()),
            "/jwks" => (200, host.published.clone()),
            "/device_authorization" => of(host.device_authorization(asked)),
            "/token" if asked.parameter("grant_type") == Some("refresh_token") => {
                host.refresh(asked)
            }
            "/token" => of(host.token(asked)),
            "/revoke" => {
                let token = asked.parameter("token").unwrap().to_owned();
                host.revoked.push(token);
                (200, String::new())
            }
            _ => (404, String::new()),
        }
    }

    fn metadata(&self) -> String {
        let at = |path| format!("{}{path}", self.issuer);
        let metadata =
            Metadata::for_server(&self.issuer, &at("/device_authorization"), &at("/token"));
        let metadata = metadata.unwrap().grant_type("refresh_token");
        let metadata = metadata.member("jwks_uri", at("/jwks")).unwrap();
        metadata
            .member("revocation_endpoint", at("/revoke"))
            .unwrap()
            .to_json()
    }
}

impl Host {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + self.ahead
    }

    fn device_authorization(&mut self, asked: &Asked) -> Reply {
        let request = asked.request();
        let mut issuing = self
            .server
            .device_authorization(request, "", None, self.now());
        let reply = issuing.run_blocking(self).unwrap();
        self.secrets.extend(member(&reply, "device_code"));
        reply
    }

    fn token(&mut self, asked: &Asked) -> Reply {
        let mut polled = self.server.token(asked.request(), "", self.now());
        let reply = polled.run_blocking(self).unwrap();
        let tokens = ["access_token", "refresh_token", "id_token"];
        let tokens = tokens.into_iter().filter_map(|name| member(&reply, name));
        self.secrets.extend(tokens);
        self.refresh_tokens.extend(member(&reply, "refresh_token"));
        reply
    }

    fn refresh(&mut self, asked: &Asked) -> (u16, String) {
        let given = asked.parameter("refresh_token").unwrap_or_default();
        let Some(place) = self.refresh_tokens.iter().position(|good| good == given) else {
            return (400, json!({ "error": "invalid_grant" }).to_string());
        };
        let access = token();
        let mut body = json!({
            "access_token": access, "token_type": "Bearer", "expires_in": 300,
            "id_token": self.id_token(),
        });
        if self.rotates {
            let next = token();
            body["refresh_token"] = json!(next);
            self.refresh_tokens[place].clone_from(&next);
            self.secrets.push(next);
        }
        self.secrets.extend([access, text(&body["id_token"])]);
        (200, body.to_string())
    }

    fn id_token(&self) -> String {
        let now = self.now().unix_timestamp();
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT, "sub": "user_ada", "name": "Ada Lovelace",
            "email": "ada@example.com", "iat": now, "exp": now + 300,
        });
        let others = self.claims.as_object().unwrap().clone();
        claims.as_object_mut().unwrap().extend(others);
        let header = Header {
            kid: Some("key".to_owned()),
            ..Header::new(self.algorithm)
        };
        encode(&header, &claims, &self.signer).unwrap()
    }
}

impl Host {
    /// Enters a code, as the user.
    fn enter(&self, user_code: &str) -> Review {
        let (user, now) = (user(), self.now());
        let mut enter = self.server.enter(user_code, &user, "", now);
        enter.run_blocking(self).unwrap().unwrap()
    }
}

impl server::Host for Host {
    type Client = Arc<Client>;
    type Store = Mutex<Memory>;

    fn store(&self) -> &Mutex<Memory> {
        &self.store
    }

    async fn client(&self, claim: Claim<'_>) -> Result<Found<Arc<Client>>, Unavailable> {
        let is_known = claim.client_id() == Some(CLIENT);
        Ok(is_known.then(|| self.client.clone()).into())
    }

    fn entropy(&self) -> Result<Entropy, Unavailable> {
        Ok(random::<{ Entropy::OCTETS }>().into())
    }

    async fn mint(&self, grant: Grant<'_>) -> Result<Tokens<'static>, GrantRefusal> {
        let scope = grant.scope();
        let mut tokens = Tokens::bearer(token())?.expires_in(Duration::from_mins(5));
        if scope.contains("offline_access") {
            tokens = tokens.refresh_token(token())?;
        }
        if scope.contains("openid") {
            tokens = tokens.id_token(self.id_token())?;
        }
        Ok(tokens)
    }
}

impl Asked {
    fn request(&self) -> Request<'_> {
        Request::new(&self.method, self.body.as_bytes()).content_type(self.content_type.as_deref())
    }
}

/// Returns a member of the response that is a text.
fn member(reply: &Reply, name: &str) -> Option<String> {
    let body: Value = serde_json::from_str(reply.response().body()).ok()?;
    Some(body.get(name)?.as_str()?.to_owned())
}

fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    aws_lc_rs::rand::fill(&mut octets).unwrap();
    octets
}

/// Returns a random token, which has no meaning.
fn token() -> String {
    let octets = random::<24>();
    let hex = |text: String, octet: &u8| text + &format!("{octet:02x}");
    octets.iter().fold(String::new(), hex)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Reads one request, or returns `None` if the peer does not send a valid one.
fn read(stream: &mut TcpStream) -> Option<Asked> {
    const MAX: usize = 64 * 1024;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let mut octets = Vec::new();
    let mut more = |octets: &mut Vec<u8>| {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).ok().filter(|&count| count > 0)?;
        octets.extend_from_slice(&chunk[..count]);
        (octets.len() <= MAX).then_some(())
    };
    let end = loop {
        more(&mut octets)?;
        if let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let head = std::str::from_utf8(&octets[..end]).ok()?.to_owned();
    let header = |name: &str| {
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut fields = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        fields.next().map(|(_, value)| value.trim().to_owned())
    };
    let length = header("content-length").map_or(Some(0), |length| length.parse().ok())?;
    while octets.len() < end + 4 + length {
        more(&mut octets)?;
    }
    let mut line = head.lines().next()?.split(' ');
    Some(Asked {
        method: line.next()?.to_owned(),
        path: line.next()?.to_owned(),
        content_type: header("content-type"),
        body: String::from_utf8(octets[end + 4..][..length].to_vec()).ok()?,
    })
}

/// Sends a response, and nothing after it.
pub(crate) fn respond(stream: &mut TcpStream, status: u16, headers: &str, body: &str) {
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n{headers}\r\n{body}"
    );
    let _ = stream.write_all(response.as_bytes());
}
