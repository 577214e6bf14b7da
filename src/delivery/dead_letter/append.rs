//! Appends letters: all lines or none, on stable storage.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;

use forebay_wal::private_files;

use super::lock;
use super::reserve::Reserve;
use super::{DeadLetterError, FILE_BYTES, LetterDirectory, LetterFile};

/// Appends whole lines, at least one, if all files together then take no more than `max_bytes`.
///
/// # Errors
///
/// [`DeadLetterError`]; nothing is appended then, unless the disk cannot remove a partial write.
pub(super) fn append(
    directory: &LetterDirectory,
    lines: &[u8],
    max_bytes: u64,
) -> Result<(), DeadLetterError> {
    directory.make()?;
    let _lock = lock::take(directory.path())?;
    directory.remove_leftovers()?;
    let files = directory.files()?;
    let held: u64 = files.iter().map(|file| file.bytes).sum();
    let need = lines.len() as u64;
    if held.saturating_add(need) > max_bytes {
        let path = directory.path().to_owned();
        return Err(DeadLetterError::Full { path, held, need, limit: max_bytes });
    }
    Reserve::of(directory, max_bytes).lend(need, || append_behind(directory, files.last(), lines))
}

/// Appends to the last file, or to a new one.
fn append_behind(
    directory: &LetterDirectory,
    last: Option<&LetterFile>,
    lines: &[u8],
) -> Result<(), DeadLetterError> {
    let need = lines.len() as u64;
    match last {
        Some(last) if last.bytes.saturating_add(need) <= FILE_BYTES => match open_end(directory, *last)? {
            Some(mut file) => put(&mut file, last.bytes, lines)
                .map_err(DeadLetterError::io("append to", &directory.file(last.number))),
            None => append_to_new(directory, last.number + 1, lines),
        },
        Some(last) => append_to_new(directory, last.number + 1, lines),
        None => append_to_new(directory, 1, lines),
    }
}

/// Opens a file for appending. `None` if it belongs to another user, or ends within a line: a torn letter must stay as it is,
/// and not become part of the next one.
fn open_end(directory: &LetterDirectory, last: LetterFile) -> Result<Option<File>, DeadLetterError> {
    let path = directory.file(last.number);
    let file = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        Err(error) => return Err(DeadLetterError::io("open", &path)(error)),
    };
    let mut end = [b'\n'];
    if last.bytes > 0 {
        file.read_exact_at(&mut end, last.bytes - 1).map_err(DeadLetterError::io("read", &path))?;
    }
    Ok((end == *b"\n").then_some(file))
}

fn append_to_new(directory: &LetterDirectory, number: u64, lines: &[u8]) -> Result<(), DeadLetterError> {
    let path = directory.file(number);
    let made = private_files::make_new(&path, OpenOptions::new().write(true));
    let mut file = made.map_err(DeadLetterError::io("make", &path))?;
    let put = put(&mut file, 0, lines).map_err(DeadLetterError::io("write", &path));
    // Without the second sync a crash can lose the new file's name.
    let kept = put.and_then(|()| directory.sync());
    if kept.is_err() {
        // If this fails, the file is empty, or its letters will be stored twice.
        let _ = fs::remove_file(&path);
    }
    kept
}

/// The operations of an append on a file.
trait AppendFile {
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn cut(&mut self, size: u64) -> io::Result<()>;
}

impl AppendFile for File {
    fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

/// Writes and syncs, or cuts the file back to its size.
fn put(file: &mut impl AppendFile, size: u64, lines: &[u8]) -> io::Result<()> {
    let written = file.write(lines, size).and_then(|()| file.sync());
    if written.is_err() {
        // If this fails too, readers report the torn line, and the next append begins another file.
        let _ = file.cut(size);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on which one kind of call fails; a failed write leaves half of its bytes.
    struct Failing {
        bytes: Vec<u8>,
        fails: &'static str,
    }

    impl Failing {
        fn check(&self, call: &'static str) -> io::Result<()> {
            if self.fails == call { Err(io::Error::other(call)) } else { Ok(()) }
        }
    }

    impl AppendFile for Failing {
        fn write(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            assert_eq!(offset, self.bytes.len() as u64);
            let written = self.check("write");
            let count = if written.is_ok() { bytes.len() } else { bytes.len() / 2 };
            self.bytes.extend_from_slice(&bytes[..count]);
            written
        }

        fn sync(&mut self) -> io::Result<()> {
            self.check("sync")
        }

        fn cut(&mut self, size: u64) -> io::Result<()> {
            self.bytes.truncate(usize::try_from(size).expect("small"));
            Ok(())
        }
    }

    #[test]
    fn a_failed_append_leaves_the_file_as_it_was() {
        for (fails, left) in [("write", "a\n"), ("sync", "a\n"), ("", "a\nb\nc\n")] {
            let mut file = Failing { bytes: b"a\n".to_vec(), fails };
            let put = put(&mut file, 2, b"b\nc\n");
            assert_eq!(put.is_ok(), fails.is_empty(), "{fails}");
            assert_eq!(file.bytes, left.as_bytes(), "{fails}");
        }
    }
}
