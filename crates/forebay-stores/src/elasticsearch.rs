//! Elasticsearch and OpenSearch, which answer a bulk request for each of its documents.

mod answer;

use std::sync::Arc;

use forebay_codec::{ElasticsearchConfig, ElasticsearchEncoder, Encoder};

use crate::diagnosis::said;
use crate::{Blame, FailedItem, NodeAnswer, Store, TrialRequest, diagnose_status};

/// The store behind the format `elasticsearch`.
#[derive(Debug)]
pub(super) struct Elasticsearch {
    encoder: Arc<ElasticsearchEncoder>,
}

impl Elasticsearch {
    pub(super) fn new(config: &ElasticsearchConfig) -> Elasticsearch {
        Elasticsearch { encoder: Arc::new(ElasticsearchEncoder::new(config)) }
    }
}

impl Store for Elasticsearch {
    fn encoder(&self) -> Arc<dyn Encoder> {
        self.encoder.clone()
    }

    /// Elasticsearch does not know zstd, and would refuse such a body as if the readings were bad.
    fn compressions(&self) -> &'static [&'static str] {
        &["gzip"]
    }

    fn item_answer_bytes_max(&self, readings: usize) -> Option<usize> {
        Some(answer::bytes_max(readings))
    }

    fn failed_items(&self, body: &[u8], readings: usize) -> Result<Vec<FailedItem>, String> {
        answer::failed_items(body, readings)
    }

    fn blame(&self, answer: &NodeAnswer<'_>) -> Option<Blame> {
        answer::blame(answer)
    }

    /// A bulk request without actions, which is refused where bulk requests are taken.
    fn trials(&self) -> Vec<TrialRequest> {
        vec![TrialRequest { body: b"\n".to_vec(), ..TrialRequest::default() }]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        let is_empty = ["no requests added", "request body is required"];
        let takes_bulk = match answer.status {
            400 => is_empty.iter().any(|words| answer.body.contains(words)),
            200..=299 => answer.body.contains("\"errors\""),
            _ => false,
        };
        match answer.status {
            _ if takes_bulk => {
                Ok("takes bulk requests; whether the index takes readings shows the first batch".to_owned())
            }
            200..=299 | 400 | 404 | 405 => Err(format!(
                "takes no bulk requests at this path ({}): the address must end in /_bulk, such as \
                 http://127.0.0.1:9200/_bulk{}",
                answer.status,
                said(answer)
            )),
            _ => diagnose_status(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bulk_request_is_refused_where_bulk_requests_are_taken() {
        let check = |status: u16, body: &str, expected: Result<&str, &str>| {
            let store = Elasticsearch::new(&ElasticsearchConfig::default());
            assert_eq!(store.trials(), [TrialRequest { body: b"\n".to_vec(), ..TrialRequest::default() }]);
            let told = store.diagnose(&NodeAnswer { status, headers: &http::HeaderMap::new(), body });
            let ((Ok(told), Ok(expected)) | (Err(told), Err(expected))) = (&told, expected) else {
                panic!("{told:?} is not {expected:?}")
            };
            assert!(told.contains(expected), "{told}");
        };
        let takes = Ok("takes bulk requests; whether the index takes readings shows the first batch");
        check(
            400,
            r#"{"error":{"root_cause":[{"type":"action_request_validation_exception","reason":"Validation Failed: 1: no requests added;"}]},"status":400}"#,
            takes,
        );
        check(
            400,
            r#"{"error":{"root_cause":[{"type":"parse_exception","reason":"request body is required"}]}}"#,
            takes,
        );
        check(200, r#"{"took":0,"errors":false,"items":[]}"#, takes);
        check(200, r#"{"acknowledged":true}"#, Err("the address must end in /_bulk"));
        check(
            400,
            r#"{"error":"no handler found for uri [/x] and method [POST]"}"#,
            Err("(400): the address must end in /_bulk"),
        );
        check(405, "Incorrect HTTP method for uri [/]", Err("(405): the address must end in /_bulk"));
        check(401, "security_exception", Err("see cluster.headers (401); it says: security_exception"));
        check(503, "", Err("is busy or not ready"));
    }
}
