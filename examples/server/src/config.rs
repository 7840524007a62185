//! The configuration: one TOML file, or the documented default in `config.toml`.
//!
//! Rules:
//! 1. A [`Config`] in hand can be served: what is wrong with it is said before anything listens, and where.
//! 2. What the file does not know is refused, not ignored: a misspelt limit is no limit.
//! 3. The credentials that everybody can read in this repository are for this machine alone.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_flow::digest::SecretDigest;
use device_flow::scope::Scope;
use device_flow::server::{
    Client, ClientAuthMethod, InvalidText, Policy, PolicyError, RateLimit, ServerKeys, Subject,
};
use serde::Deserialize;

use crate::page::SignInLimits;
use crate::{metadata, password};

/// The configuration that the server has when it is given none.
pub const DEFAULT: &str = include_str!("../config.toml");

/// The secret of `client_backend` in [`DEFAULT`].
const DEVELOPMENT_SECRET: &str = "backend-secret-for-development-only";

/// The password of `alice@example.com` in [`DEFAULT`].
const DEVELOPMENT_PASSWORD: &str = "correct horse battery staple";

/// The configuration, as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where this server is reached from outside; none: `http://` and the address it listens on.
    pub issuer: Option<String>,
    /// Where it listens.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The store's URL. It may hold a password.
    #[serde(default = "default_store")]
    pub store: String,
    /// The URL of a store for the pace alone.
    pub pace: Option<String>,
    /// The proxies that may say where a request came from.
    #[serde(default)]
    pub trusted_proxies: Vec<IpAddr>,
    /// The key for the digests of user codes and for refresh tokens, in base64. Without one, the store keeps one.
    pub server_key: Option<Hidden>,
    #[serde(default)]
    pub policy: PolicyNumbers,
    #[serde(default)]
    pub quotas: Quotas,
    #[serde(default)]
    pub tokens: TokenNumbers,
    #[serde(default)]
    pub page: PageNumbers,
    #[serde(default)]
    pub limits: Limits,
    /// What scope tokens mean, for the page.
    #[serde(default)]
    pub scopes: BTreeMap<String, String>,
    #[serde(default)]
    pub clients: Vec<ClientEntry>,
    #[serde(default)]
    pub users: Vec<UserEntry>,
}

/// The numbers of the device grant.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyNumbers {
    /// Seconds between two polls.
    pub interval: u64,
    /// Seconds in which a code can be approved.
    pub lifetime: u64,
    /// Logins that wait at once.
    pub expected_sessions: u64,
    /// Whether a link with the code in it is handed out.
    pub verification_uri_complete: bool,
    /// Seconds in which a second redemption is a repeated request, not a theft. Without it, what the core has.
    pub retry_window: Option<u64>,
}

impl Default for PolicyNumbers {
    fn default() -> Self {
        Self {
            interval: 5,
            lifetime: 300,
            expected_sessions: 10_000,
            verification_uri_complete: false,
            retry_window: None,
        }
    }
}

/// How often is too often.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Codes asked for: by a public client and its source, by a confidential client.
    pub codes: Quota,
    /// Wrong secrets, by client and source.
    pub secrets: Quota,
    /// Codes entered on the page, by user.
    pub guesses: Quota,
    /// Refreshes, by login.
    pub refreshes: Quota,
    /// Attempts to sign in, by account and source.
    pub sign_ins: Quota,
    /// Attempts to sign in to any account, by source.
    pub sign_ins_by_source: Quota,
}

impl Default for Quotas {
    fn default() -> Self {
        let quota = |burst, period| Quota { burst, period };
        Self {
            codes: quota(100, 1),
            secrets: quota(10, 60),
            guesses: quota(10, 60),
            refreshes: quota(20, 60),
            sign_ins: quota(20, 30),
            sign_ins_by_source: quota(200, 2),
        }
    }
}

/// So many at once, then one per period.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    pub burst: u32,
    /// Seconds.
    pub period: u64,
}

impl Quota {
    pub(crate) fn limit(self, name: &'static str) -> Result<RateLimit, ConfigError> {
        let period = Duration::from_secs(self.period);
        RateLimit::new(self.burst, period).map_err(|error| ConfigError::Quota(name, error))
    }
}

