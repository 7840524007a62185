//! Whatever operations come, the server half does what the oracle of the tables says: answer by answer, record by record, one success at most, nothing pending after expiry.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::server(data));
