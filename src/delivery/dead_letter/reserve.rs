//! Reserves room for letters on a full disk.
//!
//! A segment of the log is removed when all its readings are settled, and a refused reading is settled when its letter is on
//! stable storage. If the log has filled the disk, there would be no room for a letter, and no segment could ever be removed.
//! So the directory has a file that only takes up room. Letters without room get as much of it as they need, and no more, so
//! that other writers on a full disk do not take the rest. The file grows again when the disk has room.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use forebay_wal::{is_no_room, private_files};

use super::lock;
use super::{DeadLetterError, LetterDirectory};
use crate::filesystem;

/// The name of the file.
pub(super) const NAME: &str = "reserve";
/// The size of the file in bytes, for some hundred letters; at most `dead_letter.max_bytes`.
pub(super) const RESERVE_BYTES: u64 = 256 << 10;
/// The unit in which file systems allocate room, in bytes.
const PAGE_BYTES: u64 = PAGE.len() as u64;
const PAGE: [u8; 4096] = [0; 4096];
/// Free room that the disk must have before the reserve grows, as a multiple of its size: the last room is for the log.
const FREE_MIN: u64 = 2;

/// The reserve file, which need not exist.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve of a directory whose letters may take `max_bytes`.
    pub(super) fn of(directory: &LetterDirectory, max_bytes: u64) -> Reserve {
        Reserve { path: directory.path().join(NAME), bytes: RESERVE_BYTES.min(max_bytes) }
    }

    /// Whether the file has its full size.
    pub(super) fn is_whole(&self) -> bool {
        self.held() >= self.bytes
    }

    /// Runs `work`, which needs `need` more bytes. Each time that it finds no room, gives up room of the reserve, if there is
    /// any, and runs it again. The caller must hold the lock.
    pub(super) fn lend<T>(
        &self,
        need: u64,
        mut work: impl FnMut() -> Result<T, DeadLetterError>,
    ) -> Result<T, DeadLetterError> {
        let mut result = work();
        while result.as_ref().is_err_and(found_no_room) && self.give_up(need) {
            result = work();
        }
        match &result {
            Ok(_) => self.grow_with_room(),
            // The whole reserve was not enough; restore it for smaller appends.
            Err(error) if found_no_room(error) => self.grow(),
            Err(_) => {}
        }
        result
    }

    /// Makes the file, or restores its full size, if the directory exists and the disk has room. A full disk is not an error:
    /// the caller tries again later.
    ///
    /// # Errors
    ///
    /// The directory cannot be locked.
    pub(super) fn keep(&self, directory: &LetterDirectory) -> Result<(), DeadLetterError> {
        if self.is_whole() || !self.has_room() {
            return Ok(());
        }
        let _lock = lock::take(directory.path())?;
        self.grow_with_room();
        Ok(())
    }

    /// The size of the file in bytes; 0 if something else has its name.
    fn held(&self) -> u64 {
        let found = fs::symlink_metadata(&self.path);
        found.ok().filter(fs::Metadata::is_file).map_or(0, |found| found.len())
    }

    /// Frees room for `need` bytes; false if the reserve is empty.
    fn give_up(&self, need: u64) -> bool {
        let held = self.held();
        // One page more, since the letters may begin a page, and their file may be new.
        let going = need.div_ceil(PAGE_BYTES).saturating_add(1).saturating_mul(PAGE_BYTES);
        if held == 0 {
            return false;
        }
        let file = OpenOptions::new().write(true).open(&self.path);
        file.and_then(|file| file.set_len(held.saturating_sub(going))).is_ok()
    }

    fn has_room(&self) -> bool {
        let above = self.path.parent().filter(|above| above.is_dir());
        let free = above.and_then(|above| filesystem::free_bytes(above).ok());
        free.is_some_and(|free| free >= self.bytes.saturating_mul(FREE_MIN))
    }

    fn grow_with_room(&self) {
        if !self.is_whole() && self.has_room() {
            self.grow();
        }
    }

    /// Grows the file as far as there is room, up to its full size. Failures are ignored: letters are stored without it too.
    fn grow(&self) {
        let is_other = fs::symlink_metadata(&self.path).is_ok_and(|found| !found.is_file());
        if is_other {
            return;
        }
        let made = private_files::make_or_open(&self.path, OpenOptions::new().write(true));
        let _ = made.and_then(|file| fill(&file, self.held(), self.bytes));
    }
}

