//! Readings from a CSV file: the first column is the time, every other column is a sensor.
//!
//! The file is read three times and never held in memory: for a check before anything is sent, for the sending, and
//! for the audit. A cell that is empty, `?` or not a finite number (`NaN`) holds no reading. Times are RFC
//! 3339, or whole milliseconds since the Unix epoch.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use csv::{ReaderBuilder, StringRecord, Trim};
use forebay_reading::timestamp::{Precision, TimeError, Timestamp};
use forebay_reading::{ReadingParts, Readings, Value};

pub use crate::csv_error::CsvError;
use crate::source::{AuditWindow, BatchSource, ExpectedReading, LoadBatch};

/// A cell without a value, in some files.
const NO_VALUE: &str = "?";

/// A file of readings that was read to its end once and has no fault.
#[derive(Debug)]
pub struct CsvFile {
    path: PathBuf,
    device: Arc<str>,
    sensors: Vec<Arc<str>>,
    readings: usize,
    /// The first line whose time lies before that of the line above it.
    disorder: Option<u64>,
}

/// The rows of a file, from its beginning.
#[derive(Debug)]
struct CsvRows {
    path: PathBuf,
    reader: csv::Reader<File>,
    /// Readings of all rows so far.
    readings: usize,
}

/// One line of a file.
#[derive(Debug)]
struct CsvRow {
    line: u64,
    time: Timestamp,
    /// The time as text, then a value for each sensor.
    cells: StringRecord,
    /// The ordinal of the row's first reading.
    first: usize,
    readings: usize,
}

/// A position in a file that is being sent.
#[derive(Debug)]
struct FileCursor {
    file: Arc<CsvFile>,
    rows: CsvRows,
    /// The row that is being sent, and the number of its readings that were handed out.
    row: Option<(CsvRow, usize)>,
}

/// The file as the source of one connection; all connections share the position.
#[derive(Debug)]
struct SharedFile(Arc<Mutex<FileCursor>>);

/// The windows of a file in the order of time.
#[derive(Debug)]
struct FileWindows<'a> {
    file: &'a CsvFile,
    rows: CsvRows,
    ahead: Option<CsvRow>,
    size: usize,
}

impl CsvFile {
    /// Reads the file through, so that every fault is known before anything is sent.
    ///
    /// # Errors
    ///
    /// [`CsvError`] names the line.
    pub fn open(path: &Path, device: &str) -> Result<CsvFile, CsvError> {
        let mut reader = open(path)?;
        let header = reader.headers().map_err(|source| CsvError::Read { path: path.to_owned(), source })?;
        let sensors: Vec<Arc<str>> = header.iter().skip(1).map(Arc::from).collect();
        if sensors.is_empty() {
            return Err(CsvError::NoSensors { path: path.to_owned() });
        }
        let mut file =
            CsvFile { path: path.to_owned(), device: device.into(), sensors, readings: 0, disorder: None };
        (file.readings, file.disorder) = file.check()?;
        Ok(file)
    }

    /// Shows the readings of each line, in the order of the file, until the visitor fails.
    ///
    /// # Errors
    ///
    /// The file could not be opened again, or the visitor's error.
    pub fn visit<E: From<CsvError>>(
        &self,
        visitor: &mut impl FnMut(&Readings) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = CsvRows::open(&self.path)?;
        while let Some(row) = rows.next_row()? {
            let mut readings = Readings::default();
            for (sensor, value) in self.values(&row) {
                self.push(&row, sensor, value, &mut readings)?;
            }
            visitor(&readings)?;
        }
        Ok(())
    }

    /// Counts the readings and finds the first line that is out of order.
    fn check(&self) -> Result<(usize, Option<u64>), CsvError> {
        let mut rows = CsvRows::open(&self.path)?;
        let (mut latest, mut disorder) = (Timestamp::MIN, None);
        while let Some(row) = rows.next_row()? {
            let mut readings = Readings::default();
            for (sensor, value) in self.values(&row) {
                self.push(&row, sensor, value, &mut readings)?;
            }
            if row.time < latest {
                disorder = disorder.or(Some(row.line));
            }
            latest = latest.max(row.time);
        }
        Ok((rows.readings, disorder))
    }

