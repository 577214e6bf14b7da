//! How many letters wait in the files, without reading them again and again.
//!
//! Files are read once. What is appended is counted from where the last count ended; a file that was written again is
//! counted anew. The command line changes files while a gateway runs, so each look asks for the size, the time and the
//! identity of every file, and reads only those that have changed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::lines::{Piece, Pieces};
use super::{DeadLetterError, Directory, Letters, letter};

/// Letters that are remembered to be known if they come twice, 16 bytes each; of more than that, doubles count.
const REMEMBERED_MAX: usize = 1 << 20;

/// What waits in the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Letters; one that a crash wrote twice counts once.
    pub letters: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// What is known of the files.
#[derive(Debug, Default)]
pub(super) struct Census {
    files: BTreeMap<u64, CountedFile>,
    /// The letters in them.
    met: Letters,
}

/// A file as it was when it was counted.
#[derive(Clone, Copy, Debug)]
struct CountedFile {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
    /// Bytes up to the end of the last line that has one.
    counted_bytes: u64,
    letters: u64,
}

impl Census {
    /// Looks at the directory. Blocks on the disk.
    pub(super) fn look(&mut self, directory: &Directory) -> Result<Waiting, DeadLetterError> {
        let is_gone = |(number, known): (&u64, &CountedFile)| {
            !std::fs::metadata(directory.file(*number)).is_ok_and(|found| known.has_grown(&found))
        };
        if self.files.iter().any(is_gone) {
            // What went may have been the first of two lines.
            *self = Census::default();
        }
        for file in directory.files()? {
            let path = directory.file(file.number);
            match count(&path, self.files.get(&file.number).copied(), &mut self.met) {
                Ok(counted) => drop(self.files.insert(file.number, counted)),
                // Removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DeadLetterError::io("read", &path)(error)),
            }
        }
        let sum = |of: fn(&CountedFile) -> u64| self.files.values().map(of).sum();
        Ok(Waiting { letters: sum(|file| file.letters), bytes: sum(|file| file.bytes) })
    }
}

fn count(path: &Path, known: Option<CountedFile>, met: &mut Letters) -> io::Result<CountedFile> {
    let found = std::fs::metadata(path)?;
    if let Some(known) = known.filter(|known| known.is(&found)) {
        return Ok(known);
    }
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    let grown = known.filter(|known| known.has_grown(&found));
    let (mut counted_bytes, mut letters) = grown.map_or((0, 0), |known| (known.counted_bytes, known.letters));
    file.seek(SeekFrom::Start(counted_bytes))?;
    let mut pieces = Pieces::new(BufReader::new(file).take(found.len() - counted_bytes));
    let mut line_bytes = 0;
    while let Some(piece) = pieces.next()? {
        let (Piece::Line(bytes) | Piece::TooLong(bytes) | Piece::Rest(bytes)) = &piece;
        line_bytes += bytes.len() as u64;
        // A line that is not ended is no letter yet.
        if bytes.last() == Some(&b'\n') {
            counted_bytes += std::mem::take(&mut line_bytes);
            letters += u64::from(!is_double(&piece, met));
        }
    }
    let changed = (found.mtime(), found.mtime_nsec());
    Ok(CountedFile { inode: found.ino(), changed, bytes: found.len(), counted_bytes, letters })
}

/// Whether an earlier line is the same letter.
fn is_double(piece: &Piece<'_>, met: &mut Letters) -> bool {
    let Piece::Line(line) = piece else { return false };
    letter::read(line.trim_ascii()).is_ok_and(|letter| match met.len() < REMEMBERED_MAX {
        true => !met.insert(&letter),
        false => met.contains(&letter),
    })
}

impl CountedFile {
    /// Whether the file is still as it was.
    fn is(&self, found: &Metadata) -> bool {
        let changed = (found.mtime(), found.mtime_nsec());
        (self.inode, self.changed, self.bytes) == (found.ino(), changed, found.len())
    }

    /// Whether the file is as it was, or has more at its end.
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
    fn what_is_appended_rewritten_and_removed_is_counted_and_nothing_is_read_twice() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("letters");
        let directory = Directory::new(&path);
        let mut census = Census::default();
        let mut check = |letters, bytes| {
            assert_eq!(census.look(&directory).expect("it can be read"), Waiting { letters, bytes });
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
        // As the command line does it.
        write(path.join("new"), "b\n").expect("written");
        rename(path.join("new"), directory.file(1)).expect("renamed");
        check(4, 11);
        remove_file(directory.file(2)).expect("removed");
        check(1, 2);
    }

    #[test]
    fn a_letter_that_a_crash_wrote_twice_counts_once() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(place.path());
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
        // The second line stays when the first has gone, and is the letter then.
        write(place.path().join("new"), line(0)).expect("written");
        rename(place.path().join("new"), directory.file(1)).expect("renamed");
        assert_eq!(letters(), 3);
    }

    #[test]
    fn a_file_that_has_not_changed_is_not_read_again() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(place.path());
        write(directory.file(1), "a\n").expect("written");
        let mut census = Census::default();
        assert_eq!(census.look(&directory).expect("it can be read").letters, 1);
        census.files.get_mut(&1).expect("counted").letters = 7;
        assert_eq!(census.look(&directory).expect("it can be read").letters, 7);
        // Only what is new is read.
        write(directory.file(1), "a\nb\n").expect("written");
        assert_eq!(census.look(&directory).expect("it can be read").letters, 8);
    }
}
