//! Evidence for the record of rejections: the beginning of a request's body, and its rejected readings.
//!
//! The beginning of the body is a copy of at most 200 bytes on the stack; everything else is collected only after a
//! rejection. [`crate::rejections`] bounds the record of one request.

use std::net::IpAddr;
use std::time::SystemTime;

use forebay_codec::{Decoder, DeviceTags, Reason, Rejections};
use forebay_reading::clock::wall_time;

use super::error::IngestError;
use crate::rejections::{
    ENTRIES_PER_REQUEST_MAX, RejectionCount, RejectionEntry, RejectionFacts, RejectionLog, SAMPLE_BYTES_MAX,
};

/// The evidence of one request.
#[derive(Debug)]
pub(super) struct Evidence {
    beginning: [u8; SAMPLE_BYTES_MAX],
    beginning_bytes: usize,
    decoder: Option<&'static dyn Decoder>,
    faulty: Vec<FaultyReading>,
    /// Rejected readings that are not listed, by reason.
    unlisted: Vec<(Reason, u64)>,
}

/// A rejected reading.
#[derive(Debug)]
struct FaultyReading {
    device: Option<String>,
    reason: Reason,
    readings: u64,
    /// The detail and sample of an entry; only the first few readings have them.
    shown: Option<(String, Option<Vec<u8>>)>,
}

/// The origin of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender<'a> {
    /// The path of the request.
    pub(super) path: &'static str,
    /// The address of the client, if it is known.
    pub(super) address: Option<IpAddr>,
    /// The name of its key, if there are keys.
    pub(super) key: Option<&'a str>,
}

impl Default for Evidence {
    fn default() -> Evidence {
        Evidence {
            beginning: [0; SAMPLE_BYTES_MAX],
            beginning_bytes: 0,
            decoder: None,
            faulty: Vec::new(),
            unlisted: Vec::new(),
        }
    }
}

impl Evidence {
    /// Copies the beginning of a decompressed body.
    pub(super) fn see_body(&mut self, body: &[u8], decoder: &'static dyn Decoder) {
        self.beginning_bytes = body.len().min(SAMPLE_BYTES_MAX);
        self.beginning[..self.beginning_bytes].copy_from_slice(&body[..self.beginning_bytes]);
        self.decoder = Some(decoder);
    }

    /// Copies the rejected readings out of a body before it is dropped.
    pub(super) fn see_rejections(&mut self, body: &[u8], rejections: &Rejections, device_tags: &DeviceTags) {
        let Some(decoder) = self.decoder.filter(|_| rejections.count() > 0) else { return };
        let places = rejections.listed.iter().map(|rejection| rejection.index);
        let excerpts = decoder.layout().excerpts(body, places, device_tags);
        let faulty = rejections.listed.iter().zip(excerpts).enumerate();
        self.faulty = faulty
            .map(|(number, (rejection, excerpt))| {
                let shown = (number < ENTRIES_PER_REQUEST_MAX).then(|| {
                    let text = excerpt.as_ref().map(|excerpt| excerpt.text);
                    let sample = text.map(|text| text[..text.len().min(SAMPLE_BYTES_MAX + 1)].to_vec());
                    (rejection.detail.clone(), sample)
                });
                FaultyReading {
                    device: excerpt.and_then(|excerpt| excerpt.device).map(|device| device.into_owned()),
                    reason: rejection.reason,
                    readings: rejection.readings as u64,
                    shown,
                }
            })
            .collect();
        let listed = |reason| -> u64 {
            let alike = self.faulty.iter().filter(|faulty| faulty.reason == reason);
            alike.map(|faulty| faulty.readings).sum()
        };
        let unlisted =
            rejections.counts().map(|(reason, count)| (reason, count.saturating_sub(listed(reason))));
        self.unlisted = unlisted.filter(|(_, count)| *count > 0).collect();
    }

    /// Counts the good readings of a strict request, which are rejected together with a bad one.
    pub(super) fn see_strict(&mut self, readings: usize) {
        if readings > 0 {
            self.unlisted.push((Reason::Strict, readings as u64));
        }
    }

    /// Records the rejections of a request, if there were any: its readings one by one, or the request as a whole.
    pub(super) fn record(
        &self,
        sender: Sender<'_>,
        error: Option<&IngestError>,
        device_tags: &DeviceTags,
        log: &RejectionLog,
    ) {
        // If every reading was rejected, an entry for the request would only repeat theirs.
        let error = error.filter(|error| !matches!(error, IngestError::AllRejected(_)));
        if error.is_none() && self.faulty.is_empty() {
            return;
        }
        if let Some(error) = error.filter(|error| error.is_of_sender()) {
            log.count_request(error.reason());
        }
        let now = wall_time();
        let whole = error.map(|error| self.whole(sender, error, device_tags, now));
        let readings = self.faulty.iter().filter_map(|faulty| faulty.entry(sender, now));
        log.record(whole.into_iter().chain(readings).collect(), self.counts());
    }

    fn counts(&self) -> impl Iterator<Item = RejectionCount<'_>> {
        let listed = self.faulty.iter().map(|faulty| RejectionCount {
            device: faulty.device.as_deref(),
            reason: faulty.reason.name(),
            readings: faulty.readings,
        });
        let unlisted = self.unlisted.iter();
        listed.chain(unlisted.map(|(reason, readings)| RejectionCount {
            device: None,
            reason: reason.name(),
            readings: *readings,
        }))
    }

    /// The entry of a request that was refused as a whole.
    fn whole(
        &self,
        Sender { path, address, key }: Sender<'_>,
        error: &IngestError,
        device_tags: &DeviceTags,
        now: SystemTime,
    ) -> RejectionEntry {
        let beginning = &self.beginning[..self.beginning_bytes];
        let first = self.decoder.map(|decoder| decoder.layout().excerpts(beginning, [0], device_tags));
        let first = first.and_then(|excerpts| excerpts.into_iter().next().flatten());
        let (device, sample) = (first.and_then(|first| first.device), self.decoder.map(|_| beginning));
        let (reason, detail) = (error.reason(), error.to_string());
        let device = device.as_deref();
        let rejected = RejectionFacts { path, address, key, device, reason, detail: &detail, sample };
        RejectionEntry::new(rejected, now)
    }
}

impl FaultyReading {
    fn entry(&self, Sender { path, address, key }: Sender<'_>, now: SystemTime) -> Option<RejectionEntry> {
        let (detail, sample) = self.shown.as_ref()?;
        let (device, sample) = (self.device.as_deref(), sample.as_deref());
        let reason = self.reason.name();
        let rejected = RejectionFacts { path, address, key, device, reason, detail, sample };
        Some(RejectionEntry::new(rejected, now))
    }
}
