//! Reading and writing `application/x-www-form-urlencoded` (RFC 6749, appendix B).
//!
//! Rules:
//! 1. `&` separates segments. A segment is `name=value` or a `name` alone. An empty segment is skipped.
//! 2. `+` is a space, and `%` with two hexadecimal digits is an octet. The result must be UTF-8. Anything else is refused, because two
//!    lenient readers could read two different requests.
//! 3. A value stays a raw slice of the body until its characters are needed.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec;

use super::octets::are_plain;

/// The segments of a body, each with a raw name and a raw value.
#[derive(Clone, Debug)]
pub(crate) struct Segments<'a> {
    rest: &'a [u8],
    /// Where the rest begins.
    next: usize,
    /// Where the last segment ended.
    end: usize,
}

impl<'a> Segments<'a> {
    pub(crate) const fn of(body: &'a [u8]) -> Self {
        Self {
            rest: body,
            next: 0,
            end: 0,
        }
    }

    /// Returns the next segment that is not empty, with its name and value still together.
    #[inline(always)]
    pub(crate) fn next_segment(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let length = memchr::memchr(b'&', self.rest).unwrap_or(self.rest.len());
            let (segment, rest) = self.rest.split_at_checked(length)?;
            self.rest = rest.get(1..).unwrap_or_default();
            self.end = self.next.wrapping_add(length);
            self.next = self.end.wrapping_add(1);
            if !segment.is_empty() {
                return Some(segment);
            }
        }
        None
    }

    /// Returns where in the body the last segment ended.
    pub(crate) const fn end(&self) -> usize {
        self.end
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (Raw<'a>, Raw<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.next_segment().map(divide)
    }
}

/// Returns the name and the value of a segment. Without `=` the value is empty.
pub(crate) fn divide(segment: &[u8]) -> (Raw<'_>, Raw<'_>) {
    let end = memchr::memchr(b'=', segment).unwrap_or(segment.len());
    let (name, value) = segment.split_at_checked(end).unwrap_or((segment, b""));
    (Raw(name), Raw(value.get(1..).unwrap_or_default()))
}

/// A name or a value as it is in the body, still encoded.
#[derive(Clone, Copy)]
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl<'a> Raw<'a> {
    /// Returns the decoded octets. A broken escape becomes [`Octet::Broken`].
    fn octets(self) -> impl Iterator<Item = Octet> + Clone + 'a {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (&first, tail) = rest.split_first()?;
            rest = tail;
            Some(match first {
                b'+' => Octet::Is(b' '),
                b'%' => match tail.split_first_chunk::<2>() {
                    Some((digits, after)) => {
                        rest = after;
                        escaped(*digits).map_or(Octet::Broken, Octet::Is)
                    }
                    None => Octet::Broken,
                },
                plain => Octet::Is(plain),
            })
        })
    }

    /// Returns whether nothing is encoded, and every character is visible ASCII or space.
    #[inline(always)]
    pub(crate) fn is_plain(self) -> bool {
        are_plain(self.0)
    }

    /// Returns whether every character is visible ASCII or space.
    pub(crate) fn is_printable(self) -> bool {
        let legal = |octet| matches!(octet, Octet::Is(0x20..=0x7E));
        self.is_plain() || self.octets().all(legal)
    }

    /// Returns whether no escape is broken and the octets are UTF-8.
    pub(crate) fn is_sound(self) -> bool {
        if self.0.is_ascii() && memchr::memchr(b'%', self.0).is_none() {
            return true;
        }
        let mut octets = self.octets();
        while let Some(first) = octets.next() {
            let Octet::Is(first) = first else {
                return false;
            };
            let width = match first {
                0x00..=0x7F => continue,
                0xC2..=0xDF => 2,
                0xE0..=0xEF => 3,
                0xF0..=0xF4 => 4,
                _ => return false,
            };
            let mut character = [first; 4];
            let Some(scalar) = character.get_mut(..width) else {
                return false;
            };
            for slot in scalar.iter_mut().skip(1) {
                match octets.next() {
                    Some(Octet::Is(next)) => *slot = next,
                    Some(Octet::Broken) | None => return false,
                }
            }
            if core::str::from_utf8(scalar).is_err() {
                return false;
            }
        }
        true
    }

    /// Returns whether this decodes to `text`.
    pub(crate) fn is(self, text: &str) -> bool {
        let itself = |raw: u8, octet: u8| match raw {
            b'+' => octet == b' ',
            b'%' => false,
            _ => raw == octet,
        };
        let pairs = || self.0.iter().zip(text.as_bytes());
        // A text without escapes is compared octet by octet, without an early exit.
        let without_escapes = self.0.len() == text.len()
            && pairs().fold(true, |same, (&raw, &octet)| same & itself(raw, octet));
        without_escapes || self.octets().eq(text.bytes().map(Octet::Is))
    }

    /// Returns whether both decode to the same octets.
    pub(crate) fn same(self, other: Self) -> bool {
        self.0 == other.0 || self.octets().eq(other.octets())
    }

    /// Writes the characters into `room` and returns them, or `None` if they do not fit or [`Self::is_sound`] is false.
    pub(crate) fn text_in(self, room: &mut [u8]) -> Option<&str> {
        let mut length = 0_usize;
        for octet in self.octets() {
            match octet {
                Octet::Is(byte) => *room.get_mut(length)? = byte,
                Octet::Broken => return None,
            }
            length = length.checked_add(1)?;
        }
        core::str::from_utf8(room.get(..length)?).ok()
    }

    /// Returns the characters, or `None` if [`Self::is_sound`] is false.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        if self.is_plain() {
            return core::str::from_utf8(self.0).ok().map(Cow::Borrowed);
        }
        let mut room = vec![0; self.0.len()];
        let length = self.text_in(&mut room)?.len();
        room.truncate(length);
        String::from_utf8(room).ok().map(Cow::Owned)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Octet {
    Is(u8),
    Broken,
}

fn escaped([high, low]: [u8; 2]) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from((high << 4) | low).ok()
}

/// Appends `name=value` to a form, with a `&` before it unless it is the first.
pub(crate) fn push(form: &mut String, name: &str, value: &str) {
    if !form.is_empty() {
        form.push('&');
    }
    encode(form, name);
    form.push('=');
    encode(form, value);
}

/// Appends `text`, form-encoded. A space becomes `+`. Every other octet, except letters, digits and `*-._`, becomes an escape.
pub(crate) fn encode(out: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => {
                out.push('%');
                out.push(digit(byte >> 4));
                out.push(digit(byte & 0x0F));
            }
        }
    }
}
