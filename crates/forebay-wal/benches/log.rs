//! The log beside a plain loop of as many bytes: each record is written and synced alone.
//!
//! `cargo bench -p forebay-wal`. The plain loop overwrites one file with allocated blocks again and again; the log adds
//! heads and checksums, moves from segment to segment, writes checkpoints, and reuses the files of settled segments. The
//! two take turns, so that both see the same disk; the ratio is printed after each size.

#![expect(
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "measured rates are rounded for people, and measuring takes real time"
)]

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use forebay_wal::{Durability, Log, LogOptions, OsFs};

/// The allocator of the gateway's binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of one turn.
const TURN_BYTES: usize = 4 * 1024 * 1024;
const SIZES: [(&str, usize); 3] = [("4 KiB", 4 * 1024), ("64 KiB", 64 * 1024), ("1 MiB", 1024 * 1024)];

/// The log, with the file of its next segment always ready, as in a gateway that keeps up.
struct MeasuredLog(Log);

impl MeasuredLog {
    fn new(directory: &Path) -> MeasuredLog {
        let config = LogOptions::new(directory.to_owned(), SEGMENT_BYTES);
        let log = Log::open(Arc::new(OsFs), config, 1, &mut |_| {}).expect("a new log opens");
        let mut logged = MeasuredLog(log);
        // The first segments get new files; later ones reuse them.
        let payload = vec![1; 1024 * 1024];
        while logged.0.bytes() < SEGMENT_BYTES {
            logged.write(&payload);
            if let Some(job) = logged.0.wants_spare() {
                logged.0.give_spare(job.run().expect("there is room"));
            }
        }
        logged
    }

    fn write(&mut self, payload: &[u8]) {
        self.0.append(&[payload]).expect("there is room");
        self.0.commit(Durability::Synced).expect("the disk works");
        if let [settled, _] = self.0.segments() {
            let settled = settled.number;
            self.0.checkpoint(vec![0; 1024], &[settled]).expect("the disk works");
        }
    }
}

/// The plain loop.
struct PlainFile {
    file: File,
    offset: u64,
}

impl PlainFile {
    fn new(path: &Path) -> PlainFile {
        let file = OpenOptions::new().write(true).create_new(true).open(path).expect("a new file");
        let zeros = vec![0; 1024 * 1024];
        for offset in (0..SEGMENT_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset).expect("there is room");
        }
        file.sync_all().expect("the disk works");
        PlainFile { file, offset: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.offset).expect("there is room");
        self.file.sync_data().expect("the disk works");
        self.offset = (self.offset + bytes.len() as u64) % SEGMENT_BYTES;
    }
}

/// The time of each of the two.
#[derive(Clone, Copy, Default)]
struct Times {
    log: Duration,
    plain: Duration,
}

/// Lets both write the payload so many times, in turns.
fn measure(log: &mut MeasuredLog, plain: &mut PlainFile, payload: &[u8], count: u64) -> Times {
    let mut times = Times::default();
    let mut left = count;
    while left > 0 {
        let turn = left.min((TURN_BYTES / payload.len()) as u64);
        let start = Instant::now();
        (0..turn).for_each(|_| log.write(black_box(payload)));
        times.log += start.elapsed();
        let start = Instant::now();
        (0..turn).for_each(|_| plain.write(black_box(payload)));
        times.plain += start.elapsed();
        left -= turn;
    }
    times
}

fn compare(group: &mut BenchmarkGroup<'_, criterion::measurement::WallTime>, name: &str, bytes: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let mut log = MeasuredLog::new(&directory.path().join("log"));
    let mut plain = PlainFile::new(&directory.path().join("plain"));
    let payload = vec![7; bytes];
    let (total, written) = (Cell::new(Times::default()), Cell::new(0));
    let mut run = |count| {
        let times = measure(&mut log, &mut plain, &payload, count);
        let Times { log, plain } = total.get();
        total.set(Times { log: log + times.log, plain: plain + times.plain });
        written.set(written.get() + count);
        times
    };
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("log/{name}"), |bencher| bencher.iter_custom(|count| run(count).log));
    group.bench_function(format!("plain/{name}"), |bencher| bencher.iter_custom(|count| run(count).plain));
    let Times { log, plain } = total.get();
    let rate = |time: Duration| written.get() as f64 * bytes as f64 / 1e6 / time.as_secs_f64();
    let percent = 100.0 * plain.as_secs_f64() / log.as_secs_f64();
    println!("{name}: log {:.1} MB/s, plain {:.1} MB/s, {percent:.0} %\n", rate(log), rate(plain));
}

fn log(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("synced");
    group.sample_size(20).measurement_time(Duration::from_secs(10));
    for (name, bytes) in SIZES {
        compare(&mut group, name, bytes);
    }
    group.finish();
}

criterion_group!(benches, log);
criterion_main!(benches);
