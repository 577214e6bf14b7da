//! `forebay dead-letters replay`.
//!
//! Letters go in their order, in requests of bounded size that never span two files: what was taken is removed with
//! one rewriting, all of it or nothing. Readings that the gateway turns away stay, and the others of their request go
//! without them. What is about to be sent is noted first ([`super::note`]).

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use forebay_load::client::parse_address;
use forebay_reading::quantity::parse_duration;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::filter::Filter;
use super::gateway::{Fate, Gateway, Parcel};
use super::note::{Note, Noted};
use super::scan::{Complaints, scan_file};
use super::{DONE, FAILED, PlaceArguments, amount, shown};
use crate::cli::healthcheck::reachable;
use crate::config::Config;
use crate::delivery::dead_letter::letter::Letter;
use crate::delivery::dead_letter::{DeadLetterError, LetterDirectory};

/// Most readings in a request.
const READINGS_MAX: usize = 1000;
/// Most bytes in a request's body; a single reading that is larger goes alone.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Most of a name or a reason that is shown, in characters.
const SHOWN_CHARS: usize = 300;

#[derive(Debug, Args)]
pub(super) struct ReplayArguments {
    /// The gateway; that of the settings' server.listen if not given
    #[arg(long, value_name = "URL", value_parser = parse_address)]
    gateway: Option<Url>,
    /// Send no more than so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// How long to wait for one answer
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    pub(super) place: PlaceArguments,
}

/// Sends the letters that are meant, and returns the exit status.
pub(super) fn replay(
    arguments: &ReplayArguments,
    config: &Config,
    directory: &LetterDirectory,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    if directory.files()?.is_empty() {
        writeln!(out, "{}", amount(0))?;
        return Ok(DONE);
    }
    let url = match &arguments.gateway {
        Some(url) => url.clone(),
        None => Url::parse(&format!("http://{}", reachable(config.server.listen)))?,
    };
    let mut replay = Replay {
        directory,
        gateway: Gateway::new(&url, arguments.timeout)?,
        note: Note::take(directory)?,
        filter: &arguments.filter,
        left: arguments.limit.unwrap_or(u64::MAX),
        readings_max: READINGS_MAX,
        replayed: 0,
        turned_away: Complaints::default(),
        unreadable: Complaints::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(replay.run());
    writeln!(out, "replayed {}", amount(replay.replayed))?;
    replay.unreadable.sum_up_unreadable();
    let turned_away = replay.turned_away.count();
    if turned_away > 0 {
        eprintln!("forebay: {} turned away by the gateway, and kept", amount(turned_away));
    }
    done?;
    Ok(if turned_away == 0 && replay.unreadable.count() == 0 { DONE } else { FAILED })
}

struct Replay<'a> {
    directory: &'a LetterDirectory,
    gateway: Gateway,
    note: Note,
    filter: &'a Filter,
    /// How many letters may still be tried.
    left: u64,
    /// Most readings in the next request: fewer after one that was too much, more again after one that was taken.
    readings_max: usize,
    replayed: u64,
    turned_away: Complaints,
    unreadable: Complaints,
}

/// Letters of one file that are still to be sent, in their order.
#[derive(Debug)]
struct Queue {
    file: u64,
    letters: VecDeque<Keyed>,
    /// How many lines with a digest are in the file. Lines that are the same in every byte are sent under keys of
    /// their own all the same: the gateway would take the second request for the first one, sent again.
    copies: HashMap<String, u64>,
}

/// A letter and the digest of its line.
#[derive(Debug)]
struct Keyed {
    letter: Letter,
    digest: String,
}

