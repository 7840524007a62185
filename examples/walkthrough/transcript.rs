//! The transcript: what happened, as text for people or as JSON for programs.

use core::time::Duration;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde::ser::SerializeMap as _;

/// The longest line of text, in characters.
const WIDTH: usize = 100;

/// How far everything except the time is indented.
const INDENT: usize = 12;

/// How much further the later parts of a broken line are indented, and the parts of such a part.
const STEP: usize = 2;
const DEPTH: usize = 4;

/// The text before the first scene.
const PREFACE: &str = "\
Both halves of the OAuth 2.0 device grant (RFC 8628) in one process. The clock is simulated, there is no network, and the \
random numbers are the same in every run. Codes, tokens and secrets are shown because this is a demonstration; a real program \
shows the user code alone. A header or a body is sent as one line; a long one is broken here, and goes on indented. What \
stands in (log: …) is for the log of the server, and is not sent.";

#[derive(Default)]
pub(crate) struct Transcript {
    entries: Vec<Entry>,
    scene: usize,
    checked: usize,
    /// Whether events are left out.
    hidden: bool,
}

#[derive(Serialize)]
struct Entry {
    scene: usize,
    /// The time since the scene began.
    #[serde(rename = "at_ms", serialize_with = "millis")]
    at: Duration,
    #[serde(flatten)]
    event: Event,
}

/// An event.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    Scene {
        title: &'static str,
        story: &'static str,
    },
    Request {
        from: Party,
        to: Party,
        method: &'static str,
        path: String,
        #[serde(serialize_with = "as_map")]
        headers: Headers,
        body: String,
    },
    Response {
        from: Party,
        to: Party,
        status: u16,
        #[serde(serialize_with = "as_map")]
        headers: Headers,
        body: String,
        /// For the server's log; not on the wire.
        cause: &'static str,
        /// Whether the network loses it.
        #[serde(skip_serializing_if = "is_false")]
        lost: bool,
    },
    Says {
        who: Party,
        text: String,
        /// For the server's log; the user does not see it.
        #[serde(skip_serializing_if = "Option::is_none")]
        log: Option<String>,
    },
    Note {
        text: &'static str,
    },
    /// Everything was as expected.
    End {
        checked: usize,
    },
}

type Headers = Vec<(&'static str, String)>;

/// Who speaks.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Party {
    Device,
    Server,
    User,
    Page,
    Thief,
}

impl Party {
    const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Server => "server",
            Self::User => "user",
            Self::Page => "page",
            Self::Thief => "thief",
        }
    }

    const fn style(self) -> Style {
        let colour = match self {
            Self::Device => AnsiColor::Cyan,
            Self::Server => AnsiColor::Yellow,
            Self::User => AnsiColor::Green,
            Self::Page => AnsiColor::Magenta,
            Self::Thief => AnsiColor::Red,
        };
        colour.on_default().bold()
    }
}

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const NOTE: Style = Style::new().italic();
const PLAIN: Style = Style::new();

impl Transcript {
    pub(crate) fn scene(&mut self, title: &'static str, story: &'static str) {
        self.scene = self.scene.saturating_add(1);
        self.push(Duration::ZERO, Event::Scene { title, story });
    }

    pub(crate) fn push(&mut self, at: Duration, event: Event) {
        if self.hidden {
            return;
        }
        let scene = self.scene;
        self.entries.push(Entry { scene, at, event });
    }

    /// Leaves out all events from now on, or shows them again.
    pub(crate) const fn hide(&mut self, hidden: bool) {
        self.hidden = hidden;
    }

    /// Counts a comparison that came out as expected.
    pub(crate) fn checked(&mut self) {
        self.checked = self.checked.saturating_add(1);
    }

    /// Ends the transcript.
    pub(crate) fn end(&mut self) {
        let checked = self.checked;
        self.push(Duration::ZERO, Event::End { checked });
    }

    /// Returns the scene and the time in it.
    pub(crate) fn place(&self, at: Duration) -> String {
        format!("scene {}, {}", self.scene, stamp(at))
    }

    /// Writes one JSON object per line.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        for entry in &self.entries {
            let line = serde_json::to_string(entry).map_err(io::Error::other)?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// Writes text with styles, which the stream may remove.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        for line in wrap(PREFACE, WIDTH, 0) {
            writeln!(out, "{line}")?;
        }
        let mut talk = false;
        for entry in &self.entries {
            // The answer of a page directly follows what the user did.
            let is_answer = matches!(
                entry.event,
                Event::Says {
                    who: Party::Page,
                    ..
                }
            );
            if !(talk && is_answer) {
                writeln!(out)?;
            }
            talk = matches!(entry.event, Event::Says { .. });
            entry.write(out)?;
        }
        Ok(())
    }
}

