//! An authorization server that embeds `device-flow`. It has one module for each thing that the crate leaves to its host.
//!
//! A request passes through these modules. `listen` accepts the connection. `routes` finds the handler. `endpoint` reads the body and runs
//! the exchange of the crate, which asks `host` and `store` for what it needs. `answer` logs and counts the result. `page` is where users
//! decide.

mod answer;
mod authority;
mod authorize;
pub mod config;
mod endpoint;
mod host;
mod listen;
mod metadata;
mod metrics;
mod mint;
mod page;
mod password;
mod routes;
mod signing_keys;
mod source;
pub mod store;
mod stream;
mod userinfo;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum_extra::extract::cookie::Key;
use device_flow::scope::Scope;
use device_flow::server::{self, Client, ServerKeys, Store as _, Subject};
use time::OffsetDateTime;
use tokio::net::TcpListener;

use config::{Checked, Config, ConfigError, Hidden, Limits, User};
use metrics::Metrics;
use mint::Minter;
use page::SignInLimits;
use password::Passwords;
use signing_keys::SigningKeys;
use store::{OpenError, Store, StoreError};

/// When to try again after a 503, in seconds.
const RETRY_AFTER: u32 = 5;

/// How often the store is purged of expired records.
const PURGE_PERIOD: Duration = Duration::from_mins(1);

/// A server that listens, but does not answer yet.
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    /// The listener for health and metrics.
    operators: TcpListener,
    limits: Limits,
}

/// What every request can use.
pub(crate) struct App {
    issuer: String,
    /// The server half of the crate, which decides how to answer each request.
    server: server::Server,
    cookie_key: Key,
    /// In seconds.
    session_lifetime: i64,
    request_timeout: Duration,
    trusted_proxies: Vec<IpAddr>,
    /// By id.
    clients: HashMap<String, Arc<Client>>,
    /// The scope tokens that a user cannot untick, by the id of the client.
    required_scopes: HashMap<String, Scope>,
    users: Vec<User>,
    /// What each scope token means. The page shows this to the user.
    scopes: BTreeMap<String, String>,
    /// The metadata document for clients.
    metadata: String,
    sign_in_limits: SignInLimits,
    store: Store,
    minter: Arc<Minter>,
    passwords: Passwords,
    metrics: Metrics,
}

impl Server {
    /// Checks the configuration, listens, opens the store, and makes or fetches the keys.
    ///
    /// # Errors
    ///
    /// A [`StartError`], which says what to do.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let checked = config.check()?;
        let listener = bind(config.listen).await?;
        let operators = bind(config.metrics_listen).await?;
        let address = listener.local_addr();
        let address = address.map_err(|error| StartError::Listen(config.listen, error))?;
        // Port 0 has been replaced by a real port.
        let issuer = config.issuer.clone();
        let issuer = issuer.unwrap_or_else(|| format!("http://{address}"));
        let limits = config.limits.clone();
        let app = Arc::new(App::new(config, checked, issuer).await?);
        Ok(Self {
            app,
            listener,
            operators,
            limits,
        })
    }

    /// Returns the address that it listens on.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the address for health and metrics.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn metrics_address(&self) -> std::io::Result<SocketAddr> {
        self.operators.local_addr()
    }

    /// Returns the issuer: the base of every URL.
    pub fn issuer(&self) -> &str {
        &self.app.issuer
    }

    /// Answers requests until `shutdown`, and then the requests that have begun.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let purging = tokio::spawn(purge(self.app.clone()));
        let (operators, limits) = (routes::operators(self.app.clone()), self.limits.clone());
        let operating = tokio::spawn(async move {
            listen::serve(self.operators, operators, &limits, std::future::pending()).await;
        });
        let router = routes::router(self.app);
        listen::serve(self.listener, router, &self.limits, shutdown).await;
        operating.abort();
        purging.abort();
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| StartError::Listen(address, error))
}

/// Removes expired records, for as long as the server runs.
async fn purge(app: Arc<App>) {
    let mut ticks = tokio::time::interval(PURGE_PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let _ = app.store.purge(now()).await; // a failure is logged, and tried again
    }
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is wrong.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("{0} cannot be listened on")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Open(#[from] OpenError),
    /// The store does not return the server's keys.
    #[error("the store does not give out the server's keys")]
    Store(#[from] StoreError),
    /// A key cannot be made or used.
    #[error("the {0} cannot be made or used")]
    Key(&'static str),
}

impl App {
    async fn new(config: Config, checked: Checked, issuer: String) -> Result<Self, StartError> {
        let scopes = config
            .clients
            .iter()
            .flat_map(|client| client.scope.tokens());
        let metadata = metadata::of(&issuer, scopes).map_err(|_| ConfigError::Issuer)?;
        let required_scopes = config
            .clients
            .iter()
            .map(|client| (client.id.clone(), client.required_scope.clone()))
            .collect();
        let policy = config.policy(&issuer)?;
        let pace = config.pace.as_ref().map(|Hidden(url)| url.as_str());
        let store = Store::open(&config.store.0, pace).await?;
        let keys = if let Some(keys) = checked.server_keys {
            keys
        } else {
            let octets = store.secret("server-key", &random::<32>()).await?;
            ServerKeys::new(&octets).map_err(|_| StartError::Key("server key"))?
        };
        let cookie_key = store.secret("cookie-key", &random::<64>()).await?;
        let cookie_key = Key::try_from(cookie_key.as_slice());
        let cookie_key = cookie_key.map_err(|_| StartError::Key("cookie key"))?;
        let signing_keys = SigningKeys::new(&store, config.tokens.signing_key).await?;
        let minter = Minter::new(signing_keys, &config.tokens, &issuer);
        Ok(Self {
            server: server::Server::new(policy, keys),
            cookie_key,
            session_lifetime: config.page.session_lifetime.into(),
            request_timeout: Duration::from_secs(config.limits.request_timeout),
            trusted_proxies: config.trusted_proxies,
            clients: checked.clients,
            required_scopes,
            users: checked.users,
            scopes: config.scopes,
            metadata: metadata.to_json(),
            sign_in_limits: checked.sign_in_limits,
            store,
            minter: Arc::new(minter),
            passwords: Passwords::new(config.limits.password_checks),
            metrics: Metrics::new().map_err(|_| StartError::Key("metrics"))?,
            issuer,
        })
    }

    /// Returns the user, unless the account is locked.
    fn user(&self, subject: &Subject) -> Option<&User> {
        let mut users = self.users.iter();
        users.find(|user| user.subject == *subject && !user.entry.locked)
    }

    /// Returns the user with this e-mail address, unless the account is locked.
    fn user_by_email(&self, email: &str) -> Option<&User> {
        let mut users = self.users.iter();
        users.find(|user| user.entry.email.eq_ignore_ascii_case(email) && !user.entry.locked)
    }
}

/// Returns the time. No other function reads a clock.
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Returns random octets. Without a generator the server stops, because everybody could guess its codes, tokens and keys.
fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    if aws_lc_rs::rand::fill(&mut octets).is_err() {
        tracing::error!("the random number generator failed");
        std::process::abort();
    }
    octets
}

/// Logs that the store failed, and why.
fn store_failed(error: &StoreError) {
    tracing::error!(%error, source = ?std::error::Error::source(error), "the store failed");
}
