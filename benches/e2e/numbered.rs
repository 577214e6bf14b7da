//! Requests that carry a number, so that a node can tell in which order they came.

use std::ops::Range;

use crate::sample;

/// The first number; all have as many digits.
const FIRST: u64 = 1_000_000_000;
const DIGITS: usize = 10;
/// The bytes before a number, in requests and in batches.
const BEFORE: &str = "{\"device\":\"numbers\",\"sensor\":\"request\",\"value\":";
/// Different requests that are sent in turn.
const BODIES: u64 = 16;
/// Readings in a request, with the number.
pub(crate) const READINGS: u64 = 100;

/// Requests of [`READINGS`] readings, whose first one is a number.
pub(crate) struct Requests {
    /// Ready to be written to a socket, but for the number.
    bodies: Vec<(Vec<u8>, Range<usize>)>,
}

impl Requests {
    /// Renders them.
    pub(crate) fn render() -> Requests {
        Requests { bodies: (0..BODIES).map(render).collect() }
    }

    /// The request with this number.
    pub(crate) fn get(&mut self, number: u64) -> &[u8] {
        let index = (number % BODIES) as usize;
        let (request, digits) = &mut self.bodies[index];
        request[digits.clone()].copy_from_slice((FIRST + number).to_string().as_bytes());
        request
    }
}

fn render(index: u64) -> (Vec<u8>, Range<usize>) {
    let others = READINGS - 1;
    let time = "2007-02-01T00:00:00Z";
    let first = format!("[{BEFORE}{FIRST},\"time\":\"{time}\"}},");
    let body = sample::body(index * others..(index + 1) * others, [&first, ",", "]"]);
    let head = format!(
        "POST /v1/readings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let start = head.len() + 1 + BEFORE.len();
    ((head + &body).into_bytes(), start..start + DIGITS)
}

/// The numbers in a batch, in their order.
pub(crate) fn numbers_in(body: &[u8]) -> impl Iterator<Item = u64> + '_ {
    memchr::memmem::find_iter(body, BEFORE).filter_map(|at| {
        let digits = body.get(at + BEFORE.len()..)?.get(..DIGITS)?;
        std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_sub(FIRST)
    })
}
