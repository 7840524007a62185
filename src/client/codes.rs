//! What a response to the device authorization request means (RFC 8628, section 3.2).

use alloc::borrow::{Cow, ToOwned};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::body::{Body, Format, Malformed};
use super::flow::Setup;
use super::prompt::{Prompt, Warning, fault_of_user_code};
use super::refusal::{Meaning, Refusal};
use super::response::{Response, TransportError};
use super::schedule::{DEFAULT_INTERVAL, MAX_ANNOUNCED};
use super::verdict::{code, is_transient};
use crate::wire::uri;
use crate::wire::version::Version;

pub(crate) struct Codes {
    pub(crate) device_code: String,
    /// The shortest wait from an answer to the next poll.
    pub(crate) interval: Duration,
    pub(crate) prompt: Prompt,
}

pub(crate) fn read(response: &Response<&[u8]>, setup: &Setup) -> Result<Codes, StartError> {
    let status = response.status;
    let mut body = Body::default();
    body.read(response).map_err(StartError::Malformed)?;
    let refusal = |code| Refusal::new(response, code, &body);
    if let Some(code) = code(status, &body.members) {
        return Err(StartError::Rejected(refusal(Some(&code))));
    }
    match status {
        200..=299 => match body.format {
            Format::Json | Format::Form => issued(&body, setup),
            Format::Unknown => Err(StartError::Malformed(Malformed::Unreadable)),
        },
        300..=399 => Err(StartError::Redirected(status)),
        404 | 405 | 501 => Err(StartError::Unsupported(status)),
        _ if is_transient(status) => Err(StartError::Unavailable {
            status,
            retry_after: response.retry_after,
        }),
        400..=499 => Err(StartError::Rejected(refusal(None))),
        _ => Err(StartError::Malformed(Malformed::Status)),
    }
}

fn issued(body: &Body<'_>, setup: &Setup) -> Result<Codes, StartError> {
    const MISSING: &str = "is missing, empty or not a string";
    let members = &body.members;
    let positive = |span: &Duration| !span.is_zero();
    let mut warnings = Vec::new();

    let text = |name, value: Option<_>| value.ok_or_else(|| field(name, MISSING));
    let device_code = text("device_code", members.device_code.text())?;
    let user_code = text("user_code", members.user_code.text())?;
    if let Some(fault) = fault_of_user_code(&user_code) {
        return Err(field("user_code", fault));
    }
    // Google and others used `verification_url` before the RFC chose another name, and still do.
    let shown = members.verification_uri.text();
    let shown = shown.or_else(|| members.verification_url.text());
    let shown = text("verification_uri", shown)?;
    uri::showable(&shown, setup.plain)
        .map_err(|why| field("verification_uri", &format!("cannot be used: {why}")))?;
    let complete = members.verification_uri_complete;
    let may_be_shown = |link: &Cow<'_, str>| uri::showable(link, setup.plain).is_ok();
    let usable = complete.text().filter(may_be_shown);
    if usable.is_none() && complete.is_given() {
        warnings.push(Warning::VerificationUriComplete);
    }

    let lifetime = if members.expires_in.is_given() {
        members.expires_in.seconds()
    } else {
        setup.default_lifetime
    };
    let lifetime = lifetime.filter(positive);
    let lifetime = lifetime.ok_or_else(|| {
        let why = "is missing or not a positive number; if this server never sends it, set `DeviceFlow::default_lifetime`";
        field("expires_in", why)
    })?;
    let interval = members.interval.seconds().filter(positive);
    let interval = interval.unwrap_or_else(|| {
        warnings.push(Warning::Interval);
        DEFAULT_INTERVAL
    });
    if interval > lifetime || interval > MAX_ANNOUNCED {
        warnings.push(Warning::LongInterval);
    }

    Ok(Codes {
        device_code: device_code.into_owned(),
        interval,
        prompt: Prompt {
            v: Version,
            user_code: user_code.into_owned(),
            verification_uri: shown.into_owned(),
            verification_uri_complete: usable.map(Cow::into_owned),
            lifetime,
            warnings,
            members: body.others(),
        },
    })
}

fn field(name: &'static str, why: &str) -> StartError {
    StartError::Field {
        name,
        why: why.to_owned().into(),
    }
}

/// Why a login got no codes. `Display` says what happened and what to do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The server answered with a redirect of this status. It is not followed.
    #[error(
        "the server answered with a redirect (status {0}), which is not followed; check the URL of the device authorization \
         endpoint"
    )]
    Redirected(u16),
    /// The response could not be used.
    #[error("the server issued no codes: {0}")]
    Malformed(Malformed),
    /// The server refused, or answered with an error code. Here `access_denied` means that the grant is switched off, not that a user said
    /// no.
    #[error("the server issued no codes: {0}; {advice}", advice = advice(.0))]
    Rejected(Refusal),
    /// The server has no device authorization endpoint at this URL. Holds the status.
    #[error(
        "the server has no device authorization endpoint at this URL (status {0}); check the URL; if it is right, the server does not support the device grant"
    )]
    Unsupported(u16),
    /// The server could not answer, and its response has no error code.
    #[error("the server could not answer (status {status}); try again {}", later(*.retry_after))]
    #[non_exhaustive]
    Unavailable {
        /// The status of the response.
        status: u16,
        /// How long to wait, if the header `Retry-After` said so.
        retry_after: Option<Duration>,
    },
    /// There was no response.
    #[error("{0}")]
    Failed(TransportError),
    /// A member of the response cannot be used.
    #[error(
        "the server's response cannot be used, because its {name} {why}; report this to whoever runs the server"
    )]
    #[non_exhaustive]
    Field {
        /// The name of the member.
        name: &'static str,
        /// What is wrong with it.
        why: Box<str>,
    },
}

impl StartError {
    /// Returns whether a new login may succeed, after [`Self::retry_after`]. The crate does not try again by itself, because each request
    /// makes new codes.
    pub fn may_be_retried(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
            || matches!(self, Self::Failed(failure) if failure.is_temporary())
            || matches!(self, Self::Rejected(refusal) if is_temporary(refusal))
    }

    /// Returns how long to wait from the response on, if the header `Retry-After` said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        if let Self::Unavailable { retry_after, .. } | Self::Rejected(Refusal { retry_after, .. }) =
            self
        {
            return *retry_after;
        }
        None
    }
}

fn is_temporary(refusal: &Refusal) -> bool {
    is_transient(refusal.status) || refusal.code().and_then(Meaning::of) == Some(Meaning::Transient)
}

/// Returns what to do about a refusal, or when to try again if it is temporary.
fn advice(refusal: &Refusal) -> Cow<'static, str> {
    if is_temporary(refusal) {
        return format!("try again {}", later(refusal.retry_after)).into();
    }
    refusal.advice().into()
}

pub(crate) fn later(retry_after: Option<Duration>) -> Cow<'static, str> {
    match retry_after {
        Some(span) => format!("after {} seconds", span.as_secs()).into(),
        None => "later".into(),
    }
}
