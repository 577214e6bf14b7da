//! `forebay check`: the effective settings, whether a start would succeed, how long the buffer lasts, and whether each node
//! would accept batches. It changes nothing and leaves nothing behind; a gateway may run meanwhile.
//!
//! A node is tried with a request like a batch's that stores nothing. If the format has no such request, the check only
//! connects, because the effect of any other request is unknown.

mod node;
mod outlook;
mod owner;
mod place;
mod rehearsal;

use std::io::{self, BufWriter, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::Args;
use forebay_reading::text::EscapingWriter;

use super::dead_letters::shown;
use super::settings::SettingsArguments;
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED};
use crate::buffer::disk;
use crate::config::{Config, IneffectiveSetting};
use crate::delivery::NodeSource;
use crate::delivery::dead_letter::{Leftover, LetterDirectory};
use crate::directory_lock;
use crate::gateway::{check_files, check_node_files};
use crate::listener::advice_on_address;
use node::NodeCheck;
use rehearsal::RehearsalError;

/// Most lines that are shown about a node.
const FOUND_LINES_MAX: usize = 40;
/// Longest of these lines, in characters.
const FOUND_CHARS_MAX: usize = 1000;

/// Shows the effective settings, with secrets hidden, says whether a start would go well, and tries each node; or, with
/// `--try`, the transforms.
#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Runs the transforms over a file of readings instead, and prints what would be sent and what not, and why. The
    /// file's name ends in .csv, .json, .ndjson, .jsonl, .senml, .lp or .line
    #[arg(long = "try", value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// A result of the check of this machine.
#[derive(Debug)]
enum Finding {
    /// All is well.
    Fine(String),
    /// It works, but the user should know something.
    Note(String),
    /// The gateway would fail to start or to work.
    Fault(String),
}

/// Checks and returns the exit status: 1 if a start would fail, or a node cannot be reached or would not take batches.
pub(super) fn run(arguments: &CheckArguments) -> u8 {
    let Some(config) = arguments.settings.read() else { return MISUSED };
    if let Some(file) = &arguments.file {
        return rehearse(&config, file);
    }
    match check(&config, &mut EscapingWriter::new(io::stdout().lock())) {
        Ok(status) => status,
        // The reader, such as `head`, has closed its end: that is neither a fault nor a result.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            complain(error);
            FAILED
        }
    }
}

