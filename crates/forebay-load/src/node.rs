//! Reading back what an embedded node holds.
//!
//! A node is asked for one device and one span of time, a page at a time, oldest first. Whether a node takes
//! the ends of the span as part of it does not matter: it is asked for a little more, and what lies outside is
//! passed over. A page that is full may cut off readings of its last instant, so the next page begins there.

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
use crate::source::Window;

/// Most readings that a node is asked for at a time.
pub(super) const PAGE_READINGS: usize = 10_000;
/// Longest line of an answer, in bytes; no reading is longer.
const LINE_BYTES_MAX: usize = 1 << 20;
/// How often a node is asked for a page before the audit is given up.
const TRIES: u32 = 3;
/// Pause before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Asks nodes for what they hold.
#[derive(Debug)]
pub(super) struct NodeReader {
    pub(super) client: Client,
    /// Most readings that a node is asked for at a time.
    pub(super) page: usize,
}

/// What the nodes hold of a window.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// How often each wanted reading is there. Of readings with the same sensor and time only the first counts.
    pub(super) counts: Vec<u32>,
    /// Readings that are not wanted.
    pub(super) strangers: u64,
}

/// Why a node's readings could not be read.
#[derive(Debug, Error)]
pub(super) enum NodeError {
    /// No answer, or a wrong one.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A line that is no reading.
    #[error("{url}: a line of the answer is no reading: {source}")]
    Line {
        /// The address.
        url: String,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A reading whose time is none.
    #[error("{url}: a reading of the answer has no time: {source}")]
    Time {
        /// The address.
        url: String,
        /// What is wrong with it.
        source: TimeError,
    },
    /// Not what was asked for.
    #[error("{url}: the answer is not what was asked for: {what}")]
    Unfit {
        /// The address.
        url: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Finds the wanted reading that a sensor and a time belong to.
#[derive(Debug)]
struct Lookup<'a> {
    sensors: HashMap<&'a str, usize>,
    wanted: HashMap<(usize, Timestamp), usize>,
}

/// One reading of an answer.
#[derive(Debug)]
struct Hit {
    time: Timestamp,
    /// Which of the wanted readings it is, if one.
    wanted: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    sensor: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Cuts what arrives into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl NodeReader {
    /// Counts a window's readings over all `nodes` together.
    ///
    /// # Errors
    ///
    /// [`NodeError`] if a node did not answer as it should, several times over.
    pub(super) async fn count(&self, nodes: &[Url], window: &Window) -> Result<Found, NodeError> {
        let lookup = Lookup::new(window);
        let mut found = Found { counts: vec![0; window.wanted.len()], strangers: 0 };
        for node in nodes {
            self.count_node(node, window, &lookup, &mut found).await?;
        }
        Ok(found)
    }

    async fn count_node(
        &self,
        node: &Url,
        window: &Window,
        lookup: &Lookup<'_>,
        found: &mut Found,
    ) -> Result<(), NodeError> {
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
                return Err(NodeError::Unfit { url: node.to_string(), what });
            }
            from = Some(cut);
        }
    }

    fn page_url(&self, node: &Url, window: &Window, from: Option<Timestamp>) -> Url {
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
        lookup: &Lookup<'_>,
    ) -> Result<Vec<Hit>, NodeError> {
        let mut tries = 1;
        loop {
            match self.page(url, device, lookup).await {
                Err(NodeError::Http(_)) if tries < TRIES => tokio::time::sleep(RETRY_PAUSE * tries).await,
                result => return result,
            }
            tries += 1;
        }
    }

    /// Reads one answer, line by line.
    async fn page(&self, url: &Url, device: &str, lookup: &Lookup<'_>) -> Result<Vec<Hit>, NodeError> {
        let exchange = |source| HttpError::Exchange { url: url.to_string(), source };
        let mut response = self.client.get(url.clone()).send().await.map_err(exchange)?;
        if response.status() != StatusCode::OK {
            return Err(HttpError::Status { url: url.to_string(), status: response.status() }.into());
        }
        let mut hits: Vec<Hit> = Vec::new();
        let mut lines = Lines::default();
        let unfit = |what| NodeError::Unfit { url: url.to_string(), what };
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

/// For each wanted reading, the first one with the same sensor and time.
pub(super) fn same(window: &Window) -> Vec<usize> {
    let lookup = Lookup::new(window);
    let first = |wanted: &super::source::Wanted| lookup.find(&wanted.sensor, wanted.time);
    window.wanted.iter().enumerate().map(|(at, wanted)| first(wanted).unwrap_or(at)).collect()
}

fn hit(line: &[u8], url: &Url, device: &str, lookup: &Lookup<'_>) -> Result<Hit, NodeError> {
    let parsed = serde_json::from_slice(line);
    let line: Line<'_> = parsed.map_err(|source| NodeError::Line { url: url.to_string(), source })?;
    if line.device != device {
        return Err(NodeError::Unfit { url: url.to_string(), what: "a reading of another device" });
    }
    let time = Timestamp::parse(&line.time);
    let time = time.map_err(|source| NodeError::Time { url: url.to_string(), source })?;
    Ok(Hit { time, wanted: lookup.find(&line.sensor, time) })
}

/// Whether `time` is at `from` or later.
fn not_before(from: Option<Timestamp>, time: Timestamp) -> bool {
    from.is_none_or(|from| from <= time)
}

impl Window {
    fn holds(&self, time: Timestamp) -> bool {
        not_before(self.from, time) && self.to.is_none_or(|to| time < to)
    }
}

impl Found {
    fn add(&mut self, hit: &Hit) {
        match hit.wanted {
            Some(at) => self.counts[at] = self.counts[at].saturating_add(1),
            None => self.strangers += 1,
        }
    }
}

impl<'a> Lookup<'a> {
    fn new(window: &'a Window) -> Lookup<'a> {
        let mut lookup =
            Lookup { sensors: HashMap::new(), wanted: HashMap::with_capacity(window.wanted.len()) };
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

impl Lines {
    /// Calls `take` for each line that `part` completes; blank lines are passed over.
    fn push<E>(&mut self, mut part: &[u8], take: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        while let Some(end) = part.iter().position(|byte| *byte == b'\n') {
            self.rest.extend_from_slice(&part[..end]);
            part = &part[end + 1..];
            self.finish(take)?;
        }
        self.rest.extend_from_slice(part);
        Ok(())
    }

    /// Calls `take` for what is left.
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
            let (mut lines, mut rest) = (Lines::default(), text.as_bytes());
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
