//! Readings that are all unlike each other, so that a few sums tell whether each of them arrived once.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The first number; all have as many digits.
const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
/// The bytes before a number, in requests and in batches.
const BEFORE: &[u8] = b"\"value\":";
const DEVICES: u64 = 977;
/// Readings in a request.
pub(crate) const READINGS: u64 = 100;

/// An array of [`READINGS`] readings, each with a number for a value, and none with a time.
pub(crate) struct Request {
    /// Ready to be written to a socket, but for the numbers.
    bytes: Vec<u8>,
    /// Where the numbers stand.
    places: Vec<Range<usize>>,
}

/// A digest of the readings that arrived: two sets of numbers that differ practically never have the same.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Fingerprint {
    /// How many.
    pub(crate) readings: u64,
    /// The sum of their numbers, each mixed beforehand: a missing one is not made up for by others that came twice.
    sum: u64,
}

impl Request {
    /// Renders it.
    pub(crate) fn render() -> Request {
        let reading = |index: u64| {
            let device = index * 7919 % DEVICES;
            format!(
                "{{\"device\":\"meter-{device:05}\",\"sensor\":\"voltage\",\"value\":{FIRST},\"unit\":\"V\"}}"
            )
        };
        let body = format!("[{}]", (0..READINGS).map(reading).collect::<Vec<_>>().join(","));
        let head = format!(
            "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let bytes = (head + &body).into_bytes();
        let places = places(&bytes).collect();
        Request { bytes, places }
    }

    /// The `index`-th request: its readings have the numbers from `index` times [`READINGS`] on.
    pub(crate) fn with_numbers(&mut self, index: u64) -> &[u8] {
        for (place, number) in self.places.iter().zip(index * READINGS..) {
            let mut rest = FIRST + number;
            for digit in self.bytes[place.clone()].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        &self.bytes
    }
}

impl Fingerprint {
    /// Of these numbers.
    pub(crate) fn of(numbers: impl Iterator<Item = u64>) -> Fingerprint {
        numbers.fold(Fingerprint::default(), |all, number| {
            all.and(Fingerprint { readings: 1, sum: mix(number) })
        })
    }

    /// Of the readings of both.
    pub(crate) fn and(self, other: Fingerprint) -> Fingerprint {
        Fingerprint { readings: self.readings + other.readings, sum: self.sum.wrapping_add(other.sum) }
    }
}

/// The numbers in a batch.
pub(crate) fn numbers_in(batch: &[u8]) -> impl Iterator<Item = u64> + '_ {
    places(batch).filter_map(|place| {
        let digits = std::str::from_utf8(batch.get(place)?).ok()?;
        digits.parse::<u64>().ok()?.checked_sub(FIRST)
    })
}

fn places(text: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    memchr::memmem::find_iter(text, BEFORE).map(|at| at + BEFORE.len()..at + BEFORE.len() + DIGITS)
}

/// Spreads a number over 64 bits (the last steps of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
