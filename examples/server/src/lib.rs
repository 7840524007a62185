//! An authorization server that embeds `device-flow`.

pub mod store;
