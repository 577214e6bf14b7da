//! The transform itself: folds readings into windows, and closes them.

use tokio::time::Instant;

use super::Aggregate;
use super::deadlines::Deadlines;
use super::function::Needs;
use super::labels::Labels;
use super::number::Number;
use super::open::{Arrival, OpenWindows};
use super::results::ResultWriter;
use super::slots::{Slots, Start};
use super::summary::Summary;
use super::windows::{Window, Windows};
use crate::quantity::format_duration;
use crate::reading::{ReadingRef, Readings};
use crate::transform::series::{Evicted, SeriesId, SeriesTable};
use crate::transform::{ClosedWindows, Moment, Stats, Transform, Verdict, WindowId};

/// Windows of every series that has open ones.
#[derive(Debug)]
pub struct Aggregator {
    slots: Slots,
    needs: Needs,
    keep_raw: bool,
    /// **Invariant**: every series in it has an open window, and every open window is of a series in it.
    series: SeriesTable<OpenWindows>,
    windows: Windows,
    deadlines: Deadlines,
    results: ResultWriter,
    closed: ClosedWindows,
    stats: Stats,
}

impl Aggregator {
    /// Makes one that has seen nothing yet.
    pub fn new(settings: &Aggregate) -> Aggregator {
        Aggregator {
            slots: Slots::new(settings.every, settings.lateness),
            needs: Needs::of(&settings.functions),
            keep_raw: settings.keep_raw,
            series: SeriesTable::new(settings.max_series),
            windows: Windows::default(),
            deadlines: Deadlines::default(),
            results: ResultWriter::new(settings.functions.clone(), format_duration(settings.every)),
            closed: ClosedWindows::default(),
            stats: Stats::default(),
        }
    }

    /// Takes a reading into a window and gives the window.
    fn fold(&mut self, reading: ReadingRef<'_>, number: Number, now: Moment) -> WindowId {
        let time = reading.time();
        let start = self.slots.start_of(time);
        let found = self.series.get_or_insert_with(reading, || OpenWindows::new(time));
        let (series, evicted) = (found.id, found.evicted);
        let is_ahead = time > found.state.latest;
        if is_ahead {
            found.state.latest = time;
        }
        let arrival = found.state.arrival(&self.slots, start);
        let open = found.state.find(&self.windows, start, arrival);
        if let Some(evicted) = evicted {
            self.close_evicted(&evicted);
        }
        self.stats.late += u64::from(arrival == Arrival::Late);
        let window = match open {
            Some(window) => {
                self.join(window, reading, number);
                window
            }
            None => self.open(series, start, arrival, reading, number, now),
        };
        // Only now, so that the series is never without a window in between.
        if is_ahead {
            self.close_past(series);
        }
        window
    }

    fn join(&mut self, window: WindowId, reading: ReadingRef<'_>, number: Number) {
        let window = self.windows.get_mut(window);
        window.labels.keep_shared(reading);
        window.summary.add(reading.time(), number);
    }

    fn open(
        &mut self,
        series: SeriesId,
        start: Start,
        arrival: Arrival,
        reading: ReadingRef<'_>,
        number: Number,
        now: Moment,
    ) -> WindowId {
        let window = self.windows.insert(Window {
            series,
            start,
            earlier: None,
            labels: Labels::of(reading),
            summary: Summary::new(self.needs, reading.time(), number),
        });
        self.deadlines.insert(self.slots.due(start, now), window);
        let replaced = self.series.get_mut(series).add(&mut self.windows, window, arrival);
        if let Some(replaced) = replaced {
            self.finish(replaced);
        }
        window
    }

    /// Closes the windows of a series that are past.
    fn close_past(&mut self, series: SeriesId) {
        while let Some(past) = self.series.get_mut(series).past(&self.windows, &self.slots) {
            self.close(past);
        }
    }

    /// Closes a window of a series, and forgets the series if it was the last one.
    fn close(&mut self, window: WindowId) {
        let series = self.windows.get(window).series;
        let open = self.series.get_mut(series);
        open.remove(&mut self.windows, window);
        let is_last = open.is_empty();
        self.finish(window);
        if is_last {
            self.series.remove(series);
        }
    }

    /// Makes the results of a window that its series does not name any more.
    fn finish(&mut self, id: WindowId) {
        let window = self.take(id);
        let names = self.series.names(window.series);
        self.results.write(names, window.start, &window.labels, window.summary, &mut self.closed.results);
    }

    fn close_evicted(&mut self, evicted: &Evicted<OpenWindows>) {
        let all: Vec<_> = evicted.state.all(&self.windows).collect();
        for id in all {
            let window = self.take(id);
            let names = evicted.names();
            self.results.write(names, window.start, &window.labels, window.summary, &mut self.closed.results);
            self.stats.evicted += 1;
        }
    }

    fn take(&mut self, id: WindowId) -> Window {
        self.deadlines.remove(id);
        self.closed.windows.push(id);
        self.windows.close(id)
    }
}

impl Transform for Aggregator {
    fn apply(&mut self, reading: ReadingRef<'_>, now: Moment, _out: &mut Readings) -> Verdict {
        let number = Number::of(reading).filter(|_| self.results.can_name(reading.sensor_bytes().len()));
        let Some(number) = number else {
            self.stats.failed += 1;
            return Verdict::Pass;
        };
        let window = self.fold(reading, number, now);
        if self.keep_raw { Verdict::MergeAndPass(window) } else { Verdict::Merge(window) }
    }

    fn apply_again(&mut self, reading: ReadingRef<'_>, now: Moment, out: &mut Readings) -> Verdict {
        if self.keep_raw { self.apply(reading, now, out) } else { Verdict::Pass }
    }

    fn next_due(&self) -> Option<Instant> {
        self.deadlines.first().map(|(due, _)| due)
    }

    fn close_due(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some((_, window)) = self.deadlines.first().filter(|(due, _)| *due <= now) else { return };
            self.close(window);
        }
    }

    fn close_oldest(&mut self, most: usize) {
        for _ in 0..most {
            let Some((_, window)) = self.deadlines.first() else { return };
            self.close(window);
        }
    }

    fn keeps_raw(&self) -> bool {
        self.keep_raw
    }

    fn take_closed(&mut self) -> ClosedWindows {
        let closed = std::mem::take(&mut self.closed);
        self.windows.release(&closed.windows);
        closed
    }

    fn stats(&self) -> Stats {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Stats { remembered: count(self.series.len()), open_windows: count(self.windows.open()), ..self.stats }
    }
}
