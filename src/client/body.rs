//! The body of a response, divided into its members in one pass.
//!
//! Rules:
//! 1. A body is read as JSON. If that fails, it is read as a form, which must have a key `access_token`, `device_code` or `error`. A byte
//!    order mark is skipped.
//! 2. The members of the protocol are borrowed from the body. Plain strings and whole numbers are read at once, other values only when they
//!    are needed. Members that the protocol does not define are collected only for the tokens, a prompt or a refusal, which keep them.
//! 3. `null` counts as absent. A number may be an integer, a float (rounded up) or a string. A scope may be an array.
//! 4. A value of the wrong type makes only its own member unusable, even if the value has many levels.
//! 5. A repeated member of the protocol makes the body invalid, because two readers could read two different values.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Map;
use serde_json::value::RawValue;

use super::response::{MAX_BODY, Response};
use crate::wire::form::{Raw, Segments};
use crate::wire::json::{Name, read_object};

#[derive(Default)]
pub(crate) struct Body<'a> {
    pub(crate) members: Members<'a>,
    pub(crate) format: Format,
    /// Whether a member of the protocol is repeated.
    is_repeated: bool,
    /// Whether the body has members that the protocol does not define.
    has_others: bool,
    /// Whether a member is [`Value::Odd`], so that the body must be read again.
    is_odd: bool,
    text: &'a str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// A form with a key that rule 1 names.
    Form,
    #[default]
    Unknown,
}

impl<'a> Body<'a> {
    /// Reads the body of a response, unless it is a redirect. It fills `self`, because a returned body would have to be moved.
    pub(crate) fn read(&mut self, response: &Response<&'a [u8]>) -> Result<(), Malformed> {
        if response.body.len() > MAX_BODY {
            return Err(Malformed::TooLarge);
        }
        if matches!(response.status, 300..=399) {
            return Ok(());
        }
        let Ok(text) = core::str::from_utf8(response.body) else {
            return Ok(());
        };
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        let read = read_object(text, |name, value| self.add(name, value));
        if read.is_err() || self.is_odd {
            *self = Self::read_as_written(text);
        } else {
            self.format = Format::Json;
            self.text = text;
        }
        // "Request and response parameters MUST NOT be included more than once." (RFC 6749, section 3.2)
        if self.is_repeated {
            return Err(Malformed::Repeated);
        }
        Ok(())
    }

    /// Reads a body that is not a JSON object, or has an odd member.
    #[cold]
    #[inline(never)]
    fn read_as_written(text: &'a str) -> Self {
        let mut body = Self {
            format: Format::Json,
            text,
            ..Self::default()
        };
        let add = |Name(name): Name<'_>, value: &'a RawValue| {
            body.add(&name, Value::Json(value.get()));
        };
        if read_object(text, add).is_ok() {
            return body;
        }
        body = Self::read_form(text.trim_ascii()).unwrap_or_default();
        // JSON that is not an object can be read, but has no members.
        if serde_json::from_str::<IgnoredAny>(text).is_ok() {
            body.format = Format::Json;
        }
        body
    }

    fn read_form(text: &'a str) -> Option<Self> {
        // No form has these characters. Every HTML page has them, and some have `&error=` in a link.
        let foreign = |byte: u8| matches!(byte, b'<' | b'"') || byte.is_ascii_whitespace();
        if text.bytes().any(foreign) {
            return None;
        }
        let mut body = Self {
            format: Format::Form,
            text,
            ..Self::default()
        };
        for (name, value) in Segments::of(text.as_bytes()) {
            if !value.is_sound() {
                return None;
            }
            body.add(&name.text()?, Value::Form(value));
        }
        let known = &body.members;
        let keys = [known.access_token, known.device_code, known.error];
        keys.iter().any(|key| key.is_there()).then_some(body)
    }

    fn add(&mut self, name: &str, value: Value<'a>) {
        match self.members.slot(name) {
            Some(slot) if slot.is_there() => self.is_repeated = true,
            Some(slot) => {
                self.is_odd |= matches!(value, Value::Odd);
                *slot = value;
            }
            None => self.has_others = true,
        }
    }

    /// Returns the members that the protocol does not define. A member nested deeper than the 128 levels that `serde_json` reads is left
    /// out, which is no reason to refuse the response.
    pub(crate) fn others(&self) -> Map<String, serde_json::Value> {
        let mut others = Map::new();
        if !self.has_others {
            return others;
        }
        let mut ours = Members::default();
        let mut add = |name: Cow<'_, str>, value| {
            if ours.slot(&name).is_none()
                && let Some(value) = value
            {
                others.insert(name.into_owned(), value);
            }
        };
        if self.format == Format::Json {
            // The text was read before, so this cannot fail.
            let _ = read_object(self.text, |Name(name): Name<'_>, value: &RawValue| {
                add(name, serde_json::from_str(value.get()).ok());
            });
        } else {
            for (name, value) in Segments::of(self.text.as_bytes()) {
                let value = value.text().map(Into::into);
                add(name.text().unwrap_or_default(), value);
            }
        }
        others
    }
}

macro_rules! members {
    ($($name:ident),+ $(,)?) => {
        /// The members of the protocol, from the responses of all endpoints.
        #[derive(Default)]
        pub(crate) struct Members<'a> {
            $(pub(crate) $name: Value<'a>,)+
        }

        impl<'a> Members<'a> {
            fn slot(&mut self, name: &str) -> Option<&mut Value<'a>> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }
        }
    };
}

