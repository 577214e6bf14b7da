//! What is wrong with the disk, for those who ask.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::buffer::SentAgain;

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
    /// What the log's thread has left; held for reading and writing it.
    left: Mutex<Left>,
}

/// What is wrong with what is left when the log's thread has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Readings that are settled, and that the next start does not know to be.
    pub sent_again: SentAgain,
    /// Whether the directory is not where the next start looks for it.
    pub is_elsewhere: bool,
}

/// Why nothing can be written.
#[derive(Debug)]
pub struct Reason {
    /// For the operator.
    pub detail: String,
    /// For those whose requests are refused.
    pub reason: String,
    /// What to do, if it is not what is to be done about any disk.
    pub advice: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Texts {
    writing: Option<Reason>,
    reading: Option<String>,
}

impl Trouble {
    /// Nothing can be written.
    pub fn set(&self, reason: Reason) {
        self.texts().writing = Some(reason);
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
        is_set.then(|| self.texts().writing.as_ref().map(|writing| writing.reason.clone()))?
    }

    /// All that is wrong, for the operator.
    pub fn detail(&self) -> Option<String> {
        let texts = self.texts();
        let writing = texts.writing.as_ref().map(|writing| writing.detail.as_str());
        // What is wrong with the directory is found by both.
        let reading = texts.reading.as_deref().filter(|reading| writing != Some(reading));
        let all: Vec<&str> = writing.into_iter().chain(reading).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// What to do about it, if it is not what is to be done about any disk.
    pub fn advice(&self) -> Option<&'static str> {
        self.texts().writing.as_ref().and_then(|writing| writing.advice)
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

    /// What is wrong with what is left; known once the log's thread has ended.
    pub fn left(&self) -> Left {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wrong with what is left.
    pub fn set_left(&self, left: Left) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = left;
    }

    fn texts(&self) -> MutexGuard<'_, Texts> {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
