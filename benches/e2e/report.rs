//! The figures as Markdown.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "figures are rounded for people"
)]

use std::fs;
use std::time::Duration;

use crate::process::Memory;

/// The result of one round of one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// Readings that were acknowledged.
    pub(crate) readings: u64,
    /// How long it took to have them acknowledged.
    pub(crate) elapsed: Duration,
    /// Processor time that the server used, with all that it did after the last acknowledgement.
    pub(crate) cpu_seconds: f64,
}

impl Round {
    fn cpu_seconds_a_million(&self) -> f64 {
        self.cpu_seconds / (self.readings as f64 / 1e6)
    }

    fn readings_a_second(&self) -> f64 {
        self.readings as f64 / self.elapsed.as_secs_f64()
    }
}

/// The results of all rounds of one server.
#[derive(Debug)]
pub(crate) struct Measured {
    /// The server's name.
    pub(crate) name: &'static str,
    /// The name of the server that it is compared with.
    pub(crate) beside: Option<&'static str>,
    /// Its rounds, without the warm-up.
    pub(crate) rounds: Vec<Round>,
    /// Before the first request.
    pub(crate) idle: Memory,
    /// After the last one.
    pub(crate) after: Memory,
    /// Readings acknowledged and counted by the nodes, with the warm-up; nothing for a server that forwards none.
    pub(crate) delivered: Option<Delivered>,
}

/// Whether everything arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    /// Readings that the server acknowledged.
    pub(crate) acknowledged: u64,
    /// Readings that the nodes counted.
    pub(crate) counted: u64,
}

impl Delivered {
    /// Whether each acknowledged reading arrived, and no more.
    pub(crate) fn is_exact(&self) -> bool {
        self.acknowledged == self.counted
    }
}

/// The head of the table, to be followed by [`rows`].
pub(crate) const HEAD: &str = "\
| workload | server | CPU s per million readings | ratio | readings/s | beside memory: CPU | readings/s | idle RSS | peak RSS |
|---|---|---:|---:|---:|---:|---:|---:|---:|";

/// The rows of a workload; the ratio of each is to the first.
pub(crate) fn rows(workload: &str, servers: &[Measured]) -> Vec<String> {
    servers.iter().map(|server| row(workload, server, servers)).collect()
}

fn row(workload: &str, server: &Measured, all: &[Measured]) -> String {
    let cpu = median(server.rounds.iter().map(Round::cpu_seconds_a_million));
    let to_first = ratio(server, &all[0], Round::cpu_seconds_a_million);
    let rate = thousands(median(server.rounds.iter().map(Round::readings_a_second)) as u64);
    let beside = all.iter().find(|other| Some(other.name) == server.beside);
    let (beside_cpu, beside_rate) = beside.map_or((String::new(), String::new()), |other| {
        let rate = 100.0 * ratio(server, other, Round::readings_a_second);
        (format!("{:.3}", ratio(server, other, Round::cpu_seconds_a_million)), format!("{rate:.0} %"))
    });
    let (name, idle, peak) = (server.name, server.idle.resident, server.after.peak);
    format!(
        "| {workload} | {name} | {cpu:.2} | {to_first:.2} | {rate} | {beside_cpu} | {beside_rate} \
         | {idle:.0} MiB | {peak:.0} MiB |"
    )
}

/// The median of a figure of a server's rounds, each beside the round of the other in the same turn.
fn ratio(server: &Measured, other: &Measured, figure: fn(&Round) -> f64) -> f64 {
    median(ratios(server, other, figure))
}

/// A figure of a server's rounds, each beside the round of the other in the same turn.
fn ratios(server: &Measured, other: &Measured, figure: fn(&Round) -> f64) -> impl Iterator<Item = f64> {
    server.rounds.iter().zip(&other.rounds).map(move |(a, b)| figure(a) / figure(b))
}

/// Each round's CPU seconds per million, in order, and their ratios to those of the server beside it: how far the figures
/// can be trusted.
pub(crate) fn spread(workload: &str, server: &Measured, all: &[Measured]) -> String {
    let figures = server.rounds.iter().map(|round| format!("{:.2}", round.cpu_seconds_a_million()));
    let line = format!("{workload}, {}: {}", server.name, figures.collect::<Vec<_>>().join(" "));
    let Some(other) = all.iter().find(|other| Some(other.name) == server.beside) else { return line };
    let ratios = ratios(server, other, Round::cpu_seconds_a_million).map(|ratio| format!("{ratio:.3}"));
    format!("{line}; beside {}: {}", other.name, ratios.collect::<Vec<_>>().join(" "))
}

/// One sentence on whether everything arrived.
pub(crate) fn delivered(name: &str, delivered: Delivered) -> String {
    let Delivered { acknowledged, counted } = delivered;
    let (a, c) = (thousands(acknowledged), thousands(counted));
    let verdict = if delivered.is_exact() { "exact" } else { "NOT THE SAME" };
    format!("{name}: {a} readings acknowledged, {c} counted by the nodes: {verdict}.")
}

/// The machine: processor, cores, kernel.
pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Machine: {cores} cores ({model}), Linux {}.", kernel.trim())
}

/// The middle one, or the mean of the two middle ones.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    if values.is_empty() { f64::NAN } else { f64::midpoint(values[low], values[high]) }
}

/// A number with commas between the thousands.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
