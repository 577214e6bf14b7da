//! Bodies of the format `json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| forebay_fuzz::decode_and_encode("json", body));