/// The numbers of the tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenNumbers {
    /// Whom access tokens are for; none: the issuer.
    pub audience: Option<String>,
    /// Seconds.
    pub access_lifetime: u32,
    /// Seconds for which a refresh token is good if it is not used.
    pub refresh_idle: u64,
    /// Seconds after which a login ends however often it is refreshed. Without it, never.
    pub refresh_absolute: Option<u64>,
    /// Seconds in which a refresh token that was replaced may be sent again.
    pub refresh_grace: u64,
}

impl Default for TokenNumbers {
    fn default() -> Self {
        Self {
            audience: None,
            access_lifetime: 300,
            refresh_idle: 30 * 24 * 60 * 60,
            refresh_absolute: None,
            refresh_grace: 30,
        }
    }
}

/// The numbers of the page.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PageNumbers {
    /// Seconds for which somebody who signed in stays so.
    pub session_lifetime: u32,
}

impl Default for PageNumbers {
    fn default() -> Self {
        Self {
            session_lifetime: 3600,
        }
    }
}

/// What a peer may cost.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once.
    pub connections: u32,
    /// Seconds from a request's head to its answer, and for a peer that does not read it.
    pub request_timeout: u64,
    /// Seconds for a request's head.
    pub header_timeout: u64,
    /// Passwords checked at once.
    pub password_checks: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            request_timeout: 10,
            header_timeout: 10,
            password_checks: 2,
        }
    }
}

/// A client, as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientEntry {
    pub id: String,
    /// What people know it as.
    pub name: String,
    /// The SHA-256 of its secret in hexadecimal, of two while one replaces the other; none for a public client.
    #[serde(default)]
    pub secret_sha256: Vec<String>,
    #[serde(default)]
    pub device_grant: bool,
    /// What it may ask for.
    pub scope: Scope,
    /// What it asks for by saying nothing.
    pub default_scope: Option<Scope>,
}

/// A user, as it stands in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    pub sub: String,
    pub email: String,
    /// An argon2 hash in PHC form.
    pub password: Hidden,
    pub name: String,
    pub given_name: Option<String>,
    pub family_name: Option<String>,
    pub org_id: Option<String>,
    /// A locked account: nobody signs in to it, and what it approved before is not redeemed.
    #[serde(default)]
    pub locked: bool,
}

/// A text that no log shows.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

fn default_listen() -> SocketAddr {
    ([127, 0, 0, 1], 8628).into()
}

fn default_store() -> String {
    "sqlite:example-server.db".to_owned()
}

