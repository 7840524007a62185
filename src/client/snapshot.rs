//! A poller put aside, to outlive the process.
//!
//! Rules:
//! 1. Spans, not moments: a monotonic clock does not survive a restart.
//! 2. A request in flight counts as one whose answer was lost.
//! 3. No endpoint and no client secret; both come again from the caller, and a digest shows whether they are the same.
//! 4. What was not written by this version is refused.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::answer::Failure;
use super::flow::{DeviceFlow, FlowError};
use super::pace::{Cause, LastPoll, Pace};
use super::poll::{Machine, Sent, Waiting};
use super::start::DeviceCode;
use crate::digest::Digest;

/// A poller put aside. It is serde in both directions.
///
/// To know on return how much time went by, give it a reading of the wall clock:
///
/// ```
/// # use core::time::Duration;
/// # use device_flow::client::{DeviceFlow, Endpoints, Received};
/// # let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token")?;
/// # let flow = DeviceFlow::new(endpoints, "cli");
/// # let (starting, _) = flow.start(Duration::ZERO)?;
/// # let body = r#"{"device_code":"d","user_code":"u","verification_uri":"https://as.example/","expires_in":300}"#;
/// # let (waiting, _) = starting.answer(Ok(Received::new(200, body)), Duration::ZERO)?;
/// # let (now, since_epoch) = (Duration::ZERO, Duration::from_secs(1_700_000_000));
/// let kept = serde_json::to_string(&waiting.snapshot(now).taken_at(since_epoch))?;
/// // … the process ends, another one begins …
/// # let (now, since_epoch) = (Duration::ZERO, Duration::from_secs(1_700_000_004));
/// let snapshot: device_flow::client::Snapshot = serde_json::from_str(&kept)?;
/// let elapsed = snapshot.elapsed(since_epoch);
/// let waiting = flow.resume(snapshot, elapsed, now)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Write one of [`Sent`] before the request goes out, and one of [`Waiting`] after each answer: then a poll whose answer a crash
/// has swallowed is known to be one. The prompt is not part of it: keep what you show yourself.
///
/// # Security
///
/// **It contains the device code: keep it like a password, and delete it when the flow is over.** `Debug` shows nothing of it.
/// Resume it once: two pollers of one code break the interval.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Form")]
pub struct Snapshot(Form);

/// The stored form.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    v: u8,
    device_code: String,
    client: Digest,
    lifetime: Duration,
    /// Until the deadline.
    left: Duration,
    /// Until the next poll.
    wait: Duration,
    floor: Duration,
    failures: u32,
    last_poll: LastPoll,
    lost: bool,
    cause: Option<Cause>,
    taken_at: Option<Duration>,
}

/// The version of the stored form.
const VERSION: u8 = 1;

/// No server's interval is shorter: they are whole seconds.
const MIN_FLOOR: Duration = Duration::from_secs(1);

impl Snapshot {
    fn of(machine: &Machine, pace: &Pace) -> Self {
        Self(Form {
            v: VERSION,
            device_code: machine.device_code.0.clone(),
            client: machine.client,
            lifetime: pace.lifetime,
            left: pace.deadline.saturating_sub(pace.clock),
            wait: pace.due().saturating_sub(pace.clock),
            floor: pace.floor,
            failures: pace.failures,
            last_poll: pace.last_poll,
            lost: pace.lost,
            cause: pace.cause,
            taken_at: None,
        })
    }

    /// The same with a reading of the wall clock: the time since the Unix epoch.
    #[must_use]
    pub const fn taken_at(mut self, since_epoch: Duration) -> Self {
        self.0.taken_at = Some(since_epoch);
        self
    }

    /// The time since the snapshot was taken, by the wall clock; none where there was no reading, or the clock went back.
    #[must_use]
    pub fn elapsed(&self, since_epoch: Duration) -> Option<Duration> {
        since_epoch.checked_sub(self.0.taken_at?)
    }
}

impl TryFrom<Form> for Snapshot {
    type Error = SnapshotError;

    fn try_from(form: Form) -> Result<Self, SnapshotError> {
        if form.v != VERSION {
            return Err(SnapshotError::Version);
        }
        let possible = !form.device_code.is_empty()
            && form.floor >= MIN_FLOOR
            && !form.lifetime.is_zero()
            && form.left <= form.lifetime
            && (form.left.is_zero() || form.last_poll != LastPoll::Sent);
        if !possible {
            return Err(SnapshotError::Impossible);
        }
        Ok(Self(form))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot(redacted)")
    }
}

impl Waiting {
    /// Puts the poller aside.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let mut pace = self.0.pace;
        pace.tick(now);
        Snapshot::of(&self.0, &pace)
    }
}

impl Sent {
    /// Puts the poller aside as if the answer to the request in flight had been lost just now.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let mut pace = self.0.pace;
        pace.tick(now);
        pace.failed(Failure::Other);
        pace.schedule(None);
        Snapshot::of(&self.0, &pace)
    }
}

impl DeviceFlow {
    /// Takes a poller up again, `elapsed` after it was put aside; where that is not known, one interval from now.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]: this client or its endpoints are not those of the snapshot, or the set-up has a mistake.
    pub fn resume(
        &self,
        snapshot: Snapshot,
        elapsed: Option<Duration>,
        now: Duration,
    ) -> Result<Waiting, ResumeError> {
        self.check()?;
        let form = snapshot.0;
        if form.client != self.digest() {
            return Err(ResumeError::Mismatch);
        }
        let (left, wait) = match elapsed {
            Some(elapsed) => (
                form.left.saturating_sub(elapsed),
                form.wait.saturating_sub(elapsed),
            ),
            None => (form.left, form.floor),
        };
        let pace = Pace {
            earliest: now.saturating_add(wait),
            failures: form.failures,
            last_poll: form.last_poll,
            lost: form.lost,
            cause: form.cause,
            ..Pace::new(now, now.saturating_add(left), form.lifetime, form.floor)
        };
        Ok(Waiting::new(self, DeviceCode(form.device_code), pace))
    }
}

/// Why a stored form is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum SnapshotError {
    #[error("the snapshot is of an unknown version")]
    Version,
    #[error("the snapshot has an impossible value")]
    Impossible,
}

/// Why a poller cannot be taken up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The snapshot is of another client or of other endpoints.
    #[error("the snapshot is of another client or of other endpoints")]
    Mismatch,
    /// The client is not set up well.
    #[error("the client is not set up well")]
    Flow(#[from] FlowError),
}
