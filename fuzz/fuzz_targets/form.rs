//! No request panics; each gets what a plain reading of tables A and B gives it, a refusal is one of few constants, and what is read re-encodes to the same.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::form(data));
