//! Text of the server that is made to be read by people.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::wire::octets::is_hidden;

/// The most characters of a server's text that are kept.
pub const MAX_CHARACTERS: usize = 1024;

/// A text of the server, safe to print: no control and no format characters, so no terminal escape, no reversal of the
/// direction, nothing invisible. Each of them is replaced by U+FFFD. The text is cut at [`MAX_CHARACTERS`].
///
/// # Security
///
/// Do not trust it: it says what the server wants it to say. It is not escaped for HTML. `Debug` shows the length alone, because a
/// server may echo what it was sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DisplayText(Box<str>);

impl DisplayText {
    /// Returns the printable form of `text`.
    pub fn new(text: &str) -> Self {
        let shown: String = text.chars().take(MAX_CHARACTERS).collect();
        Self(shown.replace(is_hidden, "\u{FFFD}").into())
    }

    /// Returns the characters.
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DisplayText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for DisplayText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DisplayText({} bytes)", self.0.len())
    }
}
