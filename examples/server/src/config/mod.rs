//! The configuration: one TOML file, or the documented default in `config.toml`.
//!
//! Rules:
//! 1. A [`Config`] in hand can be served: what is wrong with it is said before anything listens, and where.
//! 2. What the file does not know is refused, not ignored: a misspelt limit is no limit.
//! 3. The credentials that everybody can read in this repository are for this machine alone.

mod client;
mod hidden;
mod numbers;
mod user;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_flow::digest::SecretDigest;
use device_flow::server::{
    Client, InvalidText, Policy, PolicyError, PolicyOptions, RefreshOptions, ServerKeys,
};
use serde::Deserialize;

pub use client::ClientEntry;
pub use hidden::Hidden;
pub use numbers::{Limits, PageNumbers, PolicyNumbers, Quota, Quotas, TokenNumbers};
pub use user::{User, UserEntry};

use crate::page::SignInLimits;
use crate::{metadata, password};
use client::{client, unhex};

/// The configuration that the server has when it is given none.
pub const DEFAULT: &str = include_str!("../../config.toml");

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
    /// Where it serves health and metrics.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// The store's URL. It may hold a password.
    #[serde(default = "default_store")]
    pub store: Hidden,
    /// The URL of a store for the pace alone.
    pub pace: Option<Hidden>,
    /// The proxies that may say where a request came from.
    #[serde(default)]
    pub trusted_proxies: Vec<IpAddr>,
    /// The key for the digests of user codes and for refresh tokens, in base64. Without one, the store keeps one.
    pub server_key: Option<Hidden>,
    /// The server key before it, while codes and refresh tokens made under it are in use.
    pub previous_server_key: Option<Hidden>,
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

fn default_listen() -> SocketAddr {
    ([127, 0, 0, 1], 8628).into()
}

fn default_metrics_listen() -> SocketAddr {
    ([127, 0, 0, 1], 8629).into()
}

fn default_store() -> Hidden {
    "sqlite:example-server.db".into()
}

impl Config {
    /// Reads the file, or returns the default if there is none. It warns if the file has secrets and others can read it.
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
        let config = Self::parse(&text)?;
        if config.has_secrets() && others_can_read(path) {
            let path = path.display();
            tracing::warn!(%path, "the configuration holds secrets, and others can read it: chmod 600 it");
        }
        Ok(config)
    }

    /// Whether it holds a key of the server or the password of a store.
    fn has_secrets(&self) -> bool {
        let keys = [&self.server_key, &self.previous_server_key];
        let mut urls = [Some(&self.store), self.pace.as_ref()]
            .into_iter()
            .flatten();
        keys.into_iter().any(Option::is_some)
            || urls.any(|Hidden(url)| url.contains('@') || url.contains("pass"))
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
        let options = PolicyOptions {
            verification_uri_complete: numbers.verification_uri_complete,
            realm: "device login".into(),
            interval: seconds(numbers.interval),
            lifetime: seconds(numbers.lifetime),
            outstanding: numbers.expected_sessions,
            issuing_limit: self.quotas.codes.limit("codes")?,
            secret_limit: self.quotas.secrets.limit("secrets")?,
            guess_limit: self.quotas.guesses.limit("guesses")?,
            retry_window: numbers.retry_window.map(seconds),
            refresh: Some(RefreshOptions {
                idle: seconds(tokens.refresh_idle),
                absolute: tokens.refresh_absolute.map(seconds),
                grace: seconds(tokens.refresh_grace),
                limit: self.quotas.refreshes.limit("refreshes")?,
                ..RefreshOptions::default()
            }),
            ..PolicyOptions::default()
        };
        Ok(Policy::new(&format!("{issuer}/device"), options)?)
    }

    /// The keys of the server. `None` if the store keeps one.
    fn server_keys(&self) -> Result<Option<ServerKeys>, ConfigError> {
        let octets = |Hidden(text): &Hidden| {
            let octets = STANDARD.decode(text);
            octets.map_err(|_| ConfigError::ServerKey)
        };
        let wrong = |_| ConfigError::ServerKey;
        match (&self.server_key, &self.previous_server_key) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(ConfigError::PreviousKey),
            (Some(key), None) => {
                let keys = ServerKeys::new(&octets(key)?).map_err(wrong)?;
                Ok(Some(keys))
            }
            (Some(key), Some(previous)) => {
                let keys = ServerKeys::new(&octets(key)?).map_err(wrong)?;
                let keys = keys.with_previous(&octets(previous)?).map_err(wrong)?;
                Ok(Some(keys))
            }
        }
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
        // This server speaks no TLS by itself.
        if issuer.starts_with("https://") && self.trusted_proxies.is_empty() {
            return Err(ConfigError::Proxies);
        }
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
            ("limits.idle_timeout", self.limits.idle_timeout, 1, 3600),
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
                "tokens.signing_key",
                self.tokens.signing_key.into(),
                1,
                1_000_000,
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

fn others_can_read(path: &Path) -> bool {
    let metadata = path.metadata();
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
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
    /// An https issuer, and nobody who speaks TLS for it.
    #[error(
        "the issuer is https, so that a proxy stands before this server: set trusted_proxies to the addresses from which the \
         proxy connects. Without them every request would seem to come from the proxy, and all would share one quota"
    )]
    Proxies,
    /// The key of the server.
    #[error(
        "server_key and previous_server_key must be 32 octets or more from a secure generator, in base64"
    )]
    ServerKey,
    /// A previous key alone.
    #[error("previous_server_key needs a server_key beside it, which is now the current one")]
    PreviousKey,
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
