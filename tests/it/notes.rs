//! The promises for batches that are noted before they are sent: with a buffer that outlives the process, the
//! same readings go out under the same key after a restart.

#![expect(clippy::disallowed_methods, reason = "queues of a test are short")]

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use forebay::buffer::accounts::Bounds;
use forebay::buffer::lease::{Record, RecordParts};
use forebay::buffer::ledger::{DropReason, Outcome};
use forebay::buffer::waiters::Waiters;
use forebay::buffer::{
    Accounts, Amount, Derivation, Deriving, Fate, Hold, Kept, NoteId, Noted, Noting, OnFull, Outlet, Part,
    Resumed, settle,
};
use forebay::delivery::{Signals, Worker};
use forebay::metrics::Metrics;
use forebay::node_id::NodeIndex;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::support::records::{numbered, numbers};
use crate::support::{Answer, FakeNode, Gate, LIMIT, ReceivedBatch, TestGateway, eventually, uplink};

/// A test's hold on the notes: it sees each and decides when it is answered.
#[derive(Debug)]
struct Journal {
    pages: Mutex<Pages>,
    answers: mpsc::UnboundedSender<Kept>,
}

#[derive(Debug, Default)]
struct Pages {
    /// The notes that wait for an answer, the oldest first.
    asked: VecDeque<(u64, String, Vec<i64>)>,
    /// All notes, by their keys.
    all: BTreeMap<String, Vec<i64>>,
    /// Readings that were settled, with the note of their batch.
    settled: Vec<(Option<NoteId>, Vec<i64>, Outcome)>,
}

impl Journal {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("no test panics with it")
    }

    /// Answers the oldest note that is asked for.
    async fn answer(&self, note: Option<NoteId>) -> (u64, String, Vec<i64>) {
        eventually("a note is asked for", || async { !self.pages().asked.is_empty() }).await;
        let asked = self.pages().asked.pop_front().expect("one is asked for");
        self.say(Noted { number: asked.0, key: asked.1.clone(), note });
        asked
    }

    fn say(&self, noted: Noted) {
        self.answers.send(Kept::Note(noted)).expect("the delivery runs");
    }
}

/// An outlet whose notes are kept when the test says so.
#[derive(Debug)]
struct NotingOutlet {
    queue: mpsc::UnboundedReceiver<Part>,
    accounts: Arc<Accounts>,
    journal: Arc<Journal>,
    resumed: Vec<Resumed>,
    kept: Option<mpsc::UnboundedReceiver<Kept>>,
}

impl Outlet for NotingOutlet {
    fn resumed(&mut self) -> Vec<Resumed> {
        std::mem::take(&mut self.resumed)
    }

    fn pull<'a>(&'a mut self, parts: &'a mut Vec<Part>, most: usize) -> BoxFuture<'a, usize> {
        self.queue.recv_many(parts, most).boxed()
    }

    fn try_pull(&mut self) -> Option<Part> {
        self.queue.try_recv().ok()
    }

    fn note(&mut self, number: u64, key: &str, parts: &[Part]) -> Noting {
        let mut pages = self.journal.pages();
        let values: Vec<i64> = parts.iter().flat_map(numbers).collect();
        pages.all.insert(key.to_owned(), values.clone());
        pages.asked.push_back((number, key.to_owned(), values));
        Noting::UnderWay
    }

    fn derive(&mut self, _derivation: Derivation, _now: Instant) -> Deriving {
        unreachable!("there are no transforms")
    }

    fn outlives_process(&self) -> bool {
        true
    }

    fn kept(&mut self) -> mpsc::UnboundedReceiver<Kept> {
        self.kept.take().expect("asked once")
    }

    fn settle(&mut self, fates: Vec<Fate>, note: Option<NoteId>, now: Instant) {
        for Fate { holds, outcome } in fates {
            let settled = holds.iter().flat_map(held).collect();
            settle(&holds, &self.accounts, outcome, now);
            self.journal.pages().settled.push((note, settled, outcome));
        }
    }

    fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }
}

/// The values of readings that are settled.
fn held(hold: &Hold) -> Range<i64> {
    let from = hold.span().expect("every record has a number").from;
    let first = i64::try_from(from.seq).expect("small") + i64::from(from.index);
    first..first + i64::try_from(hold.len()).expect("small")
}

