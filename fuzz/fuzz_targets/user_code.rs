//! No entry panics; it is read as a plain reading says: what is shown reads as the code, case and what is outside the alphabet do not matter, and the length is exact.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::user_code(data));
