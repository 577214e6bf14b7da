//! `forebay completions`: completions for shells, generated from the command line's definition.

use std::io::{self, Write as _};

use clap::{Args, Command};
use clap_complete::Shell;

use super::terminal::complain;
use super::{DONE, FAILED};

/// Prints the completions of this command line for a shell.
#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

/// Prints the completions and returns the exit status.
pub(super) fn run(arguments: &CompletionsArguments, mut command: Command) -> u8 {
    let name = command.get_name().to_owned();
    // Into memory first: the generator would panic at an output that ends early.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    let mut out = io::stdout().lock();
    match out.write_all(&script).and_then(|()| out.flush()) {
        Ok(()) => DONE,
        // The reader, such as `head`, has closed its end: it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            complain(format_args!("cannot write the completions: {error}"));
            FAILED
        }
    }
}
