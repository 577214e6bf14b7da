//! Whether a directory can be made and written, and has room. What is made to find out goes at once.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{Finding, about};
use crate::filesystem;

/// Most files of a directory that are looked at.
const FILES_MAX: usize = 100_000;
/// Bytes that are written to see whether they can be.
const TRIAL: &[u8] = b"forebay check\n";

/// Whether the directory that `key` names can be written, or made where it is not there.
pub(super) fn look(key: &str, path: &Path) -> Finding {
    let shown = path.display();
    match try_out(path) {
        Ok(Found::There) => Finding::Fine(format!("{key}: {shown} can be written")),
        Ok(Found::Missing) => Finding::Fine(format!("{key}: {shown} is not there yet and can be made")),
        Err(error) => {
            let advice = filesystem::advice_on_directory(path, &error);
            Finding::Fault(format!(
                "{key}: {shown} cannot be used: {error}{advice}; set `{key}` to one that can"
            ))
        }
    }
}

/// Whether `limit`, the value of `key` in bytes, is more than there can be at `path`, which is `at`'s value.
pub(super) fn look_at_room(key: &str, limit: u64, at: &str, path: &Path) -> Option<Finding> {
    let room = Room::of(path)?;
    if limit <= room.bytes() {
        return None;
    }
    let (limit, free, held) = (about(limit), about(room.free), about(room.held));
    Some(Finding::Fault(format!(
        "{key}: {limit} is more than the disk of {} has: {free} are free, and {held} are taken by what is there already; \
         lower it, or set `{at}` to a larger disk",
        path.display()
    )))
}

/// Whether all files of the buffer and of the dead letters find room, which may take more than their limits, or share a
/// disk.
pub(super) fn look_at_all_files(
    files: u64,
    buffer: &Path,
    letters_max: u64,
    letters: &Path,
) -> Option<Finding> {
    let (of_buffer, of_letters) = (Room::of(buffer)?, Room::of(letters)?);
    let is_shared = of_buffer.device == of_letters.device;
    let (wanted, there) = match is_shared {
        true => (files.saturating_add(letters_max), of_buffer.bytes().saturating_add(of_letters.held)),
        false => (files, of_buffer.bytes()),
    };
    let what = if is_shared { "its files and the dead letters" } else { "its files" };
    (wanted > there).then(|| {
        Finding::Note(format!(
            "buffer.max_bytes: {what} may take up to {} where there are {}: the disk may be full before the buffer is, \
             and requests get 503 then",
            about(wanted),
            about(there)
        ))
    })
}

/// Whether `limit`, the value of `key` in bytes, is more than the memory of this machine.
pub(super) fn look_at_memory(key: &str, limit: u64) -> Option<Finding> {
    let list = fs::read_to_string("/proc/meminfo").ok()?;
    let total = list.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let bytes = total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    (limit > bytes).then(|| {
        let (limit, memory) = (about(limit), about(bytes));
        Finding::Fault(format!(
            "{key}: {limit} is more than the memory of this machine, which is {memory}; lower it"
        ))
    })
}

/// Room for the files of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes that are free on its disk.
    pub(super) free: u64,
    /// Bytes that its files have.
    pub(super) held: u64,
    /// The disk.
    pub(super) device: u64,
}

impl Room {
    /// The room at `path`, or, if it is not there, where it would be made. None if the system does not say.
    pub(super) fn of(path: &Path) -> Option<Room> {
        let existing = filesystem::nearest_existing(path);
        let free = filesystem::free_bytes(&existing).ok()?;
        Some(Room { free, held: held(path), device: fs::metadata(&existing).ok()?.dev() })
    }

    /// Bytes that its files may have in all.
    pub(super) fn bytes(self) -> u64 {
        self.free.saturating_add(self.held)
    }
}

/// Bytes that the files of a directory have, those one directory below included.
fn held(path: &Path) -> u64 {
    let files = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten().take(FILES_MAX);
        entries.filter_map(|entry| Some((entry.as_ref().ok()?.path(), entry.ok()?.metadata().ok()?)))
    };
    let bytes = |directory: &Path| {
        files(directory)
            .filter(|(_, found)| found.is_file())
            .map(|(_, found)| found.blocks() * 512)
            .sum::<u64>()
    };
    let below = files(path).filter(|(_, found)| found.is_dir()).map(|(path, _)| bytes(&path)).sum::<u64>();
    bytes(path) + below
}

