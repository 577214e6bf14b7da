//! `forebay keys`: makes, shows, replaces and takes away the keys of clients, in the file that `auth.keys` names.
//!
//! A key is shown once, when it is made: the file has its hash alone. A gateway that runs takes the changed file by itself.

mod edit;
mod list;
mod store;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use forebay_reading::clock::wall_time;
use forebay_reading::quantity::{format_duration, parse_duration};
use forebay_reading::timestamp::Timestamp;

use super::settings::SettingsArguments;
use super::terminal::{complain, show_line};
use super::{DONE, FAILED, MISUSED};
use crate::auth::secret::{KeyHash, draw};
use crate::auth::{self, Role};
use edit::NewKey;
use store::{KeyFile, WrittenFile};

/// The file if no setting names another.
const DEFAULT_FILE: &str = "keys.toml";
/// Longest time for which a replaced key goes on, in days.
const GRACE_DAYS_MAX: u64 = 366;

/// Makes, lists, rotates and revokes the keys of clients.
#[derive(Debug, Args)]
pub(super) struct KeysArguments {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Makes a key, prints it once, and writes its hash into the file
    Add(AddArguments),
    /// Lists the keys; what they are is not known any more
    List(FileArguments),
    /// Makes a new key for a name; the old one goes on for a while
    Rotate(RotateArguments),
    /// Takes a key away
    Revoke(RevokeArguments),
}

/// Which file holds the keys.
#[derive(Debug, Args)]
struct FileArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// File of the keys. If left out: the one that the setting auth.keys names, or keys.toml
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct AddArguments {
    /// Name of the key, shown in metrics and logs
    name: String,
    /// Devices that may be written, as a glob; may be repeated. If left out: any
    #[arg(long = "device", value_name = "GLOB")]
    devices: Vec<String>,
    /// Sensors that may be written, as a glob; may be repeated. If left out: any
    #[arg(long = "sensor", value_name = "GLOB")]
    sensors: Vec<String>,
    /// Readings in a time, such as 200/s
    #[arg(long, value_name = "N/UNIT")]
    rate: Option<String>,
    /// Readings at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    burst: Option<i64>,
    /// What the key is for: write takes readings, read shows what the operator sees
    #[arg(long, value_enum, default_value_t)]
    role: RoleArgument,
    /// Print the entry in place of writing it
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    file: FileArguments,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RoleArgument {
    #[default]
    Write,
    Read,
}

#[derive(Debug, Args)]
struct RotateArguments {
    /// Name of the key
    name: String,
    /// How long the old key goes on
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = grace)]
    grace: Duration,
    #[command(flatten)]
    file: FileArguments,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    /// Name of the key
    name: String,
    #[command(flatten)]
    file: FileArguments,
}

fn grace(text: &str) -> Result<Duration, String> {
    let grace = parse_duration(text).map_err(|error| error.to_string())?;
    let max = Duration::from_secs(GRACE_DAYS_MAX * 86_400);
    if grace <= max { Ok(grace) } else { Err(format!("must be at most {}", format_duration(max))) }
}

impl From<RoleArgument> for Role {
    fn from(role: RoleArgument) -> Role {
        match role {
            RoleArgument::Write => Role::Write,
            RoleArgument::Read => Role::Read,
        }
    }
}

/// Why a command did nothing.
#[derive(Debug)]
enum KeysFailure {
    /// It was used wrongly.
    Misused(String),
    /// It could not be done.
    Failed(String),
    /// It was told already.
    Told,
}

impl From<String> for KeysFailure {
    fn from(problem: String) -> KeysFailure {
        KeysFailure::Failed(problem)
    }
}

