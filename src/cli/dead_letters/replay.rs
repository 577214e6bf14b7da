//! `forebay dead-letters replay`.
//!
//! Letters are sent in their order, in requests of bounded size. A request never spans two files, so that one rewriting
//! removes all of its letters or none. Readings that the gateway refuses stay, and the rest of their request is sent
//! without them. Each request is noted before it is sent ([`super::note`]).

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use forebay_load::access::ServerAccess;
use forebay_load::client::parse_address;
use forebay_reading::quantity::parse_duration;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::filter::LetterFilter;
use super::gateway::{GatewayClient, ReplayRequest, RequestOutcome};
use super::note::{NoteFile, NotedRequest};
use super::scan::{Complaints, scan_file};
use super::{DONE, FAILED, LettersDirectoryArguments, MISUSED, amount, complain, shown};
use crate::cli::access::AccessArguments;
use crate::cli::healthcheck::reachable;
use crate::config::Config;
use crate::delivery::dead_letter::letter::Letter;
use crate::delivery::dead_letter::{DeadLetterError, LetterDirectory};

/// Most readings in a request.
const READINGS_MAX: usize = 1000;
/// Most bytes in a request's body; a single reading that is larger goes alone.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest part of a name or a reason in a message, in characters.
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
    filter: LetterFilter,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    pub(super) place: LettersDirectoryArguments,
}

/// Sends the selected letters, and returns the exit status.
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
    let (url, access) = match arguments.gateway(config) {
        Ok(found) => found,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return Ok(MISUSED);
        }
    };
    let mut replay = ReplayRun {
        directory,
        gateway: GatewayClient::new(&url, &access, arguments.timeout)?,
        note: NoteFile::open(directory)?,
        filter: &arguments.filter,
        left: arguments.limit.unwrap_or(u64::MAX),
        readings_max: READINGS_MAX,
        replayed: 0,
        turned_away: Complaints::default(),
        unreadable: Complaints::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(replay.run());
    writeln!(out, "replayed {}", amount(replay.replayed))?;
    replay.unreadable.sum_up_unreadable();
    let turned_away = replay.turned_away.count();
    if turned_away > 0 {
        complain(format_args!("{} turned away by the gateway, and kept", amount(turned_away)));
    }
    result?;
    Ok(if turned_away == 0 && replay.unreadable.count() == 0 { DONE } else { FAILED })
}

impl ReplayArguments {
    /// The gateway, and how it is reached.
    fn gateway(&self, config: &Config) -> anyhow::Result<(Url, ServerAccess)> {
        if let Some(url) = &self.gateway {
            return Ok((url.clone(), self.access.to(url)?));
        }
        let tls = config.server.tls.as_ref();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = Url::parse(&format!("{scheme}://{}", reachable(config.server.listen)))?;
        Ok((url, self.access.to_own(tls)?))
    }
}

struct ReplayRun<'a> {
    directory: &'a LetterDirectory,
    gateway: GatewayClient,
    note: NoteFile,
    filter: &'a LetterFilter,
    /// Letters that may still be sent.
    left: u64,
    /// Most readings in the next request: fewer after a request that was too large, more after one that was accepted.
    readings_max: usize,
    replayed: u64,
    turned_away: Complaints,
    unreadable: Complaints,
}

/// The letters of one file that are to be sent, in their order.
#[derive(Debug)]
struct LetterQueue {
    file: u64,
    letters: VecDeque<LetterWithDigest>,
    /// The number of lines with each digest in the file. It goes into the keys, so that equal lines are sent under
    /// different keys: otherwise the gateway would take the second request for a repetition of the first.
    copies: HashMap<String, u64>,
}

/// A letter and the digest of its line.
#[derive(Debug)]
struct LetterWithDigest {
    letter: Letter,
    digest: String,
}

