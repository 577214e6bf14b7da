//! The progress of a run on standard error: a bar on a terminal, else a line every few seconds.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use forebay_reading::text::EscapingWriter;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::report::{grouped, short};
use crate::sender::RunState;
use crate::tally::LoadTally;

const BAR_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The planned end of a run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// After a time.
    Time(Duration),
    /// After a number of readings.
    Readings(usize),
}

/// Shows the progress until `done` is cancelled.
pub(super) async fn show(shared: Arc<RunState>, length: Length, done: CancellationToken) {
    let bar = std::io::stderr().is_terminal().then(|| bar(length));
    let mut ticks = tokio::time::interval(if bar.is_some() { BAR_EVERY } else { LINE_EVERY });
    // The first tick comes at once, before there is any progress.
    ticks.tick().await;
    while done.run_until_cancelled(ticks.tick()).await.is_some() {
        let elapsed = shared.started.elapsed();
        let (line, sent) = shared.tally(|tally| (line(tally, elapsed), tally.sent));
        match &bar {
            Some(bar) => {
                bar.set_position(length.position(elapsed, sent));
                bar.set_message(line);
            }
            None => say(&line),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Writes a line to standard error. A closed standard error is no fault.
pub(super) fn say(line: &str) {
    let _ = writeln!(EscapingWriter::new(std::io::stderr()), "{line}");
}

/// Writes a line to standard error if that is a terminal.
pub(super) fn note(line: &str) {
    if std::io::stderr().is_terminal() {
        say(line);
    }
}

fn bar(length: Length) -> ProgressBar {
    // The text stands below the bar and is never cut: on a narrow terminal it wraps.
    let style =
        ProgressStyle::with_template("{bar:40}\n{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length.end()).with_style(style)
}

impl Length {
    fn end(self) -> u64 {
        match self {
            Length::Time(time) => millis(time),
            Length::Readings(readings) => readings as u64,
        }
    }

    fn position(self, elapsed: Duration, sent: u64) -> u64 {
        match self {
            Length::Time(_) => millis(elapsed).min(self.end()),
            Length::Readings(_) => sent,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn line(tally: &LoadTally, elapsed: Duration) -> String {
    format!(
        "{:.1} s  {} readings/s  p50 {}  p99 {}  refused {}  errors {}",
        elapsed.as_secs_f64(),
        grouped(tally.rate(elapsed)),
        short(tally.since_sent.percentile(50.0)),
        short(tally.since_sent.percentile(99.0)),
        grouped(tally.refusals()),
        grouped(tally.error_count()),
    )
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;
    use http::StatusCode;
    use indicatif::{ProgressDrawTarget, TermLike};

    /// A terminal of 40 columns that records its output.
    #[derive(Clone, Debug, Default)]
    struct Terminal(Arc<Mutex<String>>);

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            40
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().expect("nothing panics").push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_text_is_not_cut_on_a_narrow_terminal() {
        let mut tally = LoadTally::new();
        (0..1234).for_each(|_| tally.add_error("timed out", String::new));
        let line = line(&tally, Duration::from_secs(2));
        let terminal = Terminal::default();
        let bar = bar(Length::Time(Duration::from_secs(10)));
        bar.set_draw_target(ProgressDrawTarget::term_like(Box::new(terminal.clone())));
        bar.set_message(line.clone());
        bar.force_draw();
        let written = terminal.0.lock().expect("nothing panics").clone();
        assert!(line.ends_with("errors 1,234") && written.contains(&line), "{written:?}");
    }

    #[test]
    fn a_line_has_rate_latencies_and_faults_of_the_run() {
        let mut tally = LoadTally::new();
        tally.accepted = 24_690;
        tally.since_sent.add(Duration::from_micros(1200));
        tally.add_refusal(StatusCode::SERVICE_UNAVAILABLE, String::new);
        assert_eq!(
            line(&tally, Duration::from_secs(2)),
            "2.0 s  12,345 readings/s  p50 1.20 ms  p99 1.20 ms  refused 1  errors 0"
        );
    }
}
