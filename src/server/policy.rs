//! The policy: every number and text of the server half, checked once.
//!
//! Rules ([L1](crate::tables#l1) to [L7](crate::tables#l7) of the tables): the constructor refuses what would break a promise of the protocol or of this crate. A
//! [`Policy`] in hand is right.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::pace::{STEP, least_gap};
use super::rate_limit::RateLimit;
use crate::code::UserCodeShape;
use crate::scope::Scope;
use crate::wire::response::SlowDown;
use crate::wire::uri::Uri;

/// The policy of a server: intervals, lifetimes, limits and texts, checked.
///
/// A poll is in time where no less than the interval in force has passed since the last accepted one, with a tolerance of a
/// second or a quarter of the interval, whichever is more: 3.75 s for an interval of 5 s.
#[derive(Debug)]
pub struct Policy {
    pub(super) options: PolicyOptions,
    /// In seconds.
    pub(super) interval: u32,
    /// In seconds.
    pub(super) cap: u32,
    pub(super) retry_window: Duration,
    pub(super) challenge: Arc<str>,
    /// The bodies of `slow_down`, one for each interval that this policy comes to.
    slow_downs: Vec<Arc<SlowDown>>,
    /// What stands between the user code and the end of a device authorization response.
    pub(super) after_code: String,
    /// The same from a second copy of the code on, where the policy has `verification_uri_complete` on.
    pub(super) after_complete: Option<String>,
}