    /// Readings of the whole file.
    pub(super) fn readings(&self) -> usize {
        self.readings
    }

    /// The reason why the audit cannot be done, if there is one.
    pub(super) fn no_audit_because(&self) -> Option<String> {
        let line = self.disorder?;
        let path = self.path.display();
        Some(format!("{path} is not in the order of time: line {line} is earlier than a line above it"))
    }

    /// Sources that share the file: the connection that is free first takes the next readings, so that only a
    /// single connection keeps their order.
    ///
    /// # Errors
    ///
    /// The file could not be opened again.
    pub(super) fn sources(
        self: &Arc<CsvFile>,
        connections: usize,
    ) -> Result<Vec<Box<dyn BatchSource>>, CsvError> {
        let rows = CsvRows::open(&self.path)?;
        let sending = Arc::new(Mutex::new(FileCursor { file: self.clone(), rows, row: None }));
        Ok((0..connections).map(|_| Box::new(SharedFile(sending.clone())) as Box<dyn BatchSource>).collect())
    }

    /// The file's readings in windows of about `size`; readings of the same time are in the same window. A
    /// window begins with its first reading and ends where the next begins.
    ///
    /// # Errors
    ///
    /// The file could not be opened again.
    pub(super) fn windows(
        &self,
        size: usize,
    ) -> Result<impl Iterator<Item = Result<AuditWindow, CsvError>> + Send + '_, CsvError> {
        let mut rows = CsvRows::open(&self.path)?;
        let ahead = rows.next_row()?;
        let mut windows = FileWindows { file: self, rows, ahead, size };
        Ok(std::iter::from_fn(move || windows.next_window().transpose()))
    }

    fn values<'a>(&'a self, row: &'a CsvRow) -> impl Iterator<Item = (&'a Arc<str>, Value<'a>)> {
        let cells = self.sensors.iter().zip(row.cells.iter().skip(1));
        cells.filter_map(|(sensor, cell)| Some((sensor, value(cell)?)))
    }

    fn push(&self, row: &CsvRow, sensor: &str, value: Value<'_>, out: &mut Readings) -> Result<(), CsvError> {
        let parts = ReadingParts {
            device: &self.device,
            sensor,
            value: value.into(),
            time: row.time,
            unit: None,
            tags: &[],
        };
        let error = |source| CsvError::Reading { path: self.path.clone(), line: row.line, source };
        out.push(&parts).map_err(error)
    }
}

fn open(path: &Path) -> Result<csv::Reader<File>, CsvError> {
    let reader = ReaderBuilder::new().trim(Trim::All).from_path(path);
    reader.map_err(|source| CsvError::Read { path: path.to_owned(), source })
}

/// The value of a cell; `None` for a cell without a reading.
fn value(cell: &str) -> Option<Value<'_>> {
    if cell.is_empty() || cell == NO_VALUE {
        return None;
    }
    if let Ok(number) = cell.parse() {
        return Some(Value::Integer(number));
    }
    if let Ok(number) = cell.parse::<f64>() {
        return number.is_finite().then_some(Value::Double(number));
    }
    Some(match cell {
        "true" => Value::Boolean(true),
        "false" => Value::Boolean(false),
        text => Value::Text(text),
    })
}

fn time(cell: &str) -> Result<Timestamp, TimeError> {
    match cell.parse() {
        Ok(millis) => Timestamp::from_integer(millis, Precision::Millis),
        Err(_) => Timestamp::parse(cell),
    }
}

impl CsvRows {
    fn open(path: &Path) -> Result<CsvRows, CsvError> {
        Ok(CsvRows { path: path.to_owned(), reader: open(path)?, readings: 0 })
    }