impl Entry {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let time = stamp(self.at);
        match &self.event {
            Event::Scene { title, story } => {
                writeln!(out)?;
                let title = format!("Scene {}: {title}", self.scene);
                writeln!(out, "{BOLD}{title}{BOLD:#}")?;
                writeln!(out, "{DIM}{}{DIM:#}", "=".repeat(title.len()))?;
                writeln!(out)?;
                for line in wrap(story, WIDTH, 0) {
                    writeln!(out, "{line}")?;
                }
                Ok(())
            }
            Event::Request {
                from,
                to,
                method,
                path,
                headers,
                body,
            } => {
                head(out, &time, *from, Some(*to))?;
                writeln!(out, "{BOLD}{method} {path}{BOLD:#}")?;
                message(out, headers, body, "&")
            }
            Event::Response {
                from,
                to,
                status,
                headers,
                body,
                cause,
                lost,
            } => {
                head(out, &time, *from, Some(*to))?;
                let colour = if *status < 400 {
                    AnsiColor::Green
                } else {
                    AnsiColor::Red
                };
                let style = colour.on_default().bold();
                write!(out, "{style}{status}{style:#}  {DIM}(log: {cause}){DIM:#}")?;
                writeln!(out, "{}", if *lost { "  lost on the way" } else { "" })?;
                message(out, headers, body, ",")
            }
            Event::Says { who, text, log } => {
                head(out, &time, *who, None)?;
                // The text begins after the name.
                let at = who.name().len().saturating_add(2);
                paragraph(out, text, at, PLAIN)?;
                if let Some(log) = log {
                    writeln!(out, "{:INDENT$}{DIM}(log: {log}){DIM:#}", "")?;
                }
                Ok(())
            }
            Event::Note { text } => {
                write!(out, "{:INDENT$}", "")?;
                paragraph(out, text, 0, NOTE)
            }
            Event::End { checked } => {
                writeln!(out)?;
                let end = format!("All {checked} answers and endings were as expected.");
                writeln!(out, "{BOLD}{end}{BOLD:#}")
            }
        }
    }
}

/// Writes the beginning of a line: the time, the sender, and the receiver if there is one.
fn head(out: &mut impl Write, time: &str, from: Party, to: Option<Party>) -> io::Result<()> {
    let style = from.style();
    write!(out, "{DIM}{time}{DIM:#}  {style}{}{style:#}", from.name())?;
    if let Some(to) = to {
        let style = to.style();
        write!(out, " -> {style}{}{style:#}", to.name())?;
    }
    write!(out, "  ")
}

/// Writes the headers and the body.
fn message(
    out: &mut impl Write,
    headers: &[(&str, String)],
    body: &str,
    separator: &str,
) -> io::Result<()> {
    let width = WIDTH.saturating_sub(INDENT).saturating_sub(DEPTH);
    for (name, value) in headers {
        for (depth, line) in broken(&format!("{name}: {value}"), ": ", width) {
            let indent = INDENT.saturating_add(depth);
            let line = line.trim_end();
            writeln!(out, "{:indent$}{DIM}{line}{DIM:#}", "")?;
        }
    }
    if body.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    for (depth, line) in broken(body, separator, width) {
        let indent = INDENT.saturating_add(depth);
        writeln!(out, "{:indent$}{line}", "")?;
    }
    Ok(())
}

/// Writes a text with line breaks. Its first line begins at column `at`.
fn paragraph(out: &mut impl Write, text: &str, at: usize, style: Style) -> io::Result<()> {
    let mut indent = 0;
    for line in wrap(text, WIDTH.saturating_sub(INDENT), at) {
        writeln!(out, "{:indent$}{style}{line}{style:#}", "")?;
        indent = INDENT;
    }
    Ok(())
}

/// Returns a time such as `+00:05.000`: minutes, seconds, milliseconds.
fn stamp(at: Duration) -> String {
    let (minutes, seconds) = (at.as_secs() / 60, at.as_secs() % 60);
    format!("+{minutes:02}:{seconds:02}.{:03}", at.subsec_millis())
}

/// Breaks a text into lines at its spaces. The first line begins at column `at`.
fn wrap(text: &str, width: usize, at: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut room = width.saturating_sub(at);
    for word in text.split(' ') {
        let needed = line.len().saturating_add(1).saturating_add(word.len());
        if !line.is_empty() && needed > room {
            lines.push(core::mem::take(&mut line));
            room = width;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// Returns the line if it fits, or else its parts, each with its indentation. A part ends at a separator. A part that is still too long
/// ends after a dot, or anywhere.
fn broken<'l>(line: &'l str, separator: &str, width: usize) -> Vec<(usize, &'l str)> {
    if line.len() <= width.saturating_add(DEPTH) {
        return vec![(0, line)];
    }
    let mut parts = Vec::new();
    let mut indent = 0;
    for mut part in line.split_inclusive(separator) {
        let mut more = 0;
        while let Some((head, _)) = part.split_at_checked(width)
            && let at = head.rfind('.').map_or(width, |dot| dot.saturating_add(1))
            && let Some((start, rest)) = part.split_at_checked(at)
            && !rest.is_empty()
        {
            parts.push((indent.max(more), start));
            more = DEPTH;
            part = rest;
        }
        parts.push((indent.max(more), part));
        indent = STEP;
    }
    parts
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_false(lost: &bool) -> bool {
    !*lost
}

fn millis<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
}

fn as_map<S: serde::Serializer>(headers: &Headers, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(headers.len()))?;
    for (name, value) in headers {
        map.serialize_entry(name, value)?;
    }
    map.end()
}
