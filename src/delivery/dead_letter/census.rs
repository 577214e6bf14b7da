//! How many letters wait in the files, without reading them again and again.
//!
//! Files are read once. What is appended is counted from where the last count ended; a file that was written again is
//! counted anew. The command line changes files while a gateway runs, so each look asks for the size, the time and the
//! identity of every file, and reads only those that have changed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;

use super::{DeadLetterError, Directory};

/// Bytes that are read at once.
const STEP_BYTES: usize = 64 * 1024;

/// What waits in the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Letters.
    pub letters: u64,
    /// Bytes of the files.
    pub bytes: u64,
}

/// What is known of the files.
#[derive(Debug, Default)]
pub(super) struct Census {
    files: BTreeMap<u64, CountedFile>,
}

/// A file as it was when it was counted.
#[derive(Clone, Copy, Debug)]
struct CountedFile {
    inode: u64,
    changed: (i64, i64),
    bytes: u64,
    letters: u64,
}

impl Census {
    /// Looks at the directory. Blocks on the disk.
    pub(super) fn look(&mut self, directory: &Directory) -> Result<Waiting, DeadLetterError> {
        let mut files = BTreeMap::new();
        for file in directory.files()? {
            let path = directory.file(file.number);
            match count(&path, self.files.get(&file.number).copied()) {
                Ok(counted) => drop(files.insert(file.number, counted)),
                // Removed in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DeadLetterError::io("read", &path)(error)),
            }
        }
        self.files = files;
        let sum = |of: fn(&CountedFile) -> u64| self.files.values().map(of).sum();
        Ok(Waiting { letters: sum(|file| file.letters), bytes: sum(|file| file.bytes) })
    }
}

fn count(path: &std::path::Path, known: Option<CountedFile>) -> io::Result<CountedFile> {
    let found = std::fs::metadata(path)?;
    if let Some(known) = known.filter(|known| known.is(&found)) {
        return Ok(known);
    }
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    let grown = known.filter(|known| known.inode == found.ino() && known.bytes <= found.len());
    let (from, mut letters) = grown.map_or((0, 0), |known| (known.bytes, known.letters));
    file.seek(SeekFrom::Start(from))?;
    let mut rest = file.take(found.len() - from);
    let mut step = vec![0; STEP_BYTES];
    loop {
        match rest.read(&mut step)? {
            0 => break,
            // A line that is not ended is no letter yet.
            read => letters += memchr::memchr_iter(b'\n', &step[..read]).count() as u64,
        }
    }
    let changed = (found.mtime(), found.mtime_nsec());
    Ok(CountedFile { inode: found.ino(), changed, bytes: found.len(), letters })
}

impl CountedFile {
    /// Whether the file is still as it was.
    fn is(&self, found: &Metadata) -> bool {
        let changed = (found.mtime(), found.mtime_nsec());
        (self.inode, self.changed, self.bytes) == (found.ino(), changed, found.len())
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
