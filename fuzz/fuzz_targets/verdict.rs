//! No answer panics; its verdict is that of a plain reading of table V, a 2xx without a token is never a success, prose has no control characters, and `Debug` shows nothing of a body.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::verdict(data));
