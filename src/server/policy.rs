//! The policy: every number and text of the server half, checked once.
//!
//! Rule ([L1](crate::tables#l1) to [L7](crate::tables#l7) of the tables): the constructor refuses what would break a promise of the
//! protocol or of this crate. So every [`Policy`] is valid.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::pace::{STEP, least_gap};
use super::rate_limit::RateLimit;
use super::response::SlowDown;
use crate::code::UserCodeShape;
use crate::scope::Scope;
use crate::wire::uri::{self, MAX_URL};

/// The policy of a server: intervals, lifetimes, limits and texts, checked.
///
/// A poll is accepted if at least the interval in force minus a tolerance has passed since the last accepted poll. The tolerance is a
/// second or a quarter of the interval, whichever is more. With an interval of 5 s, a poll is accepted after 3.75 s.
#[derive(Debug)]
pub struct Policy {
    pub(super) options: PolicyOptions,
    /// In seconds.
    pub(super) interval: u32,
    /// In seconds.
    pub(super) cap: u32,
    pub(super) retry_window: Duration,
    pub(super) challenge: Arc<str>,
    /// The bodies of `slow_down`, one for each interval that can be in force.
    slow_downs: Vec<Arc<SlowDown>>,
    /// The text after the user code in a device authorization response: up to its end, or up to the second copy of the code.
    pub(super) after_code: String,
    /// The text after the second copy of the code, if the policy has `verification_uri_complete` on.
    pub(super) after_complete: Option<String>,
}

/// The options of a [`Policy`]. Set those that must differ from the default:
///
/// ```
/// use core::time::Duration;
/// use device_flow::server::{Policy, PolicyOptions};
///
/// let options = PolicyOptions {
///     lifetime: Duration::from_mins(10),
///     ..PolicyOptions::default()
/// };
/// let policy = Policy::new("https://login.example.com/device", options)?;
/// # Ok::<(), device_flow::server::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a host fills it")]
pub struct PolicyOptions {
    /// Whether responses carry `verification_uri_complete`, for a QR code: the page's URI with the code in its query. Default
    /// false. **If it is false, the page must ignore a code in its URL.**
    ///
    /// # Security
    ///
    /// Attackers phish device logins with this link ([RFC 8628, section 5.4](https://www.rfc-editor.org/rfc/rfc8628#section-5.4)): they
    /// start a login and send its link to the victim, who then has nothing left to type. Turn it on only if the page makes the user compare
    /// the code with the one on the device, and then decide with a button.
    pub verification_uri_complete: bool,

    /// The realm in the `WWW-Authenticate` header for a client that failed to authenticate. Default `oauth`.
    pub realm: String,

    /// The interval that a new device is told to keep between its polls. Whole seconds from 1 to 60, default 5. An interval of 1 s is never
    /// enforced, because the tolerance is as long.
    pub interval: Duration,

    /// The longest interval that `slow_down` leads to. Whole seconds, from the interval to five minutes, default 60.
    pub cap: Duration,

    /// For how long the codes can be approved. Whole seconds, at least twice the interval, at most a day, default 300. A long lifetime
    /// needs long codes: see [`guess_limit`](Self::guess_limit).
    pub lifetime: Duration,

    /// Alphabet and length of the user codes. The default is eight characters from twenty consonants, as in `WDJB-MJHT`.
    pub user_code: UserCodeShape,

    /// How many unexpired sessions you expect at once. Default 10,000. A million needs user codes of ten characters.
    pub outstanding: u64,

    /// How often one user, or one source, may enter a code, right or wrong. Default 5 at once, then one a minute: ten in a
    /// lifetime.
    ///
    /// The entries that this allows in a lifetime, times [`outstanding`](Self::outstanding), must be at most 1/65,536 of the possible
    /// [user codes](Self::user_code). To allow more entries, make the codes longer.
    ///
    /// # Security
    ///
    /// With the defaults and 10,000 sessions, an attacker with one account finds some code within a lifetime with a chance of 1 in
    /// 256,000. With 1,000 accounts the chance is 1 in 256, and with 1,000,000 accounts it is near certainty. So make accounts hard to
    /// get, or codes longer.
    pub guess_limit: RateLimit,