/// A record of readings with these values, whose number in the log is the first of them.
fn part(values: Range<i64>) -> Part {
    let readings = numbered("d", values.clone());
    let (accepted_at, held_bytes) = (Instant::now(), 0);
    Part::whole(Record::new(RecordParts {
        readings,
        seq: u64::try_from(values.start).ok(),
        made_by: None,
        held_bytes,
        accepted_at,
        waiters: Waiters::default(),
    }))
}

/// The values of a batch as the node has it.
fn arrived(batch: &ReceivedBatch) -> Vec<i64> {
    batch.readings().iter().map(|reading| reading["value"].as_i64().expect("a number")).collect()
}

/// A delivery loop over an outlet that notes.
struct Delivery {
    journal: Arc<Journal>,
    accounts: Arc<Accounts>,
    queue: Option<mpsc::UnboundedSender<Part>>,
    signals: Signals,
    worker: JoinHandle<()>,
}

impl Delivery {
    fn start(gateway: TestGateway, room: u64, resumed: Vec<Resumed>) -> Delivery {
        let limit = Amount { readings: room, bytes: 1 };
        let bounds = Bounds { limit, least: Amount { readings: 1, bytes: 0 } };
        let accounts = Accounts::new(bounds, 1, Instant::now());
        let found = resumed.iter().flat_map(|resumed| &resumed.parts).map(Part::len).sum::<usize>();
        accounts.recover(Amount { readings: found as u64, bytes: 0 });
        let (answers, kept) = mpsc::unbounded_channel();
        let journal = Arc::new(Journal { pages: Mutex::default(), answers });
        let (sender, queue) = mpsc::unbounded_channel();
        let outlet = NotingOutlet {
            queue,
            accounts: Arc::clone(&accounts),
            journal: Arc::clone(&journal),
            resumed,
            kept: Some(kept),
        };
        let signals = Signals::default();
        let config = gateway.set("batch.max_age", "1h").config().delivery;
        let metrics = Arc::new(Metrics::new());
        let random = fastrand::Rng::with_seed(7);
        let uplink = uplink(&config);
        let worker = Worker::new(uplink, config, Box::new(outlet), metrics, signals.clone(), random);
        let worker = tokio::spawn(worker.run());
        Delivery { journal, accounts, queue: Some(sender), signals, worker }
    }

    /// Accepts readings, and waits for room if necessary.
    async fn push(&self, values: Range<i64>) {
        let part = part(values);
        let need = Amount { readings: part.len() as u64, bytes: 0 };
        let room = self.accounts.reserve(need, OnFull::DropOldest { up_to: LIMIT }).await;
        room.expect("room").accept(0);
        self.queue.as_ref().expect("open").send(part).expect("the worker runs");
    }

    /// Lets the loop end by itself; all is settled then.
    async fn drain(mut self) {
        self.close();
        let ended = tokio::time::timeout(LIMIT, self.worker).await;
        ended.expect("it ends").expect("no panic");
        assert_eq!(self.accounts.buffered(), 0);
    }

    fn close(&mut self) {
        self.queue = None;
        self.signals.drain.cancel();
    }
}

fn batches_of(readings: usize, node: &FakeNode) -> TestGateway {
    TestGateway::new().node(node).set("batch.max_readings", readings)
}

fn noted(batch: &ReceivedBatch, journal: &Journal) -> bool {
    journal.pages().all.get(&batch.key()) == Some(&arrived(batch))
}

#[tokio::test]
async fn a_batch_is_sent_only_when_it_is_noted_and_settled_with_its_note() {
    let node = FakeNode::start().await;
    let delivery = Delivery::start(batches_of(3, &node), 100, Vec::new());
    let journal = Arc::clone(&delivery.journal);
    delivery.push(0..3).await;
    delivery.push(3..6).await;
    // The second is asked for although the first is not answered: notes do not hold each other up.
    eventually("both are to be noted", || async { journal.pages().asked.len() == 2 }).await;
    assert_eq!((node.requests(), delivery.accounts.buffered()), (0, 6));

    let (_, key, values) = journal.answer(Some(NoteId(11))).await;
    eventually("the first arrives", || async { delivery.accounts.buffered() == 3 }).await;
    assert_eq!((node.requests(), values), (1, vec![0, 1, 2]));
    assert_eq!((node.received()[0].key(), arrived(&node.received()[0])), (key, vec![0, 1, 2]));

    // A log that cannot be written holds nothing up.
    journal.answer(None).await;
    let delivered = Outcome::Delivered { node: NodeIndex(0) };
    eventually("the second arrives", || async { delivery.accounts.buffered() == 0 }).await;
    let settled = std::mem::take(&mut journal.pages().settled);
    assert_eq!(settled, [(Some(NoteId(11)), vec![0, 1, 2], delivered), (None, vec![3, 4, 5], delivered)]);
    delivery.drain().await;
    assert!(node.received().iter().all(|batch| noted(batch, &journal)));
}

