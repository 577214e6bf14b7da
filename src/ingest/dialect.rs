//! The paths that take readings and their dialects: how a request is read, and how it is answered.

use axum::response::{IntoResponse, Response};
use forebay_reading::timestamp::Precision;
use http::StatusCode;

use super::READINGS_PATH;
use super::accepted::{Acceptance, Reply};
use super::error::IngestError;
use super::influx::{self, InfluxApi};
use crate::auth::presented::InQuery;
use crate::problem::Problem;

/// Every path that takes readings by `POST`, with its dialect.
pub const PATHS: &[(&str, Dialect)] = &[
    (READINGS_PATH, Dialect::Own),
    (influx::V2_PATH, Dialect::Influx(InfluxApi::V2)),
    (influx::V1_PATH, Dialect::Influx(InfluxApi::V1)),
];

/// The form of requests and answers at a path that takes readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The gateway's own: any format that has a media type, answered with 202 or a problem.
    Own,
    /// The one of InfluxDB's clients: line protocol, answered with 204 or an error in InfluxDB's form.
    Influx(InfluxApi),
}

impl Dialect {
    /// The dialect of a path; `None` if it takes no readings.
    pub(super) fn at(path: &str) -> Option<Dialect> {
        PATHS.iter().find(|(known, _)| *known == path).map(|(_, dialect)| *dialect)
    }

    /// The only format of this dialect; `None` if the media type decides.
    pub(super) fn format(self) -> Option<&'static str> {
        match self {
            Dialect::Own => None,
            Dialect::Influx(_) => Some(influx::FORMAT),
        }
    }

    /// The units of numeric times, by their names in the query parameter `precision`.
    pub(super) fn precisions(self) -> &'static [(&'static str, Precision)] {
        match self {
            Dialect::Own => Precision::NAMES,
            Dialect::Influx(api) => api.precisions(),
        }
    }

    /// The unit of numeric times if the request does not name one.
    pub(super) fn default_precision(self) -> Precision {
        match self {
            Dialect::Own => Precision::Millis,
            Dialect::Influx(_) => Precision::Nanos,
        }
    }

    /// Whether the key of a client may stand in the query.
    pub(super) fn key_in_query(self) -> InQuery {
        match self {
            Dialect::Influx(InfluxApi::V1) => InQuery::Allowed,
            Dialect::Own | Dialect::Influx(InfluxApi::V2) => InQuery::Ignored,
        }
    }

    /// Whether unknown query parameters are ignored.
    ///
    /// On the gateway's own path they are mistakes, which could turn milliseconds into seconds. The clients of InfluxDB
    /// send parameters that mean nothing here (`db`, `org`, `bucket`, `u`, `p`, …), and InfluxDB ignores unknown ones.
    pub(super) fn passes_over_unknown(self) -> bool {
        match self {
            Dialect::Own => false,
            Dialect::Influx(_) => true,
        }
    }

    /// Whether the answer is stored for repetitions with the same `Idempotency-Key`. A partial write is not: to clients
    /// of InfluxDB it is an error, which asks for another body.
    pub(super) fn remembers(self, accepted: &Acceptance) -> bool {
        match self {
            Dialect::Own => true,
            Dialect::Influx(_) => accepted.rejected == 0,
        }
    }

    /// The answer to a request.
    pub(super) fn answer(self, outcome: Result<Reply, IngestError>) -> Response {
        match (self, outcome) {
            (Dialect::Own, Ok(reply)) => reply.into_response_by(IntoResponse::into_response),
            (Dialect::Own, Err(error)) => error.into_response(),
            (Dialect::Influx(api), Ok(reply)) => reply.into_response_by(|accepted| api.accepted(&accepted)),
            (Dialect::Influx(api), Err(error)) => api.refusal(&error),
        }
    }

    /// The answer to a request that was refused before its readings were decoded.
    pub(super) fn refuse(self, status: StatusCode, detail: &str) -> Response {
        match self {
            Dialect::Own => Problem::new(status, detail).into_response(),
            Dialect::Influx(api) => api.error(status, detail.to_owned(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_codec::DECODERS;

    #[test]
    fn every_format_has_a_media_type_or_a_path_of_its_own() {
        for (name, decoder) in DECODERS.members {
            let has_path = PATHS.iter().any(|(_, dialect)| dialect.format() == Some(name));
            assert_ne!(has_path, !decoder.media_types().is_empty(), "{name}");
        }
        for (path, dialect) in PATHS {
            assert_eq!(Dialect::at(path), Some(*dialect));
            assert!(dialect.format().is_none_or(|name| DECODERS.find(name).is_ok()), "{path}");
        }
        assert_eq!(Dialect::at("/write/"), None);
    }
}
