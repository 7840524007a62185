//! The device code, the user code and its alphabets, and the entropy they are drawn from.

use alloc::string::String;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::wire::debug_shows;

/// Random octets for one pair of codes, or for one refresh token.
///
/// They are given by value and used once. Draw them from a cryptographically secure generator, afresh each time.
///
/// # Security
///
/// **Everything rests on these octets: whoever can guess them can take over the login.**
pub struct Entropy([u8; Self::OCTETS]);

impl Entropy {
    /// How many octets are needed each time.
    pub const OCTETS: usize = 48;

    /// Returns octets that `fill` has filled: a function such as `getrandom::fill`.
    ///
    /// # Errors
    ///
    /// What `fill` returned.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut octets = [0; Self::OCTETS];
        fill(&mut octets)?;
        Ok(Self(octets))
    }

    /// Whether a part of the octets was never filled: all of them, or of one part, are the same (D8).
    pub(crate) fn is_blank(&self) -> bool {
        let (device, user) = self.0.split_at_checked(32).unwrap_or_default();
        let is_blank = |part: &[u8]| part.iter().all(|octet| Some(octet) == part.first());
        is_blank(device) || is_blank(user)
    }

    /// Returns the first 32 octets. They become the secret of a refresh token.
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// The codes that these octets stand for.
    pub(crate) fn codes(self, shape: &UserCodeShape) -> (DeviceCode, UserCode) {
        let device = DeviceCode::of(&self.secret());
        let user = self.0.last_chunk().copied().unwrap_or_default();
        (device, shape.draw(u128::from_be_bytes(user)))
    }
}

impl From<[u8; Self::OCTETS]> for Entropy {
    fn from(octets: [u8; Self::OCTETS]) -> Self {
        Self(octets)
    }
}

debug_shows!(Entropy);

/// A device code: 32 random octets as 43 characters of base64url.
#[repr(align(8))] // its characters are looked at a word at a time
pub(crate) struct DeviceCode([u8; Self::LENGTH]);

impl DeviceCode {
    /// The length in characters.
    pub(crate) const LENGTH: usize = 43;

    fn of(octets: &[u8; 32]) -> Self {
        let mut text = [b'A'; Self::LENGTH];
        // 32 octets always take 43 characters; were it otherwise, the look-up of the code would fail, not the caller.
        let _ = URL_SAFE_NO_PAD.encode_slice(octets, &mut text);
        Self(text)
    }

    pub(crate) const fn octets(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The characters, as they travel to the device.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The longest user code in characters, without dashes.
pub const MAX_USER_CODE: usize = 16;

/// The longest text in bytes that is read as a user code.
pub const MAX_USER_CODE_ENTRY: usize = 64;

/// A user code in its one canonical form: characters of the policy's alphabet, without dashes.
///
/// > Further stripping of all characters outside the chosen character set is recommended to reduce instances where an errantly
/// > typed character (like a space character) invalidates otherwise valid input. ([RFC 8628, section 6.1])
///
/// It serves the look-up and the comparison on the page. `Debug` does not show it, [`UserCode::display`] does.
///
/// [RFC 8628, section 6.1]: https://www.rfc-editor.org/rfc/rfc8628#section-6.1
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserCode {
    characters: [u8; MAX_USER_CODE],
    length: u8,
}

impl UserCode {
    /// The characters, and an octet of zero for each that the longest code has more.
    pub(crate) const fn octets(&self) -> &[u8; MAX_USER_CODE] {
        &self.characters
    }

    /// The characters without dashes.
    pub fn canonical(&self) -> &str {
        let used = self.characters.get(..usize::from(self.length));
        core::str::from_utf8(used.unwrap_or_default()).unwrap_or_default()
    }

    /// The code as a person reads and compares it: in groups of four, five or three with dashes between, where its length
    /// allows.
    pub fn display(&self) -> impl fmt::Display + use<'_> {
        fmt::from_fn(|f| self.write_to(f))
    }

    /// Writes the code as [`Self::display`] shows it.
    pub(crate) fn write_to(&self, to: &mut impl fmt::Write) -> fmt::Result {
        let mut rest = self.canonical();
        let length = rest.len();
        let group = [4, 5, 3]
            .into_iter()
            .find(|&group| length > group && length.is_multiple_of(group))
            .unwrap_or(length);
        while let Some((head, tail)) = rest.split_at_checked(group)
            && !head.is_empty()
        {
            to.write_str(head)?;
            if !tail.is_empty() {
                to.write_char('-')?;
            }
            rest = tail;
        }
        Ok(())
    }
}

debug_shows!(UserCode);

/// The alphabet of user codes and their length: what a policy fixes of them.
///
/// The default is the one of [RFC 8628, section 6.1]: eight of twenty consonants, `WDJB-MJHT`, 34.6 bits.
///
/// [RFC 8628, section 6.1]: https://www.rfc-editor.org/rfc/rfc8628#section-6.1
#[derive(Clone, Debug)]
pub struct UserCodeShape {
    alphabet: String,
    length: u8,
    combinations: u64,
}

impl UserCodeShape {
    /// The consonants without Y: no words, no vowels, nothing that is taken for a digit.
    pub const CONSONANTS: &'static str = "BCDFGHJKLMNPQRSTVWXZ";

