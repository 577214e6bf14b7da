//! Reads back the readings of an embedded node.
//!
//! A request names one device and one span of time, and the answer is a page, oldest first. Whether a node counts
//! the ends of the span as part of it does not matter: the request names a slightly longer span, and readings
//! outside are skipped. A full page may cut off readings of its last instant, so the next page begins there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use forebay_reading::timestamp::{TimeError, Timestamp};
use http::StatusCode;
use reqwest::Client;
use serde::Deserialize;
use thiserror::Error;
use url::Url;

use crate::client::join;
use crate::http::HttpError;
use crate::source::{AuditWindow, ExpectedReading};

/// Most readings of a page.
pub(super) const PAGE_READINGS: usize = 10_000;
/// Longest line of an answer, in bytes; a reading is always shorter.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Tries for a page before the audit is given up.
const TRIES: u32 = 3;
/// Pause before the second try; longer before each further one.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Asks nodes for their readings.
#[derive(Debug)]
pub(super) struct NodeReader {
    pub(super) client: Client,
    /// Most readings of a page.
    pub(super) page: usize,
}

/// The readings on the nodes that lie in a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WindowCounts {
    /// Copies of each expected reading. Those of readings with the same sensor and time count for the first of them.
    pub(super) counts: Vec<u32>,
    /// Readings that the window does not expect.
    pub(super) strangers: u64,
}

/// A node's readings could not be read.
#[derive(Debug, Error)]
pub(super) enum NodeReadError {
    /// A request failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A line is not a reading.
    #[error("{url}: a line of the answer is no reading: {source}")]
    Line {
        /// The address.
        url: String,
        /// The error of the parser.
        source: serde_json::Error,
    },
    /// The time of a reading is malformed.
    #[error("{url}: a reading of the answer has no time: {source}")]
    Time {
        /// The address.
        url: String,
        /// The fault of the time.
        source: TimeError,
    },
    /// The answer does not fit the request.
    #[error("{url}: the answer is not what was asked for: {what}")]
    Unfit {
        /// The address.
        url: String,
        /// The misfit.
        what: &'static str,
    },
}

/// Finds expected readings by sensor and time.
#[derive(Debug)]
struct ReadingLookup<'a> {
    sensors: HashMap<&'a str, usize>,
    wanted: HashMap<(usize, Timestamp), usize>,
}

/// One reading of an answer.
#[derive(Debug)]
struct Hit {
    time: Timestamp,
    /// The expected reading that it is a copy of, if any.
    wanted: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct ReadingLine<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    sensor: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Cuts the parts of a body into lines.
#[derive(Debug, Default)]
struct LineSplitter {
    rest: Vec<u8>,
}

impl NodeReader {
    /// Counts a window's readings over all `nodes` together.
    ///
    /// # Errors
    ///
    /// [`NodeReadError`] if a node's answer was wrong, or if no try brought one.
    pub(super) async fn count(
        &self,
        nodes: &[Url],
        window: &AuditWindow,
    ) -> Result<WindowCounts, NodeReadError> {
        let lookup = ReadingLookup::new(window);
        let mut found = WindowCounts { counts: vec![0; window.wanted.len()], strangers: 0 };
        for node in nodes {
            self.count_node(node, window, &lookup, &mut found).await?;
        }
        Ok(found)
    }

    async fn count_node(
        &self,
        node: &Url,
        window: &AuditWindow,
        lookup: &ReadingLookup<'_>,
        found: &mut WindowCounts,
    ) -> Result<(), NodeReadError> {
        let mut from = window.from;
        loop {
            let page =
                self.page_patiently(&self.page_url(node, window, from), &window.device, lookup).await?;
            // A page that is not full is the last.
            let cut = page.last().filter(|_| page.len() >= self.page).map(|last| last.time);
            let counts = |hit: &&Hit| {
                window.holds(hit.time) && not_before(from, hit.time) && cut.is_none_or(|cut| hit.time < cut)
            };
            page.iter().filter(counts).for_each(|hit| found.add(hit));
            let Some(cut) = cut else { return Ok(()) };
            if from.is_some_and(|from| cut <= from) {
                let what = "more readings at one instant than fit an answer";
                return Err(NodeReadError::Unfit { url: node.to_string(), what });
            }
            from = Some(cut);
        }
    }

    fn page_url(&self, node: &Url, window: &AuditWindow, from: Option<Timestamp>) -> Url {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("device", &window.device);
        if let Some(from) = from {
            query.append_pair("from", &from.saturating_add_nanos(-1).to_string());
        }
        if let Some(to) = window.to {
            query.append_pair("to", &to.to_string());
        }
        query.append_pair("limit", &self.page.to_string());
        let mut url = join(node, "/v1/readings");
        url.set_query(Some(&query.finish()));
        url
    }

    async fn page_patiently(
        &self,
        url: &Url,
        device: &str,
        lookup: &ReadingLookup<'_>,
    ) -> Result<Vec<Hit>, NodeReadError> {
        let mut tries = 1;
        loop {
            match self.page(url, device, lookup).await {
                Err(NodeReadError::Http(_)) if tries < TRIES => tokio::time::sleep(RETRY_PAUSE * tries).await,
                result => return result,
            }
            tries += 1;
        }
    }

