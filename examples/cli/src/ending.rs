//! How a command ends when it does not do what it was told.

use core::fmt::Display;

use device_flow::client::{DisplayText, Refusal, TransportError};

/// Why, in one sentence for the user, with what the server said about it.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub(crate) struct Ending {
    pub(crate) exit: Exit,
    pub(crate) sentence: String,
    /// In the server's words.
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

    /// The server refused, in its own words.
    pub(crate) fn refused(exit: Exit, sentence: impl Into<String>, refusal: &Refusal) -> Self {
        let code = || refusal.code().map(DisplayText::new);
        Self {
            description: refusal.description.clone().or_else(code),
            ..Self::new(exit, sentence)
        }
    }

    /// The server answered that it could not.
    pub(crate) fn unavailable() -> Self {
        let sentence = "The server could not answer: try again later.";
        Self::new(Exit::Unreachable, sentence)
    }

    /// There was no answer.
    pub(crate) fn no_answer(failure: TransportError) -> Self {
        Self::new(Exit::Unreachable, sentence(&failure))
    }
}

/// What an error of the library says, as a sentence.
pub(crate) fn sentence(said: &dyn Display) -> String {
    let said = said.to_string();
    let mut rest = said.chars();
    let first = rest.next().map(|first| first.to_ascii_uppercase());
    let end = if said.ends_with('.') { "" } else { "." };
    first.into_iter().chain(rest).chain(end.chars()).collect()
}

/// The exit codes, each for another reaction of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// This machine failed: its files, or standard output.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The user said no.
    Denied,
    /// The code expired before the user decided.
    Expired,
    /// The server refused.
    Refused,
    /// The server could not be reached, or could not answer.
    Unreachable,
    /// Nobody is signed in.
    SignedOut,
    /// Another login is under way.
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
            Self::Usage => 2, // as clap has it
            Self::Denied => 3,
            Self::Expired => 4,
            Self::Refused => 5,
            Self::Unreachable => 6,
            Self::SignedOut => 7,
            Self::Busy => 8,
            Self::Untrusted => 9,
            Self::Cancelled => 130, // 128 and the number of SIGINT, as shells have it
        }
    }

    /// The name in JSON.
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
