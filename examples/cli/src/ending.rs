//! How a command ends if it does not succeed.

use core::fmt::Display;

use device_flow::client::{DisplayText, Refusal, TransportError};

/// Why a command did not succeed: a sentence for the user, and the server's description.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub(crate) struct Ending {
    pub(crate) exit: Exit,
    pub(crate) sentence: String,
    /// The description that the server sent.
    pub(crate) description: Option<DisplayText>,
}

impl Ending {
    pub(crate) fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self {
            exit,
            sentence: sentence.into(),
            description: None,
        }
    }

    pub(crate) fn cancelled() -> Self {
        Self::new(Exit::Cancelled, "Cancelled.")
    }

    /// Returns the ending for a refusal, with the server's description.
    pub(crate) fn refused(exit: Exit, sentence: impl Into<String>, refusal: &Refusal) -> Self {
        let code = || refusal.code().map(DisplayText::new);
        Self {
            description: refusal.description.clone().or_else(code),
            ..Self::new(exit, sentence)
        }
    }

    /// Returns the ending for a server that answered that it could not help now.
    pub(crate) fn unavailable() -> Self {
        let sentence = "The server could not answer: try again later.";
        Self::new(Exit::Unreachable, sentence)
    }

    /// Returns the ending for a request without an answer.
    pub(crate) fn no_answer(failure: TransportError) -> Self {
        Self::new(Exit::Unreachable, sentence(&failure))
    }
}

/// Returns the text of an error of the library as a sentence.
pub(crate) fn sentence(said: &dyn Display) -> String {
    let said = said.to_string();
    let mut rest = said.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    let end = if said.ends_with('.') { "" } else { "." };
    first.into_iter().chain(rest).chain(end.chars()).collect()
}

/// The exit codes. A script can react to each in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// This machine failed: its files, or standard output.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The user denied the request.
    Denied,
    /// The code expired before the user decided.
    Expired,
    /// The server refused.
    Refused,
    /// The server could not be reached, or could not answer.
    Unreachable,
    /// Nobody is signed in.
    SignedOut,
    /// Another sign-in is under way.
    Busy,
    /// The server's answer cannot be trusted.
    Untrusted,
    /// Ctrl-C.
    Cancelled,
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2, // as in clap
            Self::Denied => 3,
            Self::Expired => 4,
            Self::Refused => 5,
            Self::Unreachable => 6,
            Self::SignedOut => 7,
            Self::Busy => 8,
            Self::Untrusted => 9,
            Self::Cancelled => 130, // 128 plus the number of SIGINT, as in shells
        }
    }

    /// Returns the name of this exit in the JSON output.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::SignedOut => "signed_out",
            Self::Busy => "busy",
            Self::Untrusted => "untrusted",
            Self::Cancelled => "cancelled",
        }
    }
}
