//! `forebay check --try FILE`: runs the configured transforms over a file of readings, and writes which readings would be
//! sent and which not, and why. Nothing is sent.
//!
//! Every reading counts as received now, in the order of the file. Windows close by the readings' own times; the end of the
//! file closes the rest. The device of a CSV file's readings is the file's name without its ending, as with
//! `forebay load`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use forebay_codec::{DECODERS, DecodeError, Rejection, Rules, write_reading};
use forebay_load::csv_source::{CsvError, CsvFile};
use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::{Precision, Timestamp};
use forebay_reading::{ReadingRef, Readings};
use forebay_transform::{Chain, ChainOutcome, Moment, TransformConfig};
use thiserror::Error;
use tokio::time::Instant;

use crate::config::Config;

/// Largest file that is read, in bytes; a CSV file may be larger.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Most windows of each transform that are closed at once.
const CLOSE_MAX: usize = 1000;
/// The decoders by the endings of files.
const ENDINGS: &[(&str, &str)] = &[
    ("json", "json"),
    ("ndjson", "ndjson"),
    ("jsonl", "ndjson"),
    ("senml", "senml"),
    ("lp", "influx"),
    ("line", "influx"),
];

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub(super) enum RehearsalError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file is too large.
    #[error("{}: must have at most 1 GiB, has {bytes} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The ending of its name is unknown.
    #[error(
        "{}: must end in .csv, .json, .ndjson, .jsonl, .senml, .lp or .line, which says how it is to be read",
        path.display()
    )]
    Ending {
        /// The file.
        path: PathBuf,
    },
    /// The content does not match the ending.
    #[error("{}, line {}, column {}: {}", path.display(), error.line, error.column, error.detail)]
    Decode {
        /// The file.
        path: PathBuf,
        /// The decoder's error.
        error: DecodeError,
    },
    /// The CSV file has a fault.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// A number of readings, and their bytes as NDJSON.
#[derive(Debug, Default)]
struct ReadingVolume {
    readings: u64,
    bytes: u64,
}

/// A run of the transforms over a file.
struct Rehearsal<'a, W> {
    configs: &'a [TransformConfig],
    chain: Chain,
    now: Moment,
    out: &'a mut W,
    rejected: u64,
    read: ReadingVolume,
    sent: ReadingVolume,
    /// By transform: numbers of filtered, merged and derived readings.
    counts: BTreeMap<usize, [u64; 3]>,
}

/// Runs a file through the transforms, and writes the fate of each reading.
pub(super) fn run(config: &Config, path: &Path, out: &mut impl Write) -> Result<(), RehearsalError> {
    let configs = &config.delivery.transforms;
    let wall = Timestamp::from_system(wall_time());
    let now = Moment { instant: Instant::now(), wall };
    let (read, sent, counts) = (ReadingVolume::default(), ReadingVolume::default(), BTreeMap::new());
    let chain = Chain::new(configs);
    let mut rehearsal = Rehearsal { configs, chain, now, out, rejected: 0, read, sent, counts };
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
    if ending == "csv" {
        let device = path.file_stem().unwrap_or_default().to_string_lossy();
        let file = CsvFile::open(path, &device)?;
        file.visit(&mut |readings| rehearsal.take_all(readings).map_err(RehearsalError::from))?;
    } else {
        rehearsal.decode(config, path, &ending)?;
    }
    rehearsal.close_all()?;
    rehearsal.sum_up()?;
    Ok(())
}

