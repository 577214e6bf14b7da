//! A table with a state for each series, of bounded size: a series that was not used for long is evicted first.
//!
//! A series is a device, a sensor and a set of tags, or the first two alone ([`key`]). It is found by its names and tags,
//! not by their hash alone. The hash is SipHash with a random key, so that no device can choose names that make lookups
//! slow. Second chance ([`second_chance`]) chooses the series to evict, which approximates least recently used.
//!
//! The table grows as series come, and moves little memory at once. The memory of removed series is used for others, but
//! not given back.

mod index;
mod key;
mod second_chance;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher, RandomState};

use forebay_reading::ReadingRef;
pub(super) use index::Index;
pub(super) use key::{By, SeriesIdentity};
use key::{SEPARATOR, SeriesKey};
use second_chance::SecondChance;

/// Series in one allocation.
const CHUNK: usize = 1024;

/// A state of type `T` for each series; `S` hashes the series.
#[derive(Debug)]
pub(super) struct SeriesTable<T, S = RandomState> {
    max_series: usize,
    by: By,
    seed: S,
    /// A buffer for sorted tags.
    sorted_tags: Vec<u8>,
    /// The places of the series, by the hashes of their keys.
    index: Index,
    /// The series at their places.
    chunks: Vec<Vec<Option<StoredSeries<T>>>>,
    /// Places without a series.
    free: Vec<u32>,
    second_chance: SecondChance,
}

/// The number of a series in the table. It is used for another series only after this one was removed or evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SeriesId(pub u32);

/// A series that [`SeriesTable::get_or_insert_with`] found or made.
#[derive(Debug)]
pub(super) struct SeriesEntry<'a, T> {
    /// Its number.
    pub id: SeriesId,
    /// Its state.
    pub state: &'a mut T,
    /// Whether this call made it.
    pub is_new: bool,
    /// The series that was evicted for it, and whose number it has now.
    pub evicted: Option<Evicted<T>>,
}

/// A series that was removed to make room for another one.
#[derive(Debug)]
pub(super) struct Evicted<T> {
    key: SeriesKey,
    /// Its last state.
    pub state: T,
}

#[derive(Debug)]
struct StoredSeries<T> {
    key: SeriesKey,
    state: T,
}

impl<T> SeriesTable<T> {
    /// Makes an empty table, which takes hardly any memory. It holds at most `max_series`, which is at least 1.
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
            second_chance: SecondChance::default(),
        }
    }

    /// Series in the table.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Finds the series of a reading; if there is none, makes it with the state of `make`, and evicts another series if
    /// there is no room.
    pub fn get_or_insert_with(
        &mut self,
        reading: ReadingRef<'_>,
        make: impl FnOnce() -> T,
    ) -> SeriesEntry<'_, T> {
        let mut sorted = std::mem::take(&mut self.sorted_tags);
        let (device, sensor) = (reading.device_bytes(), reading.sensor_bytes());
        let tags = self.by.tags(reading, &mut sorted);
        let hash = hash(&self.seed, device, sensor, tags);
        let chunks = &self.chunks;
        let place = self.index.find(hash, |place| {
            at(chunks, place).as_ref().is_some_and(|series| series.key.has(device, sensor, tags))
        });
        let (id, evicted) = match place {
            Some(place) => {
                self.second_chance.mark(place as usize);
                (SeriesId(place), None)
            }
            None => {
                self.insert(hash, StoredSeries { key: SeriesKey::of(device, sensor, tags), state: make() })
            }
        };
        self.sorted_tags = sorted;
        SeriesEntry { id, state: self.get_mut(id), is_new: place.is_none(), evicted }
    }

    /// The state of a series in the table.
    ///
    /// # Panics
    ///
    /// If no series has this number.
    pub fn get_mut(&mut self, id: SeriesId) -> &mut T {
        &mut at_mut(&mut self.chunks, id.0).as_mut().expect("the number of a series in the table").state
    }

    /// The names and tags of a series in the table.
    ///
    /// # Panics
    ///
    /// If no series has this number.
    pub fn names(&self, id: SeriesId) -> SeriesIdentity<'_> {
        at(&self.chunks, id.0).as_ref().expect("the number of a series in the table").key.parts()
    }

    /// Removes a series from the table, and gives its last state.
    ///
    /// # Panics
    ///
    /// If no series has this number.
    pub fn remove(&mut self, id: SeriesId) -> T {
        let series = self.take(id.0);
        self.free.push(id.0);
        series.state
    }

    /// Adds a series that is not in the table.
    fn insert(&mut self, hash: u64, series: StoredSeries<T>) -> (SeriesId, Option<Evicted<T>>) {
        let mut evicted = None;
        let place = if let Some(place) = self.free.pop() {
            // The hand may be about to reach this place, and older series must be evicted first.
            self.second_chance.mark(place as usize);
            place
        } else if self.places() < self.max_series {
            self.add_place()
        } else {
            let place = place(self.second_chance.unused(self.places()));
            let StoredSeries { key, state } = self.take(place);
            evicted = Some(Evicted { key, state });
            place
        };
        self.index.insert(hash, place);
        *at_mut(&mut self.chunks, place) = Some(series);
        (SeriesId(place), evicted)
    }

    /// Adds a place at the end.
    fn add_place(&mut self) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            // The first chunk grows as it is filled, so that few series take little memory.
            let capacity =
                if self.chunks.is_empty() { 0 } else { CHUNK.min(self.max_series - self.places()) };
            self.chunks.push(Vec::with_capacity(capacity));
        }
        let new = self.places();
        self.chunks.last_mut().expect("a chunk was pushed if there was none").push(None);
        place(new)
    }

    fn take(&mut self, place: u32) -> StoredSeries<T> {
        let series = at_mut(&mut self.chunks, place).take().expect("the number of a series in the table");
        let names = series.key.parts();
        let (device, sensor) = (names.device.as_bytes(), names.sensor.as_bytes());
        self.index.remove(hash(&self.seed, device, sensor, names.tags_encoded()), place);
        series
    }

    /// Places, with or without a series.
    fn places(&self) -> usize {
        self.chunks.len().saturating_sub(1) * CHUNK + self.chunks.last().map_or(0, Vec::len)
    }
}

impl<T> Evicted<T> {
    /// Its names and tags.
    pub fn names(&self) -> SeriesIdentity<'_> {
        self.key.parts()
    }
}

/// The hash of a key. The tags must be in order, so that equal sets have equal hashes.
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

fn at<T>(chunks: &[Vec<Option<StoredSeries<T>>>], place: u32) -> &Option<StoredSeries<T>> {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

fn at_mut<T>(chunks: &mut [Vec<Option<StoredSeries<T>>>], place: u32) -> &mut Option<StoredSeries<T>> {
    &mut chunks[place as usize / CHUNK][place as usize % CHUNK]
}

fn place(number: usize) -> u32 {
    u32::try_from(number).expect("there are at most 2^32 places")
}
