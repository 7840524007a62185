//! Writes what a user reads, or what a program reads.
//!
//! Rules:
//! 1. The result of a command goes to standard output, everything else to standard error. With `--json` everything goes to standard output,
//!    one object per line, except mistakes in the arguments.
//! 2. Only the command `token` shows a token. Text from a server is shown only if it cannot control a terminal.
//! 3. Colour, large type and the spinner are only for terminals. Otherwise, or with `NO_COLOR`, the same text is written as plain lines.

use core::fmt::{self, Write as _};
use core::time::Duration;
use std::io::{self, IsTerminal as _, Write as _, stderr, stdin, stdout};
use std::sync::LazyLock;
use std::time::Instant;

use console::{Term, measure_text_width, style};
use figlet_rs::{FIGlet, Toilet};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::{Value, json};

use device_flow::client::DisplayText;

use crate::ending::{Ending, Exit};

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Screen {
    /// JSON objects, for programs.
    Json,
    /// Lines of text, for files, pipes and screen readers.
    Plain,
    /// A terminal.
    Terminal,
}

/// The result of a command.
pub(crate) struct Report {
    /// The result for a program.
    pub(crate) event: Value,
    /// The result for the user.
    pub(crate) sentence: String,
}

/// What the user must see to sign in.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) user_code: &'a str,
    pub(crate) verification_uri: &'a str,
    pub(crate) verification_uri_complete: Option<&'a str>,
    pub(crate) left: Duration,
    pub(crate) resumed: bool,
    /// Whether the Enter key opens a browser.
    pub(crate) offers_browser: bool,
}

impl Screen {
    pub(crate) fn new(json: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        if json {
            Self::Json
        } else if plain || !stderr().is_terminal() {
            Self::Plain
        } else {
            Self::Terminal
        }
    }

    /// Returns whether a user is there to press a key.
    pub(crate) fn is_attended(self) -> bool {
        self != Self::Json && stdin().is_terminal() && stderr().is_terminal() && is_in_foreground()
    }

    /// Shows the page to open and the code to enter.
    pub(crate) fn prompt(self, shown: Shown<'_>) {
        match self {
            Self::Json => emit_if_read(&json!({
                "event": "prompt",
                "user_code": shown.user_code,
                "verification_uri": shown.verification_uri,
                "verification_uri_complete": shown.verification_uri_complete,
                "expires_in": shown.left.as_secs(),
                "resumed": shown.resumed,
            })),
            Self::Plain => {
                let left = Span(shown.left);
                say(&format!(
                    "Open this page on any device: {}",
                    shown.verification_uri
                ));
                say(&format!("and enter the code: {}", shown.user_code));
                if let Some(complete) = shown.verification_uri_complete {
                    say(&format!(
                        "or open this address, which contains the code: {complete}"
                    ));
                }
                say(&format!("Waiting for your approval, {left} left."));
            }
            Self::Terminal => {
                let (rows, columns) = Term::stderr().size();
                for line in lay_out(shown, usize::from(columns), usize::from(rows)) {
                    say(&line);
                }
            }
        }
        if self != Self::Json && shown.offers_browser {
            say("Press Enter to open the page here, or Ctrl-C to cancel.");
        }
    }

    /// Starts the spinner.
    pub(crate) fn spinner(self, left: Duration) -> Spinner {
        let bar = match self {
            Self::Json | Self::Plain => None,
            Self::Terminal => Some(waiting_bar(left)),
        };
        Spinner { bar, screen: self }
    }

    /// Shows a message while a command runs.
    pub(crate) fn note(self, sentence: &str) {
        match self {
            Self::Json => emit_if_read(&json!({ "event": "note", "message": sentence })),
            Self::Plain | Self::Terminal => say(sentence),
        }
    }

    /// Shows the result of a command. If that fails, the command has failed, because nobody can read its result.
    pub(crate) fn report(self, report: &Report) -> Result<(), Ending> {
        let written = match self {
            Self::Json => emit(&report.event),
            Self::Plain | Self::Terminal => emit(&report.sentence),
        };
        written.map_err(|error| {
            let sentence = format!("Standard output could not be written: {error}.");
            Ending::new(Exit::Failed, sentence)
        })
    }

    /// Clears the `^C` that a terminal shows, or begins a new line after it.
    pub(crate) fn pass_echo(self) {
        match self {
            Self::Terminal => {
                let _ = Term::stderr().clear_line();
            }
            Self::Plain if stderr().is_terminal() => say(""),
            Self::Plain | Self::Json => {}
        }
    }

    /// Shows why a command did not succeed.
    pub(crate) fn ending(self, ending: &Ending) {
        let said = ending.description.as_ref().map(DisplayText::as_str);
        match self {
            Self::Json => emit_if_read(&json!({
                "event": "failed",
                "outcome": ending.exit.name(),
                "exit_code": ending.exit.code(),
                "message": ending.sentence,
                "description": said,
            })),
            Self::Plain | Self::Terminal => {
                let mut line = ending.sentence.clone();
                if let Some(said) = said.filter(|said| !line.contains(said)) {
                    let _ = write!(line, " The server says: {said}");
                }
                say(&line);
            }
        }
    }
}