    /// Codes of `length` characters of `alphabet`.
    ///
    /// # Errors
    ///
    /// A [`ShapeError`] where a person or a draw could confuse two codes, or the combinations do not fit 64 bits (the draw
    /// takes 128 random bits modulo the combinations, so its bias stays below 2⁻⁶⁴; it is below 2⁻⁹³ for the default).
    pub fn new(alphabet: &str, length: u8) -> Result<Self, ShapeError> {
        let characters = alphabet.as_bytes();
        if !characters.iter().all(u8::is_ascii_alphanumeric) {
            return Err(ShapeError::Character);
        }
        if characters.len() < MIN_ALPHABET {
            return Err(ShapeError::TooFew);
        }
        let repeated = |(place, one): (usize, &u8)| {
            let before = characters.iter().take(place);
            before
                .into_iter()
                .any(|other| other.eq_ignore_ascii_case(one))
        };
        if characters.iter().enumerate().any(repeated) {
            return Err(ShapeError::Repeated);
        }
        if length == 0 || usize::from(length) > MAX_USER_CODE {
            return Err(ShapeError::Length);
        }
        let base = u64::try_from(characters.len()).unwrap_or(u64::MAX);
        let combinations = base
            .checked_pow(length.into())
            .ok_or(ShapeError::TooManyCombinations)?;
        Ok(Self {
            alphabet: alphabet.into(),
            length,
            combinations,
        })
    }

    /// How many codes there are.
    pub const fn combinations(&self) -> u64 {
        self.combinations
    }

    /// The length of a code in characters, without dashes.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// The code that `random` stands for, each as likely as any other.
    fn draw(&self, random: u128) -> UserCode {
        let number = random.checked_rem(self.combinations.into()).unwrap_or(0);
        let number = u64::try_from(number).unwrap_or_default();
        match self.alphabet.len() {
            // The default: the compiler divides by a number that it knows without dividing.
            20 => self.digits(number, 20),
            other => self.digits(number, u64::try_from(other).unwrap_or(u64::MAX)),
        }
    }

    #[inline(always)]
    fn digits(&self, mut number: u64, base: u64) -> UserCode {
        let mut code = self.blank();
        for slot in code.characters.iter_mut().take(self.length.into()) {
            let place = number.checked_rem(base).unwrap_or(0);
            number = number.checked_div(base).unwrap_or(0);
            *slot = usize::try_from(place)
                .ok()
                .and_then(|place| self.alphabet.as_bytes().get(place).copied())
                .unwrap_or_default();
        }
        code
    }

    /// Reads what a person typed: case folded within ASCII, full-width forms folded to ASCII, all else dropped. None where
    /// the length is not exact.
    ///
    /// Case is folded within ASCII only: to Unicode the Kelvin sign is a `k`, to a person who compares codes it is not.
    pub(crate) fn read(&self, entry: &str) -> Option<UserCode> {
        if entry.len() > MAX_USER_CODE_ENTRY {
            return None;
        }
        let mut code = self.blank();
        let mut slots = code.characters.iter_mut().take(self.length.into());
        for typed in entry.chars().filter_map(narrow) {
            let known = self
                .alphabet
                .bytes()
                .find(|own| own.eq_ignore_ascii_case(&typed));
            if let Some(character) = known {
                *slots.next()? = character;
            }
        }
        slots.next().is_none().then_some(code)
    }

    const fn blank(&self) -> UserCode {
        UserCode {
            characters: [0; MAX_USER_CODE],
            length: self.length,
        }
    }
}

impl Default for UserCodeShape {
    fn default() -> Self {
        Self {
            alphabet: Self::CONSONANTS.into(),
            length: 8,
            combinations: 20_u64.pow(8),
        }
    }
}

/// The fewest characters of an alphabet: digits alone are the least that [RFC 8628, section 6.1] proposes.
///
/// [RFC 8628, section 6.1]: https://www.rfc-editor.org/rfc/rfc8628#section-6.1
const MIN_ALPHABET: usize = 10;

/// The ASCII character that `typed` is or is the full-width form of (U+FF01 to U+FF5E).
fn narrow(typed: char) -> Option<u8> {
    const FULL_WIDTH: core::ops::RangeInclusive<u32> = 0xFF01..=0xFF5E;
    let point = u32::from(typed);
    let point = if FULL_WIDTH.contains(&point) {
        point.saturating_sub(0xFF01).saturating_add(0x21)
    } else {
        point
    };
    u8::try_from(point).ok().filter(u8::is_ascii)
}

/// Why an alphabet and a length are not the shape of a user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A character that is not an ASCII letter or digit.
    #[error("a user-code alphabet consists of ascii letters and digits")]
    Character,
    /// Fewer than ten characters.
    #[error("a user-code alphabet needs at least {MIN_ALPHABET} characters")]
    TooFew,
    /// A character twice, be it in the other case.
    #[error(
        "a user-code alphabet may not name a letter twice, upper and lower case counting as one"
    )]
    Repeated,
    /// No characters or too many.
    #[error("a user code has from 1 to {MAX_USER_CODE} characters")]
    Length,
    /// The alphabet to the power of the length is over 64 bits.
    #[error("a user code of this alphabet must be shorter: its combinations do not fit 64 bits")]
    TooManyCombinations,
}
