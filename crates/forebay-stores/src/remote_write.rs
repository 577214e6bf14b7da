//! Prometheus, and other stores that accept remote write.

use std::sync::Arc;

use forebay_codec::{Encoder, RemoteWriteEncoder};

use crate::diagnosis::{error_text, is_unknown_path, may_blame_readings, said};
use crate::{Blame, NodeAnswer, Store, TrialRequest, diagnose_status};

const WRONG_PATH: &str = "takes no remote write at this path: that is /api/v1/write (Prometheus with \
    --web.enable-remote-write-receiver, VictoriaMetrics), /api/v1/push (Mimir, Cortex) or /api/v1/receive (Thanos)";

/// The store behind the format `remote-write`.
#[derive(Debug)]
pub(super) struct Prometheus {
    encoder: Arc<RemoteWriteEncoder>,
}

impl Prometheus {
    pub(super) fn new() -> Prometheus {
        Prometheus { encoder: Arc::new(RemoteWriteEncoder::default()) }
    }
}

impl Store for Prometheus {
    fn encoder(&self) -> Arc<dyn Encoder> {
        self.encoder.clone()
    }

    fn headers(&self) -> &'static [(&'static str, &'static str)] {
        &[("x-prometheus-remote-write-version", "0.1.0")]
    }

    fn compressions(&self) -> &'static [&'static str] {
        &[]
    }

    fn blame(&self, answer: &NodeAnswer<'_>) -> Option<Blame> {
        match answer.status {
            // By the specification a sender repeats only after 429 and 5xx; Thanos answers 409 to samples that it has already.
            409 => Some(Blame::Readings),
            400 if is_unknown_path(answer) => Some(Blame::Setup),
            // The body changed on its way, or the node expects another format at this path.
            400 if is_not_understood(answer) => Some(Blame::Node),
            status if may_blame_readings(status) && blames_readings(answer) => Some(Blame::Readings),
            _ => None,
        }
    }

    fn trials(&self) -> Vec<TrialRequest> {
        let mut body = Vec::new();
        self.encoder.finish("", &mut body);
        vec![TrialRequest { body, ..TrialRequest::default() }]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        let advice = match answer.status {
            200..=299 => return Ok("takes remote write".to_owned()),
            404 if answer.body.starts_with("remote write receiver needs to be enabled") => {
                "takes no remote write: start Prometheus with --web.enable-remote-write-receiver"
            }
            404 | 405 => WRONG_PATH,
            400 if is_unknown_path(answer) => WRONG_PATH,
            400 if is_not_understood(answer) => "takes something else than remote write at this path",
            415 => "does not know remote write 1.0",
            _ => return diagnose_status(answer),
        };
        Err(format!("{advice} ({}){}", answer.status, said(answer)))
    }
}

/// Whether the store will never accept these samples. Some releases of Prometheus, and stores built on it, give such errors the
/// status 500 (`too old sample` before 2.43, a label that is there twice). Errors repeat contents of readings; only words before
/// these are examined.
fn blames_readings(answer: &NodeAnswer<'_>) -> bool {
    let text = error_text(answer.body);
    OF_READINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// Beginnings of errors that blame samples.
const OF_READINGS: [&str; 9] = [
    "out of order sample",
    "out of bounds",
    "too old sample",
    "duplicate sample for timestamp",
    "invalid sample",
    "invalid metric name",
    "invalid labels",
    "empty labelset",
    "label name \"",
];

/// Whether Prometheus refused the body as not being Snappy, or not being a `WriteRequest`.
fn is_not_understood(answer: &NodeAnswer<'_>) -> bool {
    ["snappy: ", "proto: ", "unexpected EOF"].iter().any(|beginning| answer.body.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn store() -> Prometheus {
        Prometheus::new()
    }

    fn answer<'a>(status: u16, body: &'a str, headers: &'a HeaderMap) -> NodeAnswer<'a> {
        NodeAnswer { status, headers, body }
    }

    #[test]
    fn errors_blame_the_readings_the_setup_or_the_node() {
        let check = |status: u16, body: &str, expected: Option<Blame>| {
            assert_eq!(store().blame(&answer(status, body, &HeaderMap::new())), expected, "{status} {body}");
        };
        // The status decides.
        check(400, "out of order sample\n", None);
        check(400, "duplicate sample for timestamp\n", None);
        check(400, "out of bounds\n", None);
        check(404, "remote write receiver needs to be enabled with …", None);
        check(500, "disk full", None);
        for words in [
            "too old sample",
            "out of order sample",
            "out of order sample for series {__name__=\"s\"}",
            "out of bounds",
            "duplicate sample for timestamp; overrides not allowed: existing 1, new value 2",
            "label name \"x\" is not unique: invalid sample",
            "invalid metric name or labels, got {__name__=\"\"}",
        ] {
            for status in [403, 404, 500, 502] {
                check(status, &format!("{words}\n"), Some(Blame::Readings));
                check(
                    status,
                    &format!("{{\"status\":\"error\",\"error\":{words:?}}}"),
                    Some(Blame::Readings),
                );
            }
            for status in [401, 408, 413, 429, 503] {
                check(status, words, None);
            }
        }
        // The contents of readings come after the words of the store.
        check(500, "write failed: {x=\"out of order sample\"}", None);
        check(409, "store locally: conflict", Some(Blame::Readings));
        check(400, "snappy: corrupt input\n", Some(Blame::Node));
        check(400, "proto: illegal wireType 7\n", Some(Blame::Node));
        let path = "remoteAddr: \"127.0.0.1:4\"; requestURI: /x; unsupported path requested: \"/x\"";
        check(400, path, Some(Blame::Setup));
        check(400, "label value \"unsupported path requested\" …", None);
    }

    #[test]
    fn the_problem_of_a_node_is_reported_with_what_to_do() {
        let check = |status: u16, body: &str, expected: Result<&str, &str>| match (
            store().diagnose(&answer(status, body, &HeaderMap::new())),
            expected,
        ) {
            (Ok(told), Ok(expected)) => assert_eq!(told, expected),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
            (told, expected) => panic!("{told:?} instead of {expected:?}"),
        };
        check(204, "", Ok("takes remote write"));
        check(
            404,
            "remote write receiver needs to be enabled with …\n",
            Err("start Prometheus with --web.enable-remote"),
        );
        check(404, "404 page not found\n", Err("that is /api/v1/write (Prometheus with"));
        check(405, "", Err("that is /api/v1/write"));
        check(400, "remoteAddr: \"x\"; unsupported path requested: \"/x\"", Err("that is /api/v1/write"));
        check(400, "proto: illegal wireType 7", Err("something else than remote write"));
        check(400, "out of order sample", Err("(400); it says: out of order sample"));
        check(401, "", Err("see cluster.headers"));
        check(403, "", Err("see cluster.headers"));
        check(415, "", Err("does not know remote write 1.0"));
        check(503, "starting\n", Err("it says: starting"));
    }

    #[test]
    fn the_trial_is_a_request_without_series() {
        let trials = store().trials();
        let [trial] = &trials[..] else { panic!("one trial: {trials:?}") };
        let request = snap::raw::Decoder::new().decompress_vec(&trial.body).expect("Snappy");
        assert_eq!((request, &trial.query), (Vec::new(), &None), "no bytes are a request without members");
    }
}
