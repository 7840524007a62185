//! The policy: every number and text of the server half, checked once.
//!
//! Rules (L1 to L7 of the tables): the constructor refuses what would break a promise of the protocol or of this crate. A
//! [`Policy`] in hand is right.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::quota::Limit;
use crate::code::UserCodeShape;
use crate::wire::response::SlowDown;
use crate::wire::uri::Uri;

/// The policy of a server: intervals, lifetimes, limits and texts.
///
/// A poll is in time where no less than the interval in force has passed since the last accepted one, with a tolerance of a
/// second or a quarter of the interval, whichever is more: 3.75 s for an interval of 5 s.
///
/// ```
/// use core::time::Duration;
/// use device_flow::server::Policy;
///
/// let policy = Policy::builder("https://login.example.com/device")
///     .lifetime(Duration::from_secs(600))
///     .build()?;
/// assert_eq!(policy.interval(), Duration::from_secs(5));
/// # Ok::<(), device_flow::server::PolicyError>(())
/// ```
#[derive(Debug)]
pub struct Policy {
    pub(super) interval: u32,
    pub(super) step: u32,
    pub(super) cap: u32,
    pub(super) max_body: usize,
    pub(super) lifetime: Duration,
    pub(super) retention: Duration,
    pub(super) retry_window: Duration,
    pub(super) challenge: Arc<str>,
    /// The bodies of `slow_down`, one for each interval that this policy comes to.
    slow_downs: Vec<Arc<SlowDown>>,
    pub(super) user_code: UserCodeShape,
    guesses: Limit,
    issuing: Limit,
    secrets: Limit,
    /// What stands between the user code and the end of a device authorization response.
    pub(super) after_code: String,
    /// The same from a second copy of the code on, where the policy has `verification_uri_complete` on.
    pub(super) after_complete: Option<String>,
}

impl Policy {
    /// A policy for users who enter their codes at `verification_uri`, with everything else at its default.
    pub fn builder(verification_uri: impl Into<String>) -> PolicyBuilder {
        PolicyBuilder {
            verification_uri: verification_uri.into(),
            complete: false,
            realm: "oauth".into(),
            interval: Duration::from_secs(5),
            step: STEP,
            cap: Duration::from_mins(1),
            lifetime: Duration::from_mins(5),
            user_code: UserCodeShape::default(),
            outstanding: 10_000,
            guesses: Limit::constant(5, 60),
            issuing: Limit::constant(20, 3),
            secrets: Limit::constant(10, 60),
            retry_window: Duration::from_secs(10),
            retention: Duration::from_mins(5),
            max_body: 16 * 1024,
        }
    }

    /// The interval that a device is told at first.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.into())
    }

    /// How long a code may be approved.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The longest body that is read, in bytes. Read one more than this from the peer, and no more: a body that is too large is
    /// answered as such.
    pub const fn max_body(&self) -> usize {
        self.max_body
    }

    /// How often one user, or one source, may enter a code.
    pub const fn guess_limit(&self) -> Limit {
        self.guesses
    }

    /// How often one client, from one source if it is public, may ask for codes.
    pub const fn issuing_limit(&self) -> Limit {
        self.issuing
    }

    /// How many wrong secrets one client may present from one source.
    pub const fn secret_limit(&self) -> Limit {
        self.secrets
    }

    /// The body of `slow_down` with `interval`, which may also be one of an earlier policy.
    pub(super) fn slow_down(&self, interval: u32) -> Arc<SlowDown> {
        let mut bodies = self.slow_downs.iter();
        let made = bodies.find(|body| body.interval == interval);
        made.map_or_else(|| Arc::new(SlowDown::new(interval)), Arc::clone)
    }

    /// How long an approval made at the last moment may still be redeemed: time for two polls.
    pub(super) fn grace(&self) -> Duration {
        self.interval().saturating_mul(2)
    }
}

/// "the interval MUST be increased by 5 seconds for this and all subsequent requests" ([RFC 8628, section 3.5])
///
/// [RFC 8628, section 3.5]: https://www.rfc-editor.org/rfc/rfc8628#section-3.5
const STEP: Duration = Duration::from_secs(5);

/// The widest cap: a device that waits for longer between two polls might as well give up.
const MAX_CAP: Duration = Duration::from_hours(1);

