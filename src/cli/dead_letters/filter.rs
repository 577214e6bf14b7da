//! The selection of dead letters by reason, device, sensor and time.

use clap::Args;
use forebay_reading::NAME_BYTES_MAX;
use forebay_reading::timestamp::Timestamp;

use crate::buffer::ledger::DeadLetterReason;
use crate::delivery::dead_letter::letter::Letter;

/// Selects the dead letters for which all of these conditions hold.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct LetterFilter {
    /// Only those with this reason, such as refused or too_large
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    reason: Option<String>,
    /// Only readings of this device
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    device: Option<String>,
    /// Only readings of this sensor
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    sensor: Option<String>,
    /// Only those that were refused before this time, such as 2026-02-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<Timestamp>,
}

impl LetterFilter {
    /// Whether a letter is selected.
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.reason, &letter.reason)
            && is(&self.device, &letter.device)
            && is(&self.sensor, &letter.sensor)
            && self.before.is_none_or(|before| letter.at < before)
    }
}

/// Parses a reason that letters may have.
fn parse_reason(text: &str) -> Result<String, String> {
    let known = || DeadLetterReason::LETTERS.iter().map(|reason| reason.name());
    match known().find(|name| *name == text) {
        Some(name) => Ok(name.to_owned()),
        None => Err(format!(
            "no letter has this reason; the reasons are {}",
            known().collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Parses a name of a device or a sensor.
fn parse_name(text: &str) -> Result<String, String> {
    let is_one = (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
    let fault = || format!("names are 1 to {NAME_BYTES_MAX} bytes long and have no control characters");
    if is_one { Ok(text.to_owned()) } else { Err(fault()) }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::dead_letter::letter;

    #[test]
    fn a_letter_is_selected_if_the_whole_filter_matches() {
        let line = br#"{"reading":{"device":"d","sensor":"s"},"reason":"refused","status":422,"node":"n","body":"","at":"2026-02-01T12:00:00Z"}"#;
        let letter = letter::read(line).expect("a letter");
        let text = |text: &str| Some(text.to_owned());
        let before = |time: &str| Some(parse_time(time).expect("a time"));
        let all =
            || LetterFilter { reason: text("refused"), device: text("d"), sensor: text("s"), before: None };
        assert!(LetterFilter::default().matches(&letter));
        assert!(all().matches(&letter));
        assert!(!LetterFilter { reason: text("too_large"), ..all() }.matches(&letter));
        assert!(!LetterFilter { device: text("s"), ..all() }.matches(&letter));
        assert!(!LetterFilter { sensor: text("d"), ..all() }.matches(&letter));
        assert!(LetterFilter { before: before("2026-02-01T12:00:01Z"), ..all() }.matches(&letter));
        assert!(!LetterFilter { before: before("2026-02-01T12:00:00Z"), ..all() }.matches(&letter));
        assert!(parse_time("yesterday").is_err());
        for name in ["", "a\u{9b}", &"a".repeat(NAME_BYTES_MAX + 1)] {
            assert!(parse_name(name).is_err(), "{name}");
        }
        assert_eq!(parse_name("pump 13/ä"), Ok("pump 13/ä".to_owned()));
        let error = parse_reason("refusd").expect_err("a slip");
        assert!(error.contains("refused, too_large, not_numeric, unwritable"), "{error}");
        assert_eq!(parse_reason("unwritable"), Ok("unwritable".to_owned()));
    }
}
