//! The parameters of `GET /v1/readings` and `GET /v1/count`.

use axum::http::StatusCode;
use forebay_reading::timestamp::{Precision, Timestamp};

use super::reader::ReadingFilter;
use super::refusal::NodeRefusal;

/// The parameters of a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) filter: ReadingFilter,
    /// Most readings in the answer.
    pub(super) limit: Option<u64>,
    /// Only that many of the newest readings, the newest first.
    pub(super) latest: Option<u64>,
}

/// The largest `latest`.
const LATEST_MAX: u64 = 10_000;

/// Reads the parameters. `known` lists those of the route, out of `device`, `sensor`, `from`, `to`, `limit` and
/// `latest`.
pub(super) fn parse(text: &str, known: &[&str]) -> Result<Query, NodeRefusal> {
    let mut query = Query::default();
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let (name, value) = (name.as_ref(), value.as_ref());
        if !known.contains(&name) {
            return Err(bad(format!("there is no parameter `{name}`; known: {}", known.join(", "))));
        }
        let set_before = match name {
            "device" => query.filter.device.replace(value.to_owned()).is_some(),
            "sensor" => query.filter.sensor.replace(value.to_owned()).is_some(),
            "from" => query.filter.from.replace(time(name, value)?).is_some(),
            "to" => query.filter.to.replace(time(name, value)?).is_some(),
            "latest" => query.latest.replace(latest(value)?).is_some(),
            _ => query.limit.replace(limit(value)?).is_some(),
        };
        if set_before {
            return Err(bad(format!("the parameter `{name}` is there twice")));
        }
    }
    if query.limit.is_some() && query.latest.is_some() {
        return Err(bad("`limit` and `latest` cannot stand beside each other, leave one out".to_owned()));
    }
    Ok(query)
}

fn latest(text: &str) -> Result<u64, NodeRefusal> {
    let latest = text.parse().ok().filter(|latest| (1..=LATEST_MAX).contains(latest));
    latest.ok_or_else(|| bad(format!("`latest` must be a whole number from 1 to {LATEST_MAX}, got `{text}`")))
}

fn time(name: &str, text: &str) -> Result<Timestamp, NodeRefusal> {
    let parsed = match text.parse() {
        Ok(millis) => Timestamp::from_integer(millis, Precision::Millis),
        // An unescaped `+` arrives as a space; behind the seconds it can only be the sign of the offset.
        Err(_) if text.rfind(' ') > Some(10) => Timestamp::parse(&text.replace(' ', "+")),
        Err(_) => Timestamp::parse(text),
    };
    parsed.map_err(|error| {
        bad(format!("`{name}` must be RFC 3339 or milliseconds since the Unix epoch: {error}"))
    })
}

fn limit(text: &str) -> Result<u64, NodeRefusal> {
    text.parse().map_err(|_| bad(format!("`limit` must be a whole number, got `{text}`")))
}

fn bad(detail: String) -> NodeRefusal {
    NodeRefusal::new(StatusCode::BAD_REQUEST, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["device", "sensor", "from", "to", "limit", "latest"];

    #[test]
    fn every_parameter_is_read() {
        let query = parse("device=m%207&sensor=%C3%A9&from=1500&to=1970-01-01T00:00:02Z&limit=3", KNOWN);
        let filter = ReadingFilter {
            device: Some("m 7".into()),
            sensor: Some("é".into()),
            from: Timestamp::from_nanos(1_500_000_000),
            to: Timestamp::from_nanos(2_000_000_000),
        };
        assert_eq!(query.expect("good"), Query { filter, limit: Some(3), latest: None });
        assert_eq!(parse("latest=10000", KNOWN).expect("good").latest, Some(10_000));
        assert_eq!(parse("", KNOWN).expect("good"), Query::default());
    }

    #[test]
    fn the_plus_of_an_offset_need_not_be_escaped() {
        for text in ["from=1970-01-01T01:00:00+01:00", "from=1970-01-01T01:00:00%2B01:00"] {
            assert_eq!(parse(text, KNOWN).expect(text).filter.from, Some(Timestamp::MIN), "{text}");
        }
    }

    #[test]
    fn an_invalid_parameter_is_refused_with_its_reason() {
        for (text, expected) in [
            ("devise=1", "there is no parameter `devise`; known: device, sensor, from, to, limit, latest"),
            ("device=1&device=2", "the parameter `device` is there twice"),
            ("latest=0", "`latest` must be a whole number from 1 to 10000, got `0`"),
            ("latest=10001", "`latest` must be a whole number from 1 to 10000, got `10001`"),
            ("latest=all", "`latest` must be a whole number from 1 to 10000, got `all`"),
            ("latest=1&latest=2", "the parameter `latest` is there twice"),
            ("latest=1&limit=2", "`limit` and `latest` cannot stand beside each other, leave one out"),
            ("limit=-1", "`limit` must be a whole number, got `-1`"),
            ("to=-5", "`to` must be RFC 3339 or milliseconds since the Unix epoch: time must be from"),
            ("from=soon", "`from` must be RFC 3339 or milliseconds since the Unix epoch: time must be an"),
        ] {
            let refusal = format!("{:?}", parse(text, KNOWN).expect_err(text));
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}