    /// How often one client may ask for codes. A public client is counted per source. Default 20 at once, then one in 3 s.
    pub issuing_limit: RateLimit,

    /// How many wrong secrets one client may present from one source. Default 10 at once, then one a minute.
    pub secret_limit: RateLimit,

    /// For how long after a redemption a second one counts as the same request, sent twice. A later one is a replay and ends the login. The
    /// window must be shorter than the least gap between two accepted polls. Otherwise, after a thief redeemed the code, the next poll of
    /// the device might not count as a replay. Default `None`: 2 s, or half a second if the least gap is 2 s or less. With an interval of 1
    /// s the least gap is zero. Then only `None`, which means half a second, and `Some(Duration::ZERO)` are accepted.
    pub retry_window: Option<Duration>,

    /// For how long a session is kept after its end, so that late requests still get the right error. Default 5 minutes, at least one.
    pub retention: Duration,

    /// The longest body that is accepted, in bytes. Default 16 KiB, from 1 to 65,535. Read at most one byte more than this from the
    /// peer. That byte shows the core that the body is too large.
    pub max_body: usize,

    /// How the core issues refresh tokens. `None` switches them off, for a host that mints its own
    /// ([`Tokens::refresh_token`](super::Tokens::refresh_token)). A refresh is then answered with
    /// `unsupported_grant_type`.
    pub refresh: Option<RefreshOptions>,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            verification_uri_complete: false,
            realm: "oauth".into(),
            interval: Duration::from_secs(5),
            cap: Duration::from_mins(1),
            lifetime: Duration::from_mins(5),
            user_code: UserCodeShape::default(),
            outstanding: 10_000,
            guess_limit: RateLimit::constant(5, 60),
            issuing_limit: RateLimit::constant(20, 3),
            secret_limit: RateLimit::constant(10, 60),
            retry_window: None,
            retention: Duration::from_mins(5),
            max_body: 16 * 1024,
            refresh: Some(RefreshOptions::default()),
        }
    }
}

/// How the core issues refresh tokens.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a host fills it")]
pub struct RefreshOptions {
    /// The one scope token that asks for a refresh token. Default `offline_access`
    /// ([OpenID Connect Core, section 11](https://openid.net/specs/openid-connect-core-1_0.html#OfflineAccess)).
    pub scope: String,

    /// How long a login lasts without a refresh. Default 30 days, from 10 minutes to ten years.
    pub idle: Duration,

    /// How long a login lasts after its redemption, even if it is refreshed. From 10 minutes to ten years. Default `None`: no limit.
    pub absolute: Option<Duration>,

    /// For how long the token before the newest may be sent again, because the response may have been lost. Default 30 s, at most 5
    /// minutes. Zero forbids it.
    ///
    /// # Security
    ///
    /// Within the grace, a thief who has the old token can use it, too. The owner's next refresh then ends the login.
    pub grace: Duration,

    /// How often one login may be refreshed. Default 20 at once, then one a minute.
    pub limit: RateLimit,
}

impl Default for RefreshOptions {
    fn default() -> Self {
        Self {
            scope: "offline_access".into(),
            idle: Duration::from_hours(30 * 24),
            absolute: None,
            grace: Duration::from_secs(30),
            limit: RateLimit::constant(20, 60),
        }
    }
}