impl Config {
    /// Reads a file, or the default where there is none.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the file's line where it can.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::parse(DEFAULT);
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable(path.display().to_string(), error))?;
        Self::parse(&text)
    }

    /// The configuration of a TOML text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Toml`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            // The text of the line is left out: a password may stand there.
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            ConfigError::Toml(line, error.message().to_owned())
        })
    }

    /// The policy of an issuer whose page is at `/device`.
    pub(crate) fn policy(&self, issuer: &str) -> Result<Policy, ConfigError> {
        let (numbers, tokens, seconds) = (&self.policy, &self.tokens, Duration::from_secs);
        let mut policy = Policy::builder(format!("{issuer}/device"))
            .realm("device login")
            .interval(seconds(numbers.interval))
            .lifetime(seconds(numbers.lifetime))
            .outstanding(numbers.expected_sessions)
            .refresh_idle(seconds(tokens.refresh_idle))
            .refresh_grace(seconds(tokens.refresh_grace))
            .issuing_limit(self.quotas.codes.limit("codes")?)
            .secret_limit(self.quotas.secrets.limit("secrets")?)
            .guess_limit(self.quotas.guesses.limit("guesses")?)
            .refresh_limit(self.quotas.refreshes.limit("refreshes")?);
        if let Some(window) = numbers.retry_window {
            policy = policy.retry_window(seconds(window));
        }
        if let Some(absolute) = tokens.refresh_absolute {
            policy = policy.refresh_absolute(seconds(absolute));
        }
        if numbers.verification_uri_complete {
            policy = policy.with_verification_uri_complete();
        }
        Ok(policy.build()?)
    }

    /// The key of the server. `None` if the store keeps it.
    fn server_keys(&self) -> Result<Option<ServerKeys>, ConfigError> {
        let Some(Hidden(text)) = &self.server_key else {
            return Ok(None);
        };
        let octets = STANDARD.decode(text).map_err(|_| ConfigError::ServerKey)?;
        let keys = ServerKeys::new(&octets).map_err(|_| ConfigError::ServerKey)?;
        Ok(Some(keys))
    }

    /// Refuses what cannot be served, before anything listens. The URLs of the stores are looked at when these are opened.
    pub(crate) fn check(&self) -> Result<Checked, ConfigError> {
        self.check_numbers()?;
        if let Some(issuer) = &self.issuer {
            metadata::of(issuer, std::iter::empty()).map_err(|_| ConfigError::Issuer)?;
        }
        let derived = || format!("http://{}", self.listen);
        let issuer = self.issuer.clone().unwrap_or_else(derived);
        self.check_exposure(&issuer)?;
        metadata::of(&issuer, std::iter::empty()).map_err(|_| ConfigError::Issuer)?;
        self.policy(&issuer)?;
        Ok(Checked {
            clients: self.clients()?,
            users: self.users()?,
            server_keys: self.server_keys()?,
            sign_in_limits: SignInLimits::new(&self.quotas)?,
        })
    }

    /// The clients, by id.
    fn clients(&self) -> Result<HashMap<String, Arc<Client>>, ConfigError> {
        let mut clients = HashMap::new();
        for entry in &self.clients {
            let client = Arc::new(client(entry)?);
            if clients.insert(entry.id.clone(), client).is_some() {
                return Err(ConfigError::Client(entry.id.clone(), "it is there twice"));
            }
        }
        Ok(clients)
    }

    /// The users.
    fn users(&self) -> Result<Vec<User>, ConfigError> {
        let mut users: Vec<User> = Vec::new();
        for entry in &self.users {
            let user = User::of(entry)?;
            if users.iter().any(|other| other.is_same_as(&user)) {
                return Err(ConfigError::User(entry.email.clone(), "it is there twice"));
            }
            users.push(user);
        }
        Ok(users)
    }

    /// Refuses numbers that would make everything or nothing possible.
    fn check_numbers(&self) -> Result<(), ConfigError> {
        const DAY: u64 = 24 * 60 * 60;
        let numbers = [
            (
                "limits.connections",
                self.limits.connections.into(),
                1,
                1_000_000,
            ),
            (
                "limits.request_timeout",
                self.limits.request_timeout,
                1,
                300,
            ),
            ("limits.header_timeout", self.limits.header_timeout, 1, 300),
            (
                "limits.password_checks",
                self.limits.password_checks.into(),
                1,
                1024,
            ),
            (
                "tokens.access_lifetime",
                self.tokens.access_lifetime.into(),
                1,
                DAY,
            ),
            (
                "page.session_lifetime",
                self.page.session_lifetime.into(),
                1,
                30 * DAY,
            ),
        ];
        for (name, number, least, most) in numbers {
            if !(least..=most).contains(&number) {
                return Err(ConfigError::Number(name, least, most));
            }
        }
        Ok(())
    }

    /// Refuses to be reached from elsewhere with credentials that everybody can read in this repository.
    fn check_exposure(&self, issuer: &str) -> Result<(), ConfigError> {
        let is_local = self.listen.ip().is_loopback() && is_loopback(issuer);
        if is_local {
            return Ok(());
        }
        let secret = SecretDigest::of(DEVELOPMENT_SECRET);
        let mut secrets = self.clients.iter().flat_map(|client| &client.secret_sha256);
        let is_known =
            |text: &String| unhex(text).is_some_and(|own| own.as_bytes() == secret.as_bytes());
        if secrets.any(is_known) {
            return Err(ConfigError::Development("a client's secret"));
        }
        let is_known = |user: &UserEntry| password::verify(DEVELOPMENT_PASSWORD, &user.password.0);
        if self.users.iter().any(is_known) {
            return Err(ConfigError::Development("a user's password"));
        }
        Ok(())
    }
}

