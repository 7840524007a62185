//! Text of the server that is made to be read by people.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// The most characters of a server's text that are kept.
pub const MAX_CHARACTERS: usize = 1024;

/// A text of the server, safe to print: no control and no format characters, so no terminal escape, no reversal of the
/// direction, nothing invisible; each is replaced by U+FFFD. Cut at [`MAX_CHARACTERS`].
///
/// # Security
///
/// Still not to be trusted: it says what the server wants it to say. It is not escaped for HTML. `Debug` shows the length
/// alone, for a server may echo what it was sent.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Prose(Box<str>);

impl Prose {
    /// The printable form of `text`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let shown = text.chars().take(MAX_CHARACTERS);
        let printable = shown.map(|c| {
            if is_hidden(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        });
        Self(printable.collect::<String>().into())
    }

    /// The characters.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Prose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prose({} bytes)", self.0.len())
    }
}

/// The general categories Cc and Cf of Unicode 16.0 (`DerivedGeneralCategory.txt`), and the separators of lines and
/// paragraphs. U+2065, not assigned so far, lies among invisible operators.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{AD}'
                | '\u{600}'..='\u{605}'
                | '\u{61C}'
                | '\u{6DD}'
                | '\u{70F}'
                | '\u{890}'..='\u{891}'
                | '\u{8E2}'
                | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{110BD}'
                | '\u{110CD}'
                | '\u{13430}'..='\u{1343F}'
                | '\u{1BCA0}'..='\u{1BCA3}'
                | '\u{1D173}'..='\u{1D17A}'
                | '\u{E0001}'
                | '\u{E0020}'..='\u{E007F}'
        )
}
