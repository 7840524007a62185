//! Whatever a host answers to the questions of an exchange, the exchange ends after few of them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::questions(data));
