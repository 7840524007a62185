//! x
pub(crate) fn run(_: &[u8]) {}
