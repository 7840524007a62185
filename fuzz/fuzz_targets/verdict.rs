//! No answer panics, and its verdict is that of a plain reading of table V.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::verdict(data));