#[tokio::test]
async fn answers_for_other_batches_let_nothing_go() {
    let node = FakeNode::start().await;
    let delivery = Delivery::start(batches_of(3, &node), 100, Vec::new());
    let journal = Arc::clone(&delivery.journal);
    delivery.push(0..3).await;
    eventually("it is to be noted", || async { !journal.pages().asked.is_empty() }).await;
    let number = journal.pages().asked[0].0;
    journal.say(Noted { number, key: "another".to_owned(), note: Some(NoteId(1)) });
    journal.say(Noted { number: number + 9, key: "a third".to_owned(), note: Some(NoteId(2)) });
    // They are heard before later events. Once more round the loop, past the place where it would send.
    delivery.push(3..6).await;
    eventually("the next is to be noted", || async { journal.pages().asked.len() == 2 }).await;
    assert_eq!(node.requests(), 0);
    journal.answer(Some(NoteId(3))).await;
    journal.answer(Some(NoteId(4))).await;
    delivery.drain().await;
    let notes: Vec<_> = journal.pages().settled.iter().map(|(note, ..)| *note).collect();
    assert!(notes.contains(&Some(NoteId(3))) && notes.contains(&Some(NoteId(4))), "{notes:?}");
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_not_noted_again() {
    let node = FakeNode::answering([503, 500].map(Answer::status)).await;
    let delivery = Delivery::start(batches_of(3, &node), 100, Vec::new());
    let journal = Arc::clone(&delivery.journal);
    delivery.push(0..3).await;
    let (_, key, _) = journal.answer(Some(NoteId(5))).await;
    eventually("it is delivered", || async { delivery.accounts.buffered() == 0 }).await;
    assert_eq!(node.received().iter().map(ReceivedBatch::key).collect::<Vec<_>>(), vec![key; 3]);
    assert_eq!(journal.pages().all.len(), 1);
    delivery.drain().await;
}

#[tokio::test]
async fn batches_noted_before_the_stop_go_out_first_under_their_old_keys() {
    let gate = Gate::default();
    let node = FakeNode::always(Answer::status(200).behind(&gate)).await;
    let resumed = |key: &str, note, parts| Resumed { key: key.to_owned(), note: NoteId(note), parts };
    let resumed = vec![
        // More than a batch may have now: it was one before, and stays one.
        resumed("old-1", 1, vec![part(0..4), part(4..5)]),
        resumed("old-2", 2, vec![part(5..7)]),
    ];
    // One place: the resumed batch takes it, and new batches wait.
    let gateway = batches_of(2, &node).set("cluster.max_in_flight", 1);
    let delivery = Delivery::start(gateway, 100, resumed);
    let journal = Arc::clone(&delivery.journal);
    delivery.push(7..9).await;
    delivery.push(9..11).await;
    for known in 1..=2 {
        eventually("the next is there", || async { node.requests() == known }).await;
        assert!(journal.pages().asked.is_empty(), "the places are taken");
        gate.pass_one();
    }
    gate.open();
    journal.answer(Some(NoteId(3))).await;
    journal.answer(Some(NoteId(4))).await;
    eventually("all is delivered", || async { delivery.accounts.buffered() == 0 }).await;
    let received: Vec<_> = node.received().iter().map(|batch| (batch.key(), arrived(batch))).collect();
    assert_eq!(received[0], ("old-1".to_owned(), vec![0, 1, 2, 3, 4]));
    assert_eq!(received[1], ("old-2".to_owned(), vec![5, 6]));
    assert_eq!((&received[2].1, &received[3].1), (&vec![7, 8], &vec![9, 10]));
    let settled: Vec<_> = journal.pages().settled.iter().map(|(note, ..)| note.map(|note| note.0)).collect();
    assert_eq!(settled, [Some(1), Some(2), Some(3), Some(4)]);
    delivery.drain().await;
}

#[tokio::test]
async fn a_batch_that_loses_readings_before_it_is_noted_is_noted_anew() {
    let node = FakeNode::start().await;
    let delivery = Delivery::start(batches_of(4, &node), 4, Vec::new());
    let journal = Arc::clone(&delivery.journal);
    delivery.push(0..4).await;
    eventually("it is to be noted", || async { journal.pages().asked.len() == 1 }).await;
    // These find room only if the oldest are given up.
    delivery.push(4..6).await;
    eventually("the rest is to be noted", || async { journal.pages().asked.len() == 2 }).await;
    let asked = journal.pages().asked.clone();
    let (first, rest) = (&asked[0], &asked[1]);
    assert_eq!((rest.0, &rest.2), (first.0, &vec![2, 3]), "in the place of the first");
    assert_ne!(rest.1, first.1);

    // The answer to the former batch does not settle the new one.
    journal.answer(Some(NoteId(1))).await;
    delivery.push(6..8).await;
    eventually("the rest is dropped too", || async { delivery.accounts.shortfall() == Amount::default() })
        .await;
    assert_eq!(node.requests(), 0);
    let dropped: Vec<_> =
        journal.pages().settled.iter().map(|(note, values, _)| (*note, values.clone())).collect();
    assert_eq!(dropped, [(None, vec![0, 1]), (None, vec![2, 3])]);
    journal.answer(Some(NoteId(2))).await;
    journal.answer(Some(NoteId(3))).await;
    delivery.drain().await;
    let received = node.received();
    assert_eq!(received.iter().flat_map(arrived).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert!(received.iter().all(|batch| noted(batch, &journal)));
}

#[tokio::test]
async fn readings_that_a_noted_batch_loses_are_settled_with_its_note_and_the_rest_is_noted_anew() {
    let node = FakeNode::answering([Answer::status(503)]).await;
    // The refused half waits until the gateway stops.
    let gateway = batches_of(4, &node).set("cluster.retry.max", "24h").set("cluster.retry.initial", "1h");
    let delivery = Delivery::start(gateway, 4, Vec::new());
    let journal = Arc::clone(&delivery.journal);
    delivery.push(0..4).await;
    let (number, key, _) = journal.answer(Some(NoteId(1))).await;
    eventually("it is refused", || async { node.requests() == 1 }).await;
    delivery.push(4..6).await;
    let (rest, new_key, values) = journal.answer(Some(NoteId(2))).await;
    assert_eq!((rest, values), (number, vec![2, 3]));
    assert_ne!(new_key, key);
    let dropped = Outcome::Dropped(DropReason::Full);
    assert_eq!(journal.pages().settled, [(Some(NoteId(1)), vec![0, 1], dropped)]);
    let mut delivery = delivery;
    delivery.close();
    journal.answer(Some(NoteId(3))).await;
    delivery.drain().await;
    let received = node.received();
    assert_eq!(received[0].key(), key);
    assert!(received.iter().all(|batch| noted(batch, &journal)));
    let with_note = |id| journal.pages().settled.iter().any(|(note, ..)| *note == Some(NoteId(id)));
    assert!(with_note(2) && with_note(3));
}

#[tokio::test]
async fn a_drain_waits_for_notes_and_an_abort_does_not() {
    let node = FakeNode::start().await;
    let mut draining = Delivery::start(batches_of(3, &node), 100, Vec::new());
    draining.push(0..3).await;
    draining.push(3..4).await;
    draining.close();
    let journal = Arc::clone(&draining.journal);
    eventually("the open batch is closed too", || async { journal.pages().asked.len() == 2 }).await;
    assert!(!draining.worker.is_finished() && node.requests() == 0);
    journal.answer(Some(NoteId(1))).await;
    journal.answer(None).await;
    draining.drain().await;
    assert_eq!(node.count(), 4);

    let aborted = Delivery::start(batches_of(3, &node), 100, Vec::new());
    aborted.push(0..3).await;
    eventually("it is to be noted", || async { aborted.journal.pages().asked.len() == 1 }).await;
    aborted.signals.abort.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), aborted.worker).await;
    ended.expect("it ends").expect("no panic");
    assert_eq!((node.count(), aborted.accounts.buffered()), (4, 3), "it stays unsettled");
}
