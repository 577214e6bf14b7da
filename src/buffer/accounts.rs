//! The room in the buffer and the ledger, behind one lock, because they change together.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::drain_rate::DrainRate;
use super::lease::Record;
use super::ledger::{Ledger, Outcome};
use super::{Amount, OnFull, PushError};

/// What the buffer may hold, what it holds, and what became of the rest.
#[derive(Debug)]
pub struct Accounts {
    limit: Amount,
    /// Guards all that changes when readings come or go. Held for a few additions, never across an await.
    books: Mutex<Books>,
    /// Wakes the delivery loop when the oldest readings must make room.
    eviction: Notify,
}

#[derive(Debug)]
struct Books {
    ledger: Ledger,
    /// Bytes of the records of buffered readings.
    held_bytes: u64,
    /// Room that is promised to requests and not yet filled.
    reserved: Amount,
    /// Requests that wait for room, the oldest first.
    waiting: VecDeque<Waiting>,
    drain_rate: DrainRate,
    closed: bool,
}

#[derive(Debug)]
struct Waiting {
    need: Amount,
    on_full: OnFull,
    granted: oneshot::Sender<Reservation>,
}

/// One consistent view.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The accounts.
    pub ledger: Ledger,
    /// Bytes held for buffered readings.
    pub held_bytes: u64,
    /// What may be held.
    pub limit: Amount,
    /// Whether a request of one reading would find no room.
    pub full: bool,
}

/// Room in the buffer that one request may fill. Dropped unfilled, it is given back.
#[derive(Debug)]
pub struct Reservation {
    accounts: Arc<Accounts>,
    amount: Amount,
}

impl Reservation {
    /// Counts the readings as accepted. The room is given back when they are settled.
    pub fn accept(mut self, format: usize) {
        let amount = std::mem::take(&mut self.amount);
        let mut books = self.accounts.lock();
        books.reserved -= amount;
        books.held_bytes += amount.bytes;
        books.ledger.accept(format, amount.readings);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.amount != Amount::default() {
            let grants = {
                let mut books = self.accounts.lock();
                books.reserved -= self.amount;
                books.grants(&self.accounts)
            };
            send(grants);
        }
    }
}

/// A place in the queue for room. Whoever leaves it, also a client that hung up, lets those behind go on.
#[derive(Debug)]
struct Place {
    accounts: Arc<Accounts>,
    granted: oneshot::Receiver<Reservation>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.granted.close();
        let grants = self.accounts.lock().grants(&self.accounts);
        send(grants);
    }
}

impl Accounts {
    /// Opens the books for a number of nodes.
    pub fn new(limit: Amount, nodes: usize, now: Instant) -> Arc<Accounts> {
        Arc::new(Accounts {
            limit,
            books: Mutex::new(Books {
                ledger: Ledger::new(nodes),
                held_bytes: 0,
                reserved: Amount::default(),
                waiting: VecDeque::new(),
                drain_rate: DrainRate::new(now),
                closed: false,
            }),
            eviction: Notify::new(),
        })
    }

