//! A body, divided into its members in one pass.
//!
//! Rules:
//! 1. A body is JSON, or else a form if that has a key `access_token`, `device_code` or `error`. A byte order mark is skipped.
//! 2. The members that the protocol knows are borrowed from the body; the others are not built before somebody asks.
//! 3. `null` is absent. A number may be an integer, a float (rounded up) or a string. A scope may be an array.
//! 4. A value of another type, nested however deep, harms nothing but itself.
//! 5. A repeated member of ours is remembered, because two readers would see two answers.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::fmt;
use core::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Map;
use serde_json::value::RawValue;

use crate::time;
use crate::wire::form::Segments;

/// What a body says.
pub(crate) struct Body<'a> {
    pub(crate) members: Members<'a>,
    /// Whether a member of ours came twice.
    pub(crate) repeated: bool,
    /// Whether there are members that are not ours.
    others: bool,
    format: Format,
    text: &'a str,
    kept: &'a Kept,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    /// A form with a key of ours.
    Form,
    Unknown,
}

impl<'a> Body<'a> {
    /// Returns a body that says nothing.
    pub(crate) fn new(kept: &'a Kept) -> Self {
        Self {
            members: Members::default(),
            repeated: false,
            others: false,
            format: Format::Json,
            text: "",
            kept,
        }
    }

    /// Reads a body, in place: moving what was read costs more than reading it.
    pub(crate) fn read(&mut self, octets: &'a [u8]) -> Format {
        let Ok(text) = core::str::from_utf8(octets) else {
            return Format::Unknown;
        };
        let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
        self.text = text;
        let mut json = serde_json::Deserializer::from_str(text);
        let object = json.deserialize_map(Object::<false>(self));
        if object.and_then(|()| json.end()).is_ok() {
            return Format::Json;
        }
        self.read_otherwise(text)
    }

    #[cold]
    #[inline(never)]
    fn read_otherwise(&mut self, text: &'a str) -> Format {
        *self = Self {
            text,
            ..Self::new(self.kept)
        };
        let mut json = serde_json::Deserializer::from_str(text);
        let object = json.deserialize_map(Object::<true>(self));
        if object.and_then(|()| json.end()).is_ok() {
            return Format::Json;
        }
        *self = Self {
            text: text.trim_ascii(),
            format: Format::Form,
            ..Self::new(self.kept)
        };
        if self.read_form().is_some() {
            return Format::Form;
        }
        *self = Self::new(self.kept);
        // JSON, but no object: it can be read, and says nothing.
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Format::Json,
            Err(_) => Format::Unknown,
        }
    }

    fn read_form(&mut self) -> Option<()> {
        // No form has these, every page in HTML does, and some pages have `&error=` in a link.
        let foreign = |byte: u8| matches!(byte, b'<' | b'"') || byte.is_ascii_whitespace();
        if self.text.bytes().any(foreign) {
            return None;
        }
        for (name, value) in Segments::of(self.text.as_bytes()) {
            let value = value.text()?;
            match self.members.slot(&name.text()?) {
                Some(slot) if slot.is_there() => self.repeated = true,
                Some(slot) => *slot = Value::Text(self.kept.text(value)),
                None => self.others = true,
            }
        }
        let known = &self.members;
        let keys = [known.access_token, known.device_code, known.error];
        keys.iter().any(Value::is_there).then_some(())
    }

    /// Returns the members that are not ours.
    pub(crate) fn others(&self) -> Others {
        Others(self.others.then(|| (self.format, self.text.into())))
    }
}

/// The members that are not ours, not built before somebody asks: the body that has some.
#[derive(Clone)]
pub(crate) struct Others(Option<(Format, Box<str>)>);

impl Others {
    /// Returns the members of a JSON object, all of which are taken for not ours but those with a name of ours.
    pub(crate) fn from_json(object: String) -> Self {
        Self(Some((Format::Json, object.into())))
    }

    /// Builds them. One is lost where it is nested deeper than `serde_json` reads, 128 levels: an answer is not refused for that.
    pub(crate) fn build(&self) -> Map<String, serde_json::Value> {
        let mut all: Map<_, _> = match &self.0 {
            None => return Map::new(),
            Some((Format::Json, text)) => serde_json::from_str::<BTreeMap<String, &RawValue>>(text)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(name, value)| Some((name, serde_json::from_str(value.get()).ok()?)))
                .collect(),
            Some((Format::Form | Format::Unknown, text)) => Segments::of(text.as_bytes())
                .filter_map(|(name, value)| Some((name.text()?.into_owned(), value.text()?.into())))
                .collect(),
        };
        all.retain(|name, _| !Members::has(name));
        all
    }
}

impl PartialEq for Others {
    fn eq(&self, other: &Self) -> bool {
        self.build() == other.build()
    }
}

/// The strings of a body that could not be borrowed, for they had escapes: a list with one entry for a member at most.
#[derive(Default)]
pub(crate) struct Kept(OnceCell<Box<(String, Kept)>>);

