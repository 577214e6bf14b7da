//! `forebay dead-letters`: lists the readings that nodes refused, sends them again, or removes them.
//!
//! It works on the directory itself, even while a gateway runs: it locks the files only while it rewrites one of them,
//! never while it waits for the network or for the reader of its output. An unreadable line is reported and stays.

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
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// Shows them, the oldest first. Exit status 1 if a line cannot be read
    List(list::ListArguments),
    /// Sends them to a gateway again, and removes those that it takes. Exit status 1 if some stay that were to go, or a
    /// line cannot be read
    Replay(replay::ReplayArguments),
    /// Removes them for good
    Purge(purge::PurgeArguments),
}

/// The directory of dead letters.
#[derive(Debug, Args)]
struct LettersDirectoryArguments {
    /// The directory, instead of `dead_letter.path` of the settings
    #[arg(long, value_name = "DIRECTORY")]
    path: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Runs the command and returns the exit status.
pub(super) fn run(arguments: &DeadLettersArguments) -> u8 {
    let place = match &arguments.command {
        DeadLettersCommand::List(list) => &list.place,
        DeadLettersCommand::Replay(replay) => &replay.place,
        DeadLettersCommand::Purge(purge) => &purge.place,
    };
    let Some(config) = place.settings.read() else { return MISUSED };
    logging::start(config.log);
    let directory = LetterDirectory::new(place.path.as_ref().unwrap_or(&config.delivery.dead_letter.path));
    let out = &mut BufWriter::new(EscapingWriter::new(io::stdout().lock()));
    let checked = check_exists(&directory).and_then(|()| check_content(&directory));
    let result = checked.and_then(|()| work(&arguments.command, &config, &directory, out));
    match result.and_then(|status| Ok(out.flush().map(|()| status)?)) {
        Ok(status) => status,
        // The reader, such as `head`, has closed its end: it has seen enough.
        Err(error) if is_broken_pipe(&error) => DONE,
        Err(error) => {
            let _ = out.flush();
            complain(format_args!("{error:#}"));
            FAILED
        }
    }
}

/// Fails if the directory does not exist: a gateway makes its own when it starts.
fn check_exists(directory: &LetterDirectory) -> anyhow::Result<()> {
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

/// Fails if the directory is not one of dead letters: a gateway's directory has letters or a lock, or is empty.
fn check_content(directory: &LetterDirectory) -> anyhow::Result<()> {
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

/// Most names that are examined to recognize a directory.
const NAMES_MAX: usize = 10_000;

/// Advice if the directory is not one of dead letters.
const NAME_IT: &str =
    "name that of the gateway with `--path`, or its settings with `--config` (`dead_letter.path`)";

fn work(
    command: &DeadLettersCommand,
    config: &Config,
    directory: &LetterDirectory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    match command {
        DeadLettersCommand::List(arguments) => list::list(arguments, directory, out),
        DeadLettersCommand::Replay(arguments) => replay::replay(arguments, config, directory, out),
        DeadLettersCommand::Purge(arguments) => purge::purge(arguments, directory, out),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A number of dead letters, in words.
fn amount(count: u64) -> String {
    match count {
        0 => "no dead letters".to_owned(),
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    }
}

/// Text from outside for a terminal: on one line, without control characters, and shortened to `chars_max`.
pub(super) fn shown(text: &str, chars_max: usize) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(chars_max).map(visible).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The character itself, or a replacement for one that moves the cursor or changes the direction of writing.
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
    fn text_of_a_node_cannot_move_the_cursor_of_a_terminal() {
        assert_eq!(shown("no\r\n\u{1b}[2J\u{9b}x\u{202e}", 80), "no  \u{fffd}[2J\u{fffd}x\u{fffd}");
        assert_eq!((shown("äöü", 3), shown("äöüx", 3)), ("äöü".to_owned(), "äöü…".to_owned()));
    }

    #[test]
    fn a_number_of_letters_is_written_in_words() {
        let words = [0, 1, 2].map(amount);
        assert_eq!(words, ["no dead letters", "1 dead letter", "2 dead letters"]);
    }
}
