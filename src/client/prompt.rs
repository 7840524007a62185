//! What is shown to the user (RFC 8628, section 3.3).
//!
//! Rule: the code and the URIs are visible ASCII, and the URIs are http or https. A stored prompt is checked for this, too.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Map;

use crate::wire::debug_shows;
use crate::wire::uri::{self, PlainHttp};
use crate::wire::version::Version;

/// What is shown to the user ([RFC 8628, section 3.3](https://www.rfc-editor.org/rfc/rfc8628#section-3.3)).
///
/// Show the code even if the user opens the complete URI, because the user compares it with the one on the other screen.
///
/// It implements `Serialize` and `Deserialize`, so that you can store it beside a [`Snapshot`](super::Snapshot). Deserializing checks it
/// like a response, except that it accepts http.
///
/// # Security
///
/// Code and URIs are visible ASCII. `Debug` shows neither the code nor the complete URI, which contains it.
#[derive(Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Prompt {
    pub(crate) v: Version<1>,
    /// The code that the user types.
    pub user_code: String,
    /// Where the user types the code.
    pub verification_uri: String,
    /// The same URI with the code in it. Show it as a QR code, or open it in a browser on the device.
    pub verification_uri_complete: Option<String>,
    /// For how long the code is valid, from the moment when the request for codes was handed out.
    pub lifetime: Duration,
    /// The faults of the response that do not end the login.
    pub warnings: Vec<Warning>,
    /// The members that the protocol does not define, unchanged: they are not safe to print.
    pub members: Map<String, serde_json::Value>,
}

debug_shows!(Prompt: verification_uri, lifetime, warnings);

/// A fault of a response that does not end the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// There was no usable interval, so 5 s is used.
    Interval,
    /// The interval is longer than the lifetime of the code, or than an hour. It is used nevertheless.
    LongInterval,
    /// The complete URI was not usable and was dropped.
    VerificationUriComplete,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interval => {
                "the server announced no usable interval; this program polls every 5 seconds"
            }
            Self::LongInterval => {
                "the server announced an interval that is longer than the lifetime of the code, or than an hour; this program uses it"
            }
            Self::VerificationUriComplete => {
                "the server sent a verification_uri_complete that cannot be used; show the code and the verification_uri"
            }
        })
    }
}

/// The longest user code, in bytes. Nobody types a longer one.
const MAX_SHOWN_CODE: usize = 64;

/// Returns why a user code cannot be shown, or `None` if it can.
pub(crate) fn fault_of_user_code(code: &str) -> Option<&'static str> {
    if code.len() > MAX_SHOWN_CODE {
        return Some("has more than 64 bytes");
    }
    let is_visible = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_visible).then_some("has characters other than visible ASCII")
}

#[derive(Deserialize)]
#[serde(remote = "Prompt", deny_unknown_fields)]
struct Record {
    v: Version<1>,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    lifetime: Duration,
    warnings: Vec<Warning>,
    members: Map<String, serde_json::Value>,
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let prompt = Record::deserialize(deserializer)?;
        // Plain http is not checked here, because it was checked when the response was read.
        let may_be_shown = |link: &String| uri::showable(link, PlainHttp::Allowed).is_ok();
        let is_right = fault_of_user_code(&prompt.user_code).is_none()
            && may_be_shown(&prompt.verification_uri)
            && prompt.verification_uri_complete.iter().all(may_be_shown)
            && !prompt.lifetime.is_zero();
        if !is_right {
            return Err(D::Error::custom(
                "the stored prompt has a value that cannot be shown; start the login again",
            ));
        }
        Ok(prompt)
    }
}
