//! The configuration: one TOML file, or the documented default in `config.toml`.
//!
//! Rules:
//! 1. A [`Config`] that was checked can be served. Each mistake is reported with its place, before the server listens.
//! 2. An unknown name in the file is refused, not ignored, because a misspelt limit would not limit anything.
//! 3. The credentials that are public in this repository work only on this machine.

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

/// The configuration of a server that was started without a file.
pub const DEFAULT: &str = include_str!("../../config.toml");

/// The secret of `client_backend` in [`DEFAULT`].
const DEVELOPMENT_SECRET: &str = "backend-secret-for-development-only";

/// The password of `alice@example.com` in [`DEFAULT`].
const DEVELOPMENT_PASSWORD: &str = "correct horse battery staple";

/// The configuration, as the file has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL at which this server is reached from outside. The default is `http://` and the address it listens on.
    pub issuer: Option<String>,
    /// The address and port to listen on.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The address and port for health and metrics.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// The store's URL. It may hold a password.
    #[serde(default = "default_store")]
    pub store: Hidden,
    /// The URL of a store for only the pace.
    pub pace: Option<Hidden>,
    /// The proxies that may say where a request came from.
    #[serde(default)]
    pub trusted_proxies: Vec<IpAddr>,
    /// The key for the digests of user codes and for refresh tokens, in base64. Without it, the store keeps a key.
    pub server_key: Option<Hidden>,
    /// The previous server key, for as long as codes and refresh tokens made with it are in use.
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
    /// What each scope token means. The page shows this to the user.
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
    /// Reads the file, or returns the default if no file is given. It warns if the file has secrets and others can read it.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names the line of the file if possible.
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

    /// Returns whether the file holds a key of the server or the password of a store.
    fn has_secrets(&self) -> bool {
        let keys = [&self.server_key, &self.previous_server_key];
        let mut urls = [Some(&self.store), self.pace.as_ref()]
            .into_iter()
            .flatten();
        keys.into_iter().any(Option::is_some)
            || urls.any(|Hidden(url)| url.contains('@') || url.contains("pass"))
    }

    /// Returns the configuration of a TOML text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Toml`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            // The text of the line is left out, because it may contain a password.
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            ConfigError::Toml(line, error.message().to_owned())
        })
    }

    /// Returns the policy of an issuer whose page is at `/device`.
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

    /// Returns the keys of the server, or `None` if the store keeps the key.
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

    /// Refuses a configuration that cannot be served, before the server listens. The URLs of the stores are checked when the stores are
    /// opened.
    pub(crate) fn check(&self) -> Result<Checked, ConfigError> {
        self.check_numbers()?;
        if let Some(issuer) = &self.issuer {
            metadata::of(issuer, std::iter::empty()).map_err(|_| ConfigError::Issuer)?;
        }
        let derived = || format!("http://{}", self.listen);
        let issuer = self.issuer.clone().unwrap_or_else(derived);
        self.check_exposure(&issuer)?;
        metadata::of(&issuer, std::iter::empty()).map_err(|_| ConfigError::Issuer)?;
        // This server itself has no TLS.
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

    /// Returns the clients, by id.
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

    /// Returns the users.
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

    /// Refuses numbers that would remove a limit, or forbid everything.
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

    /// Refuses to be reached from other machines with credentials that are public in this repository.
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

/// Returns whether a URL is on this machine.
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<axum::http::Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A checked configuration, except the parts that need the port or the store.
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
    /// The file cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(String, #[source] std::io::Error),
    /// A line of the file is wrong.
    #[error("line {0}: {1}")]
    Toml(usize, String),
    /// The policy refuses the numbers of the device grant, or the issuer.
    #[error("the policy is refused")]
    Policy(#[from] PolicyError),
    /// A quota has a number that is not possible.
    #[error("the quota of {0} is refused")]
    Quota(&'static str, #[source] InvalidText),
    /// The issuer is wrong.
    #[error(
        "the issuer must be an https URL (http on this machine) without a path, a query or a slash at its end"
    )]
    Issuer,
    /// The issuer is https, but no proxy that speaks TLS is configured.
    #[error(
        "the issuer is https, so a proxy must stand before this server: set trusted_proxies to the addresses from which the \
         proxy connects. Without them every request would seem to come from the proxy, and all would share one quota"
    )]
    Proxies,
    /// A key of the server is wrong.
    #[error(
        "server_key and previous_server_key must be 32 octets or more from a secure generator, in base64"
    )]
    ServerKey,
    /// There is a previous key, but no current key.
    #[error("previous_server_key is set without server_key; set server_key to the new key")]
    PreviousKey,
    /// A client is wrong.
    #[error("client {0:?}: {1}")]
    Client(String, &'static str),
    /// A user is wrong.
    #[error("user {0:?}: {1}")]
    User(String, &'static str),
    /// A number is out of its range.
    #[error("{0} must be from {1} to {2}")]
    Number(&'static str, u64, u64),
    /// Public credentials would be used by a server that other machines can reach.
    #[error(
        "{0} is the one for development, which everybody can read; with it, listen and issuer must be on this machine. \
         Configure another with --config"
    )]
    Development(&'static str),
}
