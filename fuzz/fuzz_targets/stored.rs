//! No stored form panics. What decodes also encodes, and decodes to the same.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::stored(data));