/// The longest lifetime: nobody keeps a device waiting for longer.
const MAX_LIFETIME: Duration = Duration::from_hours(24);

/// The longest retry window: after that a second redemption is not a retry of the first.
const MAX_RETRY_WINDOW: Duration = Duration::from_secs(30);

/// The shortest retention: answers must outlive the last poll of a slow device.
const MIN_RETENTION: Duration = Duration::from_mins(1);

/// The longest body that may be configured: what two octets can count.
const MAX_BODY: usize = 65_535;

/// The chance per key and lifetime of guessing any code must stay below two to the power of minus this.
const GUESS_BITS: u32 = 16;

/// Builds a [`Policy`].
#[derive(Clone, Debug)]
#[must_use]
pub struct PolicyBuilder {
    verification_uri: String,
    complete: bool,
    realm: String,
    interval: Duration,
    step: Duration,
    cap: Duration,
    lifetime: Duration,
    user_code: UserCodeShape,
    outstanding: u64,
    guesses: Limit,
    issuing: Limit,
    secrets: Limit,
    retry_window: Duration,
    retention: Duration,
    max_body: usize,
}

impl PolicyBuilder {
    /// Adds `verification_uri_complete` to the responses, for a QR code: the page's URI with the code in its query.
    ///
    /// # Security
    ///
    /// Off by default. An attacker who starts a login sends its link to the victim, who then has nothing left to type: this
    /// is how device logins are phished ([RFC 8628, section 5.4], and the best practice for cross-device flows). Turn it on
    /// only if the page makes the user compare the code with the one on the device, and never let the link decide.
    ///
    /// [RFC 8628, section 5.4]: https://www.rfc-editor.org/rfc/rfc8628#section-5.4
    pub fn with_verification_uri_complete(mut self) -> Self {
        self.complete = true;
        self
    }

    /// The realm of the challenge to a client that failed to authenticate. Default `oauth`.
    pub fn realm(mut self, realm: impl Into<String>) -> Self {
        self.realm = realm.into();
        self
    }

    /// The interval that a device is told at first. Whole seconds from 1 to 60, default 5. One of 1 s is within the tolerance:
    /// it is told, and never enforced.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// By how much `slow_down` widens the interval. Whole seconds, at least and by default 5.
    pub fn step(mut self, step: Duration) -> Self {
        self.step = step;
        self
    }

    /// How wide the interval can get. Whole seconds, from the interval to an hour, default 60.
    pub fn cap(mut self, cap: Duration) -> Self {
        self.cap = cap;
        self
    }

    /// How long a code may be approved. Whole seconds, at least twice the interval, at most a day, default 300.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Alphabet and length of the user codes. Default `WDJB-MJHT`, eight of twenty consonants.
    pub fn user_code(mut self, shape: UserCodeShape) -> Self {
        self.user_code = shape;
        self
    }

    /// How many sessions are expected to be outstanding at once. Default 10,000; a million needs codes of ten characters.
    pub const fn outstanding(mut self, sessions: u64) -> Self {
        self.outstanding = sessions;
        self
    }

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
    pub const fn guess_limit(mut self, limit: Limit) -> Self {
        self.guesses = limit;
        self
    }

    /// How often one client, from one source if it is public, may ask for codes. Default 20 at once, then one in 3 s.
    pub const fn issuing_limit(mut self, limit: Limit) -> Self {
        self.issuing = limit;
        self
    }

    /// How many wrong secrets one client may present from one source. Default 10 at once, then one a minute.
    pub const fn secret_limit(mut self, limit: Limit) -> Self {
        self.secrets = limit;
        self
    }

    /// For how long a second redemption counts as a duplicated request, not as a replay. Default 10 s, at most 30 s. With none,
    /// a proxy that repeats a request has its user's tokens revoked.
    pub const fn retry_window(mut self, window: Duration) -> Self {
        self.retry_window = window;
        self
    }