/// Returns whether this process gets the keys. A terminal stops a process that reads from it in the background.
#[cfg(unix)]
fn is_in_foreground() -> bool {
    use nix::unistd::{getpgrp, tcgetpgrp};

    // Without job control no process is stopped.
    !tcgetpgrp(stdin()).is_ok_and(|group| group != getpgrp())
}

#[cfg(not(unix))]
fn is_in_foreground() -> bool {
    true
}

/// Shows that the program waits, and how much time is left.
pub(crate) struct Spinner {
    bar: Option<ProgressBar>,
    screen: Screen,
}

impl Spinner {
    /// Shows a message while the program waits.
    pub(crate) fn note(&self, sentence: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.screen.note(sentence)),
            None => self.screen.note(sentence),
        }
    }

    /// Shows a message after the user pressed Enter, which moved the spinner down by a line.
    pub(crate) fn note_after_enter(&self, sentence: &str) {
        if let Some(bar) = &self.bar {
            bar.suspend(|| {
                let _ = Term::stderr().clear_last_lines(1);
            });
        }
        self.note(sentence);
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn waiting_bar(left: Duration) -> ProgressBar {
    let until = Instant::now().checked_add(left);
    let left = move |_: &ProgressState, out: &mut dyn fmt::Write| {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let _ = write!(out, "{}", Span(left.unwrap_or_default()));
    };
    let style = ProgressStyle::with_template("{spinner} Waiting for approval, {left} left");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style.with_key("left", left));
    bar.enable_steady_tick(TICK);
    bar
}

/// The time between two pictures of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// Writes a line to standard output.
fn emit(line: &dyn fmt::Display) -> io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Writes an event to standard output. An error is ignored, because the login may be wanted even if nobody reads the output.
fn emit_if_read(event: &Value) {
    let _ = emit(event);
}

fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// A duration, shown like on a clock: `4:58`, `1:00:00`.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}:{minutes:02}:{seconds:02}")
        } else {
            write!(f, "{minutes}:{seconds:02}")
        }
    }
}

/// Arranges the prompt on a terminal. The code is as large as it fits, and the QR code is left out if it does not fit as a whole. The
/// address and the code are always shown.
fn lay_out(shown: Shown<'_>, columns: usize, rows: usize) -> Vec<String> {
    let rows = rows.saturating_sub(3); // the offer of a browser, the spinner, and the line below
    let room = columns.saturating_sub(INDENT.len());
    let uri = style(shown.verification_uri).for_stderr().bold();
    let code = style(shown.user_code).for_stderr().bold();
    let blank = || vec![String::new()];
    let text = [
        "Open this page on any device:".to_owned(),
        format!("{INDENT}{uri}"),
        format!("and enter the code {code}"),
    ];
    let with_code = |room| {
        let large = indented(large(shown.user_code, room));
        [text.to_vec(), blank(), large].concat()
    };

    if let Some(qr) = shown.verification_uri_complete.and_then(qr) {
        let below = vec![String::new(), "or scan this:".to_owned(), String::new()];
        let below = [
            blank(),
            with_code(room),
            below,
            indented(qr.clone()),
            blank(),
        ]
        .concat();
        // With the text beside the QR code, the prompt fits on 80 columns and 24 rows.
        let width = qr.first().map_or(0, |line| measure_text_width(line));
        let room = room.saturating_sub(width + 2 * INDENT.len());
        let scan = vec!["Scan this, or".to_owned()];
        let beside = beside(&qr, &[scan, with_code(room)].concat());
        let beside = [blank(), beside, blank()].concat();
        let fits = |lines: &Vec<String>| {
            lines.len() <= rows && lines.iter().all(|line| measure_text_width(line) <= columns)
        };
        if let Some(lines) = [below, beside].into_iter().find(fits) {
            return lines;
        }
    }
    let spacious = [blank(), with_code(room), blank()].concat();
    // A long address may take several rows, but it must stay visible.
    let folds = |line: &String| measure_text_width(line).div_ceil(columns.max(1)).max(1);
    if spacious.iter().map(folds).sum::<usize>() <= rows {
        spacious
    } else {
        text.to_vec()
    }
}

/// Returns the QR code, with the text at the middle of its right side.
fn beside(qr: &[String], text: &[String]) -> Vec<String> {
    let above = qr.len().saturating_sub(text.len()) / 2;
    let text = core::iter::repeat_n("", above).chain(text.iter().map(String::as_str));
    let text = text.chain(core::iter::repeat(""));
    let lines = qr.iter().zip(text);
    let lines = lines.map(|(left, right)| format!("{left}{INDENT}{right}"));
    indented(lines.collect())
}

