//! Asking for the codes ([RFC 8628, sections 3.1 and 3.2]).
//!
//! Rules:
//! 1. Nothing is repeated by itself: every request mints codes.
//! 2. What is shown to the user is visible ASCII, and a URI that a browser may open.
//! 3. The lifetime counts from the moment the request was handed out: it never ends later than the server's.
//!
//! [RFC 8628, sections 3.1 and 3.2]: https://www.rfc-editor.org/rfc/rfc8628#section-3.1

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde_json::Map;

use super::answer::{
    Failure, Malformed, Meaning, Received, Refusal, Unread, code, is_transient, open,
};
use super::body::{Body, Format, Kept};
use super::flow::{DeviceFlow, Wishes};
use super::pace::{LastPoll, Pace};
use super::poll::Waiting;
use crate::time::DEFAULT_INTERVAL;
use crate::wire::metadata;

/// Waits for the answer to the device authorization request.
#[derive(Debug)]
#[must_use = "the answer to the request is fed in here"]
pub struct Starting {
    flow: DeviceFlow,
    asked: Duration,
}

impl Starting {
    pub(crate) const fn new(flow: DeviceFlow, asked: Duration) -> Self {
        Self { flow, asked }
    }

    /// Takes the answer: what to show to the user, and what to do meanwhile.
    ///
    /// # Errors
    ///
    /// [`StartError`]. Where [`StartError::may_be_retried`] says so, the caller may [`start`](DeviceFlow::start) again.
    pub fn answer<B: AsRef<[u8]>>(
        self,
        answer: Result<Received<B>, Failure>,
        now: Duration,
    ) -> Result<(Waiting, Prompt), StartError> {
        let received = answer.map_err(StartError::Failed)?;
        let Authorization {
            device_code,
            interval,
            prompt,
        } = self.flow.read(&received)?;
        let clock = self.asked.max(now);
        let deadline = self.asked.saturating_add(prompt.lifetime);
        let mut pace = Pace::new(clock, deadline, prompt.lifetime, interval);
        let wishes = self.flow.wishes;
        if !wishes.polls_at_the_end {
            pace.last_poll = LastPoll::Off;
        }
        pace.schedule(received.pause());
        if wishes.polls_at_once {
            pace.earliest = clock;
        }
        Ok((Waiting::new(&self.flow, device_code, pace), prompt))
    }
}

impl DeviceFlow {
    /// Reads an answer to the device authorization request.
    ///
    /// # Errors
    ///
    /// [`StartError`], but for [`StartError::Failed`].
    pub fn read<B: AsRef<[u8]>>(
        &self,
        received: &Received<B>,
    ) -> Result<Authorization, StartError> {
        read(received.status(), received.octets(), self.wishes)
    }
}

/// What a server issued ([RFC 8628, section 3.2](https://www.rfc-editor.org/rfc/rfc8628#section-3.2)).
///
/// # Security
///
/// The device code redeems the login. `Debug` shows no code.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Authorization {
    /// The device code.
    pub(crate) device_code: DeviceCode,
    /// The least time from an answer to the next poll.
    pub interval: Duration,
    /// What is shown to the user.
    pub prompt: Prompt,
}

impl Authorization {
    /// The device code.
    #[must_use]
    pub fn device_code(&self) -> &str {
        &self.device_code.0
    }
}

/// A device code of a server, whatever it looks like.
#[derive(Clone, PartialEq)]
pub(crate) struct DeviceCode(pub(crate) String);

impl fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceCode(redacted)")
    }
}

/// What is shown to the user ([RFC 8628, section 3.3]).
///
/// Show the code even where the complete URI is used: the user compares it with the one on the other screen.
///
/// # Security
///
/// Code and URIs are visible ASCII. `Debug` shows neither the code nor the complete URI, which contains it.
///
/// [RFC 8628, section 3.3]: https://www.rfc-editor.org/rfc/rfc8628#section-3.3
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Prompt {
    /// The code that the user types.
    pub user_code: String,
    /// Where the user types it.
    pub verification_uri: String,
    /// The same with the code in it, for a QR code or a browser on the device.
    pub verification_uri_complete: Option<String>,
    /// How long the code is good for, from the moment the request was handed out.
    pub lifetime: Duration,
    /// What was wrong with the answer and did not matter.
    pub warnings: Vec<Warning>,
    /// The members that are not of the protocol, as they came: not safe to print.
    pub members: Map<String, serde_json::Value>,
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("verification_uri", &self.verification_uri)
            .field("lifetime", &self.lifetime)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// What was wrong with an answer and did not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// There was no interval that makes sense: it is 5 s.
    Interval,
    /// The complete URI was not usable and was dropped.
    VerificationUriComplete,
}