    /// For how long a session is kept after its end, so that it is answered truly. Default 5 minutes, at least one.
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = retention;
        self
    }

    /// The longest body that is read, in bytes. Default 16 KiB, at most 65,535.
    pub const fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// The policy.
    ///
    /// # Errors
    ///
    /// A [`PolicyError`] that says what would go wrong (L1 to L7).
    pub fn build(self) -> Result<Policy, PolicyError> {
        let interval = whole_seconds(self.interval).ok_or(PolicyError::Interval)?;
        let step = whole_seconds(self.step).ok_or(PolicyError::Step)?;
        let cap = whole_seconds(self.cap).ok_or(PolicyError::Cap)?;
        if !(1..=60).contains(&interval) {
            return Err(PolicyError::Interval);
        }
        if self.step < STEP {
            return Err(PolicyError::Step);
        }
        if cap < interval || self.cap > MAX_CAP {
            return Err(PolicyError::Cap);
        }
        let lifetime = whole_seconds(self.lifetime).ok_or(PolicyError::Lifetime)?;
        if self.lifetime < self.interval.saturating_mul(2) || self.lifetime > MAX_LIFETIME {
            return Err(PolicyError::Lifetime);
        }
        let uri = Uri::read(&self.verification_uri).ok_or(PolicyError::VerificationUri)?;
        if !uri.is_private() || !uri.rest.is_empty() {
            return Err(PolicyError::VerificationUri);
        }
        let quotable = |b: u8| matches!(b, 0x20..=0x7E) && b != b'"' && b != b'\\';
        if !self.realm.bytes().all(quotable) {
            return Err(PolicyError::Realm);
        }
        let chances = u128::from(self.guesses.within(self.lifetime))
            .saturating_mul(self.outstanding.max(1).into())
            .saturating_mul(1 << GUESS_BITS);
        if chances > self.user_code.combinations().into() {
            return Err(PolicyError::Guessable);
        }
        if self.retry_window > MAX_RETRY_WINDOW {
            return Err(PolicyError::RetryWindow);
        }
        if self.retention < MIN_RETENTION {
            return Err(PolicyError::Retention);
        }
        if self.max_body == 0 || self.max_body > MAX_BODY {
            return Err(PolicyError::MaxBody);
        }
        let uri = &self.verification_uri;
        let end = format!(r#"","expires_in":{lifetime},"interval":{interval}}}"#);
        let page = format!(r#"","verification_uri":"{uri}"#);
        let (after_code, after_complete) = if self.complete {
            let link = format!(r#"{page}","verification_uri_complete":"{uri}?user_code="#);
            (link, Some(end))
        } else {
            (format!("{page}{end}"), None)
        };
        let widths = core::iter::successors(Some(interval), |&width| {
            (width < cap).then(|| width.saturating_add(step).min(cap))
        });
        let slow_downs = widths.map(|width| Arc::new(SlowDown::new(width))).collect();
        Ok(Policy {
            interval,
            step,
            cap,
            max_body: self.max_body,
            lifetime: self.lifetime,
            retention: self.retention,
            retry_window: self.retry_window,
            challenge: format!("Basic realm=\"{}\"", self.realm).into(),
            slow_downs,
            user_code: self.user_code,
            guesses: self.guesses,
            issuing: self.issuing,
            secrets: self.secrets,
            after_code,
            after_complete,
        })
    }
}

fn whole_seconds(span: Duration) -> Option<u32> {
    let seconds = u32::try_from(span.as_secs()).ok()?;
    (span.subsec_nanos() == 0).then_some(seconds)
}

/// Why a policy was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// L1: the interval.
    #[error("the interval must be whole seconds, from 1 to 60")]
    Interval,
    /// L1: the step.
    #[error("the step must be whole seconds, at least 5: clients add 5 on slow_down")]
    Step,
    /// L1: the cap.
    #[error("the cap must be whole seconds, from the interval to an hour")]
    Cap,
    /// L2: the lifetime.
    #[error("the lifetime must be whole seconds, at least twice the interval and at most a day")]
    Lifetime,
    /// L3: the verification URI.
    #[error(
        "the verification uri must be an absolute https uri (http on loopback) of visible ascii, without userinfo, query or fragment"
    )]
    VerificationUri,
    /// L4: the realm.
    #[error("the realm must be printable ascii without quotes and backslashes")]
    Realm,
    /// L6: codes too short for their number and the guess limit.
    #[error(
        "codes can be guessed: make them longer, allow fewer guesses, or expect fewer outstanding sessions"
    )]
    Guessable,
    /// L7: the retry window.
    #[error("the retry window may be at most 30 seconds")]
    RetryWindow,
    /// L7: the retention.
    #[error("the retention must be at least a minute")]
    Retention,
    /// The body limit.
    #[error("the body limit must be from 1 to 65,535 bytes")]
    MaxBody,
}
