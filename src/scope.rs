//! Scope tokens and sets of them ([RFC 6749, section 3.3](https://www.rfc-editor.org/rfc/rfc6749#section-3.3)).

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;

use serde::{Deserialize, Serialize};

/// The most tokens that one scope may have. Real scopes have a dozen. The bound keeps the comparison of two scopes cheap.
pub const MAX_TOKENS: usize = 64;

/// The longest scope in bytes.
pub const MAX_BYTES: usize = 2048;

/// A set of scope tokens, in the order in which they were named. It may be empty.
///
/// > `scope = scope-token *( SP scope-token )`, `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`
///
/// Tokens are case-sensitive. A repeated token is kept once, but each repetition counts towards [`MAX_TOKENS`]. Two scopes are equal if
/// they have the same tokens in the same order. Cloning is cheap, because it shares the text.
///
/// # Security
///
/// `<`, `>` and `&` are legal in a token: escape a scope before it is shown in a page.
///
/// ```
/// use device_flow::scope::Scope;
///
/// let scope: Scope = "openid profile".parse()?;
/// assert!(scope.contains("openid"));
/// assert!("openid  profile".parse::<Scope>().is_err());
/// # Ok::<(), device_flow::scope::ScopeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Cow<'_, str>", into = "String")]
pub struct Scope(Arc<str>);

impl Scope {
    /// Returns the scope that has no token.
    pub fn empty() -> Self {
        Self(Arc::from(""))
    }

    /// Returns the tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &str> + Clone {
        tokens(&self.0)
    }

    /// Returns whether `token` is one of the tokens.
    pub fn contains(&self, token: &str) -> bool {
        let mut rest = self.0.as_bytes();
        while !rest.is_empty() {
            let length = memchr::memchr(b' ', rest).unwrap_or(rest.len());
            let (own, after) = rest.split_at_checked(length).unwrap_or_default();
            if own == token.as_bytes() {
                return true;
            }
            rest = after.get(1..).unwrap_or_default();
        }
        false
    }

    /// Returns whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether `other` has every token of this scope.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0 == other.0 || self.tokens().all(|token| other.contains(token))
    }

    /// Returns the tokens, separated by single spaces, as they are sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a user may grant this scope when a client asked for `requested` (U8). It must have no other tokens, and may be empty only
    /// if `requested` is.
    pub(crate) fn is_granted_of(&self, requested: &Self) -> bool {
        self.is_within(requested) && (requested.is_empty() || !self.is_empty())
    }

    /// Returns the tokens of `requested` that are also in this scope, in their order, or `None` if no token is. It is an error if `requested`
    /// is not a scope.
    pub(crate) fn allow(&self, requested: &str) -> Result<Option<Self>, ScopeError> {
        check(requested)?;
        Ok(pick(requested, |token| self.contains(token)))
    }
}

impl core::str::FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self::empty());
        }
        check(text)?;
        Ok(pick(text, |_| true).unwrap_or_else(Self::empty))
    }
}

impl TryFrom<Cow<'_, str>> for Scope {
    type Error = ScopeError;

    fn try_from(text: Cow<'_, str>) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        Self::from(&*scope.0)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn tokens(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.split(' ').filter(|token| !token.is_empty())
}

/// Returns the tokens of `text` that are wanted, without repetitions. Returns `None` if none is wanted.
fn pick(text: &str, wanted: impl Fn(&str) -> bool) -> Option<Scope> {
    // The scope is no longer than the checked text, so it fits. The scope itself is the only allocation.
    let mut room = [b' '; MAX_BYTES];
    let mut length = 0_usize;
    for (place, token) in tokens(text).enumerate() {
        let is_repeated = tokens(text).take(place).any(|earlier| earlier == token);
        if is_repeated || !wanted(token) {
            continue;
        }
        // The room has spaces already, so the one before this token needs no writing.
        let start = length.checked_add(usize::from(length > 0))?;
        length = start.checked_add(token.len())?;
        room.get_mut(start..length)?
            .copy_from_slice(token.as_bytes());
    }
    let kept = core::str::from_utf8(room.get(..length)?).ok()?;
    (length > 0).then(|| Scope(kept.into()))
}

fn check(text: &str) -> Result<(), ScopeError> {
    if text.len() > MAX_BYTES {
        return Err(ScopeError::TooLong);
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err(ScopeError::Spacing);
    }
    let legal = |b: u8| matches!(b, b' ' | 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    if !text.bytes().all(legal) {
        return Err(ScopeError::Character);
    }
    if text.split(' ').count() > MAX_TOKENS {
        return Err(ScopeError::TooMany);
    }
    Ok(())
}

/// Why a text is not a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// A character outside `%x21 / %x23-5B / %x5D-7E`.
    #[error(
        "a scope token may not contain double quotes, backslashes, control or non-ASCII characters"
    )]
    Character,
    /// A space at an end, or two in a row.
    #[error("scope tokens are separated by exactly one space, with none at the ends")]
    Spacing,
    /// More than [`MAX_TOKENS`] tokens.
    #[error("a scope may have at most {MAX_TOKENS} tokens")]
    TooMany,
    /// More than [`MAX_BYTES`] bytes.
    #[error("a scope may have at most {MAX_BYTES} bytes")]
    TooLong,
}