/// Fills a file with zeros up to a size, or as far as there is room.
fn fill(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut at = from;
    while at < to {
        let step = (to - at).min(PAGE_BYTES);
        let part = &PAGE[..usize::try_from(step).unwrap_or(PAGE.len())];
        if let Err(error) = file.write_all_at(part, at) {
            // Remove a partial step.
            return file.set_len(at).and(Err(error));
        }
        at += step;
    }
    // Some systems report only now that there is no room: then restore the old size.
    file.sync_data().or_else(|error| file.set_len(from).and(Err(error)))
}

fn found_no_room(error: &DeadLetterError) -> bool {
    matches!(error, DeadLetterError::Io { error, .. } if is_no_room(error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn no_room() -> DeadLetterError {
        DeadLetterError::io("append to", "letters".as_ref())(io::ErrorKind::StorageFull.into())
    }

    fn whole() -> (tempfile::TempDir, LetterDirectory, Reserve) {
        let place = tempfile::tempdir().expect("a directory");
        let directory = LetterDirectory::new(place.path());
        let reserve = Reserve::of(&directory, u64::MAX);
        reserve.keep(&directory).expect("a sound disk");
        assert_eq!(reserve.held(), RESERVE_BYTES);
        (place, directory, reserve)
    }

    #[test]
    fn letters_without_room_get_as_much_of_the_reserve_as_they_need() {
        let (_place, _, reserve) = whole();
        // Other writers take the room that is freed first.
        let enough = RESERVE_BYTES - 10 * PAGE_BYTES;
        let mut tries = 0;
        let mut left = None;
        let kept = reserve.lend(PAGE_BYTES + 1, || {
            tries += 1;
            left = Some(reserve.held());
            if reserve.held() > enough { Err(no_room()) } else { Ok(()) }
        });
        kept.expect("there is room in the end");
        assert_eq!((tries, left), (5, Some(RESERVE_BYTES - 12 * PAGE_BYTES)));
        assert!(reserve.is_whole(), "it grows again on a disk that has room");
    }

    #[test]
    fn letters_that_need_more_than_the_reserve_fail_and_leave_it_whole() {
        let (_place, _, reserve) = whole();
        let mut left = Vec::new();
        let kept = reserve.lend(RESERVE_BYTES, || {
            left.push(reserve.held());
            Err::<(), _>(no_room())
        });
        assert!(kept.as_ref().is_err_and(found_no_room), "{kept:?}");
        assert_eq!(left, [RESERVE_BYTES, 0]);
        assert!(reserve.is_whole());
    }

    #[test]
    fn an_error_other_than_a_full_disk_leaves_the_reserve_whole() {
        let (_place, directory, reserve) = whole();
        let mut tries = 0;
        let kept = reserve.lend(1, || {
            tries += 1;
            Err::<(), _>(DeadLetterError::Locked { path: directory.path().to_owned() })
        });
        assert!(kept.is_err() && tries == 1 && reserve.is_whole());
    }

    #[test]
    fn the_reserve_is_private_no_larger_than_the_limit_and_replaces_no_other_file() {
        let (place, directory, reserve) = whole();
        let mode = fs::metadata(&reserve.path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");
        assert!(directory.files().expect("a directory").is_empty(), "it is no file of letters");

        let other = LetterDirectory::new(&place.path().join("other"));
        let small = Reserve::of(&other, 5000);
        small.keep(&other).expect("no directory is no fault");
        assert!(!other.path().exists());
        fs::create_dir(other.path()).expect("made");
        small.keep(&other).expect("a sound disk");
        assert_eq!(small.held(), 5000);
        fs::remove_file(&small.path).expect("there");
        let target = place.path().join("target");
        fs::write(&target, "mine").expect("written");
        std::os::unix::fs::symlink(&target, &small.path).expect("made");
        small.keep(&other).expect("a sound disk");
        assert!(!small.give_up(1) && fs::read(&target).expect("a file") == b"mine");
    }

    #[test]
    fn a_full_disk_leaves_no_partial_step() {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("the system has it");
        assert!(fill(&full, 0, RESERVE_BYTES).is_err());
    }
}
