//! What is known of each series: bounded, the longest unused out first.
//!
//! What a series is, [`key`] says: a device, a sensor and a set of tags, or the first two alone. It is found by its
//! names and tags, not by their hash alone, and the hash is SipHash with a random key: devices choose their names, and
//! none can choose them so that lookups become slow. Which series is forgotten when there is no more
//! room is decided by second chance ([`clock`]), an approximation: one that was not used since the hand came by last
//! goes before one that was.
//!
//! The table takes memory as series come, and moves little of it at once. What series that were removed took is used
//! for others, but not given back.

mod clock;
mod index;
mod key;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher, RandomState};

use clock::Clock;
use forebay_reading::ReadingRef;
pub(super) use index::Index;
pub(super) use key::{By, SeriesNames};
use key::{Names, SEPARATOR};

/// Series that lie beside each other in memory.
const CHUNK: usize = 1024;

/// A state of type `T` for each series, which are hashed by `S`.
#[derive(Debug)]
pub(super) struct SeriesTable<T, S = RandomState> {
    max_series: usize,
    by: By,
    seed: S,
    /// Where the tags of a reading are put in order; kept for its memory only.
    sorted_tags: Vec<u8>,
    /// The places of the series, by their names.
    index: Index,
    /// The series at their places.
    chunks: Vec<Vec<Option<Series<T>>>>,
    /// Places that have no series now.
    free: Vec<u32>,
    clock: Clock,
}

/// A series of the table. The same number names another one once the series was removed or evicted, and not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SeriesId(pub u32);

/// What [`SeriesTable::get_or_insert_with`] found or made.
#[derive(Debug)]
pub(super) struct Found<'a, T> {
    /// The series of the reading.
    pub id: SeriesId,
    /// Its state.
    pub state: &'a mut T,
    /// Whether the series was made just now.
    pub is_new: bool,
    /// The series that had to go, whose number the new one has now.
    pub evicted: Option<Evicted<T>>,
}

/// A series that was forgotten to make room for another one.
#[derive(Debug)]
pub(super) struct Evicted<T> {
    names: Names,
    /// Its last state.
    pub state: T,
}

#[derive(Debug)]
struct Series<T> {
    names: Names,
    state: T,
}

impl<T> SeriesTable<T> {
    /// Makes an empty one, which takes hardly any memory. It holds up to `max_series`, which is at least 1.
    pub fn new(max_series: usize, by: By) -> SeriesTable<T> {
        SeriesTable::with_seed(max_series, by, RandomState::new())
    }
}

impl<T, S: BuildHasher> SeriesTable<T, S> {
    fn with_seed(max_series: usize, by: By, seed: S) -> SeriesTable<T, S> {
        SeriesTable {
            max_series: max_series.clamp(1, u32::MAX as usize),
            by,
            seed,
            sorted_tags: Vec::new(),
            index: Index::default(),
            chunks: Vec::new(),
            free: Vec::new(),
            clock: Clock::default(),
        }
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Finds the series of a reading; if there is none, makes it with the state that `make` gives. If there is no room
    /// for it, another one has to go first.
    pub fn get_or_insert_with(&mut self, reading: ReadingRef<'_>, make: impl FnOnce() -> T) -> Found<'_, T> {
        let mut sorted = std::mem::take(&mut self.sorted_tags);
        let (device, sensor) = (reading.device_bytes(), reading.sensor_bytes());
        let tags = self.by.tags(reading, &mut sorted);
        let hash = hash(&self.seed, device, sensor, tags);
        let chunks = &self.chunks;
        let place = self.index.find(hash, |place| {
            at(chunks, place).as_ref().is_some_and(|series| series.names.are(device, sensor, tags))
        });
        let (id, evicted) = match place {
            Some(place) => {
                self.clock.mark(place as usize);
                (SeriesId(place), None)
            }
            None => self.insert(hash, Series { names: Names::of(device, sensor, tags), state: make() }),
        };
        self.sorted_tags = sorted;
        Found { id, state: self.get_mut(id), is_new: place.is_none(), evicted }
    }

    /// The state of a series that is there.
    ///
    /// # Panics
    ///
    /// If no series has this number.
    pub fn get_mut(&mut self, id: SeriesId) -> &mut T {
        &mut at_mut(&mut self.chunks, id.0).as_mut().expect("the number of a series that is there").state
    }

    /// The names of a series that is there.
    ///
    /// # Panics
    ///
    /// If no series has this number.
    pub fn names(&self, id: SeriesId) -> SeriesNames<'_> {
        at(&self.chunks, id.0).as_ref().expect("the number of a series that is there").names.parts()
    }

    /// Forgets a series that is there, and gives its last state.
    ///
    /// # Panics
    ///
    /// If no series has this number.
    pub fn remove(&mut self, id: SeriesId) -> T {
        let series = self.take(id.0);
        self.free.push(id.0);
        series.state
    }

    /// Puts in a series that is not there.
    fn insert(&mut self, hash: u64, series: Series<T>) -> (SeriesId, Option<Evicted<T>>) {
        let mut evicted = None;
        let place = if let Some(place) = self.free.pop() {
            // The hand may be about to come by, and the series is not to go before others that are older.
            self.clock.mark(place as usize);
            place
        } else if self.places() < self.max_series {
            self.add_place()
        } else {
            let place = place(self.clock.unused(self.places()));
            let Series { names, state } = self.take(place);
            evicted = Some(Evicted { names, state });
            place
        };
        self.index.insert(hash, place);
        *at_mut(&mut self.chunks, place) = Some(series);
        (SeriesId(place), evicted)
    }

    /// Adds a place behind all others.
    fn add_place(&mut self) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first one grows as it is filled, so that few series take little.
            let capacity =
                if self.chunks.is_empty() { 0 } else { CHUNK.min(self.max_series - self.places()) };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let new = self.places();
        self.chunks.last_mut().expect("there is one now").push(None);
        place(new)
    }

    fn take(&mut self, place: u32) -> Series<T> {
        let series = at_mut(&mut self.chunks, place).take().expect("the number of a series that is there");
        let names = series.names.parts();
        let (device, sensor) = (names.device.as_bytes(), names.sensor.as_bytes());
        self.index.remove(hash(&self.seed, device, sensor, names.tags_encoded()), place);
        series
    }

    /// How many places there are, with a series or without.
    fn places(&self) -> usize {
        self.chunks.len().saturating_sub(1) * CHUNK + self.chunks.last().map_or(0, Vec::len)
    }
}

impl<T> Evicted<T> {
    /// Its names.
    pub fn names(&self) -> SeriesNames<'_> {
        self.names.parts()
    }
}

/// Tags in their order, so that the same set has the same hash.
fn hash(seed: &impl BuildHasher, device: &[u8], sensor: &[u8], tags: &[u8]) -> u64 {
    let mut hasher = seed.build_hasher();
    hasher.write(device);
    hasher.write(SEPARATOR);
    hasher.write(sensor);
    if !tags.is_empty() {
        hasher.write(SEPARATOR);
        hasher.write(tags);
    }
    hasher.finish()
}

fn at<T>(chunks: &[Vec<Option<Series<T>>>], place: u32) -> &Option<Series<T>> {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

fn at_mut<T>(chunks: &mut [Vec<Option<Series<T>>>], place: u32) -> &mut Option<Series<T>> {
    &mut chunks[place as usize / CHUNK][place as usize % CHUNK]
}

fn place(number: usize) -> u32 {
    u32::try_from(number).expect("there are at most 2^32 places")
}
