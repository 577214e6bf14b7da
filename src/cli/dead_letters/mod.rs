//! `forebay dead-letters`: looks at the readings that nodes refused, sends them again, or removes them.
//!
//! It works on the directory itself, also while a gateway runs: files are locked for as long as one of them is
//! rewritten, and never while anything waits for the network or for whoever reads the output. A line that cannot be
//! read is told and stays.

mod filter;
mod gateway;
mod list;
mod note;
mod purge;
mod replay;
mod scan;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use forebay_reading::text::EscapingWriter;
use forebay_reading::text::is_obeyed;
use forebay_wal::checkpoint;

use super::settings::SettingsArguments;
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED, logging};
use crate::config::Config;
use crate::delivery::dead_letter::LetterDirectory;
use crate::directory_lock;

/// Works on the readings that nodes refused.
#[derive(Debug, Args)]
pub(super) struct DeadLettersArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows them, the oldest first. Exit status 1 if a line cannot be read
    List(list::ListArguments),
    /// Sends them to a gateway again, and removes those that it takes. Exit status 1 if some stay that were to go, or a
    /// line cannot be read
    Replay(replay::ReplayArguments),
    /// Removes them for good
    Purge(purge::PurgeArguments),
}

/// Where dead letters are.
#[derive(Debug, Args)]
struct PlaceArguments {
    /// The directory, instead of `dead_letter.path` of the settings
    #[arg(long, value_name = "DIRECTORY")]
    path: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Runs the command and returns the exit status.
pub(super) fn run(arguments: &DeadLettersArguments) -> u8 {
    let place = match &arguments.command {
        Command::List(list) => &list.place,
        Command::Replay(replay) => &replay.place,
        Command::Purge(purge) => &purge.place,
    };
    let Some(config) = place.settings.read() else { return MISUSED };
    logging::start(config.log);
    let directory = LetterDirectory::new(place.path.as_ref().unwrap_or(&config.delivery.dead_letter.path));
    let out = &mut BufWriter::new(EscapingWriter::new(io::stdout().lock()));
    let is_right = is_there(&directory).and_then(|()| is_of_letters(&directory));
    let done = is_right.and_then(|()| work(&arguments.command, &config, &directory, out));
    match done.and_then(|status| Ok(out.flush().map(|()| status)?)) {
        Ok(status) => status,
        // Whoever reads, `head` for one, has seen enough.
        Err(error) if is_broken_pipe(&error) => DONE,
        Err(error) => {
            let _ = out.flush();
            complain(format_args!("{error:#}"));
            FAILED
        }
    }
}

/// Fails if there is no such directory: a gateway makes its own when it starts.
fn is_there(directory: &LetterDirectory) -> anyhow::Result<()> {
    let path = directory.path();
    let found = std::fs::metadata(path);
    match found.as_ref().map(std::fs::Metadata::is_dir) {
        Ok(true) => Ok(()),
        Ok(false) => bail!("{} is no directory; {NAME_IT}", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no directory {}; a gateway makes it when it starts; {NAME_IT}", path.display())
        }
        Err(error) => bail!("cannot read {}: {error}; {NAME_IT}", path.display()),
    }
}

/// Fails if a directory is none of dead letters: that of a gateway has letters or a lock, unless it is empty.
fn is_of_letters(directory: &LetterDirectory) -> anyhow::Result<()> {
    let path = directory.path();
    if !directory.files()?.is_empty() {
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)?.take(NAMES_MAX) {
        names.extend(entry?.file_name().into_string());
    }
    if names.iter().any(|name| checkpoint::NAMES.contains(&name.as_str()) || name.ends_with(".segment")) {
        bail!("{} is the directory of a buffer, and has no dead letters; {NAME_IT}", path.display());
    }
    let has_lock = path.join(directory_lock::NAME).is_file();
    if !names.is_empty() && !has_lock {
        bail!(
            "{} is no directory of dead letters: it has neither letters nor the file `{}` of a gateway; {NAME_IT}",
            path.display(),
            directory_lock::NAME
        );
    }
    Ok(())
}

/// Most names that are looked at to see what a directory is.
const NAMES_MAX: usize = 10_000;

/// What to do where it is not.
const NAME_IT: &str =
    "name that of the gateway with `--path`, or its settings with `--config` (`dead_letter.path`)";

fn work(
    command: &Command,
    config: &Config,
    directory: &LetterDirectory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    match command {
        Command::List(arguments) => list::list(arguments, directory, out),
        Command::Replay(arguments) => replay::replay(arguments, config, directory, out),
        Command::Purge(arguments) => purge::purge(arguments, directory, out),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// So many dead letters, in words.
fn amount(count: u64) -> String {
    match count {
        0 => "no dead letters".to_owned(),
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    }
}

/// A text from outside, for a terminal: on one line, without anything that a terminal would obey, and not too long.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(chars_max).map(visible).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The letter itself, or a stand-in for what moves the cursor or turns the direction of writing.
fn visible(letter: char) -> char {
    match letter {
        '\n' | '\r' | '\t' => ' ',
        letter if is_obeyed(letter) => '\u{fffd}',
        letter => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_answered_cannot_move_the_cursor_of_a_terminal() {
        assert_eq!(shown("no\r\n\u{1b}[2J\u{9b}x\u{202e}", 80), "no  \u{fffd}[2J\u{fffd}x\u{fffd}");
        assert_eq!((shown("äöü", 3), shown("äöüx", 3)), ("äöü".to_owned(), "äöü…".to_owned()));
    }

    #[test]
    fn a_number_of_letters_is_told_in_words() {
        let told = [0, 1, 2].map(amount);
        assert_eq!(told, ["no dead letters", "1 dead letter", "2 dead letters"]);
    }
}