/// Runs the command and returns the exit status.
pub(super) fn run(arguments: &KeysArguments) -> u8 {
    let outcome = match &arguments.command {
        KeysCommand::Add(arguments) => add(arguments),
        KeysCommand::List(arguments) => list(arguments),
        KeysCommand::Rotate(arguments) => rotate(arguments, wall_time()),
        KeysCommand::Revoke(arguments) => revoke(arguments),
    };
    match outcome {
        Ok(()) => DONE,
        Err(KeysFailure::Told) => MISUSED,
        Err(KeysFailure::Misused(problem)) => {
            complain(problem);
            MISUSED
        }
        Err(KeysFailure::Failed(problem)) => {
            complain(problem);
            FAILED
        }
    }
}

impl FileArguments {
    /// The file, and whether the settings name it.
    fn path(&self) -> Result<(PathBuf, bool), KeysFailure> {
        if let Some(path) = &self.file {
            return Ok((path.clone(), true));
        }
        let config = self.settings.read().ok_or(KeysFailure::Told)?;
        Ok(match config.auth.keys {
            Some(path) => (path, true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        })
    }
}

fn warn_of(written: &WrittenFile) {
    written.warning.iter().for_each(complain);
}

fn new_key() -> Result<(String, KeyHash), KeysFailure> {
    let key = draw().map_err(|error| format!("the system has no random bytes: {error}"))?;
    let hash = KeyHash::of(key.as_bytes());
    Ok((key, hash))
}

fn add(arguments: &AddArguments) -> Result<(), KeysFailure> {
    let (path, is_set) = arguments.file.path()?;
    let (key, hash) = new_key()?;
    let new = NewKey {
        name: &arguments.name,
        hash,
        role: arguments.role.into(),
        devices: &arguments.devices,
        sensors: &arguments.sensors,
        rate: arguments.rate.as_deref(),
        burst: arguments.burst,
    };
    let entry = new.entry();
    auth::parse(entry.as_bytes()).map_err(|faults| {
        let problems: Vec<_> = faults.iter().map(|fault| fault.problem.clone()).collect();
        KeysFailure::Misused(problems.join("\n"))
    })?;
    if arguments.print {
        show_line(format_args!("# The key, shown this once: {key}\n{}", entry.trim_end()));
        return Ok(());
    }
    let mut file = KeyFile::open_or_make(&path)?;
    let mut document = file.document()?;
    if document.has(&arguments.name) {
        let name = &arguments.name;
        return Err(KeysFailure::Failed(format!(
            "{}: there is a key `{name}` already; `forebay keys rotate {name}` replaces it",
            path.display()
        )));
    }
    document.append(&entry).map_err(|problem| format!("{}: {problem}", path.display()))?;
    let written = file.write(&document)?;
    show_line(&key);
    warn_of(&written);
    if !is_set {
        complain(format_args!(
            "the key is in {DEFAULT_FILE}, which no gateway with these settings reads: set auth.keys = \"{DEFAULT_FILE}\""
        ));
    }
    Ok(())
}

fn list(arguments: &FileArguments) -> Result<(), KeysFailure> {
    let (path, _) = arguments.path()?;
    let document = KeyFile::open(&path)?.document()?;
    for line in list::lines(&document, wall_time()) {
        show_line(line);
    }
    Ok(())
}

fn rotate(arguments: &RotateArguments, now: SystemTime) -> Result<(), KeysFailure> {
    let (path, _) = arguments.file.path()?;
    let (key, hash) = new_key()?;
    let mut file = KeyFile::open(&path)?;
    let mut document = file.document()?;
    let until = Timestamp::from_system(now + arguments.grace);
    document
        .rotate(&arguments.name, hash, until, now)
        .map_err(|problem| format!("{}: {problem}", path.display()))?;
    let written = file.write(&document)?;
    show_line(&key);
    warn_of(&written);
    Ok(())
}

fn revoke(arguments: &RevokeArguments) -> Result<(), KeysFailure> {
    let (path, _) = arguments.file.path()?;
    let mut file = KeyFile::open(&path)?;
    let mut document = file.document()?;
    document.revoke(&arguments.name).map_err(|problem| format!("{}: {problem}", path.display()))?;
    warn_of(&file.write(&document)?);
    Ok(())
}
