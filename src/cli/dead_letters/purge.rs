//! `forebay dead-letters purge`.

use std::io::Write;

use clap::Args;

use super::filter::LetterFilter;
use super::scan::{Complaints, scan_file};
use super::{DONE, LettersDirectoryArguments, MISUSED, amount};
use crate::delivery::dead_letter::letter::{self, Letter};
use crate::delivery::dead_letter::{LetterDirectory, LetterSet};

#[derive(Debug, Args)]
pub(super) struct PurgeArguments {
    /// Remove them; without it, it is only said how many there are, and the exit status is 2
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    filter: LetterFilter,
    #[command(flatten)]
    pub(super) place: LettersDirectoryArguments,
}

/// Removes the selected letters, and returns the exit status.
pub(super) fn purge(
    arguments: &PurgeArguments,
    directory: &LetterDirectory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let PurgeArguments { yes, filter, place: _ } = arguments;
    let (mut found, mut removed, mut unreadable) = (0_u64, 0_u64, Complaints::default());
    // A letter may have several lines: all of them are removed, or none, and it counts once.
    let mut selected = LetterSet::default();
    let files = directory.files()?;
    for file in &files {
        scan_file(directory, file.number, filter, &mut unreadable, |letter| {
            found += u64::from(selected.insert(&letter));
            anyhow::Ok(())
        })?;
    }
    let mut removed_letters = LetterSet::default();
    for file in files.iter().filter(|_| *yes && found > 0) {
        let is_selected = |letter: &Letter| selected.contains(letter) || filter.matches(letter);
        let remove = &mut |line: &[u8]| {
            let letter = letter::read(line).ok().filter(is_selected);
            removed += u64::from(letter.as_ref().is_some_and(|letter| removed_letters.insert(letter)));
            letter.is_some()
        };
        directory.remove(file.number, remove)?;
    }
    unreadable.sum_up_unreadable();
    match (yes, found) {
        (true, _) => writeln!(out, "removed {}", amount(removed))?,
        (false, 0) => writeln!(out, "{}", amount(0))?,
        (false, _) => {
            writeln!(out, "would remove {}; with --yes they are removed for good", amount(found))?;
            return Ok(MISUSED);
        }
    }
    Ok(DONE)
}
