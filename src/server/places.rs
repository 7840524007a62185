//! The places of the values that the core reads in the body of a form.
//!
//! A form is read once, before the exchange asks the host for anything. It is then passed from step to step. So it keeps two numbers for
//! each value instead of a slice, and all of them fit one cache line:
//!
//! ```text
//! client_id=cli&device_code=GmRh&scope=openid
//!           ^  ^            ^   ^      ^     ^
//!           10 13           26  30     37    43
//!
//! Places { client_id: 10 to 13, device_code: 26 to 30, scope: 37 to 43, all others: nowhere }
//! ```
//!
//! Rules:
//! 1. A name without escapes is found by its first letter. Everything else takes a slower way, with the same result.
//! 2. Most values are plain, so they need no decoding. How many are not plain is counted here, so that later steps need not look.

use core::mem;
use core::ops::Range;

use super::reply::Cause;
use crate::wire::form::{Raw, Segments, divide};

/// The device grant, encoded as most clients do.
const DEVICE_GRANT_ENCODED: &str = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";

/// The most parameters that a form may have (A3).
const MAX_PARAMETERS: usize = 64;

/// The start and the end of a value, two octets each, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The place of an absent parameter.
    const NOWHERE: Self = Self(u32::MAX);

    /// The place of a value that ends at `end`. The policy bounds bodies to what two octets can count.
    #[inline(always)]
    fn of(value: &[u8], end: usize) -> Self {
        let [from, to] = [end.wrapping_sub(value.len()), end].map(usize::to_le_bytes);
        Self(u32::from_le_bytes([from[0], from[1], to[0], to[1]]))
    }

    #[inline(always)]
    pub(super) fn range(self) -> Range<usize> {
        let [from, from_high, to, to_high] = self.0.to_le_bytes();
        let number = |octets| u16::from_le_bytes(octets).into();
        number([from, from_high])..number([to, to_high])
    }
}

/// Declares the parameters that the core reads: each with its name in a form.
macro_rules! parameters {
    ($($parameter:ident $name:ident),+) => {
        /// A parameter that the core reads.
        #[derive(Clone, Copy, PartialEq, Eq)]
        enum Name {
            $($name,)+
        }

        impl Name {
            /// Returns the parameter that has this name, which may have escapes.
            fn spelled(name: Raw<'_>) -> Option<Self> {
                let named = |text| name.is(text);
                $(if named(stringify!($parameter)) {
                    return Some(Self::$name);
                })+
                None
            }
        }

        /// The places of the values that the core reads.
        #[derive(Clone, Copy)]
        pub(super) struct Places {
            $(pub(super) $parameter: Place,)+
            /// 1 if the grant type is the device grant, encoded as most clients do; otherwise 0.
            pub(super) has_usual_grant: u32,
            /// How many of the other values are not plain ([`Raw::is_plain`]).
            pub(super) escaped: u32,
        }

        impl Places {
            /// The places before the body was read.
            pub(super) const NOWHERE: Self = Self {
                $($parameter: Place::NOWHERE,)+
                has_usual_grant: 0,
                escaped: 0,
            };

            /// Sets the place of a parameter, and returns the one that it had before.
            #[inline(always)]
            fn put(&mut self, name: Name, place: Place) -> Place {
                match name {
                    $(Name::$name => mem::replace(&mut self.$parameter, place),)+
                }
            }
        }
    };
}

parameters! {
    grant_type GrantType,
    device_code DeviceCode,
    client_id ClientId,
    client_secret ClientSecret,
    client_assertion ClientAssertion,
    refresh_token RefreshToken,
    scope Scope
}

impl Name {
    /// Returns the parameter of a segment and its value, if the name has no escapes.
    #[inline(always)]
    fn of(segment: &[u8]) -> Option<(Self, &[u8])> {
        let named = |own, name: &[u8]| segment.strip_prefix(name).map(|value| (own, value));
        match segment.first()? {
            b'g' => named(Self::GrantType, b"grant_type="),
            b'd' => named(Self::DeviceCode, b"device_code="),
            b'r' => named(Self::RefreshToken, b"refresh_token="),
            b's' => named(Self::Scope, b"scope="),
            b'c' => named(Self::ClientId, b"client_id=")
                .or_else(|| named(Self::ClientSecret, b"client_secret="))
                .or_else(|| named(Self::ClientAssertion, b"client_assertion=")),
            _ => None,
        }
    }
}

/// A segment that [`Name::of`] does not recognize.
enum Unusual<'a> {
    /// The core reads this parameter. Its name has escapes, or no `=` after it.
    Ours(Name, &'a [u8]),
    /// The core does not read this parameter.
    Other { is_repeated: bool },
}

impl Places {
    /// Reads a body. Refuses a broken escape, text that is not UTF-8, too many parameters and a repeated one (A2, A3, A5).
    #[inline(always)]
    pub(super) fn read(body: &[u8]) -> Result<Self, Cause> {
        let mut places = Self::NOWHERE;
        let mut segments = Segments::of(body);
        let mut count = 0_usize;
        let mut repeated = false;
        while let Some(segment) = segments.next_segment() {
            if count == MAX_PARAMETERS {
                return Err(Cause::TooManyParameters);
            }
            count = count.saturating_add(1);
            let (name, value) = match Name::of(segment) {
                Some(known) => known,
                None => match unusual(body, segment, count)? {
                    Unusual::Ours(name, value) => (name, value),
                    Unusual::Other { is_repeated } => {
                        repeated |= is_repeated;
                        continue;
                    }
                },
            };
            let place = Place::of(value, segments.end());
            let before = places.put(name, place);
            // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
            repeated |= before != Place::NOWHERE;
            if name == Name::GrantType && value == DEVICE_GRANT_ENCODED.as_bytes() {
                places.has_usual_grant = 1;
            } else if !Raw(value).is_plain() {
                places.escaped = places.escaped.saturating_add(1);
                if !Raw(value).is_sound() {
                    return Err(Cause::Encoding);
                }
            }
        }
        if repeated {
            return Err(Cause::RepeatedParameter);
        }
        Ok(places)
    }
}

/// Examines the segment of this number, which [`Name::of`] does not recognize.
#[cold]
#[inline(never)]
fn unusual<'a>(body: &[u8], segment: &'a [u8], number: usize) -> Result<Unusual<'a>, Cause> {
    // These may repeat: RFC 8707, section 2, and RFC 8693, section 2.1.
    const REPEATABLE: [&str; 2] = ["resource", "audience"];
    let (name, value) = divide(segment);
    if !name.is_sound() || !value.is_sound() {
        return Err(Cause::Encoding);
    }
    if let Some(ours) = Name::spelled(name) {
        return Ok(Unusual::Ours(ours, value.0));
    }
    let may_repeat = REPEATABLE.into_iter().any(|own| name.is(own));
    let mut before = Segments::of(body).take(number.saturating_sub(1));
    let is_repeated = !may_repeat && before.any(|(earlier, _)| earlier.same(name));
    Ok(Unusual::Other { is_repeated })
}
