//! Whatever network and clocks do, an obedient client and the server end in what the user chose, in expiry, or, where an answer was lost or a request came twice, in rejection; one success at most, no `slow_down` without loss, nothing shown.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| device_flow_fuzz::client_server(data));