impl Policy {
    /// Makes the policy for users who enter their codes at `verification_uri`: an absolute https URI, or http on loopback, without
    /// query and fragment, of at most 2,048 bytes.
    ///
    /// # Errors
    ///
    /// A [`PolicyError`] that says which option is out of bounds ([L1](crate::tables#l1) to [L7](crate::tables#l7)).
    pub fn new(verification_uri: &str, options: PolicyOptions) -> Result<Self, PolicyError> {
        let interval = whole_seconds(options.interval).ok_or(PolicyError::Interval)?;
        let cap = whole_seconds(options.cap).ok_or(PolicyError::Cap)?;
        if !(1..=60).contains(&interval) {
            return Err(PolicyError::Interval);
        }
        if cap < interval || options.cap > MAX_CAP {
            return Err(PolicyError::Cap);
        }
        let lifetime = whole_seconds(options.lifetime).ok_or(PolicyError::Lifetime)?;
        if options.lifetime < options.interval.saturating_mul(2) || options.lifetime > MAX_LIFETIME
        {
            return Err(PolicyError::Lifetime);
        }
        uri::bare(verification_uri).map_err(|_| PolicyError::VerificationUri)?;
        let quotable = |b: u8| matches!(b, 0x20..=0x7E) && b != b'"' && b != b'\\';
        if !options.realm.bytes().all(quotable) {
            return Err(PolicyError::Realm);
        }
        let chances = u128::from(options.guess_limit.within(options.lifetime))
            .saturating_mul(options.outstanding.max(1).into())
            .saturating_mul(1 << GUESS_BITS);
        if chances > options.user_code.combinations().into() {
            return Err(PolicyError::Guessable);
        }
        let gap = least_gap(interval);
        let retry_window = match options.retry_window {
            Some(window) if window >= gap && !window.is_zero() => {
                return Err(PolicyError::RetryWindow);
            }
            Some(window) => window,
            None if RETRY_WINDOW < gap => RETRY_WINDOW,
            None => MIN_RETRY_WINDOW,
        };
        if let Some(refresh) = &options.refresh {
            refresh.check()?;
        }
        if options.retention < MIN_RETENTION {
            return Err(PolicyError::Retention);
        }
        if options.max_body == 0 || options.max_body > LARGEST_MAX_BODY {
            return Err(PolicyError::MaxBody);
        }
        let end = format!(r#"","expires_in":{lifetime},"interval":{interval}}}"#);
        let page = format!(r#"","verification_uri":"{verification_uri}"#);
        let (after_code, after_complete) = if options.verification_uri_complete {
            let link =
                format!(r#"{page}","verification_uri_complete":"{verification_uri}?user_code="#);
            (link, Some(end))
        } else {
            (format!("{page}{end}"), None)
        };
        let widths = core::iter::successors(Some(interval), |&width| {
            (width < cap).then(|| width.saturating_add(STEP).min(cap))
        });
        Ok(Self {
            interval,
            cap,
            retry_window,
            challenge: format!("Basic realm=\"{}\"", options.realm).into(),
            slow_downs: widths.map(|width| Arc::new(SlowDown::new(width))).collect(),
            after_code,
            after_complete,
            options,
        })
    }

    /// Returns the options, as they were given.
    pub const fn options(&self) -> &PolicyOptions {
        &self.options
    }

    /// Returns the body of `slow_down` for this interval. It is made anew if the interval comes from an earlier policy.
    pub(super) fn slow_down(&self, interval: u32) -> Arc<SlowDown> {
        let mut bodies = self.slow_downs.iter();
        let made = bodies.find(|body| body.interval == interval);
        made.map_or_else(|| Arc::new(SlowDown::new(interval)), Arc::clone)
    }

    /// For how long an approval made at the last moment can be redeemed. Even a device whose interval has grown to the cap polls once
    /// in that time.
    pub(super) fn redeem_time(&self) -> Duration {
        let seconds = self.cap.saturating_add(self.interval);
        Duration::from_secs(seconds.into())
    }
}

impl RefreshOptions {
    fn check(&self) -> Result<(), PolicyError> {
        let one_token = |scope: Scope| scope.tokens().count() == 1;
        if !self.scope.parse().is_ok_and(one_token) {
            return Err(PolicyError::RefreshScope);
        }
        let lifetimes = MIN_REFRESH_LIFETIME..=MAX_REFRESH_LIFETIME;
        if !lifetimes.contains(&self.idle)
            || !lifetimes.contains(&self.absolute.unwrap_or(self.idle))
        {
            return Err(PolicyError::RefreshLifetime);
        }
        if self.grace > MAX_REFRESH_GRACE {
            return Err(PolicyError::RefreshGrace);
        }
        Ok(())
    }
}

fn whole_seconds(span: Duration) -> Option<u32> {
    let seconds = u32::try_from(span.as_secs()).ok()?;
    (span.subsec_nanos() == 0).then_some(seconds)
}

/// The widest interval: a device that waits for longer between two polls might as well give up.
const MAX_CAP: Duration = Duration::from_mins(5);

/// The longest lifetime: nobody keeps a device waiting for longer.
const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// The default retry window: longer than a proxy takes to repeat a request.
const RETRY_WINDOW: Duration = Duration::from_secs(2);

/// The default retry window for short intervals. It is not zero, because a request that the network repeats must not end a login.
const MIN_RETRY_WINDOW: Duration = Duration::from_millis(500);

/// The shortest retention: a slow device must get the right error to its last poll.
const MIN_RETENTION: Duration = Duration::from_mins(1);

/// The shortest lifetime of a refresh token: a shorter one would hardly outlive an access token.
const MIN_REFRESH_LIFETIME: Duration = Duration::from_mins(10);

/// The longest lifetime of a refresh token: ten years.
const MAX_REFRESH_LIFETIME: Duration = Duration::from_hours(3650 * 24);

/// The longest grace: a client notices a lost response within a minute or two, and a longer grace would help a thief.
const MAX_REFRESH_GRACE: Duration = Duration::from_mins(5);

/// The longest body that may be configured: the largest number of two octets.
const LARGEST_MAX_BODY: usize = 65_535;

/// The chance that one user or one source guesses a code within a lifetime is at most 1 in 2¹⁶. This is the exponent.
const GUESS_BITS: u32 = 16;

/// Why a policy was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// [L1](crate::tables#l1): the interval is out of bounds.
    #[error("the interval must be whole seconds, from 1 to 60")]
    Interval,
    /// [L1](crate::tables#l1): the cap is out of bounds.
    #[error("the cap must be whole seconds, from the interval to 5 minutes")]
    Cap,
    /// [L2](crate::tables#l2): the lifetime is out of bounds.
    #[error("the lifetime must be whole seconds, at least twice the interval and at most a day")]
    Lifetime,
    /// [L3](crate::tables#l3): the verification URI is not as [`Policy::new`] requires.
    #[error(
        "the verification uri must be an absolute https uri (http on loopback) of visible ascii, without userinfo, query or fragment, of at most {MAX_URL} bytes"
    )]
    VerificationUri,
    /// [L4](crate::tables#l4): the realm has a character that a quoted header value must not have.
    #[error("the realm must be printable ascii without double quotes and backslashes")]
    Realm,
    /// [L6](crate::tables#l6): the user codes are too short for the expected sessions and the guess limit.
    #[error(
        "codes can be guessed: make them longer, allow fewer guesses, shorten the lifetime, or expect fewer outstanding sessions"
    )]
    Guessable,
    /// [L7](crate::tables#l7): the retry window is too long.
    #[error(
        "the retry window must be shorter than the least gap between two polls, which is the interval minus a quarter of it, or minus a second if that is longer"
    )]
    RetryWindow,
    /// [L7](crate::tables#l7): the retention is too short.
    #[error("the retention must be at least a minute")]
    Retention,
    /// [`RefreshOptions::scope`] is not one scope token.
    #[error("the scope that asks for a refresh token must be one scope token")]
    RefreshScope,
    /// [`RefreshOptions::idle`] or [`RefreshOptions::absolute`] is out of bounds.
    #[error("the lifetimes of refresh tokens must be from 10 minutes to ten years")]
    RefreshLifetime,
    /// [`RefreshOptions::grace`] is too long.
    #[error("the grace of refresh tokens may be at most 5 minutes")]
    RefreshGrace,
    /// [`PolicyOptions::max_body`] is out of bounds.
    #[error("the body limit must be from 1 to 65,535 bytes")]
    MaxBody,
}
