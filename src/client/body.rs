//! A body, read in one pass.
//!
//! Rules:
//! 1. A body is JSON, or else a form if that has a key `access_token`, `device_code` or `error`.
//! 2. The members that the protocol knows are borrowed from the body; the others are not built before somebody asks.
//! 3. `null` is absent. A number may be an integer, a float (rounded up) or a string. A scope may be an array.
//! 4. A member of ours that comes twice is remembered: two readers would see two answers.

use alloc::borrow::{Cow, ToOwned as _};
use alloc::string::{String, ToString as _};
use core::fmt;
use core::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Map;

use crate::time;
use crate::wire::form::Segments;

/// What a body says.
#[derive(Default)]
pub(crate) struct Body<'a> {
    pub(crate) members: Members<'a>,
    /// Whether a member of ours came twice.
    pub(crate) repeated: bool,
    /// Whether there are members that are not ours.
    others: bool,
    text: &'a str,
}

impl<'a> Body<'a> {
    /// Reads a body; none where it is neither JSON nor a form of ours.
    pub(crate) fn read(octets: &'a [u8]) -> Option<Self> {
        let text = core::str::from_utf8(octets).ok()?;
        if let Ok(mut body) = serde_json::from_str::<Self>(text) {
            body.text = text;
            return Some(body);
        }
        Self::read_form(text.trim_ascii()).or_else(|| {
            // JSON, but no object: it was read, and says nothing.
            let json = serde_json::from_str::<IgnoredAny>(text);
            json.is_ok().then(Self::default)
        })
    }

    fn read_form(text: &'a str) -> Option<Self> {
        // No form has these, every page in HTML does, and some pages have `&error=` in a link.
        if text.bytes().any(|byte| byte == b'<' || byte == b'"' || byte.is_ascii_whitespace()) {
            return None;
        }
        let mut body = Self { text, ..Self::default() };
        for (name, value) in Segments::of(text.as_bytes()) {
            let value = Value::Text(value.text()?);
            match body.members.slot(&name.text()?) {
                Some(slot) => body.repeated |= core::mem::replace(slot, value).is_there(),
                None => body.others = true,
            }
        }
        let known = &body.members;
        let ours = known.access_token.is_there()
            || known.device_code.is_there()
            || known.error.is_there();
        ours.then_some(body)
    }

    /// The members that are not ours. They are lost where they are nested deeper than `serde_json` reads, 128 levels: an
    /// answer is not refused for that.
    pub(crate) fn others(&self) -> Map<String, serde_json::Value> {
        if !self.others {
            return Map::new();
        }
        if let Ok(Others(others)) = serde_json::from_str(self.text) {
            return others;
        }
        let pairs = Segments::of(self.text.as_bytes()).filter_map(|(name, value)| {
            let name = name.text()?;
            let other = Members::default().slot(&name).is_none();
            other.then_some((name.into_owned(), value.text()?.into()))
        });
        pairs.collect()
    }
}

/// Declares the members that the protocol knows.
macro_rules! members {
    ($($name:ident),+ $(,)?) => {
        /// The members of ours, those of both endpoints.
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
    // What WorkOS AuthKit and Twitch have for `error`.
    code, message,
}

/// The value of a member.
#[derive(Default)]
pub(crate) enum Value<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
    Number(u64),
    /// An array of strings, joined by spaces.
    List(String),
    Other,
}

impl Value<'_> {
    /// Whether the member is there at all, if only as `null`.
    fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Whether the member has a value.
    pub(crate) fn is_given(&self) -> bool {
        !matches!(self, Self::Absent | Self::Null)
    }

    /// The characters of a string that is not empty.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            Self::Absent | Self::Null | Self::Text(_) | Self::Number(_) | Self::List(_) | Self::Other => None,
        }
    }

    /// A scope, its tokens separated by spaces. Commas separate where nothing else does.
    pub(crate) fn scope(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) if text.contains(',') && !text.contains(' ') => {
                Some(text.replace(',', " ").into())
            }
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::List(tokens) => Some(Cow::Borrowed(tokens)),
            Self::Absent | Self::Null | Self::Number(_) | Self::Other => None,
        }
    }

    /// A number of seconds.
    pub(crate) fn seconds(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => Some(*seconds),
            Self::Text(text) => number(text),
            Self::Absent | Self::Null | Self::List(_) | Self::Other => None,
        };
        seconds.map(Duration::from_secs)
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| time::whole_seconds(text.parse().ok()?))
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Body<'de>, A::Error> {
        let mut body = Body::default();
        while let Some(slot) = object.next_key_seed(Name(&mut body.members))? {
            if let Some(slot) = slot {
                let before = core::mem::replace(slot, object.next_value()?);
                body.repeated |= before.is_there();
            } else {
                body.others = true;
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(body)
    }
}

/// Reads a member's name as the place for its value, without keeping the name.
struct Name<'m, 'de>(&'m mut Members<'de>);

impl<'m, 'de> DeserializeSeed<'de> for Name<'m, 'de> {
    type Value = Option<&'m mut Value<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'m, 'de> Visitor<'de> for Name<'m, 'de> {
    type Value = Option<&'m mut Value<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.slot(name))
    }
}

impl<'de> Deserialize<'de> for Value<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(u64::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(time::whole_seconds(number).map_or(Value::Other, Value::Number))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut tokens = String::new();
        while let Some(element) = list.next_element::<Value<'_>>()? {
            let Value::Text(token) = element else {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Other);
            };
            if !tokens.is_empty() {
                tokens.push(' ');
            }
            tokens.push_str(&token);
        }
        Ok(Value::List(tokens))
    }

    /// An object, or a number: where the host's dependencies switch on the feature `arbitrary_precision` of `serde_json`,
    /// numbers arrive as an object that only its own type understands.
    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        match serde_json::Value::deserialize(MapAccessDeserializer::new(object))? {
            serde_json::Value::Number(digits) => {
                Ok(number(&digits.to_string()).map_or(Value::Other, Value::Number))
            }
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::String(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => Ok(Value::Other),
        }
    }
}

/// The members that are not ours, built.
struct Others(Map<String, serde_json::Value>);

impl<'de> Deserialize<'de> for Others {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Others;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Others, A::Error> {
                let mut others = Map::new();
                while let Some(name) = object.next_key::<String>()? {
                    if Members::default().slot(&name).is_some() {
                        object.next_value::<IgnoredAny>()?;
                    } else {
                        others.insert(name, object.next_value()?);
                    }
                }
                Ok(Others(others))
            }
        }

        deserializer.deserialize_map(Object)
    }
}
