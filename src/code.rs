//! The device code, the user code with its alphabet and length, and the entropy from which they are drawn.

use alloc::string::String;
use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::wire::debug_shows;

/// Random octets for one pair of codes, or for one refresh token.
///
/// The crate takes them by value and uses them once. Draw fresh ones each time, from a cryptographically secure generator.
///
/// # Security
///
/// **Whoever can guess these octets can take over the login.**
pub struct Entropy([u8; Self::OCTETS]);

impl Entropy {
    /// How many octets are needed each time.
    pub const OCTETS: usize = 48;

    /// Returns octets filled by `fill`, a function such as `getrandom::fill`.
    ///
    /// # Errors
    ///
    /// The error of `fill`.
    pub fn fill<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut octets = [0; Self::OCTETS];
        fill(&mut octets)?;
        Ok(Self(octets))
    }

    /// Whether a part of the octets was never filled (D8): the octets of the device code or those of the user code are all the same.
    pub(crate) fn is_blank(&self) -> bool {
        let (device, user) = self.0.split_at_checked(32).unwrap_or_default();
        let is_blank = |part: &[u8]| part.iter().all(|octet| Some(octet) == part.first());
        is_blank(device) || is_blank(user)
    }

    /// Returns the first 32 octets. They become the secret of a refresh token.
    pub(crate) fn secret(&self) -> [u8; 32] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// Returns the codes made from these octets.
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
#[repr(align(8))] // its characters can be read a word at a time
pub(crate) struct DeviceCode([u8; Self::LENGTH]);

impl DeviceCode {
    /// The length in characters.
    pub(crate) const LENGTH: usize = 43;

    fn of(octets: &[u8; 32]) -> Self {
        let mut text = [b'A'; Self::LENGTH];
        // This cannot fail, because 32 octets always take 43 characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(octets, &mut text);
        Self(text)
    }

    pub(crate) const fn octets(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// The characters, as they are sent to the device.
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
/// > Further stripping of all characters outside the chosen character set is recommended to reduce instances where an errantly typed
/// > character (like a space character) invalidates otherwise valid input.
/// > ([RFC 8628, section 6.1](https://www.rfc-editor.org/rfc/rfc8628#section-6.1))
///
/// `Debug` does not show it. Show it to the user with [`UserCode::display`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UserCode {
    characters: [u8; MAX_USER_CODE],
    length: u8,
}

impl UserCode {
    /// The characters, filled up with zero octets to the length of the longest code.
    pub(crate) const fn octets(&self) -> &[u8; MAX_USER_CODE] {
        &self.characters
    }

    /// Returns the characters without dashes.
    pub fn canonical(&self) -> &str {
        let used = self.characters.get(..usize::from(self.length));
        core::str::from_utf8(used.unwrap_or_default()).unwrap_or_default()
    }

    /// Returns the code as a person reads and compares it: with dashes between groups of four, five or three characters, if one of these
    /// divides the length.
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

/// The alphabet and the length of the user codes of a policy.
///
/// The default is the one of [RFC 8628, section 6.1]: eight characters from twenty consonants, as in `WDJB-MJHT`. That is 34.6 bits.
///
/// [RFC 8628, section 6.1]: https://www.rfc-editor.org/rfc/rfc8628#section-6.1
#[derive(Clone, Debug)]
pub struct UserCodeShape {
    alphabet: String,
    length: u8,
    combinations: u64,
}

impl UserCodeShape {
    /// The consonants without Y. They form no words, and there is no digit among them to confuse with a letter.
    pub const CONSONANTS: &'static str = "BCDFGHJKLMNPQRSTVWXZ";

    /// Makes the shape of codes that have `length` characters of `alphabet`.
    ///
    /// # Errors
    ///
    /// A [`ShapeError`] that says what is wrong with the alphabet or the length. The number of possible codes must fit 64 bits. A code is
    /// drawn as 128 random bits modulo this number. So the bias is below 2⁻⁶⁴, and for the default below 2⁻⁹³.
    pub fn new(alphabet: &str, length: u8) -> Result<Self, ShapeError> {
        let characters = alphabet.as_bytes();
        if !characters.iter().all(u8::is_ascii_alphanumeric) {
            return Err(ShapeError::Character);
        }
        if characters.len() < MIN_ALPHABET {
            return Err(ShapeError::TooFew);
        }
        let repeated = |(place, one): (usize, &u8)| {
            let mut before = characters.iter().take(place);
            before.any(|other| other.eq_ignore_ascii_case(one))
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

    /// Returns how many different codes there are.
    pub const fn combinations(&self) -> u64 {
        self.combinations
    }

    /// Returns the length of a code in characters, without dashes.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Returns the code that `random` stands for. All codes are equally likely.
    fn draw(&self, random: u128) -> UserCode {
        let number = random.checked_rem(self.combinations.into()).unwrap_or(0);
        let number = u64::try_from(number).unwrap_or_default();
        match self.alphabet.len() {
            // The default has its own branch, because division by a constant is faster.
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

    /// Reads what a person typed. Ignores ASCII case, takes full-width forms as ASCII, and drops every character that is not in the
    /// alphabet. Returns `None` if the length is not exact.
    ///
    /// Only ASCII case is ignored. By the case rules of Unicode, the Kelvin sign (U+212A) would count as a `k`.
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

/// The fewest characters that an alphabet may have. The smallest alphabet in
/// [RFC 8628, section 6.1](https://www.rfc-editor.org/rfc/rfc8628#section-6.1) is the ten digits.
const MIN_ALPHABET: usize = 10;

/// Returns `typed` as ASCII if it is ASCII or a full-width form of it (U+FF01 to U+FF5E).
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

/// Why user codes cannot have this alphabet or this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// The alphabet has a character that is not an ASCII letter or digit.
    #[error("a user-code alphabet may have only ascii letters and digits")]
    Character,
    /// The alphabet has fewer than ten characters.
    #[error("a user-code alphabet needs at least {MIN_ALPHABET} characters")]
    TooFew,
    /// The alphabet has a character twice, in the same or the other case.
    #[error("a user-code alphabet may not have a character twice, whether in upper or lower case")]
    Repeated,
    /// The length is zero or over [`MAX_USER_CODE`].
    #[error("a user code must have from 1 to {MAX_USER_CODE} characters")]
    Length,
    /// The number of possible codes does not fit 64 bits.
    #[error("a user code of this alphabet must be shorter: its combinations do not fit 64 bits")]
    TooManyCombinations,
}
