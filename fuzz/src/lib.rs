//! Properties of every body that comes in, every reading that goes out and every answer.

use forebay_codec::{DECODERS, DeviceTags, ENCODERS, Rules, UnknownFields};
use forebay_reading::Readings;
use forebay_reading::timestamp::{Precision, Timestamp};
use forebay_stores::{NodeAnswer, STORES, StoreConfig, judge};

/// Most bytes that the readings of a body may take here.
const ENCODED_BYTES_MAX: usize = 1 << 20;

fn rules(unknown_fields: UnknownFields, precision: Precision) -> Rules {
    Rules {
        unknown_fields,
        precision,
        received_at: Timestamp::from_nanos(1_170_288_000_000_000_000).expect("2007"),
        earliest: Timestamp::MIN,
        latest: Timestamp::MAX,
        encoded_bytes_max: ENCODED_BYTES_MAX,
        device_tags: DeviceTags::default(),
        grant: None,
    }
}

/// Decodes a body in the format of this name, and writes its readings in every format.
///
/// # Panics
///
/// If a decoder or an encoder breaks a promise.
pub fn decode_and_encode(format: &str, body: &[u8]) {
    let decoder = DECODERS.find(format).expect("a format");
    for (unknown_fields, precision) in
        [(UnknownFields::Reject, Precision::Millis), (UnknownFields::Ignore, Precision::Seconds)]
    {
        let Ok(decoded) = decoder.decode(body, &rules(unknown_fields, precision)) else { continue };
        assert_eq!(decoded.readings.iter().count(), decoded.readings.len());
        assert!(decoded.overflowed || decoded.readings.encoded_bytes() <= ENCODED_BYTES_MAX);
        assert!(decoded.rejections.listed.len() as u64 <= decoded.rejections.count());
        encode(&decoded.readings);
    }
}

/// Writes readings in every format, and reads them back where the format keeps all of a reading.
///
/// # Panics
///
/// As [`decode_and_encode`].
pub fn encode(readings: &Readings) {
    let kept = Readings::from_encoded(readings.as_bytes(), readings.len());
    assert_eq!(kept.as_ref(), Some(readings), "the buffer takes back what it was given");
    for (name, make) in ENCODERS.members {
        let encoder = make();
        let mut body = Vec::new();
        let mut written = 0;
        for reading in readings {
            let before = body.len();
            match encoder.write(written, reading, &mut body) {
                Ok(()) => written += 1,
                Err(_) => assert_eq!(body.len(), before, "{name} appends nothing of what it cannot hold"),
            }
        }
        if written == 0 {
            continue;
        }
        let unfit: Vec<_> = encoder.arrange(&mut body).into_iter().map(|(place, _)| place).collect();
        let are_places =
            unfit.is_sorted_by(|one, other| one < other) && unfit.iter().all(|place| *place < written);
        assert!(are_places && unfit.len() < written, "{name}: {unfit:?} of {written}");
        encoder.finish("0123456789abcdef0123456789abcdef-7", &mut body);
        if *name == "influx" {
            let decoder = DECODERS.find(name).expect("both ways");
            let again = decoder.decode(&body, &rules(UnknownFields::Reject, Precision::Nanos)).expect("text");
            assert_eq!((again.readings.len(), again.rejections.count()), (written, 0), "{name}");
        }
        if matches!(*name, "json" | "ndjson") {
            let decoder = DECODERS.find(name).expect("both ways");
            let again = decoder.decode(&body, &rules(UnknownFields::Reject, Precision::Millis));
            assert_eq!(&again.expect("it reads what it wrote").readings, readings, "{name}");
        }
    }
}

/// Reads an answer of a node as every store does.
///
/// # Panics
///
/// As [`decode_and_encode`].
pub fn read_answer(status: u16, body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    let headers = http::HeaderMap::new();
    let answer = NodeAnswer { status, headers: &headers, body: &text };
    for (_, make) in STORES.members {
        let store = make(&StoreConfig::default());
        let _ = store.failed_items(body, 3).map(|items| assert!(items.len() <= 3));
        let _ = (store.blame(&answer), store.diagnose(&answer), judge(&*store, &answer));
    }
}