members! {
    error, error_description, interval,
    access_token, token_type, expires_in, refresh_token, id_token, scope,
    device_code, user_code, verification_uri, verification_url, verification_uri_complete,
    // WorkOS AuthKit and Twitch send these in the place of `error`.
    code, message,
}

/// The value of a member.
#[derive(Clone, Copy, Default)]
pub(crate) enum Value<'a> {
    #[default]
    Absent,
    /// A string without escapes.
    Text(&'a str),
    Number(u64),
    /// Another value. The body is then read again, and the value becomes [`Value::Json`].
    Odd,
    /// A value as it is written in JSON.
    Json(&'a str),
    Form(Raw<'a>),
}

impl<'a> Value<'a> {
    /// Returns whether the body has the member, even as `null`.
    fn is_there(self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Returns whether the member has a value other than `null`.
    pub(crate) fn is_given(self) -> bool {
        !matches!(self, Self::Absent | Self::Json("null"))
    }

    /// Returns the text, if the value is a string.
    #[inline]
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Json(_) | Self::Form(_) => self.decoded(),
            Self::Absent | Self::Number(_) | Self::Odd => None,
        }
    }

    #[cold]
    fn decoded(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Json(written) => serde_json::from_str(written).ok().map(Cow::Owned),
            Self::Form(raw) => raw.text(),
            Self::Absent | Self::Text(_) | Self::Number(_) | Self::Odd => None,
        }
    }

    /// Returns the text, if the value is a string that is not empty.
    #[inline]
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        self.string().filter(|text| !text.is_empty())
    }

    /// Returns a scope with spaces between its tokens. If the server separates them only by commas, these become spaces.
    pub(crate) fn scope(self) -> Option<String> {
        if let Self::Json(list) = self
            && list.starts_with('[')
        {
            let tokens = serde_json::from_str::<Vec<String>>(list).ok()?;
            return Some(tokens.join(" "));
        }
        let text = self.string()?;
        let by_commas = text.contains(',') && !text.contains(' ');
        Some(if by_commas {
            text.replace(',', " ")
        } else {
            text.into()
        })
    }

    #[inline]
    pub(crate) fn seconds(self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(number) => Some(number),
            Self::Absent | Self::Odd => None,
            Self::Text(_) | Self::Json(_) | Self::Form(_) => self.number(),
        };
        seconds.map(Duration::from_secs)
    }

    #[cold]
    fn number(self) -> Option<u64> {
        let whole = |text: &str| text.parse().ok();
        if let Some(text) = self.string() {
            return whole(&text).or_else(|| rounded_up(text.parse().ok()?));
        }
        let Self::Json(number) = self else {
            return None;
        };
        whole(number).or_else(|| rounded_up(serde_json::from_str(number).ok()?))
    }
}

/// Returns a number of seconds, rounded up to whole seconds. Returns `None` if it is negative or not a number.
fn rounded_up(number: f64) -> Option<u64> {
    let Ok(span) = Duration::try_from_secs_f64(number) else {
        return (number > 0.0).then_some(u64::MAX);
    };
    let part = u64::from(span.subsec_nanos() > 0);
    let seconds = span.as_secs().saturating_add(part);
    // A number under half a nanosecond becomes the span zero.
    Some(seconds.max(u64::from(number > 0.0)))
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PlainValue)
    }
}

/// Reads a string without escapes, or a whole number that is not negative. Any other number is an error, and every other value becomes
/// `Odd`. In both cases the body is read again.
struct PlainValue;

impl<'de> Visitor<'de> for PlainValue {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, _: &str) -> Result<Value<'de>, E> {
        Ok(Value::Odd)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Odd)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Odd)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Value<'de>, A::Error> {
        IgnoredAny.visit_seq(list).map(|_| Value::Odd)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Value<'de>, A::Error> {
        IgnoredAny.visit_map(object).map(|_| Value::Odd)
    }
}

/// Why a response could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The body has more than [`MAX_BODY`](super::MAX_BODY) bytes.
    #[error("the response has more than 1 MiB; check that the endpoint's URL is right")]
    TooLarge,
    /// The body is neither JSON nor a form.
    #[error(
        "the response is neither JSON nor a form; check the endpoint's URL, and whether this network wants its own sign-in first"
    )]
    Unreadable,
    /// A member of the protocol is repeated.
    #[error("the response gives the same parameter twice; report this to whoever runs the server")]
    Repeated,
    /// The body has both a token and an error.
    #[error("the response has both a token and an error; report this to whoever runs the server")]
    Contradiction,
    /// A 2xx has neither a token nor an error.
    #[error(
        "the response has neither a token nor an error; check that the endpoint's URL is right"
    )]
    Empty,
    /// A token, or the token type, has a character outside `%x20-7E`, which would break the header that it is sent in. Or the token type is
    /// not a string.
    #[error(
        "the response has a token, or a token type, that cannot be sent in a header; report this to whoever runs the server"
    )]
    Token,
    /// The status is below 200 or above 599, so the response is not a final one.
    #[error(
        "the status does not belong to a final HTTP response; check that the HTTP client waits for the final response"
    )]
    Status,
}
