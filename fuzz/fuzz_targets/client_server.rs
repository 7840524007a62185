//! Whatever the network and the clocks do, a login of both halves ends as the user chose, or it expires, or it is rejected for a reason.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::client_server(data));
