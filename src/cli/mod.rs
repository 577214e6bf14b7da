//! The command line: one file per subcommand.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit status of a command that did what it was asked.
pub const DONE: u8 = 0;
/// Exit status of a command that failed.
pub const FAILED: u8 = 1;
/// Exit status of a command that was used wrongly.
pub const MISUSED: u8 = 2;

/// An ingest gateway for sensor readings.
#[derive(Debug, Parser)]
#[command(name = "forebay", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {}

/// Reads the arguments and runs the command that they name.
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        None => ExitCode::from(DONE),
        Some(command) => match command {},
    }
}
