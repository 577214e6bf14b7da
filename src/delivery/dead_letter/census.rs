//! Counts the stored letters without reading unchanged files again.
//!
//! Appended lines are counted from the end of the last count; a rewritten file is counted from its start. The command line
//! changes files while a gateway runs, so each count compares the size, time and inode of every file, and reads only files
//! that have changed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::lines::{LinePiece, LinePieces};
use super::{DeadLetterError, LetterDirectory, LetterSet, letter};

/// Most letters remembered to recognise duplicates, 16 bytes each; beyond that, duplicates are counted.
const REMEMBERED_MAX: usize = 1 << 20;

/// The count of stored letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetterTotals {
    /// Number of letters; a letter that a crash wrote twice counts once.
    pub letters: u64,
    /// Size of the files in bytes.
    pub bytes: u64,
}

/// The counts of all files.
#[derive(Debug, Default)]
pub(super) struct Census {
    files: BTreeMap<u64, FileCount>,
    /// The letters in the files.
    met: LetterSet,
}

/// The count of one file, and the file's state at that time.
#[derive(Clone, Copy, Debug)]
struct FileCount {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
    /// Bytes up to the end of the last complete line.
    counted_bytes: u64,
    letters: u64,
}

impl Census {
    /// Updates the counts. Blocks on the disk.
    pub(super) fn look(&mut self, directory: &LetterDirectory) -> Result<LetterTotals, DeadLetterError> {
        let is_gone = |(number, known): (&u64, &FileCount)| {
            !std::fs::metadata(directory.file(*number)).is_ok_and(|found| known.has_grown(&found))
        };
        if self.files.iter().any(is_gone) {
            // A removed line may have been the first of two duplicates, so count everything again.
            *self = Census::default();
        }
        for file in directory.files()? {
            let path = directory.file(file.number);
            match count(&path, self.files.get(&file.number).copied(), &mut self.met) {
                Ok(counted) => drop(self.files.insert(file.number, counted)),
                // The file was removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DeadLetterError::io("read", &path)(error)),
            }
        }
        let sum = |of: fn(&FileCount) -> u64| self.files.values().map(of).sum();
        Ok(LetterTotals { letters: sum(|file| file.letters), bytes: sum(|file| file.bytes) })
    }
}

fn count(path: &Path, known: Option<FileCount>, met: &mut LetterSet) -> io::Result<FileCount> {
    let found = std::fs::metadata(path)?;
    if let Some(known) = known.filter(|known| known.is(&found)) {
        return Ok(known);
    }
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    let grown = known.filter(|known| known.has_grown(&found));
    let (mut counted_bytes, mut letters) = grown.map_or((0, 0), |known| (known.counted_bytes, known.letters));
    file.seek(SeekFrom::Start(counted_bytes))?;
    let mut pieces = LinePieces::new(BufReader::new(file).take(found.len() - counted_bytes));
    let mut line_bytes = 0;
    while let Some(piece) = pieces.next()? {
        let (LinePiece::Line(bytes) | LinePiece::TooLong(bytes) | LinePiece::Rest(bytes)) = &piece;
        line_bytes += bytes.len() as u64;
        // An incomplete line is not a letter yet.
        if bytes.last() == Some(&b'\n') {
            counted_bytes += std::mem::take(&mut line_bytes);
            letters += u64::from(!is_double(&piece, met));
        }
    }
    let changed = (found.mtime(), found.mtime_nsec());
    Ok(FileCount { inode: found.ino(), changed, bytes: found.len(), counted_bytes, letters })
}

/// Whether an earlier line has the same letter.
fn is_double(piece: &LinePiece<'_>, met: &mut LetterSet) -> bool {
    let LinePiece::Line(line) = piece else { return false };
    letter::read(line.trim_ascii()).is_ok_and(|letter| match met.len() < REMEMBERED_MAX {
        true => !met.insert(&letter),
        false => met.contains(&letter),
    })
}

impl FileCount {
    /// Whether the file is unchanged.
    fn is(&self, found: &Metadata) -> bool {
        let changed = (found.mtime(), found.mtime_nsec());
        (self.inode, self.changed, self.bytes) == (found.ino(), changed, found.len())
    }

    /// Whether the file is unchanged or has grown.
    fn has_grown(&self, found: &Metadata) -> bool {
        self.inode == found.ino() && self.bytes <= found.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{OpenOptions, create_dir, remove_file, rename, write};
    use std::io::Write as _;

    use super::*;

    #[test]
    fn appended_rewritten_and_removed_letters_are_counted() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("letters");
        let directory = LetterDirectory::new(&path);
        let mut census = Census::default();
        let mut check = |letters, bytes| {
            assert_eq!(census.look(&directory).expect("it can be read"), LetterTotals { letters, bytes });
        };
        check(0, 0);
        create_dir(&path).expect("made");
        write(directory.file(1), "a\nb\n").expect("written");
        write(directory.file(2), "c\ntorn").expect("written");
        write(path.join("lock"), "x\n").expect("written");
        check(3, 10);
        check(3, 10);
        let mut file = OpenOptions::new().append(true).open(directory.file(2)).expect("there");
        file.write_all(b"\nd\n").expect("written");
        check(5, 13);
        // The command line rewrites files in this way.
        write(path.join("new"), "b\n").expect("written");
        rename(path.join("new"), directory.file(1)).expect("renamed");
        check(4, 11);
        remove_file(directory.file(2)).expect("removed");
        check(1, 2);
    }

    #[test]
    fn a_letter_that_a_crash_wrote_twice_counts_once() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = LetterDirectory::new(place.path());
        let line = |place: u64| {
            let reading = r#"{"device":"d","sensor":"s","value":1}"#;
            let rest = r#""reason":"refused","status":400,"node":"n","body":"","at":"2026-02-01T12:00:00Z""#;
            format!("{{\"reading\":{reading},{rest},\"batch\":\"a\",\"place\":{place}}}\n")
        };
        let mut census = Census::default();
        let mut letters = || census.look(&directory).expect("it can be read").letters;
        write(directory.file(1), line(0) + &line(1) + &line(1)).expect("written");
        assert_eq!(letters(), 2);
        write(directory.file(2), line(1) + &line(2)).expect("written");
        assert_eq!(letters(), 3);
        // When the first of two lines is removed, the second one counts.
        write(place.path().join("new"), line(0)).expect("written");
        rename(place.path().join("new"), directory.file(1)).expect("renamed");
        assert_eq!(letters(), 3);
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = LetterDirectory::new(place.path());
        write(directory.file(1), "a\n").expect("written");
        let mut census = Census::default();
        assert_eq!(census.look(&directory).expect("it can be read").letters, 1);
        census.files.get_mut(&1).expect("counted").letters = 7;
        assert_eq!(census.look(&directory).expect("it can be read").letters, 7);
        // Only the appended bytes are read.
        write(directory.file(1), "a\nb\n").expect("written");
        assert_eq!(census.look(&directory).expect("it can be read").letters, 8);
    }
}
