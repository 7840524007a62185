//! Text from the server, made safe to show.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::wire::octets::is_hidden;

/// The longest text that is kept, in characters. A longer one is cut.
pub const MAX_CHARACTERS: usize = 1024;

/// Text from the server that is safe to print: without terminal escapes, changes of text direction and other control or format characters.
/// Each control or format character is replaced by U+FFFD. The text is cut at [`MAX_CHARACTERS`].
///
/// # Security
///
/// Do not trust the text, because the server chooses it. It is not escaped for HTML. `Debug` shows only the length, because a server may
/// echo a secret.
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
