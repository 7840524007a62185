//! A JSON object, divided into its members.

use alloc::borrow::Cow;
use core::fmt;
use core::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};

/// Calls `member` with the name and the value of each member of an object, in order.
#[inline]
pub(crate) fn read_object<'a, N: Deserialize<'a>, V: Deserialize<'a>>(
    text: &'a str,
    member: impl FnMut(N, V),
) -> serde_json::Result<()> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Object(member, PhantomData))?;
    json.end()
}

/// A name, borrowed unless it has escapes.
#[derive(Deserialize)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

struct Object<F, M>(F, PhantomData<M>);

impl<'de, N, V, F> Visitor<'de> for Object<F, (N, V)>
where
    N: Deserialize<'de>,
    V: Deserialize<'de>,
    F: FnMut(N, V),
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        while let Some((name, value)) = object.next_entry()? {
            (self.0)(name, value);
        }
        Ok(())
    }
}
