//! Checks whether a directory can be made and written, and has room. Trial files are removed at once.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{Finding, about};
use crate::filesystem;

/// Most files of a directory that are examined.
const FILES_MAX: usize = 100_000;
/// The content of a trial file.
const TRIAL: &[u8] = b"forebay check\n";

/// Checks that the directory of the setting `key` can be written, or made if it is missing.
pub(super) fn check(key: &str, path: &Path) -> Finding {
    let shown = path.display();
    match try_out(path) {
        Ok(DirectoryState::Existing) => Finding::Fine(format!("{key}: {shown} can be written")),
        Ok(DirectoryState::Missing) => {
            Finding::Fine(format!("{key}: {shown} is not there yet and can be made"))
        }
        Err(error) => {
            let advice = filesystem::advice_on_directory(path, &error);
            Finding::Fault(format!(
                "{key}: {shown} cannot be used: {error}{advice}; set `{key}` to one that can"
            ))
        }
    }
}

/// Checks that `limit`, the value of the setting `key` in bytes, fits on the disk of `path`, the value of the setting `at`.
pub(super) fn check_room(key: &str, limit: u64, at: &str, path: &Path) -> Option<Finding> {
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

/// Checks that there is room for all files of the buffer and the dead letters. They may take more than their limits, and
/// share a disk.
pub(super) fn check_all_files(
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

/// Checks that `limit`, the value of the setting `key` in bytes, fits into the memory of this machine.
pub(super) fn check_memory(key: &str, limit: u64) -> Option<Finding> {
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
    /// Free bytes on its disk.
    pub(super) free: u64,
    /// Bytes of its files.
    pub(super) held: u64,
    /// The device number of its disk.
    pub(super) device: u64,
}

impl Room {
    /// The room at `path`, or where it would be made; `None` if the system does not tell.
    pub(super) fn of(path: &Path) -> Option<Room> {
        let existing = filesystem::nearest_existing(path);
        let free = filesystem::free_bytes(&existing).ok()?;
        Some(Room { free, held: held(path), device: fs::metadata(&existing).ok()?.dev() })
    }

    /// Most bytes that its files can have.
    pub(super) fn bytes(self) -> u64 {
        self.free.saturating_add(self.held)
    }
}

/// Bytes of the files in a directory and in its immediate subdirectories.
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

enum DirectoryState {
    Existing,
    Missing,
}

fn try_out(path: &Path) -> io::Result<DirectoryState> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => try_writing(path).and_then(|()| try_reading(path)).map(|()| DirectoryState::Existing),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        // A dangling link.
        Err(error) if fs::symlink_metadata(path).is_ok() => Err(error),
        Err(_) => try_making(&filesystem::nearest_existing(path)).map(|()| DirectoryState::Missing),
    }
}

/// A unique name for a trial file.
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

/// Checks that the existing files can be read: another user may have made them.
fn try_reading(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.take(FILES_MAX) {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            match fs::File::open(entry.path()) {
                // The file was removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let advice = filesystem::advice_on_file(&entry.path(), &error);
                    // An error of another kind, so that the advice is not about the directory.
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
        match (super::check("buffer.path", path), expected) {
            (Finding::Fine(words), Ok(expected)) | (Finding::Fault(words), Err(expected)) => {
                assert!(words.contains(expected), "{words}");
            }
            (found, expected) => panic!("{found:?} and not {expected:?}"),
        }
    }

    #[test]
    fn a_directory_is_tried_and_no_trial_file_is_left() {
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
    fn a_limit_is_compared_with_free_and_used_space() {
        let above = tempfile::tempdir().expect("a directory");
        fs::create_dir(above.path().join("keys")).expect("made");
        for name in ["a", "keys/b"] {
            fs::write(above.path().join(name), vec![1; 100_000]).expect("written");
        }
        let room = Room::of(above.path()).expect("a disk");
        assert!(room.held >= 200_000 && room.free > 0, "{room:?}");
        let room_for = |limit| check_room("buffer.max_bytes", limit, "buffer.path", above.path());
        assert!(check_memory("buffer.max_bytes", 1024).is_none());
        assert!(check_memory("buffer.max_bytes", 1 << 60).is_some());
        let both = |files, letters| check_all_files(files, above.path(), letters, above.path());
        assert!(both(1024, 1024).is_none());
        assert!(both(1 << 60, 1024).is_some() && both(1024, 1 << 60).is_some());
        assert!(room_for(1024).is_none());
        let Some(Finding::Fault(words)) = room_for(1 << 60) else { panic!("a fault") };
        assert!(words.starts_with("buffer.max_bytes: 1048576 TiB is more than the disk of "), "{words}");
        assert!(words.contains("lower it, or set `buffer.path` to a larger disk"), "{words}");
    }
}
