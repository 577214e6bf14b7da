//! `forebay buffer`: inspects and repairs the buffer directory of a stopped gateway.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use forebay_codec::{Encoder as _, Ndjson};
use forebay_reading::text::EscapingWriter;
use forebay_wal::{Damage, SegmentNumber, Truncation};

use super::settings::SettingsArguments;
use super::terminal::complain;
use super::{DONE, FAILED, MISUSED, logging};
use crate::buffer::disk::inspect::{self, LostKeys, Report, SegmentReport};
use crate::buffer::{BufferConfig, OpenError};

/// Works on the buffer on disk of a gateway that is stopped.
#[derive(Debug, Args)]
pub(super) struct BufferArguments {
    #[command(subcommand)]
    command: BufferCommand,
}

#[derive(Debug, Subcommand)]
enum BufferCommand {
    /// Reads everything and says what is there and what is damaged; changes nothing. Exit status 1 if something
    /// is damaged
    Verify(BufferDirectoryArguments),
    /// Prints every reading that is not delivered, one a line, as canonical JSON; changes nothing. Exit status 1 if
    /// something is damaged
    Dump(BufferDirectoryArguments),
    /// Sets aside what is damaged, below `quarantine`, so that the next start finds nothing wrong. A start does the
    /// same by itself
    Repair(BufferDirectoryArguments),
}

#[derive(Debug, Args)]
struct BufferDirectoryArguments {
    /// The directory, instead of `buffer.path` of the settings
    #[arg(long, value_name = "DIRECTORY")]
    path: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArguments,
}