/// Returns a text in the largest type that is no wider than `room`, or no lines if no type fits.
fn large(text: &str, room: usize) -> Vec<String> {
    // Every type is at least as wide as the text, and the library is slow for long texts.
    if text.len() > room {
        return Vec::new();
    }
    let standard = STANDARD.as_ref().and_then(|font| font.convert(text));
    let future = FUTURE.as_ref().and_then(|font| font.convert(text));
    let lines = |figure: String| -> Vec<String> {
        let lines = figure.lines().map(str::trim_end);
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let fits = |lines: &Vec<String>| lines.iter().all(|line| measure_text_width(line) <= room);
    let figures = [standard, future].into_iter().flatten();
    let mut figures = figures.map(|figure| lines(figure.as_str()));
    figures.find(fits).unwrap_or_default()
}

/// A type that needs 61 columns for a code of eight letters and a dash.
static STANDARD: LazyLock<Option<FIGlet>> = LazyLock::new(|| FIGlet::standard().ok());

/// A type that needs 27 columns for the same code.
static FUTURE: LazyLock<Option<Toilet>> = LazyLock::new(|| Toilet::future().ok());

/// Returns a QR code with two modules per character, or `None` if the text is too long for one.
fn qr(text: &str) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let mut renderer = code.render::<Dense1x2>();
    if !console::colors_enabled_stderr() {
        // Most terminals are dark, so the light modules are drawn.
        renderer
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark);
        return Some(renderer.build().lines().map(str::to_owned).collect());
    }
    let paint = |line| {
        let line = style(line).for_stderr().black().on_white().on_bright();
        line.to_string()
    };
    Some(renderer.build().lines().map(paint).collect())
}

fn indented(lines: Vec<String>) -> Vec<String> {
    lines
        .into_iter()
        .map(|line| format!("{INDENT}{line}"))
        .collect()
}

const INDENT: &str = "  ";

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn shown(complete: Option<&'static str>) -> Shown<'static> {
        Shown {
            user_code: "WDJB-MJHT",
            verification_uri: "https://login.example.com/device",
            verification_uri_complete: complete,
            left: Duration::from_mins(5),
            resumed: false,
            offers_browser: true,
        }
    }

    const COMPLETE: Option<&str> = Some("https://login.example.com/device?user_code=WDJB-MJHT");

    /// Returns whether there is a QR code, and the width of the widest line.
    fn look(lines: &[String]) -> (bool, usize) {
        let has_qr = lines.iter().any(|line| line.contains('▄'));
        (
            has_qr,
            lines
                .iter()
                .map(|line| measure_text_width(line))
                .max()
                .unwrap(),
        )
    }

    #[test]
    fn the_prompt_fits_on_every_terminal_and_always_says_where_and_what() {
        for columns in [1, 20, 40, 62, 80, 132, 500] {
            for rows in [1, 5, 10, 12, 24, 33, 60] {
                for complete in [None, COMPLETE] {
                    let lines = lay_out(shown(complete), columns, rows);
                    let text = lines.join("\n");
                    assert!(text.contains("https://login.example.com/device"), "{text}");
                    assert!(text.contains("code WDJB-MJHT"), "{text}");
                    let (has_qr, width) = look(&lines);
                    assert!(width <= columns.max(34), "{columns}: {text}");
                    assert!(!has_qr || lines.len() + 3 <= rows, "{rows}: {text}");
                    // The address and the code take three lines, or more if they do not fit in the width.
                    let fits = columns < 34 || lines.len() + 3 <= rows.max(6);
                    assert!(fits, "{rows}: {text}");
                }
            }
        }
    }

    #[test]
    fn the_qr_code_is_shown_where_all_of_it_can_be_seen() {
        let has_qr = |columns, rows| look(&lay_out(shown(COMPLETE), columns, rows)).0;
        assert!(has_qr(80, 60), "below the code");
        assert!(has_qr(80, 24), "beside the code");
        assert!(!has_qr(80, 20));
        assert!(!has_qr(40, 24));
        assert!(!look(&lay_out(shown(None), 80, 60)).0);
    }

    #[test]
    fn the_large_type_is_left_out_where_rows_are_few() {
        let lines = |columns, rows| lay_out(shown(None), columns, rows).len();
        assert_eq!(lines(80, 24), 1 + 3 + 1 + 5 + 1);
        assert_eq!(lines(80, 14), 1 + 3 + 1 + 5 + 1);
        assert_eq!(lines(80, 13), 3);
        // This address takes two rows.
        assert_eq!(lines(30, 24), 1 + 3 + 1 + 3 + 1);
        assert_eq!(lines(30, 5), 3);
    }

    #[test]
    fn the_code_is_as_large_as_it_fits() {
        assert_eq!(large("WDJB-MJHT", 80).len(), 5);
        assert_eq!(large("WDJB-MJHT", 38).len(), 3);
        assert_eq!(large("WDJB-MJHT", 20).len(), 0);
        assert_eq!(large(&"A".repeat(5000), 80).len(), 0);
    }

    #[test]
    fn a_text_too_long_for_a_qr_code_has_none() {
        assert_eq!(qr(&"a".repeat(5000)), None);
    }

    #[test]
    fn spans_are_shown_as_clocks_show_them() {
        let shown = |seconds| Span(Duration::from_secs(seconds)).to_string();
        assert_eq!(shown(0), "0:00");
        assert_eq!(shown(299), "4:59");
        assert_eq!(shown(3600), "1:00:00");
    }
}
