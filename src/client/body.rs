//! A body, divided into its members in one pass.
//!
//! Rules:
//! 1. A body is JSON, or else a form if that has a key `access_token`, `device_code` or `error`. A byte order mark is skipped.
//! 2. The value of a member stays as it is written until somebody asks for it. So a value that nobody can read, or that is nested
//!    however deep, harms nothing but itself.
//! 3. `null` is absent. A number may be an integer, a float (rounded up) or a string. A scope may be an array.
//! 4. A repeated member of ours is remembered, because two readers would see two answers.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Map;
use serde_json::value::RawValue;

use crate::time;
use crate::wire::form::{Raw, Segments};

/// What a body says.
pub(crate) struct Body<'a> {
    pub(crate) members: Members<'a>,
    /// Whether a member of ours came twice.
    pub(crate) repeated: bool,
    /// Whether there are members that are not ours.
    others: bool,
    format: Format,
    text: &'a str,
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
    pub(crate) fn new() -> Self {
        Self {
            members: Members::default(),
            repeated: false,
            others: false,
            format: Format::Json,
            text: "",
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
        let object = json.deserialize_map(&mut *self);
        if object.and_then(|()| json.end()).is_ok() {
            return Format::Json;
        }
        *self = Self {
            text: text.trim_ascii(),
            format: Format::Form,
            ..Self::new()
        };
        if self.read_form().is_some() {
            return Format::Form;
        }
        *self = Self::new();
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
            value.text()?;
            match self.members.slot(&name.text()?) {
                Some(slot) if slot.is_there() => self.repeated = true,
                Some(slot) => *slot = Value::Form(value),
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

/// The value of a member, as it is written. It has nothing to drop, which for sixteen of them takes longer than a pending answer
/// may.
#[derive(Clone, Copy, Default)]
pub(crate) enum Value<'a> {
    #[default]
    Absent,
    Json(&'a str),
    Form(Raw<'a>),
}

impl<'a> Value<'a> {
    /// Returns whether the member is there at all, if only as `null`.
    pub(crate) const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Returns whether the member has a value.
    pub(crate) fn is_given(self) -> bool {
        match self {
            Self::Absent => false,
            Self::Json(written) => written != "null",
            Self::Form(_) => true,
        }
    }

    /// Returns the characters of a string.
    #[inline]
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Absent => None,
            Self::Json(written) => {
                let inner = written.strip_prefix('"')?.strip_suffix('"')?;
                // What has no escape stands for itself.
                if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
                    return Some(Cow::Borrowed(inner));
                }
                serde_json::from_str(written).ok().map(Cow::Owned)
            }
            Self::Form(raw) => raw.text(),
        }
    }

    /// Returns the characters of a string that is not empty.
    #[inline]
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        self.string().filter(|text| !text.is_empty())
    }

    /// Returns a scope, its tokens separated by spaces. Commas separate where nothing else does.
    pub(crate) fn scope(self) -> Option<Cow<'a, str>> {
        if let Some(text) = self.string() {
            let is_list = text.contains(',') && !text.contains(' ');
            return Some(if is_list {
                text.replace(',', " ").into()
            } else {
                text
            });
        }
        match self {
            Self::Json(written) => {
                let tokens: Vec<String> = serde_json::from_str(written).ok()?;
                Some(tokens.join(" ").into())
            }
            Self::Absent | Self::Form(_) => None,
        }
    }

    /// Returns a number of seconds.
    pub(crate) fn seconds(self) -> Option<Duration> {
        let seconds = match self {
            Self::Json(written) if !written.starts_with('"') => number(written),
            Self::Absent => None,
            Self::Json(_) | Self::Form(_) => number(&self.string()?),
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
        "the response is neither JSON nor a form; check that the endpoint's URL is right, and that no sign-in page of the \
         network answers in the server's place"
    )]
    Unreadable,
    /// A member of the protocol comes twice.
    #[error("the response has a repeated member; report this to whoever runs the server")]
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
        "the status of the response is not that of a final HTTP response; check that the endpoint's URL is right"
    )]
    Status,
}

impl<'de> Visitor<'de> for &mut Body<'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some(slot) = object.next_key_seed(Name(&mut self.members))? {
            match slot {
                Some(slot) if !slot.is_there() => {
                    *slot = Value::Json(object.next_value::<&RawValue>()?.get());
                }
                passed => {
                    self.repeated |= passed.is_some();
                    self.others |= passed.is_none();
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
