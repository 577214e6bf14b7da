//! Reads the letters of a file, and reports unreadable lines.

use std::path::Path;

use super::filter::LetterFilter;
use crate::cli::terminal::complain;
use crate::delivery::dead_letter::letter::Letter;
use crate::delivery::dead_letter::{DeadLetterError, LetterDirectory, LetterLine};

/// Most complaints of one kind that are printed.
const PRINTED_MAX: u64 = 100;

/// Complaints on standard error: the first ones are printed, all are counted.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    count: u64,
}

impl Complaints {
    /// Counts a complaint, and prints it if there were not too many.
    pub(super) fn add(&mut self, complaint: impl FnOnce() -> String) {
        if self.count < PRINTED_MAX {
            complain(complaint());
        } else if self.count == PRINTED_MAX {
            complain("there are more");
        }
        self.count += 1;
    }

    /// The number of complaints.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds a complaint about an unreadable line.
    fn add_unreadable(&mut self, file: &Path, line: u64, why: &str) {
        self.add(|| format!("{}:{line}: cannot be read, and stays: {why}", file.display()));
    }

    /// Prints the number of unreadable lines, if there were any.
    pub(super) fn sum_up_unreadable(&self) {
        match self.count {
            0 => {}
            1 => complain("1 line cannot be read"),
            count => complain(format_args!("{count} lines cannot be read")),
        }
    }
}

/// Calls `each` with every selected letter of a file, in their order, until it fails.
///
/// # Errors
///
/// The file cannot be read, or the error of `each`.
pub(super) fn scan_file<E: From<DeadLetterError>>(
    directory: &LetterDirectory,
    number: u64,
    filter: &LetterFilter,
    unreadable: &mut Complaints,
    mut each: impl FnMut(Letter) -> Result<(), E>,
) -> Result<(), E> {
    for line in directory.read(number)?.into_iter().flatten() {
        let LetterLine { number: line, letter } = line?;
        match letter {
            Ok(letter) if filter.matches(&letter) => each(letter)?,
            Ok(_) => {}
            Err(why) => unreadable.add_unreadable(&directory.file(number), line, &why),
        }
    }
    Ok(())
}
