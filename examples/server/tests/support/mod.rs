//! What the tests share.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod processes;
pub(crate) mod server;
pub(crate) mod services;
