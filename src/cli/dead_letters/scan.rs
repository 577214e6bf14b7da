//! Going through the letters of a directory, and telling what cannot be read.

use std::path::Path;

use super::filter::Filter;
use crate::cli::terminal::complain;
use crate::delivery::dead_letter::letter::Letter;
use crate::delivery::dead_letter::{DeadLetterError, LetterDirectory, LetterLine};

/// Most complaints of one kind that are told one by one.
const TOLD_MAX: u64 = 100;

/// Complaints on standard error: the first ones are told one by one, all are counted.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    count: u64,
}

impl Complaints {
    /// Tells one.
    pub(super) fn tell(&mut self, complaint: impl FnOnce() -> String) {
        if self.count < TOLD_MAX {
            complain(complaint());
        } else if self.count == TOLD_MAX {
            eprintln!("forebay: there are more");
        }
        self.count += 1;
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Tells a line that cannot be read.
    fn tell_unreadable(&mut self, file: &Path, line: u64, why: &str) {
        self.tell(|| format!("{}:{line}: cannot be read, and stays: {why}", file.display()));
    }

    /// Says how many lines could not be read, if there were any.
    pub(super) fn sum_up_unreadable(&self) {
        match self.count {
            0 => {}
            1 => eprintln!("forebay: 1 line cannot be read"),
            count => eprintln!("forebay: {count} lines cannot be read"),
        }
    }
}

/// Hands every letter of a file that is meant to `each`, in their order, until that fails.
///
/// # Errors
///
/// The file cannot be read, or what `each` says.
pub(super) fn scan_file<E: From<DeadLetterError>>(
    directory: &LetterDirectory,
    number: u64,
    filter: &Filter,
    unreadable: &mut Complaints,
    mut each: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    for line in directory.read(number)?.into_iter().flatten() {
        let LetterLine { number: line, letter } = line?;
        match letter {
            Ok(letter) if filter.takes(&letter) => each(letter)?,
            Ok(_) => {}
            Err(why) => unreadable.tell_unreadable(&directory.file(number), line, &why),
        }
    }
    Ok(())
}