    /// Reads one answer, line by line.
    async fn page(
        &self,
        url: &Url,
        device: &str,
        lookup: &ReadingLookup<'_>,
    ) -> Result<Vec<Hit>, NodeReadError> {
        let exchange = |source| HttpError::Exchange { url: url.to_string(), source };
        let mut response = self.client.get(url.clone()).send().await.map_err(exchange)?;
        if response.status() != StatusCode::OK {
            return Err(HttpError::Status { url: url.to_string(), status: response.status() }.into());
        }
        let mut hits: Vec<Hit> = Vec::new();
        let mut lines = LineSplitter::default();
        let unfit = |what| NodeReadError::Unfit { url: url.to_string(), what };
        let mut take = |line: &[u8]| {
            let hit = hit(line, url, device, lookup)?;
            if hits.last().is_some_and(|last| last.time > hit.time) {
                return Err(unfit("the readings are not in the order of time"));
            }
            if hits.len() == self.page {
                return Err(unfit("there are more readings than the limit allows"));
            }
            hits.push(hit);
            Ok(())
        };
        while let Some(part) = response.chunk().await.map_err(exchange)? {
            lines.push(&part, &mut take)?;
            if lines.rest.len() > LINE_BYTES_MAX {
                return Err(unfit("a line is too long"));
            }
        }
        lines.finish(&mut take)?;
        Ok(hits)
    }
}

/// The first reading with the same sensor and time, for each expected reading.
pub(super) fn same(window: &AuditWindow) -> Vec<usize> {
    let lookup = ReadingLookup::new(window);
    let first = |wanted: &ExpectedReading| lookup.find(&wanted.sensor, wanted.time);
    window.wanted.iter().enumerate().map(|(at, wanted)| first(wanted).unwrap_or(at)).collect()
}

fn hit(line: &[u8], url: &Url, device: &str, lookup: &ReadingLookup<'_>) -> Result<Hit, NodeReadError> {
    let parsed = serde_json::from_slice(line);
    let line: ReadingLine<'_> =
        parsed.map_err(|source| NodeReadError::Line { url: url.to_string(), source })?;
    if line.device != device {
        return Err(NodeReadError::Unfit { url: url.to_string(), what: "a reading of another device" });
    }
    let time = Timestamp::parse(&line.time);
    let time = time.map_err(|source| NodeReadError::Time { url: url.to_string(), source })?;
    Ok(Hit { time, wanted: lookup.find(&line.sensor, time) })
}

/// Whether `time` is at `from` or later.
fn not_before(from: Option<Timestamp>, time: Timestamp) -> bool {
    from.is_none_or(|from| from <= time)
}

impl AuditWindow {
    fn holds(&self, time: Timestamp) -> bool {
        not_before(self.from, time) && self.to.is_none_or(|to| time < to)
    }
}

impl WindowCounts {
    fn add(&mut self, hit: &Hit) {
        match hit.wanted {
            Some(at) => self.counts[at] = self.counts[at].saturating_add(1),
            None => self.strangers += 1,
        }
    }
}

impl<'a> ReadingLookup<'a> {
    fn new(window: &'a AuditWindow) -> ReadingLookup<'a> {
        let mut lookup =
            ReadingLookup { sensors: HashMap::new(), wanted: HashMap::with_capacity(window.wanted.len()) };
        for (at, wanted) in window.wanted.iter().enumerate() {
            let next = lookup.sensors.len();
            let sensor = *lookup.sensors.entry(&wanted.sensor).or_insert(next);
            lookup.wanted.entry((sensor, wanted.time)).or_insert(at);
        }
        lookup
    }

    fn find(&self, sensor: &str, time: Timestamp) -> Option<usize> {
        let sensor = *self.sensors.get(sensor)?;
        self.wanted.get(&(sensor, time)).copied()
    }
}

impl LineSplitter {
    /// Calls `take` for each line that `part` completes; blank lines are skipped.
    fn push<E>(&mut self, mut part: &[u8], take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while let Some(end) = part.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&part[..end]);
            part = &part[end + 1..];
            self.finish(take)?;
        }
        self.rest.extend_from_slice(part);
        Ok(())
    }

    /// Calls `take` for the unfinished last line.
    fn finish<E>(&mut self, take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let result = if self.rest.trim_ascii().is_empty() { Ok(()) } else { take(&self.rest) };
        self.rest.clear();
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_arrive(text in "[ab\n ]{0,40}", cuts in prop::collection::vec(1..9_usize, 1..20)) {
            let expected: Vec<String> =
                text.lines().filter(|line| !line.trim_matches(' ').is_empty()).map(str::to_owned).collect();
            let mut got = Vec::new();
            let mut take = |line: &[u8]| {
                got.push(String::from_utf8_lossy(line).into_owned());
                Ok::<(), ()>(())
            };
            let (mut lines, mut rest) = (LineSplitter::default(), text.as_bytes());
            for cut in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                lines.push(part, &mut take).expect("it takes");
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            lines.finish(&mut take).expect("it takes");
            prop_assert_eq!(got, expected);
        }
    }
}
