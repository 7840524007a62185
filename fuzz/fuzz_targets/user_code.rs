//! No entry panics, and each is read as a plain reading says.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::user_code(data));