impl ReplayRun<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        if self.left > 0 {
            self.resume().await?;
        }
        // A crash may have written a letter twice; it is sent once. The noted request is finished by now.
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

    /// Sends the noted request of an earlier replay again, if all of its letters are still there. The gateway recognizes
    /// its key if it has accepted the request before.
    async fn resume(&mut self) -> anyhow::Result<()> {
        let noted = self.note.read().context("cannot read the note of what was sent")?;
        let Some(NotedRequest { file, lines }) = noted else { return Ok(()) };
        let mut queue =
            LetterQueue::load(self.directory, file, &LetterFilter::default(), &mut Complaints::default())?;
        let batch = queue.take_noted(&lines);
        if batch.len() == lines.len() {
            match self.gateway.post(&queue.request(&batch)).await? {
                RequestOutcome::Taken => self.on_taken(&mut queue, &batch)?,
                // No reading was accepted, so its letters are sent with the others.
                RequestOutcome::TurnedAway(_) | RequestOutcome::Indigestible(_) => {}
                // The outcome of the first try is still unknown.
                RequestOutcome::Denied(message) => bail!(message),
            }
        }
        self.clear_note()
    }

    fn clear_note(&self) -> anyhow::Result<()> {
        self.note.clear().context("cannot clear the note of what was sent")
    }

    fn load(&mut self, file: u64) -> Result<LetterQueue, DeadLetterError> {
        LetterQueue::load(self.directory, file, self.filter, &mut self.unreadable)
    }

    /// Sends letters, and removes the accepted ones. Letters to be sent again go back into the queue.
    async fn send(
        &mut self,
        queue: &mut LetterQueue,
        mut batch: Vec<LetterWithDigest>,
    ) -> anyhow::Result<()> {
        let lines = batch.iter().map(|keyed| keyed.digest.clone()).collect();
        let noted = NotedRequest { file: queue.file, lines };
        self.note.write(&noted).context("cannot note what is about to be sent")?;
        match self.gateway.post(&queue.request(&batch)).await? {
            RequestOutcome::Taken => self.on_taken(queue, &batch)?,
            RequestOutcome::Denied(message) => {
                self.clear_note()?;
                bail!(message);
            }
            RequestOutcome::TurnedAway(mut faults) => {
                let mut rest = Vec::new();
                for (place, keyed) in batch.into_iter().enumerate() {
                    match faults.remove(&place) {
                        Some(reason) => self.turn_away(&keyed, &reason),
                        None => rest.push(keyed),
                    }
                }
                queue.put_back(rest);
            }
            RequestOutcome::Indigestible(reason) if batch.len() == 1 => {
                batch.iter().for_each(|keyed| self.turn_away(keyed, &reason));
            }
            RequestOutcome::Indigestible(_) => {
                self.readings_max = (batch.len() / 2).max(1);
                let rest = batch.split_off(self.readings_max);
                queue.put_back(rest);
                queue.put_back(batch);
            }
        }
        Ok(())
    }

    fn on_taken(&mut self, queue: &mut LetterQueue, batch: &[LetterWithDigest]) -> anyhow::Result<()> {
        let count = batch.len() as u64;
        self.replayed += count;
        self.left = self.left.saturating_sub(count);
        self.readings_max = (self.readings_max * 2).min(READINGS_MAX);
        self.remove(queue, batch).context("readings were taken, and their letters cannot be removed")
    }

    fn turn_away(&mut self, keyed: &LetterWithDigest, reason: &str) {
        self.left = self.left.saturating_sub(1);
        let Letter { device, sensor, at, .. } = &keyed.letter;
        self.turned_away.add(|| {
            let [device, sensor, reason] =
                [device.as_str(), sensor, reason].map(|text| shown(text, SHOWN_CHARS));
            format!("{device}/{sensor}, refused at {at}, is turned away and kept: {reason}")
        });
    }

    fn remove(&self, queue: &mut LetterQueue, batch: &[LetterWithDigest]) -> Result<(), DeadLetterError> {
        let mut to_remove: HashMap<&[u8], u64> = HashMap::new();
        for keyed in batch {
            *to_remove.entry(&keyed.letter.line).or_default() += 1;
            queue.copies.entry(keyed.digest.clone()).and_modify(|copies| *copies -= 1);
        }
        let remove = &mut |line: &[u8]| match to_remove.get_mut(line) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        };
        self.directory.remove(queue.file, remove).map(|_| ())
    }
}

impl LetterQueue {
    fn load(
        directory: &LetterDirectory,
        file: u64,
        filter: &LetterFilter,
        unreadable: &mut Complaints,
    ) -> Result<LetterQueue, DeadLetterError> {
        let mut queue = LetterQueue { file, letters: VecDeque::new(), copies: HashMap::new() };
        scan_file(directory, file, filter, unreadable, |letter| {
            let digest = digest(Sha256::new_with_prefix(&letter.line));
            *queue.copies.entry(digest.clone()).or_default() += 1;
            queue.letters.push_back(LetterWithDigest { letter, digest });
            Ok::<(), DeadLetterError>(())
        })?;
        Ok(queue)
    }

    /// Takes the next letters: at least one, at most `letters_max`, and at most as many as fit into a body.
    fn take(&mut self, letters_max: usize) -> Vec<LetterWithDigest> {
        let mut body_bytes = 0;
        let fits = |keyed: &&LetterWithDigest| {
            body_bytes += keyed.letter.reading.len() + 1;
            body_bytes <= BODY_BYTES_MAX
        };
        let count = self.letters.iter().take(letters_max).take_while(fits).count().max(1);
        self.letters.drain(..count.min(self.letters.len())).collect()
    }

    /// Takes the letters with these digests, as far as they still follow in this order.
    fn take_noted(&mut self, lines: &[String]) -> Vec<LetterWithDigest> {
        let mut lines = lines.iter().peekable();
        let is_next = |keyed: &LetterWithDigest| lines.next_if(|line| **line == keyed.digest).is_some();
        std::mem::take(&mut self.letters).into_iter().filter(is_next).collect()
    }

    fn put_back(&mut self, letters: Vec<LetterWithDigest>) {
        letters.into_iter().rev().for_each(|keyed| self.letters.push_front(keyed));
    }

    /// The request for some letters. Its key depends on the whole lines and not only on the readings: a reading that was
    /// replayed and refused again is another letter, and its request must not be taken for the first one.
    fn request(&self, batch: &[LetterWithDigest]) -> ReplayRequest {
        let (mut body, mut sha) = (Vec::new(), Sha256::new());
        for LetterWithDigest { letter, digest } in batch {
            body.extend_from_slice(letter.reading.as_bytes());
            body.push(b'\n');
            sha.update(digest);
            sha.update(self.copies.get(digest).copied().unwrap_or_default().to_be_bytes());
        }
        ReplayRequest { body, readings: batch.len(), key: format!("dead-letters-{}", self::digest(sha)) }
    }
}

/// The first half of a SHA-256 in hexadecimal digits, enough to exclude collisions by chance.
fn digest(sha: Sha256) -> String {
    sha.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
