//! A buffer on a disk that can fail, lose power and fill up.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::buffer::ledger::Outcome;
use forebay::buffer::{
    Ack, Amount, Buffer, BufferConfig, Fate, Fsync, Kept, NoteId, Noting, OnFull, OpenError, Opened, Outlet,
    Part, PushError, Receipt, Request, Rest, disk,
};
use forebay::node_id::NodeIndex;
use forebay_reading::Readings;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, timeout};

use super::records::{self, numbers};
use super::{LIMIT, eventually};
use forebay_wal::faulty_fs::FaultyFs;

/// The fate of readings that a node has.
pub const DELIVERED: Outcome = Outcome::Delivered { node: NodeIndex(0) };

/// A disk, and the place of a buffer on it.
pub struct Site {
    /// The disk.
    pub fs: FaultyFs,
    /// Where the lock is; everything else is on `fs`.
    directory: TempDir,
    /// When a commit is synced.
    pub fsync: Fsync,
}

/// A buffer that is open.
pub struct Running {
    /// The front's half.
    pub buffer: Arc<dyn Buffer>,
    /// The delivery's half.
    pub outlet: Box<dyn Outlet>,
    /// Events of the log.
    pub kept: UnboundedReceiver<Kept>,
    /// Memos that the front has stored.
    pub memos: Vec<Bytes>,
}

impl Site {
    /// A sound disk.
    pub fn new(seed: u64) -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        Site { fs: FaultyFs::new(seed), directory, fsync: Fsync::Always }
    }

    /// A copy of the disk as it is now for another buffer, such as a killed process leaves it.
    pub fn killed(&self) -> Site {
        let directory = tempfile::tempdir().expect("a directory");
        Site { fs: self.fs.moved(&self.path(), directory.path()), directory, fsync: self.fsync }
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// The directory has another name for a while.
    pub fn move_away(&self) {
        std::fs::rename(self.path(), self.path().with_extension("moved")).expect("a sound disk");
    }

    /// It has its own name again.
    pub fn move_back(&self) {
        std::fs::rename(self.path().with_extension("moved"), self.path()).expect("a sound disk");
    }

    /// The lock has another name for a while.
    pub fn hide_lock(&self) {
        std::fs::rename(self.path().join("lock"), self.path().join("hidden")).expect("a sound disk");
    }

    /// It has its own name again.
    pub fn show_lock(&self) {
        std::fs::rename(self.path().join("hidden"), self.path().join("lock")).expect("a sound disk");
    }

    /// Opens a buffer of so many bytes; a segment has a sixteenth of them.
    pub fn open(&self, bytes: u64) -> Running {
        self.try_open(bytes).expect("it opens").into()
    }

    /// Opens a buffer, or says why it cannot.
    pub fn try_open(&self, bytes: u64) -> Result<Opened, OpenError> {
        disk::open_on(Arc::new(self.fs.clone()), &self.config(bytes), 1, &Arc::default())
    }

    /// The settings of a buffer of so many bytes.
    pub fn config(&self, bytes: u64) -> BufferConfig {
        BufferConfig {
            kind: "disk",
            ack: Ack::Disk,
            limit: Amount { readings: 1 << 30, bytes },
            on_full: OnFull::Reject,
            path: self.path(),
            fsync: self.fsync,
            memos_kept: Duration::from_secs(600),
        }
    }

    /// The power goes while a buffer is open.
    pub async fn lose_power(&self, running: Running) {
        self.fs.crash();
        // Its thread ends now; its disk is gone.
        running.buffer.finish().await;
    }

    /// Both files.
    pub fn checkpoints(&self) -> [Vec<u8>; 2] {
        ["checkpoint-a", "checkpoint-b"].map(|name| self.fs.content(&self.path().join(name)))
    }

    /// How many there are.
    pub fn segments(&self) -> usize {
        let names = forebay_wal::Fs::list(&self.fs, &self.path()).expect("a directory");
        names.iter().filter(|name| name.ends_with(".segment")).count()
    }
}

impl From<Opened> for Running {
    fn from(Opened { buffer, mut outlet, memos }: Opened) -> Running {
        let kept = outlet.kept();
        Running { buffer, outlet, kept, memos }
    }
}

impl Running {
    /// Puts a request in.
    pub async fn push(&self, numbers: Range<i64>, ack: Ack) -> Result<Receipt, PushError> {
        let request = Request {
            readings: numbered(numbers),
            format: 0,
            counter: None,
            ack,
            until_taken: None,
            memo: None,
        };
        timeout(LIMIT, self.buffer.push(request)).await.expect("an answer in time")
    }

    /// Puts a request in, with something to be kept with it.
    pub async fn push_with_memo(&self, numbers: Range<i64>, memo: Bytes) -> Result<Receipt, PushError> {
        let (readings, memo) = (numbered(numbers), Some(memo));
        let request = Request { readings, format: 0, counter: None, ack: Ack::Disk, until_taken: None, memo };
        timeout(LIMIT, self.buffer.push(request)).await.expect("an answer in time")
    }

    /// The next requests that wait, at least one.
    pub async fn pull(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        let count = timeout(LIMIT, self.outlet.pull(&mut parts, 256)).await.expect("something to pull");
        assert!(count > 0, "there is more to come");
        parts
    }

    /// Pulls so many readings, and returns them with their parts.
    pub async fn pull_readings(&mut self, count: usize) -> (Vec<i64>, Vec<Part>) {
        let mut parts = Vec::new();
        while parts.iter().map(Part::len).sum::<usize>() < count {
            parts.extend(self.pull().await);
        }
        (parts.iter().flat_map(numbers).collect(), parts)
    }

    /// Notes a batch, and waits until that is done with.
    pub async fn note(&mut self, key: &str, parts: &[Part]) -> Option<NoteId> {
        assert_eq!(self.outlet.note(1, key, parts), Noting::UnderWay);
        let kept = timeout(LIMIT, self.kept.recv()).await.expect("an answer in time");
        let Some(Kept::Note(noted)) = kept else { panic!("{kept:?}") };
        assert_eq!(noted.key, key);
        noted.note
    }

    /// Says that a node has them.
    pub fn deliver(&mut self, parts: Vec<Part>, note: Option<NoteId>) {
        let fate = Fate::of(parts, DELIVERED);
        self.outlet.settle(vec![fate], note, Instant::now());
    }

    /// An orderly end.
    pub async fn close(self) {
        self.buffer.close();
        drop(self.outlet);
        assert_eq!(self.buffer.finish().await, Rest::Kept);
    }

    /// Waits until the disk is used again.
    pub async fn recovers_from_trouble(&self) {
        eventually("the disk is used again", || async { self.buffer.trouble().is_none() }).await;
    }

    /// Readings that were found at the start.
    pub fn recovered(&self) -> u64 {
        self.buffer.accounts().snapshot().ledger.recovered
    }
}

/// Readings whose values are these numbers, with names long enough to fill a segment some day.
pub fn numbered(numbers: Range<i64>) -> Readings {
    records::numbered("a device with a rather long name, as they sometimes are", numbers)
}
