//! A login that is saved, so that it can be resumed after a restart.
//!
//! Rules:
//! 1. Of the monotonic clock it holds only durations, because that clock does not survive a restart.
//! 2. A poll in flight counts as one whose answer was lost.
//! 3. It holds no endpoint and no client secret: the caller supplies them again. A digest binds it to the endpoints and the client id.
//! 4. A snapshot that this version cannot have written is refused. So a resumed login waits no longer than any other login can.

use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::flow::{DeviceFlow, FlowError};
use super::login::{Ask, Login, Polls, Stage};
use super::schedule::{LastPoll, Schedule, WaitingFor, ceiling};
use crate::digest::Digest;
use crate::wire::debug_shows;
use crate::wire::version::Version;

/// A saved login. It implements `Serialize` and `Deserialize`.
///
/// Add a reading of the wall clock, so that you know after a restart how much time has passed:
///
/// ```
/// # use core::time::Duration;
/// # use device_flow::client::{DeviceFlow, Endpoints, Next, Response};
/// # let endpoints = Endpoints::new("https://as.example/device", "https://as.example/token")?;
/// # let flow = DeviceFlow::new(endpoints, "cli");
/// # let mut login = flow.login()?;
/// # let body = r#"{"device_code":"d","user_code":"u","verification_uri":"https://as.example/","expires_in":300}"#;
/// # if let Next::Send(ask) = login.next(Duration::ZERO) {
/// #     ask.answer(Ok(Response::new(200, body)), Duration::ZERO);
/// # }
/// # let Next::Show(_) = login.next(Duration::ZERO) else { return Err("nothing to show".into()) };
/// # let (now, since_epoch) = (Duration::ZERO, Duration::from_secs(1_700_000_000));
/// let snapshot = login.snapshot(now).ok_or("it is not polling")?;
/// let kept = serde_json::to_string(&snapshot.stamped(since_epoch))?;
/// // … the process ends, another one begins …
/// # let (now, since_epoch) = (Duration::ZERO, Duration::from_secs(1_700_000_004));
/// let snapshot: device_flow::client::Snapshot = serde_json::from_str(&kept)?;
/// let elapsed = snapshot.elapsed(since_epoch);
/// let login = flow.resume(snapshot, elapsed, now)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Store the first snapshot by [`Login::snapshot`] when you show the prompt. From then on store one by [`Ask::snapshot`] before you send a
/// poll, and one by [`Login::snapshot`] after each answer. After a crash the login then knows whether an answer was lost. If that answer
/// had the tokens, they cannot be had again: the user must sign in again. So call [`Login::next`] at once after an answer. A snapshot does
/// not know of [`Ask::cancel`]: when the user gives up, mark what you stored, so that the login is not resumed. The prompt is not part of a
/// snapshot: store the [`Prompt`](super::Prompt) beside it.
///
/// # Security
///
/// **It contains the device code: keep it like a password, and delete it when the login is over.** `Debug` shows nothing of it. Resume it
/// only once, because two logins with one code poll too often.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Record")]
pub struct Snapshot(Record);

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: Version<2>,
    device_code: String,
    client: Digest,
    lifetime: Duration,
    /// The time until the deadline.
    left: Duration,
    /// The time until the next poll.
    wait: Duration,
    min_interval: Duration,
    failures: u32,
    last_poll: LastPoll,
    lost: bool,
    waiting_for: Option<WaitingFor>,
    taken_at: Option<Duration>,
}

/// The shortest interval that a server can announce, because intervals are whole seconds.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

impl Snapshot {
    /// Adds a reading of the wall clock: the time since the Unix epoch.
    #[must_use]
    pub const fn stamped(mut self, since_epoch: Duration) -> Self {
        self.0.taken_at = Some(since_epoch);
        self
    }

    /// Returns the time since the snapshot was taken, by the wall clock: `None` without [`Self::stamped`], or if the clock went back.
    pub fn elapsed(&self, since_epoch: Duration) -> Option<Duration> {
        since_epoch.checked_sub(self.0.taken_at?)
    }
}

impl TryFrom<Record> for Snapshot {
    type Error = &'static str;