impl Replay<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        if self.left > 0 {
            self.resume().await?;
        }
        // Each letter is sent once, however many lines a crash wrote of it. What was noted is done with by now.
        self.directory.remove_doubles()?;
        for file in self.directory.files()? {
            if self.left == 0 {
                break;
            }
            let mut queue = self.load(file.number)?;
            while !queue.letters.is_empty() && self.left > 0 {
                let batch =
                    queue.take(self.readings_max.min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                self.send(&mut queue, batch).await?;
            }
        }
        self.clear_note()
    }

    /// Sends the request again that an earlier replay has sent last, if all of its letters are still there: the
    /// gateway may have taken it, and knows it by its key.
    async fn resume(&mut self) -> anyhow::Result<()> {
        let noted = self.note.read().context("cannot read the note of what was sent")?;
        let Some(Noted { file, lines }) = noted else { return Ok(()) };
        let mut queue = Queue::load(self.directory, file, &Filter::default(), &mut Complaints::default())?;
        let batch = queue.take_noted(&lines);
        if batch.len() == lines.len() {
            match self.gateway.post(&queue.parcel(&batch)).await? {
                Fate::Taken => self.on_taken(&mut queue, &batch)?,
                // Nothing was taken, and its letters are letters like all others.
                Fate::TurnedAway(_) | Fate::Indigestible(_) => {}
                // It still is not known what became of it the first time.
                Fate::Denied(told) => bail!(told),
            }
        }
        self.clear_note()
    }

    fn clear_note(&self) -> anyhow::Result<()> {
        self.note.clear().context("cannot clear the note of what was sent")
    }

    fn load(&mut self, file: u64) -> Result<Queue, DeadLetterError> {
        Queue::load(self.directory, file, self.filter, &mut self.unreadable)
    }

    /// Sends letters, and removes those that were taken. What is to be sent again goes back into the queue.
    async fn send(&mut self, queue: &mut Queue, mut batch: Vec<Keyed>) -> anyhow::Result<()> {
        let lines = batch.iter().map(|keyed| keyed.digest.clone()).collect();
        let noted = Noted { file: queue.file, lines };
        self.note.write(&noted).context("cannot note what is about to be sent")?;
        match self.gateway.post(&queue.parcel(&batch)).await? {
            Fate::Taken => self.on_taken(queue, &batch)?,
            Fate::Denied(told) => {
                self.clear_note()?;
                bail!(told);
            }
            Fate::TurnedAway(mut faults) => {
                let mut kept = Vec::new();
                for (place, keyed) in batch.into_iter().enumerate() {
                    match faults.remove(&place) {
                        Some(reason) => self.turn_away(&keyed, &reason),
                        None => kept.push(keyed),
                    }
                }
                queue.put_back(kept);
            }
            Fate::Indigestible(reason) if batch.len() == 1 => {
                batch.iter().for_each(|keyed| self.turn_away(keyed, &reason));
            }
            Fate::Indigestible(_) => {
                self.readings_max = (batch.len() / 2).max(1);
                let rest = batch.split_off(self.readings_max);
                queue.put_back(rest);
                queue.put_back(batch);
            }
        }
        Ok(())
    }

    fn on_taken(&mut self, queue: &mut Queue, batch: &[Keyed]) -> anyhow::Result<()> {
        let count = batch.len() as u64;
        self.replayed += count;
        self.left = self.left.saturating_sub(count);
        self.readings_max = (self.readings_max * 2).min(READINGS_MAX);
        self.remove(queue, batch).context("readings were taken, and their letters cannot be removed")
    }

    fn turn_away(&mut self, keyed: &Keyed, reason: &str) {
        self.left = self.left.saturating_sub(1);
        let Letter { device, sensor, at, .. } = &keyed.letter;
        self.turned_away.tell(|| {
            let [device, sensor, reason] =
                [device.as_str(), sensor, reason].map(|text| shown(text, SHOWN_CHARS));
            format!("{device}/{sensor}, refused at {at}, is turned away and kept: {reason}")
        });
    }

    fn remove(&self, queue: &mut Queue, batch: &[Keyed]) -> Result<(), DeadLetterError> {
        let mut going: HashMap<&[u8], u64> = HashMap::new();
        for keyed in batch {
            *going.entry(&keyed.letter.line).or_default() += 1;
            queue.copies.entry(keyed.digest.clone()).and_modify(|copies| *copies -= 1);
        }
        let goes = &mut |line: &[u8]| match going.get_mut(line) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        };
        self.directory.remove(queue.file, goes).map(|_| ())
    }
}

impl Queue {
    fn load(
        directory: &LetterDirectory,
        file: u64,
        filter: &Filter,
        unreadable: &mut Complaints,
    ) -> Result<Queue, DeadLetterError> {
        let mut queue = Queue { file, letters: VecDeque::new(), copies: HashMap::new() };
        scan_file(directory, file, filter, unreadable, |letter| {
            let digest = digest(Sha256::new_with_prefix(&letter.line));
            *queue.copies.entry(digest.clone()).or_default() += 1;
            queue.letters.push_back(Keyed { letter, digest });
            Ok::<(), DeadLetterError>(())
        })?;
        Ok(queue)
    }

    /// Takes the next letters: at most so many, at least one, and no more than a body may have bytes.
    fn take(&mut self, letters_max: usize) -> Vec<Keyed> {
        let mut body_bytes = 0;
        let fits = |keyed: &&Keyed| {
            body_bytes += keyed.letter.reading.len() + 1;
            body_bytes <= BODY_BYTES_MAX
        };
        let count = self.letters.iter().take(letters_max).take_while(fits).count().max(1);
        self.letters.drain(..count.min(self.letters.len())).collect()
    }

    /// Takes the letters with these digests, as far as they are there in this order.
    fn take_noted(&mut self, lines: &[String]) -> Vec<Keyed> {
        let mut lines = lines.iter().peekable();
        let is_next = |keyed: &Keyed| lines.next_if(|line| **line == keyed.digest).is_some();
        std::mem::take(&mut self.letters).into_iter().filter(is_next).collect()
    }

    fn put_back(&mut self, letters: Vec<Keyed>) {
        letters.into_iter().rev().for_each(|keyed| self.letters.push_front(keyed));
    }

    /// The request for some letters. Its key depends on the whole lines, not on the readings alone: a reading that was
    /// replayed and refused again is another letter, and its request must not be taken for the first one.
    fn parcel(&self, batch: &[Keyed]) -> Parcel {
        let (mut body, mut sha) = (Vec::new(), Sha256::new());
        for Keyed { letter, digest } in batch {
            body.extend_from_slice(letter.reading.as_bytes());
            body.push(b'\n');
            sha.update(digest);
            sha.update(self.copies.get(digest).copied().unwrap_or_default().to_be_bytes());
        }
        Parcel { body, readings: batch.len(), key: format!("dead-letters-{}", self::digest(sha)) }
    }
}

/// Half of a SHA-256 in hexadecimal digits: nobody finds two texts with the same by chance.
fn digest(sha: Sha256) -> String {
    sha.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