    fn next_row(&mut self) -> Result<Option<CsvRow>, CsvError> {
        let mut cells = StringRecord::new();
        let read = self.reader.read_record(&mut cells);
        if !read.map_err(|source| CsvError::Read { path: self.path.clone(), source })? {
            return Ok(None);
        }
        let line = cells.position().map_or(0, csv::Position::line);
        let text = cells.get(0).unwrap_or_default();
        let time = time(text).map_err(|source| CsvError::Time {
            path: self.path.clone(),
            line,
            found: text.chars().take(40).collect(),
            source,
        })?;
        let (first, readings) = (self.readings, cells.iter().skip(1).filter_map(value).count());
        self.readings += readings;
        Ok(Some(CsvRow { line, time, cells, first, readings }))
    }
}

impl FileCursor {
    fn next_batch(&mut self, most: usize) -> Result<Option<LoadBatch>, CsvError> {
        let mut batch = LoadBatch::default();
        while batch.ordinals.len() < most {
            let next = match self.row.take() {
                Some(row) => Some(row),
                None => self.rows.next_row()?.map(|row| (row, 0)),
            };
            let Some((row, gone)) = next else { break };
            let upto = row.readings.min(gone + most - batch.ordinals.len());
            for (sensor, value) in self.file.values(&row).take(upto).skip(gone) {
                self.file.push(&row, sensor, value, &mut batch.readings)?;
            }
            batch.ordinals.extend(row.first + gone..row.first + upto);
            self.row = (upto < row.readings).then_some((row, upto));
        }
        Ok((!batch.ordinals.is_empty()).then_some(batch))
    }
}

impl BatchSource for SharedFile {
    fn next_batch(&mut self, most: usize) -> Result<Option<LoadBatch>, CsvError> {
        self.0.lock().expect("nothing panics while it reads the file").next_batch(most)
    }
}

