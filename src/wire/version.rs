//! The version of a stored form.

use serde::{Deserialize, Serialize};

/// The version `N` of a stored form. Deserializing refuses every other version, because its members could mean something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub(crate) struct Version<const N: u8>;

impl<const N: u8> TryFrom<u8> for Version<N> {
    type Error = &'static str;

    fn try_from(found: u8) -> Result<Self, Self::Error> {
        let wrong = "another version of this crate wrote the stored form; discard it, or read it with that version";
        (found == N).then_some(Self).ok_or(wrong)
    }
}

impl<const N: u8> From<Version<N>> for u8 {
    fn from(_: Version<N>) -> Self {
        N
    }
}
