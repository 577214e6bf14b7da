//! The summary at the end, for people.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use forebay_reading::text::is_obeyed;

use crate::advice;
use crate::audit::{Audit, AuditError, AuditVerdict};
use crate::histogram::Histogram;
use crate::http::GatewayLedger;
use crate::tally::LoadTally;

/// The results of a run.
#[derive(Debug)]
pub(super) struct LoadReport {
    /// From the start of the sending to the last answer.
    pub(super) elapsed: Duration,
    pub(super) connections: usize,
    /// The requested rate, in readings a second; 0: as fast as possible.
    pub(super) rate: u64,
    pub(super) tally: LoadTally,
    /// `None` if the arguments leave the audit out.
    pub(super) audit: Option<Result<Audit, AuditError>>,
    /// The work of the gateway's transforms and limits during the run, if `/status` tells it.
    pub(super) ledger: Option<LedgerChange>,
}

/// The gateway's ledger before and after the run, for readings that were not simply delivered.
#[derive(Debug)]
pub(super) struct LedgerChange {
    pub(super) before: GatewayLedger,
    pub(super) after: GatewayLedger,
}

impl LoadReport {
    /// Whether every reading was acknowledged at the first try, and the audit, if there was one, found no fault.
    pub(super) fn passed(&self) -> bool {
        self.faults().is_empty()
    }

    /// The faults of the run, in words.
    fn faults(&self) -> Vec<String> {
        let LoadTally { sent, accepted, rejected, .. } = self.tally;
        let counted = [
            (self.tally.error_count(), "requests failed"),
            // Including requests that were taken at a later try: the gateway did not keep up.
            (self.tally.refusals(), "requests were refused"),
            (rejected, "readings were turned away"),
            (sent.saturating_sub(accepted).saturating_sub(rejected), "readings were not acknowledged"),
        ];
        let counted = counted.iter().filter(|(count, _)| *count > 0);
        let mut faults: Vec<_> = counted.map(|(count, what)| format!("{} {what}", grouped(*count))).collect();
        if accepted == 0 {
            faults.push("nothing was accepted".to_owned());
        }
        match &self.audit {
            None | Some(Ok(Audit::LeftOut(_))) => {}
            Some(Ok(Audit::Done(verdict))) if verdict.passed() => {}
            Some(Ok(Audit::Done(_))) => faults.push("the audit found faults".to_owned()),
            Some(Err(_)) => faults.push("the audit could not be done".to_owned()),
        }
        faults
    }
}

impl Display for LoadReport {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let tally = &self.tally;
        let seconds = self.elapsed.as_secs_f64();
        let (sent, requests) = (grouped(tally.sent), grouped(tally.requests));
        let connections = self.connections;
        writeln!(
            out,
            "sent      {sent} readings in {requests} requests over {connections} connections in {seconds:.2} s"
        )?;
        writeln!(out, "accepted  {}", grouped(tally.accepted))?;
        writeln!(out, "rejected  {}", grouped(tally.rejected))?;
        let refused = tally.refused.iter().map(|(status, count)| (status.as_str(), *count));
        writeln!(out, "refused   {}", counts(refused))?;
        let errors = tally.errors.iter().map(|(what, count)| (*what, *count));
        writeln!(out, "errors    {}", counts(errors))?;
        if tally.unanswered > 0 {
            writeln!(out, "          {} readings may or may not have arrived", grouped(tally.unanswered))?;
        }
        if let Some(example) = &tally.example {
            writeln!(out, "          for example {}", printable(example))?;
        }
        for advice in tally.refused.keys().filter_map(|status| advice::on_status(*status)) {
            writeln!(out, "          {advice}")?;
        }
        let rate = grouped(tally.rate(self.elapsed));
        match self.rate {
            0 => writeln!(out, "rate      {rate} readings a second accepted")?,
            asked => {
                writeln!(out, "rate      {rate} readings a second accepted, {} asked for", grouped(asked))?
            }
        }
        writeln!(out, "latency   {} from sending to 202", percentiles(&tally.since_sent))?;
        if self.rate > 0 {
            writeln!(out, "          {} from when it was due to 202", percentiles(&tally.since_due))?;
        }
        self.write_audit(out)?;
        match &self.faults()[..] {
            [] => writeln!(out, "result    passed"),
            faults => writeln!(out, "result    failed: {}", faults.join(", ")),
        }
    }
}

