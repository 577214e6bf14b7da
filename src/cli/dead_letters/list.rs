//! `forebay dead-letters list`.

use std::io::{self, Write};

use clap::Args;

use super::filter::LetterFilter;
use super::scan::{Complaints, scan_file};
use super::{DONE, FAILED, LettersDirectoryArguments, amount, shown};
use crate::delivery::dead_letter::letter::Letter;
use crate::delivery::dead_letter::{LetterDirectory, LetterSet};

/// Longest part of a node's answer in a line for people, in characters.
const BODY_CHARS: usize = 80;
/// Longest part of a name in such a line, in characters.
const NAME_CHARS: usize = 256;

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// The lines as they are in the files, one JSON object each, with what a terminal would obey escaped; the count goes
    /// to standard error
    #[arg(long)]
    json: bool,
    /// Show no more than so many; all are counted
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    filter: LetterFilter,
    #[command(flatten)]
    pub(super) place: LettersDirectoryArguments,
}

/// Writes the selected letters, and returns the exit status.
pub(super) fn list(
    arguments: &ListArguments,
    directory: &LetterDirectory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let (mut found, mut unreadable) = (0_u64, Complaints::default());
    let mut seen = LetterSet::default();
    let limit = arguments.limit.unwrap_or(u64::MAX);
    for file in directory.files()? {
        scan_file(directory, file.number, &arguments.filter, &mut unreadable, |letter| {
            if !seen.insert(&letter) {
                return Ok(());
            }
            found += 1;
            match (found <= limit, arguments.json) {
                (true, true) => write_line(&letter, out)?,
                (true, false) => write_for_people(&letter, out)?,
                (false, _) => {}
            }
            anyhow::Ok(())
        })?;
    }
    let count = if found > limit { format!("{limit} of {}", amount(found)) } else { amount(found) };
    if arguments.json {
        out.flush()?;
        let _ = writeln!(io::stderr(), "{count}");
    } else {
        writeln!(out, "{count}")?;
    }
    unreadable.sum_up_unreadable();
    Ok(if unreadable.count() == 0 { DONE } else { FAILED })
}

fn write_line(letter: &Letter, out: &mut impl Write) -> io::Result<()> {
    out.write_all(&letter.line)?;
    out.write_all(b"\n")
}

fn write_for_people(letter: &Letter, out: &mut impl Write) -> io::Result<()> {
    let name = |text: &str| shown(text, NAME_CHARS);
    writeln!(
        out,
        "{}  {}/{}  {}  {}  {}  {}",
        letter.at,
        name(&letter.device),
        name(&letter.sensor),
        name(&letter.reason),
        letter.status,
        name(&letter.node),
        shown(letter.body.trim(), BODY_CHARS),
    )
}
