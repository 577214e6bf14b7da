//! The paths that take readings, and what sets them apart: how a request's content is read, how it is answered.

use axum::response::{IntoResponse, Response};
use forebay_reading::timestamp::Precision;
use http::StatusCode;

use super::READINGS_PATH;
use super::accepted::{Accepted, Taken};
use super::error::IngestError;
use super::influx::{self, InfluxApi};
use crate::problem::Problem;

/// Every path that takes readings by `POST`, and how it is spoken there.
pub const PATHS: &[(&str, Dialect)] = &[
    (READINGS_PATH, Dialect::Own),
    (influx::V2_PATH, Dialect::Influx(InfluxApi::V2)),
    (influx::V1_PATH, Dialect::Influx(InfluxApi::V1)),
];

/// How a path that takes readings is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// As this gateway's own clients do: any format that has a media type, answered with 202 or a problem.
    Own,
    /// As the clients of InfluxDB do: line protocol, answered with 204 or an error as they know it.
    Influx(InfluxApi),
}

impl Dialect {
    /// The dialect of a path; `None` if it takes no readings.
    pub(super) fn at(path: &str) -> Option<Dialect> {
        PATHS.iter().find(|(known, _)| *known == path).map(|(_, dialect)| *dialect)
    }

    /// The one format that is taken here; `None` if the media type says which it is.
    pub(super) fn format(self) -> Option<&'static str> {
        match self {
            Dialect::Own => None,
            Dialect::Influx(_) => Some(influx::FORMAT),
        }
    }

    /// The units of times that are numbers, by their names in the query parameter `precision`.
    pub(super) fn precisions(self) -> &'static [(&'static str, Precision)] {
        match self {
            Dialect::Own => Precision::NAMES,
            Dialect::Influx(api) => api.precisions(),
        }
    }

    /// The unit of times that are numbers, if the request does not say.
    pub(super) fn default_precision(self) -> Precision {
        match self {
            Dialect::Own => Precision::Millis,
            Dialect::Influx(_) => Precision::Nanos,
        }
    }

    /// Whether a query parameter that nobody knows is passed over.
    ///
    /// On our own path it is a mistake, which could make seconds of milliseconds. The clients of InfluxDB send what
    /// means nothing here (`db`, `org`, `bucket`, `u`, `p`, …), and InfluxDB passes over what it does not know.
    pub(super) fn passes_over_unknown(self) -> bool {
        match self {
            Dialect::Own => false,
            Dialect::Influx(_) => true,
        }
    }

    /// Whether the answer is given again to the same `Idempotency-Key`: a partial write is none that a client may rely
    /// on, it is an error that asks for another body.
    pub(super) fn remembers(self, accepted: &Accepted) -> bool {
        match self {
            Dialect::Own => true,
            Dialect::Influx(_) => accepted.rejected == 0,
        }
    }

    /// The answer to a request.
    pub(super) fn answer(self, outcome: Result<Taken, IngestError>) -> Response {
        match (self, outcome) {
            (Dialect::Own, Ok(taken)) => taken.told_by(IntoResponse::into_response),
            (Dialect::Own, Err(error)) => error.into_response(),
            (Dialect::Influx(api), Ok(taken)) => taken.told_by(|accepted| api.taken(&accepted)),
            (Dialect::Influx(api), Err(error)) => api.refused(&error),
        }
    }

    /// The answer to a request that did not come as far as the readings.
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
    fn every_format_is_taken_by_its_media_type_or_at_a_path_of_its_own() {
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