enum Found {
    There,
    Missing,
}

fn try_out(path: &Path) -> io::Result<Found> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => try_writing(path).and_then(|()| try_reading(path)).map(|()| Found::There),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // A link to something that is not there.
        Err(error) if fs::symlink_metadata(path).is_ok() => Err(error),
        Err(_) => try_making(&filesystem::nearest_existing(path)).map(|()| Found::Missing),
    }
}

/// A name that nothing else has.
fn trial_name() -> String {
    format!(".forebay-check-{}-{:08x}", std::process::id(), fastrand::u32(..))
}

fn try_writing(directory: &Path) -> io::Result<()> {
    let path = directory.join(trial_name());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(TRIAL);
    fs::remove_file(&path).and(written)
}

fn try_making(above: &Path) -> io::Result<()> {
    let path = above.join(trial_name());
    fs::create_dir(&path)?;
    fs::remove_dir(&path)
}

/// Whether the files that are there can be read: others may have made them.
fn try_reading(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.take(FILES_MAX) {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            match fs::File::open(entry.path()) {
                // Removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let advice = filesystem::advice_on_file(&entry.path(), &error);
                    // Of another kind, so that the directory is not taken for what was denied.
                    return Err(io::Error::other(format!("{}: {error}{advice}", entry.path().display())));
                }
                Ok(_) => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &Path, expected: Result<&str, &str>) {
        match (look("buffer.path", path), expected) {
            (Finding::Fine(words), Ok(expected)) | (Finding::Fault(words), Err(expected)) => {
                assert!(words.contains(expected), "{words}");
            }
            (found, expected) => panic!("{found:?} and not {expected:?}"),
        }
    }

    #[test]
    fn a_directory_is_tried_and_nothing_is_left_of_that() {
        let above = tempfile::tempdir().expect("a directory");
        let path = above.path();
        check(path, Ok("can be written"));
        check(&path.join("a/b/c"), Ok("is not there yet and can be made"));
        fs::write(path.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(path.join("nowhere"), path.join("link")).expect("made");
        check(&path.join("file"), Err("cannot be used: not a directory"));
        check(&path.join("file/below"), Err("cannot be used: Not a directory"));
        check(&path.join("link"), Err("cannot be used: No such file"));
        check(&path.join("x".repeat(300)), Err("cannot be used: File name too long"));
        check(Path::new("/proc/nowhere/else"), Err("`buffer.path` to one that can"));
        let names: Vec<_> =
            fs::read_dir(path).expect("it is there").map(|entry| entry.expect("it").file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn a_limit_is_held_against_what_is_free_and_what_is_there() {
        let above = tempfile::tempdir().expect("a directory");
        fs::create_dir(above.path().join("keys")).expect("made");
        for name in ["a", "keys/b"] {
            fs::write(above.path().join(name), vec![1; 100_000]).expect("written");
        }
        let room = Room::of(above.path()).expect("a disk");
        assert!(room.held >= 200_000 && room.free > 0, "{room:?}");
        let look = |limit| look_at_room("buffer.max_bytes", limit, "buffer.path", above.path());
        assert!(look_at_memory("buffer.max_bytes", 1024).is_none());
        assert!(look_at_memory("buffer.max_bytes", 1 << 60).is_some());
        let both = |files, letters| look_at_all_files(files, above.path(), letters, above.path());
        assert!(both(1024, 1024).is_none());
        assert!(both(1 << 60, 1024).is_some() && both(1024, 1 << 60).is_some());
        assert!(look(1024).is_none());
        let Some(Finding::Fault(words)) = look(1 << 60) else { panic!("a fault") };
        assert!(words.starts_with("buffer.max_bytes: 1048576 TiB is more than the disk of "), "{words}");
        assert!(words.contains("lower it, or set `buffer.path` to a larger disk"), "{words}");
    }
}
