//! How long the buffer lasts while nothing can be delivered.

use std::time::Duration;

use forebay_load::grouped;
use forebay_reading::timestamp::Timestamp;
use forebay_reading::{ReadingParts, Readings, Value};

use super::about;
use crate::buffer::{Amount, BufferConfig, disk};

/// The rate of the outlook, in readings a second.
const RATE: u64 = 1000;
/// Readings in a large request.
const MANY: u64 = 100;

/// Describes how much the buffer holds and how long it lasts.
pub(super) fn of(config: &BufferConfig) -> String {
    let (one, many) = (bytes_a_reading(1), bytes_a_reading(MANY));
    let lasts = |bytes_a_reading: u64| {
        let by_bytes = config.limit.bytes / bytes_a_reading.max(1);
        match config.limit.readings <= by_bytes {
            true => (Duration::from_secs(config.limit.readings / RATE), "buffer.max_readings"),
            false => (Duration::from_secs(by_bytes / RATE), "buffer.max_bytes"),
        }
    };
    let told = |bytes| {
        let (time, bound) = lasts(bytes);
        format!("{} ({bound} comes first)", span(time))
    };
    let Amount { readings, bytes } = config.limit;
    let mut text = format!(
        "buffer: it holds {} readings and {}: while nothing can be delivered, at {} readings a second, {} if each is sent \
         by itself and takes about {one} bytes",
        grouped(readings),
        about(bytes),
        grouped(RATE),
        told(one),
    );
    if lasts(one) != lasts(many) {
        text += &format!(", {} if {MANY} are sent together and each takes about {many}", told(many));
    }
    if config.kind == "disk" {
        text += &format!("; its files take up to {} of disk", about(disk::files_bytes_max(bytes)));
    }
    text
}

/// Bytes of an ordinary reading in the buffer, in a request of `together` readings.
fn bytes_a_reading(together: u64) -> u64 {
    let mut readings = Readings::default();
    for _ in 0..together {
        let parts = ReadingParts {
            device: "meter-7",
            sensor: "voltage",
            value: Value::Double(239.8).into(),
            time: Timestamp::MAX,
            unit: Some("V"),
            tags: &[],
        };
        readings.push(&parts).expect("it is within the limits");
    }
    disk::request_bytes(&readings).div_ceil(together)
}

/// A time for people, rounded.
fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (number, unit) = match seconds {
        seconds if seconds < 120.0 => (seconds, "seconds"),
        seconds if seconds < 7200.0 => (seconds / 60.0, "minutes"),
        seconds if seconds < 172_800.0 => (seconds / 3600.0, "hours"),
        seconds => (seconds / 86_400.0, "days"),
    };
    format!("{number:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn outlook(settings: &[(&str, &str)]) -> String {
        let name = |key: &str| format!("FOREBAY__BUFFER__{}", key.to_uppercase());
        let settings: Vec<_> = settings.iter().map(|(key, value)| (name(key), (*value).to_owned())).collect();
        of(&Config::read(None, &settings).expect("good settings").buffer)
    }

    #[test]
    fn the_default_buffer_lasts_for_hours_and_its_first_limit_is_named() {
        let expected = "buffer: it holds 10,000,000 readings and 1 GiB: while nothing can be delivered, at 1,000 readings a \
                        second, 2.8 hours (buffer.max_readings comes first) if each is sent by itself and takes about 96 \
                        bytes; its files take up to 1.5 GiB of disk";
        assert_eq!(outlook(&[]), expected);
    }

    #[test]
    fn the_limit_that_is_reached_first_decides() {
        let text = outlook(&[("max_readings", "100000000000"), ("max_bytes", "100GiB")]);
        assert!(text.contains("buffer.max_bytes comes first") && text.contains("days"), "{text}");
        let text = outlook(&[("max_readings", "60000")]);
        assert!(text.contains("60.0 seconds (buffer.max_readings comes first)"), "{text}");
        assert!(!outlook(&[("kind", "memory")]).contains("of disk"));
    }

    #[test]
    fn a_time_is_written_in_a_fitting_unit() {
        for (seconds, expected) in
            [(0, "0.0 seconds"), (10_000, "2.8 hours"), (119, "119.0 seconds"), (1_000_000, "11.6 days")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }
}