    fn try_from(record: Record) -> Result<Self, Self::Error> {
        let ceiling = ceiling(record.min_interval);
        // `Retry-After` reaches at most to the deadline, and the jitter adds at most one interval.
        let longest = ceiling
            .max(record.lifetime)
            .saturating_add(record.min_interval);
        // A last poll goes out only if it comes soon enough after the deadline.
        let latest = record
            .left
            .saturating_add(ceiling)
            .saturating_add(record.min_interval);
        let is_last_poll_possible = match record.last_poll {
            LastPoll::Ahead => record.min_interval <= record.lifetime && record.wait <= latest,
            LastPoll::Sent => record.left.is_zero(),
            LastPoll::Off | LastPoll::TooLate => true,
        };
        let is_possible = !record.device_code.is_empty()
            && record.min_interval >= MIN_INTERVAL
            && !record.lifetime.is_zero()
            && record.left <= record.lifetime
            && record.wait <= longest
            && is_last_poll_possible;
        if !is_possible {
            return Err("the snapshot has a value that no login can have; start the login again");
        }
        Ok(Self(record))
    }
}

debug_shows!(Snapshot);

impl Login {
    /// Returns a snapshot, if the login is polling and has returned its prompt. A poll that was handed out and not answered counts as lost.
    pub fn snapshot(&self, now: Duration) -> Option<Snapshot> {
        let polls = self.polls().filter(|polls| polls.is_shown)?;
        let mut schedule = polls.schedule;
        schedule.tick(now);
        if polls.in_flight {
            schedule.lose_answer();
        }
        Some(Snapshot(Record {
            v: Version,
            device_code: polls.device_code.clone(),
            client: self.flow.digest(),
            lifetime: schedule.lifetime,
            left: schedule.deadline.saturating_sub(schedule.clock),
            wait: schedule.due().saturating_sub(schedule.clock),
            min_interval: schedule.min_interval,
            failures: schedule.failures,
            last_poll: schedule.last_poll,
            lost: schedule.lost,
            waiting_for: schedule.reason,
            taken_at: None,
        }))
    }
}

impl Ask<'_> {
    /// Returns a snapshot in which the answer to this poll counts as lost. It is `None` for the request for codes.
    pub fn snapshot(&self, now: Duration) -> Option<Snapshot> {
        self.0.snapshot(now)
    }
}

impl DeviceFlow {
    /// Resumes a login. `elapsed` is the time since the snapshot was taken. If `elapsed` is `None`, the next poll waits for one interval,
    /// and the code has as much time left as when the snapshot was taken. If the code has expired meanwhile, one last poll goes out. The
    /// login does not return the prompt again: show the one that you stored, and the time left by [`Login::deadline`]. After a snapshot of
    /// a poll in flight, [`Login::waiting_for`] is [`WaitingFor::Connection`], because the answer was lost.
    ///
    /// # Errors
    ///
    /// [`ResumeError`]: this client or its endpoints are not those of the snapshot, or the set-up has a mistake.
    pub fn resume(
        &self,
        snapshot: Snapshot,
        elapsed: Option<Duration>,
        now: Duration,
    ) -> Result<Login, ResumeError> {
        self.check().map_err(ResumeError::Flow)?;
        let record = snapshot.0;
        if record.client != self.digest() {
            return Err(ResumeError::Mismatch);
        }
        let (left, wait) = match elapsed {
            Some(elapsed) => (
                record.left.saturating_sub(elapsed),
                record.wait.saturating_sub(elapsed),
            ),
            None => (record.left, record.min_interval),
        };
        let deadline = now.saturating_add(left);
        let schedule = Schedule {
            earliest: now.saturating_add(wait),
            failures: record.failures,
            last_poll: record.last_poll,
            lost: record.lost,
            reason: record.waiting_for,
            ..Schedule::new(now, deadline, record.lifetime, record.min_interval)
        };
        Ok(Login {
            request: self.poll_request(&record.device_code),
            flow: self.clone(),
            stage: Stage::Poll(Box::new(Polls {
                schedule,
                device_code: record.device_code,
                prompt: None,
                is_shown: true,
                in_flight: false,
            })),
            is_cancelled: false,
        })
    }
}

/// Why a login cannot be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The snapshot is of another client or of other endpoints.
    #[error(
        "the snapshot was taken with another client or other endpoints; resume it with those, or start the login again"
    )]
    Mismatch,
    /// The set-up of the client has a mistake.
    #[error("{0}")]
    Flow(FlowError),
}
