//! What travels in both directions: responses, tokens and metadata. Nothing here decides.

pub(crate) mod credentials;
pub(crate) mod form;
pub(crate) mod json;
pub mod metadata;
pub(crate) mod octets;
pub mod response;
pub mod tokens;
pub(crate) mod uri;