impl FileWindows<'_> {
    fn next_window(&mut self) -> Result<Option<AuditWindow>, CsvError> {
        let Some(mut row) = self.ahead.take() else { return Ok(None) };
        let from = row.time;
        let mut wanted = Vec::new();
        let to = loop {
            let sensors = self.file.values(&row).enumerate();
            wanted.extend(sensors.map(|(nth, (sensor, _))| ExpectedReading {
                ordinal: row.first + nth,
                sensor: sensor.clone(),
                time: row.time,
            }));
            match self.rows.next_row()? {
                None => break row.time.saturating_add_nanos(1),
                Some(next) if wanted.len() >= self.size && next.time > row.time => {
                    let to = next.time;
                    self.ahead = Some(next);
                    break to;
                }
                Some(next) => row = next,
            }
        };
        Ok(Some(AuditWindow { device: self.file.device.clone(), from: Some(from), to: Some(to), wanted }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("it is written");
        file
    }

    fn bodies(text: &str, batch: usize) -> Vec<String> {
        let file = file(text);
        let file = Arc::new(CsvFile::open(file.path(), "meter").expect("in order"));
        let mut source = file.sources(1).expect("it opens again").remove(0);
        let mut bodies = Vec::new();
        while let Some(batch) = source.next_batch(batch).expect("in order") {
            bodies.push(String::from_utf8(batch.body(1).to_vec()).expect("UTF-8"));
        }
        bodies
    }

    #[test]
    fn a_cell_is_a_number_a_boolean_a_text_or_nothing() {
        for (cell, expected) in [
            ("1", Some(Value::Integer(1))),
            ("-7", Some(Value::Integer(-7))),
            ("0.130", Some(Value::Double(0.13))),
            ("1e3", Some(Value::Double(1000.0))),
            ("9223372036854775808", Some(Value::Double(9_223_372_036_854_775_808.0))),
            ("true", Some(Value::Boolean(true))),
            ("open", Some(Value::Text("open"))),
            ("", None),
            ("?", None),
            ("NaN", None),
            ("-inf", None),
        ] {
            assert_eq!(value(cell), expected, "{cell}");
        }
    }

    #[test]
    fn rows_become_readings_and_cells_without_a_value_are_skipped() {
        let text =
            "time,v,i\n2007-02-01T00:00:00Z,240.5,?\n1170288060000, ,3\n2007-02-01T01:02:00+01:00,1,ok\n";
        assert_eq!(
            bodies(text, 1),
            [
                r#"{"device":"meter","sensor":"v","value":240.5,"time":"2007-02-01T00:00:00Z"}"#,
                r#"{"device":"meter","sensor":"i","value":3,"time":"2007-02-01T00:01:00Z"}"#,
                r#"{"device":"meter","sensor":"v","value":1,"time":"2007-02-01T00:02:00Z"}"#,
                r#"{"device":"meter","sensor":"i","value":"ok","time":"2007-02-01T00:02:00Z"}"#,
            ]
        );
    }

    #[test]
    fn batches_cut_rows_and_lose_no_reading() {
        let file = file("time,a,b,c\n1,1,2,3\n2,4,?,5\n3,?,?,?\n4,6,7,8\n");
        for size in 1..10 {
            let file = Arc::new(CsvFile::open(file.path(), "meter").expect("in order"));
            assert_eq!(file.readings(), 8);
            let mut source = file.sources(1).expect("it opens again").remove(0);
            let (mut values, mut ordinals) = (Vec::new(), Vec::new());
            while let Some(batch) = source.next_batch(size).expect("in order") {
                assert_eq!(batch.ordinals.len(), batch.readings.len());
                assert!(batch.ordinals.len() <= size);
                values.extend(batch.readings.iter().map(|reading| format!("{:?}", reading.value())));
                ordinals.extend(batch.ordinals);
            }
            assert_eq!(ordinals, (0..8).collect::<Vec<_>>());
            assert_eq!(values, (1..9).map(|number| format!("Integer({number})")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn windows_touch_and_keep_equal_times_together() {
        let file = file("time,a,b\n1,1,2\n2,3,4\n2,5,6\n5,7,8\n");
        let file = CsvFile::open(file.path(), "meter").expect("in order");
        let windows: Vec<AuditWindow> =
            file.windows(3).expect("it opens").map(|window| window.expect("read")).collect();
        let millis = |time: Option<Timestamp>| time.map(|time| time.nanos());
        let spans: Vec<_> = windows.iter().map(|w| (millis(w.from), millis(w.to), w.wanted.len())).collect();
        assert_eq!(spans, [(Some(1_000_000), Some(5_000_000), 6), (Some(5_000_000), Some(5_000_001), 2)]);
        assert_eq!(windows[1].wanted[1].ordinal, 7);
    }

    #[track_caller]
    fn check_fault(text: &str, expected: &str) {
        let file = file(text);
        let error = CsvFile::open(file.path(), "meter").expect_err("a fault").to_string();
        assert_eq!(error.replace(&file.path().display().to_string(), "FILE"), expected);
    }

    #[test]
    fn a_fault_in_the_file_is_named_with_its_line() {
        check_fault("", "FILE: the first line must name a column for the time and at least one sensor");
        check_fault(
            "time,a\n1,1\nnoon,2\n",
            "FILE, line 3: time must be an RFC 3339 date and time with an offset, such as 2026-02-01T12:00:00Z; found `noon`",
        );
        check_fault("time,\n1,1\n", "FILE, line 2: `sensor` must be 1 to 256 bytes long, got 0");
        let error = CsvFile::open(Path::new("no/such.csv"), "meter").expect_err("a fault");
        assert!(error.to_string().starts_with("no/such.csv: "), "{error}");
    }

    #[test]
    fn a_file_out_of_order_is_sent_and_not_audited() {
        let file = file("time,a\n2,1\n1,1\n");
        let file = CsvFile::open(file.path(), "meter").expect("it can be sent");
        assert!(file.no_audit_because().expect("a reason").contains("line 3"));
    }
}
