//! No request panics, and each gets the answer that a plain reading of tables A and B gives it.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::form(data));