/// Whether a URL is of this machine.
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<axum::http::Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What a configuration that was checked consists of, but for what needs the port or the store.
pub(crate) struct Checked {
    /// By id.
    pub(crate) clients: HashMap<String, Arc<Client>>,
    pub(crate) users: Vec<User>,
    /// `None` if the store keeps the key.
    pub(crate) server_keys: Option<ServerKeys>,
    pub(crate) sign_in_limits: SignInLimits,
}

/// A client, as the core knows it.
pub(crate) fn client(entry: &ClientEntry) -> Result<Client, ConfigError> {
    let wrong = |what| ConfigError::Client(entry.id.clone(), what);
    let digests = entry.secret_sha256.iter().map(|text| {
        unhex(text).ok_or_else(|| wrong("secret_sha256 must be 64 hexadecimal digits"))
    });
    let digests = digests.collect::<Result<Vec<_>, _>>()?;
    let method = match *digests.as_slice() {
        [] => ClientAuthMethod::None,
        [one] => ClientAuthMethod::secret(one),
        [one, two] => ClientAuthMethod::Secret([Some(one), Some(two)]),
        _ => return Err(wrong("at most two secrets may be active")),
    };
    let client = Client::new(entry.id.as_str(), method)
        .map_err(|_| wrong("its id must be visible ASCII"))?;
    let mut client = client
        .named(entry.name.as_str())
        .allow_scope(entry.scope.clone());
    if entry.device_grant {
        client = client.allow_device_grant();
    }
    if let Some(default) = &entry.default_scope {
        if !default.is_within(&entry.scope) {
            return Err(wrong("its default_scope must be within its scope"));
        }
        client = client.default_scope(default.clone());
    }
    Ok(client)
}

fn unhex(text: &str) -> Option<SecretDigest> {
    let mut octets = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (octet, digits) in octets.iter_mut().zip(text.as_bytes().chunks(2)) {
        *octet = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(SecretDigest::from_bytes(octets))
}

/// Somebody with an account.
pub struct User {
    pub(crate) subject: Subject,
    pub(crate) entry: UserEntry,
}

impl User {
    pub(crate) fn of(entry: &UserEntry) -> Result<Self, ConfigError> {
        let wrong = |what| ConfigError::User(entry.email.clone(), what);
        if PasswordHash::new(&entry.password.0).is_err() {
            return Err(wrong(
                "its password must be an argon2 hash in PHC form: $argon2id$…",
            ));
        }
        let subject = Subject::new(entry.sub.as_str())
            .map_err(|_| wrong("its sub must have 1 to 255 bytes"))?;
        Ok(Self {
            subject,
            entry: entry.clone(),
        })
    }

    /// Whether one of them could not be told from the other.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let email = &other.entry.email;
        self.subject == other.subject || self.entry.email.eq_ignore_ascii_case(email)
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file.
    #[error("{0} cannot be read")]
    Unreadable(String, #[source] std::io::Error),
    /// A line of it.
    #[error("line {0}: {1}")]
    Toml(usize, String),
    /// The numbers of the device grant, or the issuer.
    #[error("the policy is refused")]
    Policy(#[from] PolicyError),
    /// A quota.
    #[error("the quota of {0} is refused")]
    Quota(&'static str, #[source] InvalidText),
    /// The issuer.
    #[error(
        "the issuer must be an https URL (http on this machine) without a path, a query or a slash at its end"
    )]
    Issuer,
    /// The key of the server.
    #[error("server_key must be 32 octets or more from a secure generator, in base64")]
    ServerKey,
    /// A client.
    #[error("client {0:?}: {1}")]
    Client(String, &'static str),
    /// A user.
    #[error("user {0:?}: {1}")]
    User(String, &'static str),
    /// A number.
    #[error("{0} must be from {1} to {2}")]
    Number(&'static str, u64, u64),
    /// Credentials that everybody knows, within everybody's reach.
    #[error(
        "{0} is the one for development, which everybody can read: with it the server listens on loopback alone, as an issuer \
         on this machine. Configure another with --config"
    )]
    Development(&'static str),
}
