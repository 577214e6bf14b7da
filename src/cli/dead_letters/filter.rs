//! Which dead letters are meant.

use clap::Args;

use crate::delivery::dead_letter::letter::Letter;
use crate::timestamp::Timestamp;

/// Which dead letters are meant: those for which all of it holds.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Filter {
    /// Only those with this reason, such as refused or too_large
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only readings of this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Only readings of this sensor
    #[arg(long, value_name = "NAME")]
    sensor: Option<String>,
    /// Only those that were refused before this time, such as 2026-02-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    before: Option<Timestamp>,
}

impl Filter {
    /// Whether a letter is meant.
    pub(super) fn takes(&self, letter: &Letter) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.reason, &letter.reason)
            && is(&self.device, &letter.device)
            && is(&self.sensor, &letter.sensor)
            && self.before.is_none_or(|before| letter.at < before)
    }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::dead_letter::letter;

    #[test]
    fn a_letter_is_meant_if_all_of_the_filter_holds() {
        let line = br#"{"reading":{"device":"d","sensor":"s"},"reason":"refused","status":422,"node":"n","body":"","at":"2026-02-01T12:00:00Z"}"#;
        let letter = letter::read(line).expect("a letter");
        let text = |text: &str| Some(text.to_owned());
        let before = |time: &str| Some(parse_time(time).expect("a time"));
        let all = || Filter { reason: text("refused"), device: text("d"), sensor: text("s"), before: None };
        assert!(Filter::default().takes(&letter));
        assert!(all().takes(&letter));
        assert!(!Filter { reason: text("too_large"), ..all() }.takes(&letter));
        assert!(!Filter { device: text("s"), ..all() }.takes(&letter));
        assert!(!Filter { sensor: text("d"), ..all() }.takes(&letter));
        assert!(Filter { before: before("2026-02-01T12:00:01Z"), ..all() }.takes(&letter));
        assert!(!Filter { before: before("2026-02-01T12:00:00Z"), ..all() }.takes(&letter));
        assert!(parse_time("yesterday").is_err());
    }
}
