//! Whatever a host answers to the questions of an exchange, the exchange ends after few of them, sends no token that was not stored, takes no failure for an answer, and shows no secret.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::questions(data));
