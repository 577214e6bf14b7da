//! `forebay dead-letters purge`.

use std::io::Write;

use clap::Args;

use super::filter::Filter;
use super::scan::{Complaints, scan_file};
use super::{DONE, MISUSED, PlaceArguments, amount};
use crate::delivery::dead_letter::letter::{self, Letter};
use crate::delivery::dead_letter::{LetterDirectory, LetterSet};

#[derive(Debug, Args)]
pub(super) struct PurgeArguments {
    /// Remove them; without it, it is only said how many there are, and the exit status is 2
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(super) place: PlaceArguments,
}

/// Removes the letters that are meant, and returns the exit status.
pub(super) fn purge(
    arguments: &PurgeArguments,
    directory: &LetterDirectory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let PurgeArguments { yes, filter, place: _ } = arguments;
    let (mut found, mut removed, mut unreadable) = (0_u64, 0_u64, Complaints::default());
    // A letter may have several lines: all of them go, or none, and it counts once.
    let mut meant = LetterSet::default();
    let files = directory.files()?;
    for file in &files {
        scan_file(directory, file.number, filter, &mut unreadable, |letter| {
            found += u64::from(meant.insert(&letter));
            anyhow::Ok(())
        })?;
    }
    let mut gone = LetterSet::default();
    for file in files.iter().filter(|_| *yes && found > 0) {
        let is_meant = |letter: &Letter| meant.contains(letter) || filter.takes(letter);
        let goes = &mut |line: &[u8]| {
            let letter = letter::read(line).ok().filter(is_meant);
            removed += u64::from(letter.as_ref().is_some_and(|letter| gone.insert(letter)));
            letter.is_some()
        };
        directory.remove(file.number, goes)?;
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