impl LoadReport {
    fn write_audit(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match &self.audit {
            None => Ok(()),
            Some(Ok(Audit::LeftOut(reason))) => writeln!(out, "audit: left out, {}", printable(reason)),
            Some(Err(error)) => {
                writeln!(out, "audit: failed, it could not be done: {}", printable(&error.to_string()))
            }
            Some(Ok(Audit::Done(verdict))) => {
                write!(out, "{verdict}")?;
                self.ledger.as_ref().map_or(Ok(()), |change| change.write(out))
            }
        }
    }
}

impl Display for AuditVerdict {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let AuditVerdict { acknowledged, found_once, missing, more_than_once, strangers, .. } = self;
        write!(out, "audit: {acknowledged} acknowledged, {found_once} found once, ")?;
        let partly = !self.left_out.is_empty();
        write!(out, "{missing} {}, ", if partly { "not on the nodes read" } else { "missing" })?;
        write!(out, "{more_than_once} more than once")?;
        if *strangers > 0 {
            write!(out, ", {strangers} that were refused or never sent")?;
        }
        if self.unanswered > 0 {
            write!(out, "; of {} without an answer {} arrived", self.unanswered, self.unanswered_found)?;
        }
        writeln!(out)?;
        for node in &self.left_out {
            writeln!(out, "       left out, no embedded node: {}", printable(node))?;
        }
        if self.still_buffered > 0 {
            let buffered = grouped(self.still_buffered);
            writeln!(out, "       the gateway still held {buffered} readings; give it longer with --settle")?;
        }
        for example in &self.examples {
            writeln!(out, "       {}", printable(example))?;
        }
        Ok(())
    }
}

impl LedgerChange {
    /// A gateway may change readings or give them up; its ledger explains faults that the audit finds.
    fn write(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { before, after } = self;
        let changes = [
            ("filtered", before.filtered, after.filtered),
            ("merged", before.merged, after.merged),
            ("derived", before.derived, after.derived),
            ("dead_lettered", before.dead_lettered, after.dead_lettered),
            ("dropped", before.dropped, after.dropped),
        ]
        .map(|(name, before, after)| (name, after.saturating_sub(before)));
        if changes.iter().all(|(_, change)| *change == 0) {
            return Ok(());
        }
        writeln!(out, "       the gateway's ledger meanwhile: {}", counts(changes.into_iter()))
    }
}