/// Tries the transforms and returns the exit status: 1 if the file cannot be read.
fn rehearse(config: &Config, file: &Path) -> u8 {
    let out = &mut BufWriter::new(EscapingWriter::new(io::stdout().lock()));
    match rehearsal::run(config, file, out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => DONE,
        Err(RehearsalError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(error) => {
            complain(error);
            FAILED
        }
    }
}

fn check(config: &Config, out: &mut impl Write) -> io::Result<u8> {
    write_settings(config, out)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut findings = check_machine(config);
    let nodes = match check_node_files(&config.delivery) {
        Ok(files) => {
            let faults = files.faults.iter().map(|fault| Finding::Fault(format!("cluster.tls: {fault}")));
            findings.extend(faults);
            findings.extend(files.readable_at.iter().map(|node| {
                Finding::Note(format!(
                    "secrets of cluster.headers or of the address go to {node} unencrypted: call it at https://"
                ))
            }));
            NodeCheck::new(&config.delivery, files)
        }
        Err(problem) => {
            findings.push(Finding::Fault(problem.to_string()));
            NodeCheck::without_files(&config.delivery)
        }
    };
    let is_fault = |finding: &Finding| matches!(finding, Finding::Fault(_));
    let mut status = if findings.iter().any(is_fault) { FAILED } else { DONE };
    for finding in &findings {
        write_finding(finding, out)?;
    }
    for source in &config.delivery.nodes {
        let tried = runtime.block_on(nodes.try_source(source));
        for (node, result) in tried {
            if result.is_err() {
                status = FAILED;
            }
            write_node(&node, &result.unwrap_or_else(|wrong| wrong), out)?;
        }
    }
    Ok(status)
}

/// Checks the files of keys and certificates.
fn front_files(config: &Config) -> Vec<Finding> {
    let notes = match check_files(config) {
        Ok(notes) => notes,
        Err(problems) => return problems.lines().map(|line| Finding::Fault(line.to_owned())).collect(),
    };
    let keys = notes.keys.map(|count| match count {
        0 => Finding::Note(
            "auth.keys: the file has no key, so that every request that needs one is refused; `forebay keys add` makes one"
                .to_owned(),
        ),
        1 => Finding::Fine("auth.keys: 1 key".to_owned()),
        count => Finding::Fine(format!("auth.keys: {count} keys")),
    });
    let certificate =
        notes.certificate.into_iter().map(|fault| Finding::Fault(format!("server.tls: {fault}")));
    keys.into_iter().chain(certificate).collect()
}

/// Checks this machine for a start: the addresses, the directories, the room on its disks.
fn check_machine(config: &Config) -> Vec<Finding> {
    let is_on_disk = config.buffer.kind == "disk";
    // An error here also makes the directory unusable, which is reported below.
    let holder = if is_on_disk { directory_lock::holder(&config.buffer.path).unwrap_or(None) } else { None };
    let mut findings = addresses(config, holder);
    match holder {
        Some(process) => findings.push(Finding::Note(format!(
            "buffer.path: {} is in use by the gateway that runs{}: it has to be stopped before another one starts there",
            config.buffer.path.display(),
            if process == 0 { String::new() } else { format!(" as process {process}") },
        ))),
        None if is_on_disk => findings.push(place::check("buffer.path", &config.buffer.path)),
        None => {}
    }
    if let Err(error) = LetterDirectory::new(&config.delivery.dead_letter.path).try_out(Leftover::Nothing) {
        findings.push(Finding::Fault(format!("dead_letter.path: {error}")));
    }
    findings.extend(front_files(config));
    findings.extend(room(config));
    findings.push(Finding::Note(outlook::of(&config.buffer)));
    if config.delivery.nodes.is_empty() {
        findings.push(Finding::Note(
            "cluster.nodes: there are none: `forebay serve` starts one of its own".to_owned(),
        ));
        findings.push(place::check("data/node", &config.embedded_node_data));
    }
    findings
}

/// Checks whether the addresses of all listeners can be listened on.
fn addresses(config: &Config, holder: Option<u32>) -> Vec<Finding> {
    let operator = config.server.operator.map(|operator| ("server.operator.listen", operator.listen));
    let listeners = [("server.listen", config.server.listen)].into_iter().chain(operator);
    // Each stays bound until the end: a gateway listens on all of them at once.
    let (findings, _bound): (Vec<_>, Vec<_>) =
        listeners.map(|(key, listen)| address(key, listen, holder)).unzip();
    findings
}

/// Checks whether the address that a setting names can be listened on.
fn address(key: &str, listen: SocketAddr, holder: Option<u32>) -> (Finding, Option<TcpListener>) {
    let error = match TcpListener::bind(listen) {
        Ok(bound) if listen.port() == 0 => {
            return (Finding::Fine(format!("{key}: {listen} takes whichever port is free")), Some(bound));
        }
        Ok(bound) => return (Finding::Fine(format!("{key}: {listen} can be listened on")), Some(bound)),
        Err(error) => error,
    };
    let finding = match owner::find(listen, holder).filter(|_| error.kind() == io::ErrorKind::AddrInUse) {
        Some(process) => Finding::Note(format!(
            "{key}: {listen} is in use by the gateway that runs here as process {process}"
        )),
        None => {
            let advice = advice_on_address(listen, &error);
            Finding::Fault(format!("{key}: {listen} cannot be listened on: {error}{advice}"))
        }
    };
    (finding, None)
}

/// Checks that disks and memory are large enough for the limits in bytes.
fn room(config: &Config) -> Vec<Finding> {
    let (buffer, letters) = (&config.buffer, &config.delivery.dead_letter);
    let mut findings = Vec::new();
    findings.extend(place::check_room(
        "dead_letter.max_bytes",
        letters.max_bytes,
        "dead_letter.path",
        &letters.path,
    ));
    if buffer.kind != "disk" {
        findings.extend(place::check_memory("buffer.max_bytes", buffer.limit.bytes));
        return findings;
    }
    findings.extend(place::check_room("buffer.max_bytes", buffer.limit.bytes, "buffer.path", &buffer.path));
    if findings.is_empty() {
        let files = disk::files_bytes_max(buffer.limit.bytes);
        findings.extend(place::check_all_files(files, &buffer.path, letters.max_bytes, &letters.path));
    }
    findings
}

/// A size for people, rounded.
fn about(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "it is rounded anyway")]
    let mut number = bytes as f64;
    let mut unit = "bytes";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    let decimals = usize::from(unit != "bytes" && number.fract() >= 0.05);
    format!("{number:.decimals$} {unit}")
}

/// Writes a line about this machine.
fn write_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let (word, text) = match finding {
        Finding::Fine(text) => ("ok", text),
        Finding::Note(text) => ("note", text),
        Finding::Fault(text) => ("fault", text),
    };
    writeln!(out, "{word}: {}", shown(text, FOUND_CHARS_MAX))
}

/// Writes the result for a node. Further lines are indented, so that a node's text cannot pass for another node.
fn write_node(node: &str, found: &str, out: &mut impl Write) -> io::Result<()> {
    let mut lines = found.lines().take(FOUND_LINES_MAX).map(|line| shown(line, FOUND_CHARS_MAX));
    writeln!(out, "node {node}: {}", lines.next().unwrap_or_default())?;
    lines.try_for_each(|line| writeln!(out, "    {line}"))
}

fn write_settings(config: &Config, out: &mut impl Write) -> io::Result<()> {
    for setting in &config.settings {
        let value = match setting.key.as_str() {
            "cluster.nodes" => {
                config.delivery.nodes.iter().map(NodeSource::to_string).collect::<Vec<_>>().join(", ")
            }
            _ => setting.value.clone(),
        };
        writeln!(out, "{} = {value}  ({})", setting.key, setting.origin)?;
    }
    for IneffectiveSetting { setting, why } in &config.without_effect {
        let (key, value, origin) = (&setting.key, &setting.value, &setting.origin);
        writeln!(out, "{key} = {value}  ({origin}): has no effect {why}")?;
    }
    Ok(())
}
