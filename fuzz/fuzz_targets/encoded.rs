//! Readings as they are kept on disk, taken back and written in every format.

#![no_main]

use forebay_reading::Readings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let count = bytes.first().map_or(0, |count| usize::from(*count));
    if let Some(readings) = Readings::from_encoded(bytes.get(1..).unwrap_or_default(), count) {
        forebay_fuzz::encode(&readings);
    }
});
