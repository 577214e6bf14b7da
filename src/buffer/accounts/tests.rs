use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::buffer::ledger::{DeadLetterReason, DropReason};

const WAIT: OnFull = OnFull::Wait { up_to: Duration::from_secs(10) };
/// What the least record takes here.
const LEAST: Amount = Amount { readings: 1, bytes: 100 };
const DROP_OLDEST: OnFull = OnFull::DropOldest { up_to: Duration::from_secs(10) };

type Reserving = Pin<Box<dyn Future<Output = Result<Reservation, PushError>>>>;

fn amount(readings: u64) -> Amount {
    Amount { readings, bytes: 10 * readings }
}

fn accounts(limit: u64) -> Arc<Accounts> {
    Accounts::new(bounds(amount(limit)), 1, Instant::now())
}

fn bounds(limit: Amount) -> Bounds {
    Bounds { limit, least: LEAST }
}

/// A request that has begun to wait for room.
fn reserving(accounts: &Arc<Accounts>, need: Amount, on_full: OnFull) -> Reserving {
    let accounts = Arc::clone(accounts);
    let mut reserving: Reserving = Box::pin(async move { accounts.reserve(need, on_full).await });
    assert!(poll(&mut reserving).is_none(), "it has to wait");
    reserving
}

fn poll(reserving: &mut Reserving) -> Option<Result<Reservation, PushError>> {
    match reserving.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

fn granted(reserving: &mut Reserving) -> Reservation {
    poll(reserving).expect("it waits no longer").expect("it has room")
}

async fn accept(accounts: &Arc<Accounts>, readings: u64) {
    accounts.reserve(amount(readings), OnFull::Reject).await.expect("room").accept(0);
}

fn deliver(accounts: &Arc<Accounts>, readings: u64) {
    accounts.settle(amount(readings), Outcome::Delivered { node: NodeIndex(0) }, Instant::now());
}

#[track_caller]
fn check(accounts: &Arc<Accounts>, buffered: u64, reserved: u64) {
    let books = accounts.lock();
    assert!(books.ledger.balances(), "{:?}", books.ledger);
    assert_eq!((books.ledger.buffered, books.reserved.readings), (buffered, reserved));
    assert_eq!((books.held_bytes, books.reserved.bytes), (10 * buffered, 10 * reserved));
}

#[tokio::test(start_paused = true)]
async fn room_is_reserved_then_filled_then_given_back() {
    let accounts = accounts(10);
    let reservation = accounts.reserve(amount(4), OnFull::Reject).await.expect("room");
    check(&accounts, 0, 4);
    reservation.accept(0);
    check(&accounts, 4, 0);
    accounts.settle(amount(3), Outcome::Delivered { node: NodeIndex(0) }, Instant::now());
    accounts.settle(amount(1), Outcome::Dropped(DropReason::Full), Instant::now());
    check(&accounts, 0, 0);
    let ledger = accounts.snapshot().ledger;
    assert_eq!((ledger.accepted[0], ledger.delivered[0], ledger.dropped[0]), (4, 3, 1));
    accept(&accounts, 2).await;
    accounts.settle(amount(2), Outcome::DeadLettered(DeadLetterReason::Damaged), Instant::now());
    check(&accounts, 0, 0);
    let dead_lettered = accounts.snapshot().ledger.dead_lettered;
    assert_eq!((dead_lettered[DeadLetterReason::Damaged as usize], dead_lettered.iter().sum()), (2, 2u64));
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_for_readings_and_bytes_with_what_is_only_reserved() {
    let least = LEAST.bytes;
    let limit = Amount { readings: 10, bytes: 2 * least };
    let accounts = Accounts::new(bounds(limit), 1, Instant::now());
    let full = |result| matches!(result, Err(PushError::Full { .. }));
    let reserve = |readings, bytes| accounts.reserve(Amount { readings, bytes }, OnFull::Reject);
    let held = reserve(6, least).await.expect("room");
    assert!(full(reserve(5, 1).await));
    assert!(full(reserve(1, least + 1).await));
    assert!(!accounts.snapshot().full, "there is room for the smallest record");
    let rest = reserve(4, least).await.expect("exactly what is left");
    assert!(accounts.snapshot().full);
    drop((held, rest));
    for (readings, bytes) in [(11, 1), (1, limit.bytes + 1)] {
        let error = reserve(readings, bytes).await.expect_err("larger than the buffer");
        assert_eq!(error, PushError::TooLarge { need: Amount { readings, bytes }, limit });
    }
    for (readings, bytes) in [(10, 1), (1, least + 1), (10, limit.bytes)] {
        let _held = reserve(readings, bytes).await.expect("room");
        assert!(accounts.snapshot().full, "not even the smallest record fits");
    }
    check(&accounts, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_their_order_and_a_large_one_is_not_overtaken() {
    let accounts = accounts(10);
    accept(&accounts, 10).await;
    let mut large = reserving(&accounts, amount(8), WAIT);
    let mut small = reserving(&accounts, amount(1), WAIT);
    deliver(&accounts, 3);
    assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
    // There is room for it, and others were there before.
    let refused = accounts.reserve(amount(1), OnFull::Reject).await;
    assert!(matches!(refused, Err(PushError::Full { .. })));
    deliver(&accounts, 5);
    let large = granted(&mut large);
    assert!(poll(&mut small).is_none());
    deliver(&accounts, 1);
    drop((large, granted(&mut small)));
    check(&accounts, 1, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_time_with_when_to_come_again() {
    let accounts = accounts(10);
    accept(&accounts, 10).await;
    let started = Instant::now();
    let error = accounts.reserve(amount(1), WAIT).await.expect_err("no room");
    assert_eq!(started.elapsed(), Duration::from_secs(10));
    assert_eq!(error, PushError::Full { retry_after: Duration::from_secs(60) });
    check(&accounts, 10, 0);
    assert!(accounts.lock().waiting.iter().all(|waiting| waiting.granted.is_closed()));
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_the_queue_lets_those_behind_go_on() {
    for on_full in [WAIT, DROP_OLDEST] {
        // The client hangs up.
        let accounts = accounts(10);
        accept(&accounts, 5).await;
        let first = reserving(&accounts, amount(8), on_full);
        let mut second = reserving(&accounts, amount(5), on_full);
        drop(first);
        drop(granted(&mut second));
        check(&accounts, 5, 0);

        // Its time is over.
        let mut first = reserving(&accounts, amount(8), on_full);
        tokio::time::advance(Duration::from_secs(6)).await;
        let mut second = reserving(&accounts, amount(5), on_full);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(matches!(poll(&mut first), Some(Err(PushError::Full { .. }))));
        drop(granted(&mut second));
        check(&accounts, 5, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn room_that_is_granted_to_somebody_who_left_goes_to_the_next() {
    let accounts = accounts(10);
    accept(&accounts, 10).await;
    let first = reserving(&accounts, amount(10), WAIT);
    let mut second = reserving(&accounts, amount(10), WAIT);
    deliver(&accounts, 10);
    check(&accounts, 0, 10);
    drop(first);
    drop(granted(&mut second));
    check(&accounts, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_at_the_last_moment_is_kept() {
    let accounts = accounts(10);
    accept(&accounts, 10).await;
    let mut waiting = reserving(&accounts, amount(10), WAIT);
    deliver(&accounts, 10);
    tokio::time::advance(Duration::from_secs(11)).await;
    granted(&mut waiting).accept(0);
    check(&accounts, 10, 0);
}

#[tokio::test(start_paused = true)]
async fn a_closed_buffer_tells_those_who_wait_and_keeps_the_books_of_what_it_holds() {
    let accounts = accounts(10);
    accept(&accounts, 4).await;
    let reservation = accounts.reserve(amount(6), OnFull::Reject).await.expect("room");
    let mut waiting = reserving(&accounts, amount(1), WAIT);
    accounts.close();
    assert!(matches!(poll(&mut waiting), Some(Err(PushError::Closed))));
    for on_full in [OnFull::Reject, WAIT, DROP_OLDEST] {
        assert!(matches!(accounts.reserve(amount(1), on_full).await, Err(PushError::Closed)));
    }
    reservation.accept(0);
    deliver(&accounts, 10);
    check(&accounts, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn only_one_who_wants_the_oldest_dropped_has_a_shortfall() {
    let accounts = accounts(10);
    accept(&accounts, 10).await;
    let waiting = reserving(&accounts, amount(3), WAIT);
    assert_eq!(accounts.shortfall(), Amount::default());
    let dropping = reserving(&accounts, amount(4), DROP_OLDEST);
    assert_eq!(accounts.shortfall(), Amount::default(), "the other was there before");
    accounts.eviction_wanted().await;
    drop(waiting);
    assert_eq!(accounts.shortfall(), amount(4));
    deliver(&accounts, 1);
    assert_eq!(accounts.shortfall(), amount(3));
    drop(dropping);
    assert_eq!(accounts.shortfall(), Amount::default());
}

#[tokio::test(start_paused = true)]
async fn what_was_found_at_the_start_may_exceed_the_limit_and_the_buffer_is_full_until_enough_is_settled() {
    let accounts = accounts(10);
    accounts.recover(amount(20));
    check(&accounts, 20, 0);
    let snapshot = accounts.snapshot();
    assert!(snapshot.full);
    assert_eq!((snapshot.ledger.recovered, snapshot.ledger.accepted[0]), (20, 0));
    let full = accounts.reserve(amount(1), OnFull::Reject).await;
    assert!(matches!(full, Err(PushError::Full { .. })), "{full:?}");
    let mut waiting = reserving(&accounts, amount(1), WAIT);
    deliver(&accounts, 10);
    assert!(poll(&mut waiting).is_none(), "exactly the limit is held");
    deliver(&accounts, 1);
    granted(&mut waiting).accept(0);
    check(&accounts, 10, 0);
    let dropping = reserving(&accounts, amount(4), DROP_OLDEST);
    assert_eq!(accounts.shortfall(), amount(4));
    drop(dropping);
    deliver(&accounts, 10);
    check(&accounts, 0, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Reserve(u64, u64, OnFull),
    PollWaiting(usize),
    DropWaiting(usize),
    Accept(usize),
    GiveBack(usize),
    Settle(u64),
    Advance(u64),
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let policy = prop_oneof![Just(OnFull::Reject), Just(WAIT), Just(DROP_OLDEST)];
    let step = prop_oneof![
        6 => (1..14u64, 1..140u64, policy).prop_map(|(r, b, policy)| Step::Reserve(r, b, policy)),
        3 => (0..8usize).prop_map(Step::PollWaiting),
        2 => (0..8usize).prop_map(Step::DropWaiting),
        4 => (0..8usize).prop_map(Step::Accept),
        2 => (0..8usize).prop_map(Step::GiveBack),
        4 => (1..10u64).prop_map(Step::Settle),
        1 => (1..6000u64).prop_map(Step::Advance),
    ];
    let close = prop_oneof![9 => Just(None), 1 => Just(Some(Step::Close))];
    (prop::collection::vec(step, 0..60), close).prop_map(|(mut steps, close)| {
        let middle = steps.len() / 2;
        close.into_iter().for_each(|close| steps.insert(middle, close));
        steps
    })
}

/// Requests at every stage.
#[derive(Default)]
struct Stages {
    waiting: Vec<Reserving>,
    reserved: Vec<Reservation>,
    accepted: Vec<Amount>,
}

impl Stages {
    fn keep(&mut self, mut reserving: Reserving) {
        match poll(&mut reserving) {
            None => self.waiting.push(reserving),
            Some(result) => self.reserved.extend(result.ok()),
        }
    }

    async fn run(&mut self, step: &Step, accounts: &Arc<Accounts>) {
        match *step {
            Step::Reserve(readings, bytes, on_full) => {
                let accounts = Arc::clone(accounts);
                let need = Amount { readings, bytes };
                self.keep(Box::pin(async move { accounts.reserve(need, on_full).await }));
            }
            Step::PollWaiting(index) if index < self.waiting.len() => {
                let reserving = self.waiting.remove(index);
                self.keep(reserving);
            }
            Step::DropWaiting(index) if index < self.waiting.len() => drop(self.waiting.remove(index)),
            Step::Accept(index) if index < self.reserved.len() => {
                let reservation = self.reserved.remove(index);
                self.accepted.push(reservation.amount);
                reservation.accept(0);
            }
            Step::GiveBack(index) if index < self.reserved.len() => drop(self.reserved.remove(index)),
            Step::Settle(count) if !self.accepted.is_empty() => {
                // Part by part: the bytes come back with the last one.
                let readings = count.min(self.accepted[0].readings);
                self.accepted[0].readings -= readings;
                let done = self.accepted[0].readings == 0;
                let bytes = if done { self.accepted.remove(0).bytes } else { 0 };
                let outcome = Outcome::Delivered { node: NodeIndex(0) };
                accounts.settle(Amount { readings, bytes }, outcome, Instant::now());
            }
            Step::Advance(millis) => tokio::time::advance(Duration::from_millis(millis)).await,
            Step::Close => accounts.close(),
            Step::PollWaiting(_)
            | Step::DropWaiting(_)
            | Step::Accept(_)
            | Step::GiveBack(_)
            | Step::Settle(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_books_balance_whatever_happens(recovered in prop_oneof![Just(0), 1..25u64], steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let accounts = accounts(10);
            let mut stages = Stages::default();
            if recovered > 0 {
                accounts.recover(amount(recovered));
                stages.accepted.push(amount(recovered));
            }
            let mut used_before = amount(recovered);
            for step in &steps {
                stages.run(step, &accounts).await;
                let mut books = accounts.lock();
                prop_assert!(books.ledger.balances(), "{:?}", books.ledger);
                let used = books.used();
                // Beyond the limit is only what was found at the start, and it only shrinks.
                prop_assert!(used.fits(accounts.bounds.limit) || used.fits(used_before), "{used:?} after {used_before:?}");
                used_before = used;
                books.forget_who_left();
                if let Some(first) = books.waiting.front() {
                    prop_assert!(!books.has_room(first.need, accounts.bounds.limit), "it waits although there is room");
                }
            }
            for amount in stages.accepted.drain(..) {
                accounts.settle(amount, Outcome::Delivered { node: NodeIndex(0) }, Instant::now());
            }
            drop(stages);
            let books = accounts.lock();
            prop_assert_eq!(books.used(), Amount::default());
            Ok(())
        })?;
    }
}
