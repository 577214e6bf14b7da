//! The instance of the transform: it adds readings to windows, and closes them.

use forebay_reading::quantity::format_duration;
use forebay_reading::{ReadingRef, Readings};
use tokio::time::Instant;

use super::Aggregate;
use super::deadlines::Deadlines;
use super::function::Needs;
use super::number::Number;
use super::numbers::WindowNumbers;
use super::open::{Advance, Arrival, SeriesWindows};
use super::results::ResultWriter;
use super::slots::WindowSlots;
use super::window::OpenWindow;
use crate::series::{Evicted, SeriesId, SeriesTable};
use crate::{ClosedWindows, Moment, Stats, Transform, Verdict, WindowId};

/// The open windows of all series.
#[derive(Debug)]
pub struct Aggregator {
    slots: WindowSlots,
    needs: Needs,
    keep_raw: bool,
    /// **Invariant**: each series in the table has an open window, and each open window belongs to a series in the table
    /// (`a_series_without_open_windows_is_forgotten`).
    series: SeriesTable<SeriesWindows>,
    numbers: WindowNumbers,
    deadlines: Deadlines,
    results: ResultWriter,
    closed: ClosedWindows,
    stats: Stats,
}

impl Aggregator {
    /// Makes an instance without windows.
    pub fn new(settings: &Aggregate) -> Aggregator {
        Aggregator {
            slots: WindowSlots::new(settings.every, settings.lateness),
            needs: Needs::of(&settings.functions),
            keep_raw: settings.keep_raw,
            series: SeriesTable::new(settings.max_series, settings.by),
            numbers: WindowNumbers::default(),
            deadlines: Deadlines::default(),
            results: ResultWriter::new(settings.functions.clone(), format_duration(settings.every)),
            closed: ClosedWindows::default(),
            stats: Stats::default(),
        }
    }

    /// Adds a reading to its window, and gives the window's number.
    fn fold(&mut self, reading: ReadingRef<'_>, number: Number, now: Moment) -> WindowId {
        let time = reading.time();
        let start = self.slots.start_of(time);
        let found = self.series.get_or_insert_with(reading, || SeriesWindows::new(time));
        let (series, open) = (found.id, found.state);
        let advance = open.advance(time);
        let arrival = open.arrival(&self.slots, start);
        self.stats.late += u64::from(arrival == Arrival::Late);
        let mut replaced = None;
        let window = if let Some(window) = open.find(start, arrival) {
            window.add(reading, number);
            window.id
        } else {
            let id = self.numbers.take(series);
            self.deadlines.insert(self.slots.due(start, now), id);
            replaced = open.add(OpenWindow::open(id, start, self.needs, reading, number), arrival);
            id
        };
        if let Some(evicted) = found.evicted {
            self.close_evicted(evicted);
        }
        if let Some(replaced) = replaced {
            self.finish(series, replaced);
        }
        if advance == Advance::Ahead {
            self.close_past(series);
        }
        window
    }

    /// Closes the windows of a series that are past.
    fn close_past(&mut self, series: SeriesId) {
        while let Some(past) = self.series.get_mut(series).take_past(&self.slots) {
            self.finish(series, past);
        }
    }

    /// Closes an open window, and removes its series if that was its last one.
    fn close(&mut self, id: WindowId) {
        let series = self.numbers.series(id);
        let open = self.series.get_mut(series);
        let window = open.take(id);
        let is_last = open.is_empty();
        if let Some(window) = window {
            self.finish(series, window);
        }
        if is_last {
            self.series.remove(series);
        }
    }

    /// Makes the results of a window that was removed from its series.
    fn finish(&mut self, series: SeriesId, window: OpenWindow) {
        self.deadlines.remove(window.id);
        self.closed.windows.push(window.id);
        let cut = self.results.write(self.series.names(series), window, &mut self.closed.results);
        self.stats.tags_cut += cut;
    }

    fn close_evicted(&mut self, mut evicted: Evicted<SeriesWindows>) {
        let windows = evicted.state.take_all();
        for window in windows {
            self.deadlines.remove(window.id);
            self.closed.windows.push(window.id);
            let cut = self.results.write(evicted.names(), window, &mut self.closed.results);
            self.stats.tags_cut += cut;
            self.stats.evicted += 1;
        }
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
        self.numbers.release(&closed.windows);
        closed
    }

    fn stats(&self) -> Stats {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Stats {
            remembered: count(self.series.len()),
            open_windows: count(self.deadlines.len()),
            ..self.stats
        }
    }
}
