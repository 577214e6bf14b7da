//! The settings of the dead letters.

use super::layers::Layers;
use super::{directory, size};
use crate::delivery::DeadLetterConfig;

pub(super) fn read(layers: &mut Layers) -> DeadLetterConfig {
    DeadLetterConfig {
        path: layers.get("dead_letter.path", directory),
        max_bytes: size(layers, "dead_letter.max_bytes", 1024..=1 << 50),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn an_empty_directory_and_a_size_below_one_letter_are_faults() {
        let set = |key: &str, value: &str| (format!("FOREBAY__DEAD_LETTER__{key}"), value.to_owned());
        let faults = Config::read(None, &[set("PATH", ""), set("MAX_BYTES", "1B")]).expect_err("two faults");
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "environment variable FOREBAY__DEAD_LETTER__PATH: dead_letter.path: must be the path of a directory, got nothing",
                "environment variable FOREBAY__DEAD_LETTER__MAX_BYTES: dead_letter.max_bytes: must be from 1KiB to 1024TiB, got 1B",
            ]
        );
    }
}