impl Kept {
    fn keep(&self, text: String) -> &str {
        let mut end = self;
        while let Some(entry) = end.0.get() {
            end = &entry.1;
        }
        &end.0.get_or_init(|| Box::new((text, Self::default()))).0
    }

    fn text<'a>(&'a self, text: Cow<'a, str>) -> &'a str {
        match text {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => self.keep(text),
        }
    }
}

/// Declares the members that the protocol knows.
macro_rules! members {
    ($($name:ident),+ $(,)?) => {
        /// The members of ours, those of all endpoints.
        #[derive(Default)]
        pub(crate) struct Members<'a> {
            $(pub(crate) $name: Value<'a>,)+
        }

        impl<'a> Members<'a> {
            fn has(name: &str) -> bool {
                matches!(name, $(stringify!($name))|+)
            }

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

/// The value of a member. It has nothing to drop, which for sixteen of them takes longer than a pending answer may.
#[derive(Clone, Copy, Default)]
pub(crate) enum Value<'a> {
    #[default]
    Absent,
    Null,
    Text(&'a str),
    Number(u64),
    /// An array of strings, joined by spaces.
    List(&'a str),
    Other,
}

impl<'a> Value<'a> {
    /// Whether the member is there at all, if only as `null`.
    fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Whether the member has a value.
    pub(crate) fn is_given(self) -> bool {
        !matches!(self, Self::Absent | Self::Null)
    }

    /// The characters of a string that is not empty.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            Self::Absent
            | Self::Null
            | Self::Text(_)
            | Self::Number(_)
            | Self::List(_)
            | Self::Other => None,
        }
    }

    /// A scope, its tokens separated by spaces. Commas separate where nothing else does.
    pub(crate) fn scope(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) if text.contains(',') && !text.contains(' ') => {
                Some(text.replace(',', " ").into())
            }
            Self::Text(text) | Self::List(text) => Some(Cow::Borrowed(text)),
            Self::Absent | Self::Null | Self::Number(_) | Self::Other => None,
        }
    }

    /// A number of seconds.
    pub(crate) fn seconds(self) -> Option<Duration> {
        let seconds = match self {
            Self::Number(seconds) => Some(seconds),
            Self::Text(text) => number(text),
            Self::Absent | Self::Null | Self::List(_) | Self::Other => None,
        };
        seconds.map(Duration::from_secs)
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .or_else(|| time::whole_seconds(text.parse().ok()?))
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
    /// A member of the protocol comes twice.
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
    /// A token has a character outside `%x20-7E`, which would break the header that it is sent in.
    #[error(
        "the response has a token, or a token type, that cannot be sent in a header; report this to whoever runs the server"
    )]
    Token,
    /// The response has a status that no final response has.
    #[error(
        "the status is not one of a final HTTP response; check that the HTTP client passes on the final response"
    )]
    Status,
}

/// Reads an object into a body: its values in one go, which is fast, or each by itself, so that one that cannot be read (half a
/// surrogate pair, a number beyond all bounds) does not end it.
struct Object<'b, 'de, const ONE_BY_ONE: bool>(&'b mut Body<'de>);

impl<'de, const ONE_BY_ONE: bool> Visitor<'de> for Object<'_, 'de, ONE_BY_ONE> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let body = self.0;
        while let Some(slot) = object.next_key_seed(Name(&mut body.members))? {
            match slot {
                Some(slot) if !slot.is_there() => {
                    *slot = if ONE_BY_ONE {
                        let written = object.next_value::<&RawValue>()?.get();
                        let mut json = serde_json::Deserializer::from_str(written);
                        let read = Reading(body.kept).deserialize(&mut json);
                        read.unwrap_or(Value::Other)
                    } else {
                        object.next_value_seed(Reading(body.kept))?
                    };
                }
                passed => {
                    body.repeated |= passed.is_some();
                    body.others |= passed.is_none();
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
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

/// Reads a member's value.
struct Reading<'de>(&'de Kept);

impl<'de> DeserializeSeed<'de> for Reading<'de> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'de> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(self.0.keep(text.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(u64::try_from(number).map_or(Value::Other, Value::Number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(time::whole_seconds(number).map_or(Value::Other, Value::Number))
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value<'de>, A::Error> {
        let mut tokens = Some(Vec::new());
        while let Some(item) = list.next_element::<&RawValue>()? {
            let token = serde_json::from_str::<String>(item.get()).ok();
            tokens = tokens.zip(token).map(|(mut tokens, token)| {
                tokens.push(token);
                tokens
            });
        }
        Ok(tokens.map_or(Value::Other, |tokens| {
            Value::List(self.0.keep(tokens.join(" ")))
        }))
    }

    /// An object, or a number: where the host's dependencies switch on the feature `arbitrary_precision` of `serde_json`,
    /// numbers arrive as an object with one member of this name.
    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value<'de>, A::Error> {
        let mut read = Value::Other;
        while let Some(name) = object.next_key::<Cow<'de, str>>()? {
            if name == "$serde_json::private::Number" {
                let digits = object.next_value::<Cow<'de, str>>()?;
                read = number(&digits).map_or(Value::Other, Value::Number);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(read)
    }
}