/// `503: 12, 429: 3`, without rows of zero.
fn counts<'a>(rows: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut text = String::new();
    for (name, count) in rows.filter(|(_, count)| *count > 0) {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{name}: {}", grouped(count));
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

fn percentiles(histogram: &Histogram) -> String {
    let (p50, p99) = (histogram.percentile(50.0), histogram.percentile(99.0));
    format!("p50 {}, p99 {}, max {}", short(p50), short(p99), short(histogram.longest()))
}

/// A number with a comma between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with three digits, in the unit that fits.
pub(super) fn short(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    let (number, unit) = match micros {
        micros if micros < 1e3 => (micros, "µs"),
        micros if micros < 1e6 => (micros / 1e3, "ms"),
        micros => (micros / 1e6, "s"),
    };
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {unit}")
}

/// Text from outside, without characters that a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().map(|character| if is_obeyed(character) { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn numbers_are_written_for_people() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
        for (micros, expected) in
            [(0, "0.00 µs"), (999, "999 µs"), (1200, "1.20 ms"), (34_560, "34.6 ms"), (12_000_000, "12.0 s")]
        {
            assert_eq!(short(Duration::from_micros(micros)), expected);
        }
    }

    fn report() -> LoadReport {
        let mut tally = LoadTally::new();
        tally.sent = 1020;
        tally.requests = 105;
        tally.accepted = 1000;
        tally.unanswered = 20;
        tally.add_refusal(StatusCode::SERVICE_UNAVAILABLE, || "503: full\n".to_owned());
        tally.add_error("timed out", String::new);
        tally.since_sent.add(Duration::from_micros(1200));
        tally.since_due.add(Duration::from_micros(2400));
        let ledger = |dropped| GatewayLedger { dropped, ..GatewayLedger::default() };
        let verdict = AuditVerdict {
            acknowledged: 1000,
            found_once: 999,
            missing: 1,
            unanswered: 20,
            unanswered_found: 10,
            examples: vec!["missing: device d".to_owned()],
            ..AuditVerdict::default()
        };
        LoadReport {
            elapsed: Duration::from_secs(1),
            connections: 16,
            rate: 1000,
            tally,
            audit: Some(Ok(Audit::Done(verdict))),
            ledger: Some(LedgerChange { before: ledger(1), after: ledger(2) }),
        }
    }

    #[test]
    fn the_summary_has_every_count_and_a_line_for_the_result() {
        let expected = "\
sent      1,020 readings in 105 requests over 16 connections in 1.00 s
accepted  1,000
rejected  0
refused   503: 1
errors    timed out: 1
          20 readings may or may not have arrived
          for example 503: full\u{20}
rate      1,000 readings a second accepted, 1,000 asked for
latency   p50 1.20 ms, p99 1.20 ms, max 1.20 ms from sending to 202
          p50 2.40 ms, p99 2.40 ms, max 2.40 ms from when it was due to 202
audit: 1000 acknowledged, 999 found once, 1 missing, 0 more than once; of 20 without an answer 10 arrived
       missing: device d
       the gateway's ledger meanwhile: dropped: 1
result    failed: 1 requests failed, 1 requests were refused, 20 readings were not acknowledged, the audit found faults
";
        assert_eq!(report().to_string(), expected);
    }

    /// A run whose readings were all acknowledged at once, with a change to its counts.
    fn run(change: impl FnOnce(&mut LoadTally)) -> LoadReport {
        let mut tally = LoadTally::new();
        (tally.sent, tally.requests, tally.accepted) = (1000, 100, 1000);
        change(&mut tally);
        LoadReport { tally, audit: None, ..report() }
    }

    #[test]
    fn a_run_whose_key_is_refused_says_which_option_names_one() {
        for (status, expected) in [
            (StatusCode::UNAUTHORIZED, "--key or FOREBAY_KEY gives a key that the gateway knows\n"),
            (StatusCode::FORBIDDEN, "--key or FOREBAY_KEY gives a key that may do this\n"),
        ] {
            let report = run(|tally| tally.add_refusal(status, String::new)).to_string();
            assert!(report.contains(expected), "{report}");
        }
    }

    #[test]
    fn a_run_passes_if_readings_were_accepted_and_the_audit_found_no_fault() {
        assert!(!report().passed());
        let good = || run(|_| {});
        assert!(good().passed());
        let left_out = || Some(Ok(Audit::LeftOut("no node".to_owned())));
        assert!(LoadReport { audit: left_out(), ..good() }.passed());
        assert!(!LoadReport { audit: Some(Err(AuditError::TooMany { most: 1 })), ..good() }.passed());
        assert!(!LoadReport { audit: left_out(), tally: LoadTally::new(), ..report() }.passed());
    }

    #[test]
    fn a_run_with_requests_that_were_not_acknowledged_at_once_fails_with_the_reason() {
        let check = |change: fn(&mut LoadTally), expected: &str| {
            for audit in [None, Some(Ok(Audit::LeftOut("no node".to_owned())))] {
                let report = LoadReport { audit, ..run(change) };
                assert!(!report.passed(), "{report}");
                let last = report.to_string().lines().last().expect("a result").to_owned();
                assert_eq!(last, format!("result    failed: {expected}"));
            }
        };
        let refuse = |tally: &mut LoadTally| {
            (0..1234).for_each(|_| tally.add_refusal(StatusCode::SERVICE_UNAVAILABLE, String::new));
        };
        // Refused, and taken at a later try.
        check(refuse, "1,234 requests were refused");
        check(|tally| tally.add_error("timed out", String::new), "1 requests failed");
        check(|tally| (tally.accepted, tally.rejected) = (990, 10), "10 readings were turned away");
        check(|tally| tally.accepted = 980, "20 readings were not acknowledged");
        check(
            |tally| (tally.accepted, tally.rejected) = (0, 1000),
            "1,000 readings were turned away, nothing was accepted",
        );
    }
}
