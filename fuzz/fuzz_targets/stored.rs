//! No stored form panics; what decodes encodes, and decodes to the same; a decoded session can be decided on at any moment, and what was decided can be stored again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::stored(data));
