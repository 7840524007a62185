//! The numbers of the configuration, each with its default.

use std::time::Duration;

use device_flow::server::{PolicyOptions, RateLimit};
use serde::Deserialize;

use super::ConfigError;

/// The numbers of the device grant.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyNumbers {
    /// Seconds between two polls.
    pub interval: u64,
    /// For how many seconds a code can be approved.
    pub lifetime: u64,
    /// How many logins are expected to wait at the same time.
    pub expected_sessions: u64,
    /// Whether the device gets a link with the code in it.
    pub verification_uri_complete: bool,
    /// For how many seconds after a redemption a second one counts as the same request, not as a theft. The default is that of the crate.
    pub retry_window: Option<u64>,
}

impl Default for PolicyNumbers {
    fn default() -> Self {
        let options = PolicyOptions::default();
        Self {
            interval: options.interval.as_secs(),
            lifetime: options.lifetime.as_secs(),
            expected_sessions: options.outstanding,
            verification_uri_complete: options.verification_uri_complete,
            retry_window: None,
        }
    }
}

/// The quotas.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Requests for codes: by public client and source, or by confidential client.
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

/// A quota: so many at once, then one per period.
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
    /// The audience of access tokens. The default is the issuer.
    pub audience: Option<String>,
    /// Seconds.
    pub access_lifetime: u32,
    /// The number of the key that signs.
    pub signing_key: u32,
    /// For how many seconds a refresh token is valid if it is not used.
    pub refresh_idle: u64,
    /// After how many seconds a login ends, even if it is refreshed. Without it, never.
    pub refresh_absolute: Option<u64>,
    /// For how many seconds a refresh token may be sent again after it was replaced.
    pub refresh_grace: u64,
}

impl Default for TokenNumbers {
    fn default() -> Self {
        Self {
            audience: None,
            access_lifetime: 300,
            signing_key: 1,
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
    /// For how many seconds a user stays signed in to the page.
    pub session_lifetime: u32,
}

impl Default for PageNumbers {
    fn default() -> Self {
        Self {
            session_lifetime: 3600,
        }
    }
}

/// The limits for connections, time and memory.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most connections at once.
    pub connections: u32,
    /// The most seconds from the head of a request to its answer, and for a peer to read the answer.
    pub request_timeout: u64,
    /// The most seconds for the head of a request.
    pub header_timeout: u64,
    /// The most seconds between two requests of a connection.
    pub idle_timeout: u64,
    /// The most passwords that are checked at once.
    pub password_checks: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            request_timeout: 10,
            header_timeout: 10,
            idle_timeout: 75,
            password_checks: 2,
        }
    }
}