impl<W: Write> Rehearsal<'_, W> {
    fn decode(&mut self, config: &Config, path: &Path, ending: &str) -> Result<(), RehearsalError> {
        let path = || path.to_owned();
        let Some((_, decoder)) = ENDINGS.iter().find(|(known, _)| *known == ending) else {
            return Err(RehearsalError::Ending { path: path() });
        };
        let bytes = fs::metadata(path()).map_err(|error| RehearsalError::Read { path: path(), error })?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(RehearsalError::TooLarge { path: path(), bytes });
        }
        let text = fs::read(path()).map_err(|error| RehearsalError::Read { path: path(), error })?;
        let rules = Rules {
            unknown_fields: config.ingest.unknown_fields,
            precision: if *decoder == "influx" { Precision::Nanos } else { Precision::Millis },
            received_at: self.now.wall,
            earliest: config.ingest.earliest,
            latest: Timestamp::MAX,
            encoded_bytes_max: usize::MAX,
            device_tags: config.ingest.device_tags.clone(),
            grant: None,
        };
        let decoder = DECODERS.find(decoder).expect("the table has known names");
        let decoded =
            decoder.decode(&text, &rules).map_err(|error| RehearsalError::Decode { path: path(), error })?;
        for Rejection { index, pointer, detail, .. } in &decoded.rejections.listed {
            writeln!(self.out, "rejects the reading with the index {index}, {pointer}: {detail}")?;
        }
        self.rejected = decoded.rejections.count();
        let more = self.rejected.saturating_sub(decoded.rejections.listed.len() as u64);
        if more > 0 {
            writeln!(self.out, "rejects {more} more")?;
        }
        self.take_all(&decoded.readings)?;
        Ok(())
    }

    /// Handles readings as if a device had sent them.
    fn take_all(&mut self, readings: &Readings) -> io::Result<()> {
        for reading in readings {
            self.read.add(reading);
            self.take(0, reading)?;
            self.take_closed()?;
        }
        Ok(())
    }

    /// Runs a reading through the transforms, beginning with number `from`.
    fn take(&mut self, from: usize, reading: ReadingRef<'_>) -> io::Result<()> {
        let (mut changed, mut folds) = (Readings::default(), Vec::new());
        let failed_before = self.failed();
        let fate = self.chain.apply(from, reading, self.now, &mut changed, &mut folds);
        self.write_failures(reading, &failed_before)?;
        match fate {
            ChainOutcome::Passed => {
                self.sent.add(reading);
                writeln!(self.out, "sends {}", text(reading))
            }
            ChainOutcome::Changed => {
                let Some(sent) = changed.iter().next() else { return Ok(()) };
                self.sent.add(sent);
                writeln!(self.out, "sends {} in the place of {}", text(sent), text(reading))
            }
            ChainOutcome::Filtered(transform) => {
                self.counts.entry(transform).or_default()[0] += 1;
                self.explain("filters", reading, transform)
            }
            ChainOutcome::Merged(fold) => {
                self.counts.entry(fold.transform).or_default()[1] += 1;
                self.explain("merges", reading, fold.transform)
            }
        }
    }

    /// By transform: the number of readings that it could not be applied to.
    fn failed(&self) -> Vec<u64> {
        self.chain.stats().map(|stats| stats.failed).collect()
    }

    /// Names the transforms that could not be applied to a reading.
    fn write_failures(&mut self, reading: ReadingRef<'_>, before: &[u64]) -> io::Result<()> {
        for ((config, now), before) in self.configs.iter().zip(self.failed()).zip(before) {
            if now > *before {
                writeln!(self.out, "cannot apply {} to {}: goes on without it", config.name, text(reading))?;
            }
        }
        Ok(())
    }

    fn explain(&mut self, what: &str, reading: ReadingRef<'_>, transform: usize) -> io::Result<()> {
        let TransformConfig { name, kind, .. } = &self.configs[transform];
        writeln!(self.out, "{what} {}: {name}: {}", text(reading), kind.why())
    }

    /// Handles the results of closed windows, which may close further windows.
    fn take_closed(&mut self) -> io::Result<()> {
        loop {
            let closed = self.chain.take_closed();
            if closed.is_empty() {
                return Ok(());
            }
            for closed in closed {
                let made = &closed.windows.results;
                self.counts.entry(closed.transform).or_default()[2] += made.len() as u64;
                for reading in made {
                    writeln!(self.out, "makes {}: {}", text(reading), self.configs[closed.transform].name)?;
                    self.take(closed.transform + 1, reading)?;
                }
            }
        }
    }

    /// Closes all open windows, including those that results of other windows open.
    fn close_all(&mut self) -> io::Result<()> {
        while self.chain.stats().any(|stats| stats.open_windows > 0) {
            self.chain.close_oldest(CLOSE_MAX);
            self.take_closed()?;
        }
        Ok(())
    }

    fn sum_up(&mut self) -> io::Result<()> {
        if self.configs.is_empty() {
            writeln!(self.out, "no transforms are configured")?;
        }
        let transforms = self.configs.iter().zip(self.chain.stats()).zip(self.chain.changes());
        for (place, ((config, stats), changed)) in transforms.enumerate() {
            let [filtered, merged, made] = self.counts.get(&place).copied().unwrap_or_default();
            let counts = [
                ("filters", filtered),
                ("changes", changed),
                ("merges", merged),
                ("makes", made),
                ("could not be applied to", stats.failed),
                ("late", stats.late),
                ("forgotten or closed early", stats.evicted),
            ];
            writeln!(self.out, "{}: {}", config.name, listed(&counts))?;
        }
        if self.rejected > 0 {
            writeln!(self.out, "rejects {}", self.rejected)?;
        }
        let Rehearsal { read, sent, .. } = self;
        writeln!(
            self.out,
            "{} readings of {} bytes as NDJSON; sends {} of {} bytes: {} % of the readings, {} % of the bytes",
            read.readings,
            read.bytes,
            sent.readings,
            sent.bytes,
            percent(sent.readings, read.readings),
            percent(sent.bytes, read.bytes)
        )
    }
}

/// The counts that are not 0, with their descriptions.
fn listed(counts: &[(&str, u64)]) -> String {
    let some = counts.iter().filter(|(_, count)| *count > 0);
    let some = some.map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>();
    if some.is_empty() { "leaves everything as it is".to_owned() } else { some.join(", ") }
}

impl ReadingVolume {
    fn add(&mut self, reading: ReadingRef<'_>) {
        self.readings += 1;
        self.bytes += text(reading).len() as u64 + 1;
    }
}

/// A reading in canonical form.
fn text(reading: ReadingRef<'_>) -> String {
    let mut text = Vec::new();
    write_reading(reading, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// `part` of `whole` in percent, with one decimal.
fn percent(part: u64, whole: u64) -> String {
    let tenths = if whole == 0 { 0 } else { (u128::from(part) * 2000 / u128::from(whole)).div_ceil(2) };
    format!("{}.{}", tenths / 10, tenths % 10)
}