    /// Finds room for `need`, as the policy says.
    ///
    /// # Errors
    ///
    /// [`PushError::TooLarge`] for what never fits, [`PushError::Full`] for what does not fit now, or not within
    /// the wait that the policy allows, [`PushError::Closed`] once the buffer takes no more.
    ///
    /// Dropped half-way, it leaves nothing behind.
    pub async fn reserve(self: &Arc<Self>, need: Amount, on_full: OnFull) -> Result<Reservation, PushError> {
        let (mut place, wait) = {
            let mut books = self.lock();
            if books.closed {
                return Err(PushError::Closed);
            }
            if !need.fits(self.limit) {
                return Err(PushError::TooLarge { need, limit: self.limit });
            }
            books.forget_who_left();
            // Behind others that wait, even what would fit waits: a large request is not starved by small ones.
            if books.waiting.is_empty() && books.has_room(need, self.limit) {
                books.reserved += need;
                return Ok(Reservation { accounts: Arc::clone(self), amount: need });
            }
            let wait = match on_full {
                OnFull::Reject => return Err(books.full(need, self.limit)),
                OnFull::Wait { up_to } | OnFull::DropOldest { up_to } => up_to,
            };
            let (sender, granted) = oneshot::channel();
            books.waiting.push_back(Waiting { need, on_full, granted: sender });
            (Place { accounts: Arc::clone(self), granted }, wait)
        };
        if matches!(on_full, OnFull::DropOldest { .. }) {
            self.eviction.notify_one();
        }
        match tokio::time::timeout(wait, &mut place.granted).await {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(_closed)) => Err(PushError::Closed),
            Err(_elapsed) => {
                place.granted.close();
                // What was granted at the last moment is kept.
                place.granted.try_recv().map_err(|_| self.lock().full(need, self.limit))
            }
        }
    }

    /// Moves readings to the account of their outcome and gives their room to those who wait.
    pub fn settle(self: &Arc<Self>, amount: Amount, outcome: Outcome, now: Instant) {
        let grants = {
            let mut books = self.lock();
            books.ledger.settle(outcome, amount.readings);
            books.held_bytes -= amount.bytes;
            books.drain_rate.record(now, amount);
            books.grants(self)
        };
        send(grants);
    }

    /// Takes no more readings; whoever waits for room is told so.
    pub fn close(&self) {
        let waiting = {
            let mut books = self.lock();
            books.closed = true;
            std::mem::take(&mut books.waiting)
        };
        drop(waiting);
    }

    /// Returns when somebody waits for the oldest readings to make room.
    pub async fn eviction_wanted(&self) {
        self.eviction.notified().await;
    }

    /// How many of the oldest readings must be given up so that the first request that waits finds room; none if
    /// nobody waits, or for no such thing.
    pub fn shortfall(&self) -> Amount {
        let mut books = self.lock();
        books.forget_who_left();
        let first = books.waiting.front().filter(|first| matches!(first.on_full, OnFull::DropOldest { .. }));
        first.map_or(Amount::default(), |first| books.shortfall(first.need, self.limit))
    }

    /// One consistent view.
    pub fn snapshot(&self) -> Snapshot {
        let books = self.lock();
        Snapshot {
            ledger: books.ledger.clone(),
            held_bytes: books.held_bytes,
            limit: self.limit,
            full: !books.waiting.is_empty() || !books.has_room(Record::AMOUNT_MIN, self.limit),
        }
    }

    /// Readings that are not settled yet.
    pub fn buffered(&self) -> u64 {
        self.lock().ledger.buffered
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A panic inside would be a broken invariant of ours; the numbers are whole at every step.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn used(&self) -> Amount {
        let held = Amount { readings: self.ledger.buffered, bytes: self.held_bytes };
        held + self.reserved
    }

    fn has_room(&self, need: Amount, limit: Amount) -> bool {
        (self.used() + need).fits(limit)
    }

    /// Takes those out of the front of the queue who wait no longer.
    fn forget_who_left(&mut self) {
        while self.waiting.front().is_some_and(|first| first.granted.is_closed()) {
            self.waiting.pop_front();
        }
    }

    fn shortfall(&self, need: Amount, limit: Amount) -> Amount {
        let wanted = self.used() + need;
        Amount {
            readings: wanted.readings.saturating_sub(limit.readings),
            bytes: wanted.bytes.saturating_sub(limit.bytes),
        }
    }

    fn full(&self, need: Amount, limit: Amount) -> PushError {
        let missing = self.shortfall(need, limit);
        PushError::Full { retry_after: self.drain_rate.retry_after(Instant::now(), missing) }
    }

    /// Reserves room for those who wait, in their order, as long as it lasts.
    ///
    /// The grants are sent after the lock is released: one that nobody takes any more locks again to give its
    /// room back.
    fn grants(&mut self, accounts: &Arc<Accounts>) -> Vec<(oneshot::Sender<Reservation>, Reservation)> {
        let mut grants = Vec::new();
        loop {
            self.forget_who_left();
            if !self.waiting.front().is_some_and(|first| self.has_room(first.need, accounts.limit)) {
                return grants;
            }
            let Some(Waiting { need, granted, .. }) = self.waiting.pop_front() else { return grants };
            self.reserved += need;
            grants.push((granted, Reservation { accounts: Arc::clone(accounts), amount: need }));
        }
    }
}

fn send(grants: Vec<(oneshot::Sender<Reservation>, Reservation)>) {
    for (granted, reservation) in grants {
        // Whoever hung up gives the room back by dropping the reservation.
        let _ = granted.send(reservation);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const WAIT: OnFull = OnFull::Wait { up_to: Duration::from_secs(10) };
    const DROP_OLDEST: OnFull = OnFull::DropOldest { up_to: Duration::from_secs(10) };

    type Reserving = Pin<Box<dyn Future<Output = Result<Reservation, PushError>>>>;

    fn amount(readings: u64) -> Amount {
        Amount { readings, bytes: 10 * readings }
    }

    fn accounts(limit: u64) -> Arc<Accounts> {
        Accounts::new(amount(limit), 1, Instant::now())
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
        accounts.settle(amount(readings), Outcome::Delivered { node: 0 }, Instant::now());
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
        accounts.settle(amount(3), Outcome::Delivered { node: 0 }, Instant::now());
        accounts.settle(amount(1), Outcome::Dropped(super::super::ledger::DropReason::Full), Instant::now());
        check(&accounts, 0, 0);
        let ledger = accounts.snapshot().ledger;
        assert_eq!((ledger.accepted[0], ledger.delivered[0], ledger.dropped[0]), (4, 3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_holds_for_readings_and_bytes_with_what_is_only_reserved() {
        let least = Record::AMOUNT_MIN.bytes;
        let limit = Amount { readings: 10, bytes: 2 * least };
        let accounts = Accounts::new(limit, 1, Instant::now());
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
                    let outcome = Outcome::Delivered { node: 0 };
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
        fn the_books_balance_whatever_happens(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(async {
                let accounts = accounts(10);
                let mut stages = Stages::default();
                for step in &steps {
                    stages.run(step, &accounts).await;
                    let mut books = accounts.lock();
                    prop_assert!(books.ledger.balances(), "{:?}", books.ledger);
                    prop_assert!(books.used().fits(accounts.limit), "{:?}", books.used());
                    books.forget_who_left();
                    if let Some(first) = books.waiting.front() {
                        prop_assert!(!books.has_room(first.need, accounts.limit), "it waits although there is room");
                    }
                }
                for amount in stages.accepted.drain(..) {
                    accounts.settle(amount, Outcome::Delivered { node: 0 }, Instant::now());
                }
                drop(stages);
                let books = accounts.lock();
                prop_assert_eq!(books.used(), Amount::default());
                Ok(())
            })?;
        }
    }
}
