//! An example that embeds `device-flow`.

fn main() {}
