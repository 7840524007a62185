//! The OAuth 2.0 Device Authorization Grant as a sans-I/O core.
#![no_std]

extern crate alloc;

pub mod client;
pub mod code;
pub mod digest;
pub mod memory;
pub mod scope;
pub mod server;
mod time;
pub mod wire;
