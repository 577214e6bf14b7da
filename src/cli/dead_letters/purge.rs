//! `forebay dead-letters purge`.

use std::io::Write;

use clap::Args;

use super::filter::Filter;
use super::scan::{Complaints, scan_file};
use super::{DONE, MISUSED, PlaceArguments, amount};
use crate::delivery::dead_letter::{Directory, letter};

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
    directory: &Directory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let PurgeArguments { yes, filter, place: _ } = arguments;
    let (mut found, mut removed, mut unreadable) = (0_u64, 0_u64, Complaints::default());
    for file in directory.files()? {
        let mut in_file = 0;
        scan_file(directory, file.number, filter, &mut unreadable, |_| {
            in_file += 1;
            anyhow::Ok(())
        })?;
        found += in_file;
        if *yes && in_file > 0 {
            let goes = &mut |line: &[u8]| letter::read(line).is_ok_and(|letter| filter.takes(&letter));
            removed += directory.remove(file.number, goes)?;
        }
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
