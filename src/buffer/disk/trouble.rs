//! What is wrong with the disk, for those who ask.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is wrong with the disk, if anything is.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Whether nothing can be written; for those who ask at every request.
    is_set: AtomicBool,
    /// Held for reading and writing the texts.
    texts: Mutex<Texts>,
    disk_bytes: AtomicU64,
    /// Readings that were acknowledged in memory, could not be written, and are not settled.
    unwritten: AtomicU64,
    /// Readings that are settled, and that the next start does not know to be.
    sent_again: AtomicU64,
}

#[derive(Debug, Default)]
struct Texts {
    writing: Option<(String, String)>,
    reading: Option<String>,
}

impl Trouble {
    /// Nothing can be written. `detail` is for the operator, `reason` for those whose requests are refused.
    pub fn set(&self, detail: String, reason: String) {
        self.texts().writing = Some((detail, reason));
        self.is_set.store(true, Ordering::Release);
    }

    /// It can be written again.
    pub fn clear(&self) {
        if self.is_set.swap(false, Ordering::AcqRel) {
            self.texts().writing = None;
        }
    }

    /// Some of what waits cannot be read, or can again.
    pub fn set_reading(&self, detail: Option<String>) {
        self.texts().reading = detail;
    }

    /// Why nothing can be taken, for those whose requests are refused.
    pub fn reason(&self) -> Option<String> {
        let is_set = self.is_set.load(Ordering::Acquire);
        is_set.then(|| self.texts().writing.as_ref().map(|(_, reason)| reason.clone()))?
    }

    /// All that is wrong, for the operator.
    pub fn detail(&self) -> Option<String> {
        let texts = self.texts();
        let writing = texts.writing.as_ref().map(|(detail, _)| detail.as_str());
        let all: Vec<&str> = writing.into_iter().chain(texts.reading.as_deref()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Bytes of all segments.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// Notes the bytes of all segments.
    pub fn set_disk_bytes(&self, bytes: u64) {
        self.disk_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Readings that are only in memory: they are lost if the process ends before they are settled.
    pub fn unwritten(&self) -> u64 {
        self.unwritten.load(Ordering::Acquire)
    }

    /// So many more are only in memory.
    pub fn add_unwritten(&self, readings: u64) {
        self.unwritten.fetch_add(readings, Ordering::AcqRel);
    }

    /// So many of them are settled.
    pub fn settle_unwritten(&self, readings: u64) {
        self.unwritten.fetch_sub(readings, Ordering::AcqRel);
    }

    /// Readings that are settled and will be sent again by the next start; known once the log's thread has ended.
    pub fn sent_again(&self) -> u64 {
        self.sent_again.load(Ordering::Acquire)
    }

    /// Notes how many readings the next start will send again.
    pub fn set_sent_again(&self, readings: u64) {
        self.sent_again.store(readings, Ordering::Release);
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
