//! Gathers readings into batches: full by count or bytes, or old enough.
//!
//! Readings are rendered as they come in, once, so that the bound in bytes is the body's own size. Time is passed
//! in; nothing here waits.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::batch::{Batch, BatchKeys};
use crate::buffer::Part;
use crate::codec::Encoder;

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Most readings in a batch, at least one.
    pub max_readings: usize,
    /// Most bytes in a batch's body before compression. A single reading that is larger goes alone.
    pub max_bytes: usize,
    /// Longest that a batch waits for more readings, from its first one on.
    pub max_age: Duration,
}

/// Gathers readings into one open batch at a time.
#[derive(Debug)]
pub struct Batcher {
    config: BatchConfig,
    encoder: &'static dyn Encoder,
    keys: BatchKeys,
    open: Open,
    /// Size of the last body, to reserve as much for the next.
    body_bytes: usize,
    /// Since when a batch has been open that was taken apart; the next one goes on from there.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Open {
    parts: Vec<Part>,
    readings: usize,
    body: Vec<u8>,
    since: Option<Instant>,
}

impl Batcher {
    /// Starts with nothing.
    pub fn new(config: BatchConfig, encoder: &'static dyn Encoder, keys: BatchKeys) -> Batcher {
        Batcher { config, encoder, keys, open: Open::default(), body_bytes: 0, since: None }
    }

    /// Adds readings from the front of `part` until all are in or the batch is full; what is left in `part` is for
    /// the next. Returns the batch if it is full.
    pub fn add(&mut self, part: &mut Part, now: Instant) -> Option<Batch> {
        let mut iter = part.iter();
        let mut end = iter.position();
        let mut full = false;
        if self.open.readings == 0 {
            self.open.body.reserve(self.body_bytes);
        }
        while !full {
            let Some(reading) = iter.next() else { break };
            let before = self.open.body.len();
            self.encoder.write(self.open.readings, reading, &mut self.open.body);
            let bytes = self.open.body.len() + self.encoder.finish_bytes();
            if bytes > self.config.max_bytes && self.open.readings > 0 {
                self.open.body.truncate(before);
                full = true;
                break;
            }
            self.open.readings += 1;
            end = iter.position();
            full = self.open.readings >= self.config.max_readings || bytes >= self.config.max_bytes;
        }
        let taken = part.split_to(end);
        if !taken.is_empty() {
            self.open.parts.push(taken);
            let since = self.since.take().unwrap_or(now);
            self.open.since.get_or_insert(since);
        }
        if full { self.close() } else { None }
    }

    /// Closes the open batch, if it has readings.
    pub fn close(&mut self) -> Option<Batch> {
        if self.open.readings == 0 {
            return None;
        }
        let Open { parts, readings, mut body, .. } = std::mem::take(&mut self.open);
        self.encoder.finish(&mut body);
        self.body_bytes = body.len();
        Some(Batch::new(parts, readings, Bytes::from(body), &mut self.keys))
    }

    /// When the open batch has waited long enough; `None` if it has no readings.
    pub fn due(&self) -> Option<Instant> {
        self.open.since.map(|since| since + self.config.max_age)
    }

    /// When the first reading of the open batch was accepted.
    pub fn oldest(&self) -> Option<Instant> {
        self.open.parts.first().map(Part::accepted_at)
    }

    /// Takes the open batch apart again. The next one is due when this one was: while the oldest readings make room
    /// for new ones all the time, a batch must still close.
    pub fn take_open(&mut self) -> Vec<Part> {
        let open = std::mem::take(&mut self.open);
        self.since = open.since.or(self.since);
        open.parts
    }

    /// Makes a batch of what is left of another one, under a key of its own but in its place, `number`.
    pub fn rebatch(&mut self, number: u64, parts: Vec<Part>) -> Batch {
        let mut body = Vec::new();
        let mut readings = 0;
        for reading in parts.iter().flat_map(Part::iter) {
            self.encoder.write(readings, reading, &mut body);
            readings += 1;
        }
        self.encoder.finish(&mut body);
        Batch { number, ..Batch::new(parts, readings, Bytes::from(body), &mut self.keys) }
    }
}