fn read(status: u16, octets: &[u8], wishes: Wishes) -> Result<Authorization, StartError> {
    let kept = Kept::default();
    let mut body = Body::new(&kept);
    let format = open(status, octets, &mut body).map_err(|unread| match unread {
        Unread::Redirected => StartError::Redirected(status),
        Unread::Malformed(why) => StartError::Malformed(why),
    })?;
    if let Some(code) = code(status, &body.members) {
        return Err(StartError::Rejected(Refusal::of(status, Some(code), &body)));
    }
    match status {
        200..=299 => match format {
            Format::Json | Format::Form => issued(&body, wishes),
            Format::Unknown => Err(StartError::Malformed(Malformed::Unreadable)),
        },
        404 | 405 | 501 => Err(StartError::Unsupported(status)),
        _ if is_transient(status) => Err(StartError::Unavailable(status)),
        400..=499 => Err(StartError::Rejected(Refusal::of(status, None, &body))),
        _ => Err(StartError::Malformed(Malformed::Status)),
    }
}

fn issued(body: &Body<'_>, wishes: Wishes) -> Result<Authorization, StartError> {
    let members = &body.members;
    let positive = |span: &Duration| !span.is_zero();
    let mut warnings = Vec::new();

    let device_code = members.device_code.text().ok_or(Field::DeviceCode)?;
    let user_code = members.user_code.text().ok_or(Field::UserCode)?;
    if !user_code.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Field::UserCode.into());
    }
    // Google and others wrote `verification_url` before the name was settled, and still do.
    let verification_uri = members
        .verification_uri
        .text()
        .or(members.verification_url.text());
    let verification_uri = verification_uri.ok_or(Field::VerificationUri)?;
    metadata::shown(verification_uri, wishes.plain).map_err(|_| Field::VerificationUri)?;
    let complete = members.verification_uri_complete;
    let usable = complete
        .text()
        .filter(|uri| metadata::shown(uri, wishes.plain).is_ok());
    if usable.is_none() && complete.is_given() {
        warnings.push(Warning::VerificationUriComplete);
    }

    let lifetime = if members.expires_in.is_given() {
        members.expires_in.seconds()
    } else {
        wishes.default_lifetime
    };
    let lifetime = lifetime.filter(positive).ok_or(Field::ExpiresIn)?;
    let interval = members
        .interval
        .seconds()
        .filter(positive)
        .unwrap_or_else(|| {
            warnings.push(Warning::Interval);
            DEFAULT_INTERVAL
        });

    Ok(Authorization {
        device_code: DeviceCode(device_code.to_owned()),
        interval,
        prompt: Prompt {
            user_code: user_code.to_owned(),
            verification_uri: verification_uri.to_owned(),
            verification_uri_complete: usable.map(ToOwned::to_owned),
            lifetime,
            warnings,
            members: body.others().build(),
        },
    })
}

/// Why there are no codes.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A redirect, with its status. It is not followed.
    #[error("the server answered with a redirect, which is not followed")]
    Redirected(u16),
    /// An answer that is none.
    #[error("the answer is malformed")]
    Malformed(#[source] Malformed),
    /// The server refused. Here `access_denied` means that the feature is off, not that a user said no.
    #[error("the server refused to issue codes")]
    Rejected(Refusal),
    /// There is no such endpoint; with the status.
    #[error("the server does not support the device grant")]
    Unsupported(u16),
    /// The server could not answer; with the status.
    #[error("the server could not answer")]
    Unavailable(u16),
    /// There was no answer.
    #[error("there was no answer")]
    Failed(Failure),
    /// A member of the answer is missing or unusable.
    #[error("the answer lacks a usable {0}")]
    Field(Field),
}

impl StartError {
    /// Whether the same request may succeed later. It is for the caller to send, not before `Retry-After`, if the response had
    /// one: each request mints codes.
    #[must_use]
    pub fn may_be_retried(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::Failed(failure) => match failure {
                Failure::ConnectionTimeout | Failure::Other => true,
                Failure::Permanent => false,
            },
            Self::Rejected(refusal) => {
                let meaning = refusal.code().and_then(Meaning::of);
                is_transient(refusal.status) || meaning == Some(Meaning::Transient)
            }
            Self::Redirected(_) | Self::Malformed(_) | Self::Unsupported(_) | Self::Field(_) => {
                false
            }
        }
    }
}

impl From<Field> for StartError {
    fn from(field: Field) -> Self {
        Self::Field(field)
    }
}

/// A member of the device authorization response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// `device_code`
    DeviceCode,
    /// `user_code`
    UserCode,
    /// `verification_uri`, or `verification_url`
    VerificationUri,
    /// `expires_in`
    ExpiresIn,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeviceCode => "device_code",
            Self::UserCode => "user_code",
            Self::VerificationUri => "verification_uri",
            Self::ExpiresIn => "expires_in",
        })
    }
}
