//! Both halves of the device grant in one process: eight scenes on a simulated clock, without a network.
//!
//! 1. a login with `WorkOS` Connect: polls that come too soon, a user who approves less than was requested, tokens, and a used code that is
//!    sent again;
//! 2. a confidential client, and a user who denies the request;
//! 3. a code that nobody approves in time;
//! 4. a page on which somebody guesses codes;
//! 5. a refresh of the tokens;
//! 6. a refresh whose answer is lost, so that the device sends it again;
//! 7. a stolen refresh token;
//! 8. a device that is signed out.
//!
//! ```text
//! cargo run --example walkthrough            # to read; in colour on a terminal
//! cargo run --example walkthrough -- --json  # one JSON object a line
//! ```
//!
//! Every answer is checked. If one is not as expected, the exit status is 1, and the standard error says what was expected and what came.
//! After an unknown argument the exit status is 2.
//!
//! Copy from two files. [`host`] has what the server half asks its host for. [`service`] has one line for each endpoint and each action on
//! the page. The device is [`stage::Stage::poll`]. [`scenes`] says what happens, and [`transcript`] prints it.

#![expect(clippy::std_instead_of_alloc, reason = "an example has std")]

mod host;
mod scenes;
mod service;
mod stage;
mod transcript;

use core::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use transcript::Transcript;

const USAGE: &str = "\
Plays both halves of the OAuth 2.0 device grant against each other, on a simulated clock.

Usage: walkthrough [--json]

Options:
  --json  Print one JSON object a line for every event, instead of text
  --help  Print this

Colour is for terminals; NO_COLOR=1 turns it off, CLICOLOR_FORCE=1 on.
";

fn main() -> ExitCode {
    // Checks whether this is a terminal, and `NO_COLOR`, and removes the colours if they are not wanted.
    let mut out = anstream::stdout().lock();
    match run(std::env::args_os().skip(1), &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe, as in `walkthrough | head`.
        Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failed) => {
            // If this cannot be written either, the exit status still says it.
            let _ = writeln!(io::stderr(), "walkthrough: {failed}");
            failed.status()
        }
    }
}

/// Plays all scenes, and prints them as `arguments` say.
pub(crate) fn run(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut impl Write,
) -> Result<(), Failed> {
    let mut json = false;
    for argument in arguments {
        match argument.to_str() {
            Some("--json") => json = true,
            Some("--help" | "-h") => return Ok(out.write_all(USAGE.as_bytes())?),
            Some(_) | None => return Err(Failed::Usage(argument)),
        }
    }
    let mut transcript = Transcript::default();
    let played = scenes::play(&mut transcript);
    if json {
        transcript.write_json(out)?;
    } else {
        transcript.write_text(out)?;
    }
    out.flush()?;
    // The transcript is printed before the mismatch, because it shows how it came to that.
    played.map_err(Failed::Play)
}

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("there is no argument {}; try --help", .0.display())]
    Usage(OsString),
    #[error("{0}")]
    Play(Box<dyn Error>),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Failed {
    pub(crate) fn status(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 2,
            Self::Play(_) | Self::Output(_) => 1,
        })
    }
}
