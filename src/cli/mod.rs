//! The command line: one file per subcommand.

mod access;
mod address_file;
mod buffer;
mod check;
mod completions;
mod dead_letters;
mod healthcheck;
mod interrupts;
mod keys;
mod load;
mod logging;
mod node;
mod serve;
mod settings;
mod terminal;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Exit status of a command that succeeded.
pub const DONE: u8 = 0;
/// Exit status of a command that failed.
pub const FAILED: u8 = 1;
/// Exit status of a command that was used wrongly.
pub const MISUSED: u8 = 2;

/// An ingest gateway for sensor readings.
#[derive(Debug, Parser)]
#[command(name = "forebay", version = env!("FOREBAY_VERSION"), args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<CliCommand>,
    /// The arguments of `serve`, the default command.
    #[command(flatten)]
    serve: serve::ServeArguments,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    Serve(serve::ServeArguments),
    Node(node::NodeArguments),
    Check(check::CheckArguments),
    Healthcheck(healthcheck::HealthcheckArguments),
    Load(load::LoadCommandArguments),
    Buffer(buffer::BufferArguments),
    DeadLetters(dead_letters::DeadLettersArguments),
    Keys(keys::KeysArguments),
    Completions(completions::CompletionsArguments),
}

/// The command line, for the pages that are generated from it.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Reads the arguments and runs the command that they name.
pub fn run() -> ExitCode {
    // Before anything else, even the arguments: from here on no signal ends a server by itself.
    let listening = std::env::args_os().nth(1).is_none_or(|first| may_serve(&first)).then(interrupts::listen);
    let arguments = Arguments::parse();
    let listening = || listening.unwrap_or_else(interrupts::listen);
    let status = match arguments.command.unwrap_or(CliCommand::Serve(arguments.serve)) {
        CliCommand::Serve(arguments) => serve::run(&arguments, listening()),
        CliCommand::Node(arguments) => node::run(arguments, listening()),
        CliCommand::Check(arguments) => check::run(&arguments),
        CliCommand::Healthcheck(arguments) => healthcheck::run(&arguments),
        CliCommand::Load(arguments) => load::run(&arguments),
        CliCommand::Buffer(arguments) => buffer::run(&arguments),
        CliCommand::DeadLetters(arguments) => dead_letters::run(&arguments),
        CliCommand::Keys(arguments) => keys::run(&arguments),
        CliCommand::Completions(arguments) => completions::run(&arguments, Arguments::command()),
    };
    ExitCode::from(status)
}

/// Whether a command line with this first argument may run a server. All other commands are named by their first argument,
/// and a signal ends them.
fn may_serve(first: &OsStr) -> bool {
    first == "serve" || first == "node" || first.as_encoded_bytes().starts_with(b"-")
}