/// Runs the command and returns the exit status.
pub(super) fn run(arguments: &BufferArguments) -> u8 {
    let (BufferCommand::Verify(place) | BufferCommand::Dump(place) | BufferCommand::Repair(place)) =
        &arguments.command;
    let Some(config) = place.settings.read() else { return MISUSED };
    logging::start(config.log);
    let mut buffer = config.buffer;
    buffer.path = place.path.clone().unwrap_or(buffer.path);
    let out = &mut BufWriter::new(EscapingWriter::new(io::stdout().lock()));
    let result = match &arguments.command {
        BufferCommand::Verify(_) => verify(&buffer, out),
        BufferCommand::Dump(_) => dump(&buffer, out),
        BufferCommand::Repair(_) => repair(&buffer, out),
    };
    match result.and_then(|status| out.flush().map(|()| status).map_err(BufferCommandError::Output)) {
        Ok(status) => status,
        // The reader, such as `head`, has closed its end: it has seen enough.
        Err(BufferCommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => DONE,
        Err(BufferCommandError::Output(error)) => fail(&error),
        Err(BufferCommandError::Buffer(error)) => fail(&error),
    }
}

enum BufferCommandError {
    Output(io::Error),
    Buffer(OpenError),
}

impl From<io::Error> for BufferCommandError {
    fn from(error: io::Error) -> BufferCommandError {
        BufferCommandError::Output(error)
    }
}

impl From<OpenError> for BufferCommandError {
    fn from(error: OpenError) -> BufferCommandError {
        BufferCommandError::Buffer(error)
    }
}

fn fail(error: &dyn std::fmt::Display) -> u8 {
    complain(error);
    FAILED
}

fn verify(config: &BufferConfig, out: &mut impl Write) -> Result<u8, BufferCommandError> {
    let report = inspect::verify(config, &mut |_| {})?;
    write_report(&report, out)?;
    Ok(if report.is_sound() { DONE } else { FAILED })
}

fn dump(config: &BufferConfig, out: &mut impl Write) -> Result<u8, BufferCommandError> {
    let mut written = Ok(());
    let mut line = Vec::new();
    let report = inspect::verify(config, &mut |reading| {
        line.clear();
        let rendered = Ndjson.write(0, reading, &mut line);
        rendered.expect("NDJSON holds every reading");
        if written.is_ok() {
            written = out.write_all(&line);
        }
    })?;
    written?;
    if report.is_sound() {
        return Ok(DONE);
    }
    complain("something is damaged; `forebay buffer verify` says what");
    Ok(FAILED)
}

fn repair(config: &BufferConfig, out: &mut impl Write) -> Result<u8, BufferCommandError> {
    let report = inspect::repair(config)?;
    write_report(&report, out)?;
    if report.is_sound() {
        writeln!(out, "nothing was damaged")?;
    } else {
        let quarantine = config.path.join("quarantine");
        writeln!(out, "what was damaged is set aside in {}", quarantine.display())?;
        if !report.lost_keys.is_empty() {
            writeln!(
                out,
                "what was damaged of remembered keys is set aside in {}",
                config.path.join("keys/quarantine").display()
            )?;
        }
    }
    Ok(DONE)
}

fn write_report(report: &Report, out: &mut impl Write) -> io::Result<()> {
    for SegmentReport { segment, requests, amount, unsettled, damaged, set_aside, lost: _ } in
        &report.segments
    {
        let damage = match (damaged.is_empty(), set_aside.is_empty()) {
            (false, _) => "DAMAGED",
            (true, false) => "sound, but for what is set aside",
            (true, true) => "sound",
        };
        writeln!(
            out,
            "segment {}: {requests} requests, {} readings, {unsettled} not delivered, {} bytes: {damage}",
            segment.number, amount.readings, segment.bytes
        )?;
    }
    for damage in report.all_damaged() {
        write_damage(damage, "", out)?;
    }
    for number in &report.missing {
        writeln!(out, "segment {number}: MISSING{}", unknown_end(report, *number))?;
    }
    if let Some(cut_short) = report.cut_short.filter(|cut_short| !report.missing.contains(&cut_short.segment))
    {
        write_cut_short(&cut_short, "", out)?;
    }
    if report.checkpoint_damaged {
        writeln!(out, "checkpoint: DAMAGED; what was delivered before may be sent again")?;
    }
    if report.lost_requests > 0 {
        let are = if report.lost_requests == 1 { "request is" } else { "requests are" };
        writeln!(out, "{} {are} lost", report.lost_requests)?;
    }
    write_lost_keys(&report.lost_keys, out)?;
    let (unsettled, batches) = (report.unsettled(), report.batches);
    writeln!(
        out,
        "{unsettled} readings not delivered, {batches} batches may have been sent and are sent again"
    )
}

/// Says that a missing segment may have had more records than are known.
fn unknown_end(report: &Report, missing: SegmentNumber) -> String {
    let cut_short = report.cut_short.filter(|cut_short| cut_short.segment == missing);
    cut_short.map_or_else(String::new, |Truncation { seq, .. }| {
        format!("; if records stood in it from record {seq} on, they are lost, and nobody knows how many")
    })
}

/// Writes which part of a segment cannot be read; `prefix` stands before it.
fn write_damage(damage: &Damage, prefix: &str, out: &mut impl Write) -> io::Result<()> {
    let Damage { segment, bytes, .. } = damage;
    let records = damage.records();
    if bytes.is_empty() {
        return writeln!(
            out,
            "{prefix}segment {segment}: {records} records are missing, and nothing of them is left"
        );
    }
    writeln!(
        out,
        "{prefix}segment {segment}: bytes {} to {} cannot be read: {records} records",
        bytes.start, bytes.end
    )
}

fn write_cut_short(cut_short: &Truncation, prefix: &str, out: &mut impl Write) -> io::Result<()> {
    let Truncation { segment, bytes, made_bytes, seq } = cut_short;
    writeln!(
        out,
        "{prefix}segment {segment}: CUT SHORT to {bytes} of at least {made_bytes} bytes; if records stood in what is \
         gone, from record {seq} on, they are lost, and nobody knows how many"
    )
}

fn write_lost_keys(lost: &LostKeys, out: &mut impl Write) -> io::Result<()> {
    for damage in &lost.damaged {
        write_damage(damage, "keys: ", out)?;
    }
    if let Some(cut_short) = &lost.cut_short {
        write_cut_short(cut_short, "keys: ", out)?;
    }
    if lost.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "keys: remembered keys that are lost: {lost}; a request that is sent again with one of them would be taken again"
    )
}
