//! InfluxDB, and other stores that accept line protocol, such as VictoriaMetrics.

mod error;

use std::sync::Arc;

use forebay_codec::{Encoder, InfluxConfig, InfluxEncoder};

use crate::diagnosis::{is_unknown_path, said};
use crate::{Blame, NodeAnswer, Store, TrialRequest, diagnose_status};
use error::InfluxError;

const WRONG_PATH: &str = "takes no line protocol at this path: that is /write?db=NAME (InfluxDB 1, VictoriaMetrics) or \
    /api/v2/write?org=ORG&bucket=BUCKET (InfluxDB 2 and later)";

/// The store behind the format `influx`.
#[derive(Debug)]
pub(super) struct InfluxDb {
    encoder: Arc<InfluxEncoder>,
}

impl InfluxDb {
    pub(super) fn new(config: InfluxConfig) -> InfluxDb {
        InfluxDb { encoder: Arc::new(InfluxEncoder::new(config)) }
    }
}

impl Store for InfluxDb {
    fn encoder(&self) -> Arc<dyn Encoder> {
        self.encoder.clone()
    }

    fn compressions(&self) -> &'static [&'static str] {
        // InfluxDB, and VictoriaMetrics too, reads a body in zstd as text, drops its lines and reports success.
        &["gzip"]
    }

    fn blame(&self, answer: &NodeAnswer<'_>) -> Option<Blame> {
        if is_unknown_path(answer) { Some(Blame::Setup) } else { InfluxError::of(answer).blame() }
    }

    fn trials(&self) -> Vec<TrialRequest> {
        // A body without lines: the store checks the database and the credentials before the body.
        vec![TrialRequest::default()]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        let error = InfluxError::of(answer);
        let advice = match answer.status {
            200..=299 => return Ok("takes line protocol".to_owned()),
            // InfluxDB 2.0 refuses a body without lines only after all other checks passed.
            400 if error.says("writing requires points") => return Ok("takes line protocol".to_owned()),
            400 if error.says("database is required") => "wants a database: add ?db=NAME to the address",
            404 if error.says("database not found") => {
                "knows no such database: create it with CREATE DATABASE NAME, or write another name after ?db= in the address"
            }
            404 if error.says("bucket ") => {
                "knows no such bucket: create it, or write another name after bucket= in the address"
            }
            404 if error.says("organization ") => {
                "knows no such organization: write another name after org= in the address"
            }
            500 if error.says("retention policy not found") => {
                "knows no such retention policy: create it, or write another name after rp= in the address"
            }
            401 => {
                "refuses the credentials, or wants some: set authorization in cluster.headers, \"Token …\" for InfluxDB 2 and \
                 later, \"Basic …\" for InfluxDB 1"
            }
            404 | 405 => WRONG_PATH,
            400 if is_unknown_path(answer) => WRONG_PATH,
            _ => return diagnose_status(answer),
        };
        Err(format!("{advice} ({}){}", answer.status, said(answer)))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn store() -> InfluxDb {
        InfluxDb::new(InfluxConfig::default())
    }

    fn answer<'a>(status: u16, body: &'a str, headers: &'a HeaderMap) -> NodeAnswer<'a> {
        NodeAnswer { status, headers, body }
    }

    #[test]
    fn errors_of_the_setup_differ_from_errors_of_the_readings() {
        let check = |status: u16, body: &str, expected: Option<Blame>| {
            let blame = store().blame(&answer(status, body, &HeaderMap::new()));
            assert_eq!(blame, expected, "{status} {body}");
        };
        let setup = Some(Blame::Setup);
        check(400, "{\"error\":\"database is required\"}\n", setup);
        check(400, "{\"error\":\"invalid precision \\\"x\\\" (use n, u, ms, s, m or h)\"}", setup);
        check(500, "{\"error\":\"retention policy not found: nope\"}", setup);
        let path = "remoteAddr: \"127.0.0.1:4\"; requestURI: /x; unsupported path requested: \"/x\"";
        check(400, path, setup);
        // The status decides.
        for readings in [
            "{\"error\":\"partial write: field type conflict: input field \\\"value\\\" … dropped=1\"}",
            "{\"error\":\"partial write: points beyond retention policy dropped=1\"}",
            "{\"error\":\"partial write: max-values-per-tag limit exceeded (1/1): … dropped=9\"}",
            "{\"error\":\"unable to parse 'database is required': missing fields\"}",
            "{\"error\":\"unable to parse 'remoteAddr: unsupported path requested': missing fields\"}",
            "{\"code\":\"invalid\",\"message\":\"unable to parse 'x': missing fields\"}",
            "",
        ] {
            check(400, readings, None);
        }
        check(404, "{\"error\":\"database not found: \\\"readings\\\"\"}", None);
        check(500, "{\"error\":\"timeout\"}", None);
    }

    #[test]
    fn the_problem_of_a_node_is_reported_with_what_to_do() {
        let check = |status: u16, body: &str, expected: Result<&str, &str>| {
            let told = store().diagnose(&answer(status, body, &HeaderMap::new()));
            match (told, expected) {
                (Ok(told), Ok(expected)) => assert_eq!(told, expected),
                (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
                (told, expected) => panic!("{told:?} instead of {expected:?}"),
            }
        };
        check(204, "", Ok("takes line protocol"));
        check(
            400,
            "{\"code\":\"invalid\",\"message\":\"writing requires points\"}",
            Ok("takes line protocol"),
        );
        check(400, "{\"error\":\"database is required\"}", Err("wants a database: add ?db=NAME"));
        let missing = "{\"error\":\"database not found: \\\"readings\\\"\"}";
        check(404, missing, Err("create it with CREATE DATABASE NAME, or write"));
        check(404, missing, Err(missing));
        let bucket = "{\"code\":\"not found\",\"message\":\"bucket \\\"b\\\" not found\"}";
        check(404, bucket, Err("knows no such bucket: create it"));
        let organization = "{\"code\":\"not found\",\"message\":\"organization name \\\"o\\\" not found\"}";
        check(404, organization, Err("after org= in"));
        check(500, "{\"error\":\"retention policy not found: nope\"}", Err("after rp="));
        check(401, "{\"error\":\"authorization failed\"}", Err("set authorization in cluster.headers"));
        check(403, "{\"error\":\"\\\"bob\\\" user is not …\"}", Err("refuses these credentials"));
        check(404, "404 page not found\n", Err("that is /write?db=NAME"));
        check(400, "remoteAddr: \"x\"; unsupported path requested: \"/x\"", Err("that is /write?db=NAME"));
        check(503, "{\"error\":\"no\"}", Err("is busy or not ready"));
    }
}
