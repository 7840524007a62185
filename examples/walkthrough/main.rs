//! Both halves of the device grant in one process: eight scenes on a simulated clock, without a network.
//!
//! 1. a login with `WorkOS` Connect: polls too soon, an approval of less than was asked for, tokens, a replay of the used code;
//! 2. a confidential client, and a user who says no;
//! 3. a code that nobody approves in time;
//! 4. a page on which somebody guesses codes;
//! 5. a refresh of the tokens;
//! 6. a refresh whose answer is lost, and that is sent again;
//! 7. a refresh token that is stolen;
//! 8. a device that is signed out.
//!
//! ```text
//! cargo run --example walkthrough            # to read; in colour on a terminal
//! cargo run --example walkthrough -- --json  # one JSON object a line
//! ```
//!
//! Every answer is checked. The exit status is 1 if one is not as expected: the standard error then says what was expected and
//! what came. It is 2 for an unknown argument.
//!
//! What to copy is in two files: [`host`], what the server half asks its host for, and [`service`], one line for each endpoint
//! and each action on the page. The device is [`stage::Stage::poll`]. [`scenes`] says what happens, and [`transcript`] prints it.

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
    // Asks whether this is a terminal, and NO_COLOR; takes the colours out where they are not wanted.
    let mut out = anstream::stdout().lock();
    match run(std::env::args_os().skip(1), &mut out) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has read enough: `walkthrough | head`.
        Err(Failed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failed) => {
            // Where even that cannot be written, the status still tells.
            let _ = writeln!(io::stderr(), "walkthrough: {failed}");
            failed.status()
        }
    }
}

/// Plays and prints, as `arguments` ask for.
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
    // The transcript up to a mismatch is printed before it: it is the way there.
    played.map_err(Failed::Play)
}

/// Why it did not end well.
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
