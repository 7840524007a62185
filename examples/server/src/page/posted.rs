//! The forms that the page sends.

use device_flow::digest::SessionKey;
use serde::Deserialize;

use super::consent::Ticked;

/// A form that was sent.
#[derive(Deserialize)]
pub(crate) struct Posted {
    pub(crate) csrf: String,
    #[serde(flatten)]
    pub(crate) step: Step,
}

/// The action of a form.
#[derive(Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(crate) enum Step {
    SignIn {
        email: String,
        password: String,
    },
    Enter {
        user_code: String,
    },
    Approve {
        session: SessionKey,
        #[serde(flatten)]
        ticked: Ticked,
    },
    Deny {
        session: SessionKey,
    },
    /// Ends the login of a device.
    End {
        session: SessionKey,
    },
    SignOut {
        session: Option<SessionKey>,
    },
}
