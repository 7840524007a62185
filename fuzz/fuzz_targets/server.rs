//! Whatever operations come, each answer and each record of the server half is what the oracle says, which is written from the tables.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::server(data));
