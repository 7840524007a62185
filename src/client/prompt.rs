//! What is shown to the user ([RFC 8628, section 3.3]).
//!
//! Rule: what is shown is visible ASCII, and a URI that a browser may open. That holds for a prompt that was kept, too.
//!
//! [RFC 8628, section 3.3]: https://www.rfc-editor.org/rfc/rfc8628#section-3.3

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::wire::metadata::{self, Plain};

/// What is shown to the user ([RFC 8628, section 3.3]).
///
/// Show the code even where the complete URI is used: the user compares it with the one on the other screen.
///
/// It is serde in both directions, to be kept beside a [`Snapshot`](super::Snapshot). What is read back is checked like a response.
///
/// # Security
///
/// Code and URIs are visible ASCII. `Debug` shows neither the code nor the complete URI, which contains it.
///
/// [RFC 8628, section 3.3]: https://www.rfc-editor.org/rfc/rfc8628#section-3.3
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Record", try_from = "Record")]
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
    /// What was wrong with the response and did not matter.
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

/// What was wrong with a response and did not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// There was no interval that makes sense: it is 5 s.
    Interval,
    /// The interval is longer than the lifetime of the code, or than an hour. It is kept to.
    LongInterval,
    /// The complete URI was not usable and was dropped.
    VerificationUriComplete,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interval => {
                "the server announced no usable interval; it is asked every 5 seconds"
            }
            Self::LongInterval => {
                "the server announced an interval that is longer than the code lives, or than an hour; it is kept to"
            }
            Self::VerificationUriComplete => {
                "the server sent a verification_uri_complete that cannot be used; show the code and the verification_uri"
            }
        })
    }
}

/// The most characters of a user code. Nobody types a longer one.
const MAX_USER_CODE: usize = 64;

/// Returns why a user code cannot be shown, if it cannot.
pub(crate) fn fault_of_user_code(code: &str) -> Option<&'static str> {
    if code.len() > MAX_USER_CODE {
        return Some("has more than 64 characters");
    }
    let is_visible = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_visible).then_some("has characters other than visible ASCII")
}

/// The stored form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    v: u8,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    lifetime: Duration,
    warnings: Vec<Warning>,
    members: Map<String, serde_json::Value>,
}

/// The version of the stored form.
const VERSION: u8 = 1;

impl From<Prompt> for Record {
    fn from(prompt: Prompt) -> Self {
        Self {
            v: VERSION,
            user_code: prompt.user_code,
            verification_uri: prompt.verification_uri,
            verification_uri_complete: prompt.verification_uri_complete,
            lifetime: prompt.lifetime,
            warnings: prompt.warnings,
            members: prompt.members,
        }
    }
}

impl TryFrom<Record> for Prompt {
    type Error = RecordError;

    fn try_from(record: Record) -> Result<Self, RecordError> {
        if record.v != VERSION {
            return Err(RecordError::Version);
        }
        // Whether plain http is allowed was decided when the prompt came.
        let is_shown = |uri: &String| metadata::shown(uri, Plain::Allowed).is_ok();
        let is_right = fault_of_user_code(&record.user_code).is_none()
            && is_shown(&record.verification_uri)
            && record.verification_uri_complete.iter().all(is_shown)
            && !record.lifetime.is_zero();
        if !is_right {
            return Err(RecordError::Impossible);
        }
        Ok(Self {
            user_code: record.user_code,
            verification_uri: record.verification_uri,
            verification_uri_complete: record.verification_uri_complete,
            lifetime: record.lifetime,
            warnings: record.warnings,
            members: record.members,
        })
    }
}

/// Why a stored form is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RecordError {
    #[error("the stored prompt is of an unknown version; start the login again")]
    Version,
    #[error("the stored prompt has a value that is not safe to display; start the login again")]
    Impossible,
}
