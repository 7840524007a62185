//! An authorization server with device login.

fn main() {}