/// What a host chooses of a [`Policy`]. Set what is to differ from the default:
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
    /// An attacker who starts a login sends its link to the victim, who then has nothing left to type: this is how device logins
    /// are phished ([RFC 8628, section 5.4], and the best practice for cross-device flows). Turn it on only if the page makes the
    /// user compare the code with the one on the device, and never let the link decide.
    ///
    /// [RFC 8628, section 5.4]: https://www.rfc-editor.org/rfc/rfc8628#section-5.4
    pub verification_uri_complete: bool,

    /// The realm of the challenge to a client that failed to authenticate. Default `oauth`.
    pub realm: String,

    /// The interval that a device is told at first. Whole seconds from 1 to 60, default 5. One of 1 s is within the tolerance:
    /// it is told, and never enforced.
    pub interval: Duration,

    /// How wide the interval can get. Whole seconds, from the interval to five minutes, default 60.
    pub cap: Duration,

    /// How long a code may be approved. Whole seconds, at least twice the interval, at most a day, default 300.
    pub lifetime: Duration,

    /// Alphabet and length of the user codes. Default `WDJB-MJHT`, eight of twenty consonants.
    pub user_code: UserCodeShape,

    /// How many sessions are expected to be outstanding at once. Default 10,000; a million needs codes of ten characters.
    pub outstanding: u64,

    /// How often one user, or one source, may enter a code, right or wrong. Default 5 at once, then one a minute: ten in a
    /// lifetime.
    ///
    /// The burst and what is given back within a lifetime, times [`outstanding`](Self::outstanding) sessions, must be at most
    /// one in 65,536 of the combinations of the [user code](Self::user_code): make that longer for more.
    ///
    /// # Security
    ///
    /// A key is whatever the limit counts by: a user, an address. With the defaults and 10,000 sessions outstanding, an
    /// attacker with one key hits some code within a lifetime with a chance of 1 in 256,000, with 1,000 keys of 1 in 256,
    /// and with 1,000,000 keys near certainty: make keys hard to come by, or codes longer.
    pub guess_limit: RateLimit,

    /// How often one client, from one source if it is public, may ask for codes. Default 20 at once, then one in 3 s.
    pub issuing_limit: RateLimit,

    /// How many wrong secrets one client may present from one source. Default 10 at once, then one a minute.
    pub secret_limit: RateLimit,

    /// For how long a second redemption counts as a request that was repeated on the way, not as a replay that ends the login. It
    /// must be shorter than the least gap between two polls, so that a device whose code was stolen and redeemed reveals the theft
    /// at its next poll. Default `None`: 2 s, or half a second where that gap is no longer than 2 s.
    pub retry_window: Option<Duration>,

    /// For how long a session is kept after its end, so that it is answered truly. Default 5 minutes, at least one.
    pub retention: Duration,

    /// The longest body that is read, in bytes. Default 16 KiB, from 1 to 65,535. Read one byte more than this from the peer, and no
    /// more: a body that is too large is answered as such.
    pub max_body: usize,

    /// How the core issues refresh tokens. `None` switches them off, which a host needs that has refresh tokens of its own: a refresh
    /// is then answered `unsupported_grant_type`, and the host gives its token with what it mints.
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

    /// How long a refresh token is good for if it is not used. Default 30 days; from 10 minutes to ten years.
    pub idle: Duration,

    /// How long after its redemption a login ends however often it is refreshed. Default `None`: never; from 10 minutes to ten
    /// years.
    pub absolute: Option<Duration>,

    /// For how long a refresh token that was replaced may be sent again, because the answer was lost. Default 30 s; at most 5
    /// minutes; zero allows it never.
    ///
    /// # Security
    ///
    /// Within the grace a thief who has the old token can use it, too. The owner's next refresh then ends the login.
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
    /// query and fragment.
    ///
    /// # Errors
    ///
    /// A [`PolicyError`] that says what would go wrong ([L1](crate::tables#l1) to [L7](crate::tables#l7)).
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
        let uri = Uri::read(verification_uri).ok_or(PolicyError::VerificationUri)?;
        if !uri.is_private() || !uri.rest.is_empty() {
            return Err(PolicyError::VerificationUri);
        }
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
        if options.max_body == 0 || options.max_body > MAX_BODY {
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

    /// The body of `slow_down` with `interval`, which may also be one of an earlier policy.
    pub(super) fn slow_down(&self, interval: u32) -> Arc<SlowDown> {
        let mut bodies = self.slow_downs.iter();
        let made = bodies.find(|body| body.interval == interval);
        made.map_or_else(|| Arc::new(SlowDown::new(interval)), Arc::clone)
    }

    /// How long an approval made at the last moment may still be redeemed: a device whose interval was widened up to the cap
    /// polls once more in that time.
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

/// The default for intervals so short that hardly a gap is left: a network that repeats a request must not end a login.
const MIN_RETRY_WINDOW: Duration = Duration::from_millis(500);

/// The shortest retention: answers must outlive the last poll of a slow device.
const MIN_RETENTION: Duration = Duration::from_mins(1);

/// The shortest lifetime of a refresh token: under it, every access token might as well be the last.
const MIN_REFRESH_LIFETIME: Duration = Duration::from_mins(10);

/// The longest: ten years.
const MAX_REFRESH_LIFETIME: Duration = Duration::from_hours(3650 * 24);

/// The longest grace: a lost answer is noticed within a minute or two. A thief has as long as the grace, too.
const MAX_REFRESH_GRACE: Duration = Duration::from_mins(5);

/// The longest body that may be configured: what two octets can count.
const MAX_BODY: usize = 65_535;

/// The chance per key and lifetime of guessing any code must stay below two to the power of minus this.
const GUESS_BITS: u32 = 16;

/// Why a policy was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// [L1](crate::tables#l1): the interval.
    #[error("the interval must be whole seconds, from 1 to 60")]
    Interval,
    /// [L1](crate::tables#l1): the cap.
    #[error("the cap must be whole seconds, from the interval to 5 minutes")]
    Cap,
    /// [L2](crate::tables#l2): the lifetime.
    #[error("the lifetime must be whole seconds, at least twice the interval and at most a day")]
    Lifetime,
    /// [L3](crate::tables#l3): the verification URI.
    #[error(
        "the verification uri must be an absolute https uri (http on loopback) of visible ascii, without userinfo, query or fragment"
    )]
    VerificationUri,
    /// [L4](crate::tables#l4): the realm.
    #[error("the realm must be printable ascii without quotes and backslashes")]
    Realm,
    /// [L6](crate::tables#l6): codes too short for their number and the guess limit.
    #[error(
        "codes can be guessed: make them longer, allow fewer guesses, or expect fewer outstanding sessions"
    )]
    Guessable,
    /// [L7](crate::tables#l7): the retry window.
    #[error(
        "the retry window must be shorter than the least gap between two polls: the interval less a second, or less a quarter of it"
    )]
    RetryWindow,
    /// [L7](crate::tables#l7): the retention.
    #[error("the retention must be at least a minute")]
    Retention,
    /// The scope of refresh tokens.
    #[error("the scope that asks for a refresh token must be one scope token")]
    RefreshScope,
    /// The lifetimes of refresh tokens.
    #[error("the lifetimes of refresh tokens must be from 10 minutes to ten years")]
    RefreshLifetime,
    /// The grace of refresh tokens.
    #[error("the grace of refresh tokens may be at most 5 minutes")]
    RefreshGrace,
    /// The body limit.
    #[error("the body limit must be from 1 to 65,535 bytes")]
    MaxBody,
}
