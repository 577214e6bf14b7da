//! The buffer in memory: a bounded queue of accepted requests. What it holds does not survive the process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::accounts::{Accounts, Bounds};
use super::lease::{Part, Record, RecordParts};
use super::outlet::{Derivation, Deriving, Fate, Kept, NoteId, Noting, Outlet, Resumed};
use super::waiters::Waiters;
use super::{
    Ack, Amount, Buffer, BufferConfig, OpenError, Opened, PushError, Receipt, Request, Rest, Settled, hold,
    settle,
};
use crate::metrics::Metrics;

#[derive(Debug)]
struct Memory {
    config: BufferConfig,
    accounts: Arc<Accounts>,
    /// Where accepted requests go; gone once the buffer is closed. Held for cloning or taking it.
    queue: Mutex<Option<mpsc::Sender<Part>>>,
}

/// Opens a buffer in memory; there is nothing that could fail.
pub fn open(config: &BufferConfig, nodes: usize, _: &Arc<Metrics>) -> Result<Opened, OpenError> {
    let bounds = Bounds { limit: config.limit, least: Record::AMOUNT_MIN };
    let accounts = Accounts::new(bounds, nodes, Instant::now());
    // The accounts admit no more readings than this, and each request has at least one.
    let requests = usize::try_from(config.limit.readings).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    let (queue, queued) = mpsc::channel(requests);
    let buffer =
        Memory { config: config.clone(), accounts: Arc::clone(&accounts), queue: Mutex::new(Some(queue)) };
    let outlet = Box::new(MemoryOutlet { queue: queued, derived: VecDeque::new(), accounts });
    Ok(Opened { buffer: Arc::new(buffer), outlet, memos: Vec::new() })
}

impl Memory {
    fn queue(&self) -> Result<mpsc::Sender<Part>, PushError> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(PushError::Closed)
    }

    async fn push(&self, request: Request) -> Result<Receipt, PushError> {
        let need = Record::amount(&request.readings);
        let reservation = self.accounts.reserve(need, self.config.on_full).await?;
        let reservation = reservation.counted_by(request.counter);
        let queue = self.queue()?;
        let place = queue.try_reserve().map_err(|_| PushError::Closed)?;

        let (waiters, settled) = match request.ack {
            Ack::Delivered => {
                let (waiter, settled) = oneshot::channel();
                (waiter.into(), Some(settled))
            }
            Ack::Memory | Ack::Disk => (Waiters::default(), None),
        };
        let record = Record::new(RecordParts {
            readings: request.readings,
            seq: None,
            made_by: None,
            held_bytes: need.bytes,
            accepted_at: Instant::now(),
            waiters,
        });
        // Counted before it can be pulled: no reading is settled that was not accepted.
        reservation.accept(request.format);
        drop(request.until_taken);
        place.send(Part::whole(record));

        match settled {
            None => Ok(Receipt { ack: Ack::Memory }),
            Some(settled) => Settled::answer(settled.await.ok()),
        }
    }
}

impl Buffer for Memory {
    fn push(&self, request: Request) -> BoxFuture<'_, Result<Receipt, PushError>> {
        self.push(request).boxed()
    }

    fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    fn close(&self) {
        self.accounts.close();
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn trouble(&self) -> Option<String> {
        None
    }

    fn finish(&self) -> BoxFuture<'_, Rest> {
        std::future::ready(Rest::Lost).boxed()
    }
}

#[derive(Debug)]
struct MemoryOutlet {
    queue: mpsc::Receiver<Part>,
    /// What transforms made.
    derived: VecDeque<Part>,
    accounts: Arc<Accounts>,
}

impl Outlet for MemoryOutlet {
    fn resumed(&mut self) -> Vec<Resumed> {
        Vec::new()
    }

    fn pull<'a>(&'a mut self, parts: &'a mut Vec<Part>, most: usize) -> BoxFuture<'a, usize> {
        if self.derived.is_empty() {
            return self.queue.recv_many(parts, most).boxed();
        }
        let count = self.derived.len().min(most);
        parts.extend(self.derived.drain(..count));
        std::future::ready(count).boxed()
    }

    fn try_pull(&mut self) -> Option<Part> {
        self.derived.pop_front().or_else(|| self.queue.try_recv().ok())
    }

    fn note(&mut self, _number: u64, _key: &str, _parts: &[Part]) -> Noting {
        Noting::NotNeeded
    }

    fn derive(&mut self, derivation: Derivation, now: Instant) -> Deriving {
        let Derivation { transform, made_by, readings, merged } = derivation;
        let is_empty = readings.is_empty();
        let waiters = if is_empty { Waiters::default() } else { hold::share_waiters(&merged) };
        let need = if is_empty { Amount::default() } else { Record::amount(&readings) };
        hold::derive(&merged, &self.accounts, transform, need, now);
        if !is_empty {
            let (made_by, held_bytes) = (Some(made_by), need.bytes);
            let parts = RecordParts { readings, seq: None, made_by, held_bytes, accepted_at: now, waiters };
            self.derived.push_back(Part::whole(Record::new(parts)));
        }
        Deriving::Done
    }

    fn outlives_process(&self) -> bool {
        false
    }

    #[expect(clippy::disallowed_methods, reason = "nobody sends into it")]
    fn kept(&mut self) -> mpsc::UnboundedReceiver<Kept> {
        // Nothing is ever under way.
        mpsc::unbounded_channel().1
    }

    fn settle(&mut self, fates: Vec<Fate>, _note: Option<NoteId>, now: Instant) {
        for Fate { holds, outcome } in fates {
            settle(&holds, &self.accounts, outcome, now);
        }
    }

    fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }
}
