//! What both halves read or write: forms, credentials, JSON, URLs, and the metadata of a server.

pub(crate) mod credentials;
pub(crate) mod form;
pub(crate) mod json;
pub mod metadata;
pub(crate) mod octets;
pub(crate) mod uri;
pub(crate) mod version;

/// Implements `Debug` for a type that has something to hide. It shows only the named fields and methods.
macro_rules! debug_shows {
    ($type:ident $(<$lifetime:lifetime $(, $kind:ident)?>)? $(: $($shown:ident $(($($none:tt)*))?),+)?) => {
        impl $($(<$kind>)?)? core::fmt::Debug for $type $(<$lifetime $(, $kind)?>)? {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.debug_struct(stringify!($type))
                    $($(.field(stringify!($shown), &self.$shown $(($($none)*))?))+)?
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use debug_shows;
