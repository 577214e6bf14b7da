use tokio::sync::oneshot;

use super::*;
use crate::buffer::Settled;
use crate::buffer::accounts::{Accounts, Bounds};
use crate::buffer::hold::settle;
use crate::buffer::ledger::{DeadLetterReason, DropReason, Outcome};
use crate::buffer::span::Place;
use crate::buffer::tests::{numbered, numbers};
use crate::node_id::NodeIndex;

const DELIVERED: Outcome = Outcome::Delivered { node: NodeIndex(0) };
const DROPPED: Outcome = Outcome::Dropped(DropReason::Full);
const DAMAGED: Outcome = Outcome::DeadLettered(DeadLetterReason::Damaged);
const REFUSED: Outcome = Outcome::DeadLettered(DeadLetterReason::Refused);
const TOO_LARGE: Outcome = Outcome::DeadLettered(DeadLetterReason::TooLarge);

/// A record of numbered readings, in the books, and what its waiter hears.
async fn lend(count: i64) -> (Part, Arc<Accounts>, oneshot::Receiver<Settled>) {
    let limit = Amount { readings: 1 << 20, bytes: 1 << 20 };
    let accounts = Accounts::new(Bounds { limit, least: Record::AMOUNT_MIN }, 1, Instant::now());
    let readings = numbered(0..count);
    let need = Record::amount(&readings);
    accounts.reserve(need, crate::buffer::OnFull::Reject).await.expect("room").accept(0);
    let (waiter, settled) = oneshot::channel();
    let record = Record::new(RecordParts { waiters: waiter.into(), ..parts(readings) });
    (Part::whole(record), accounts, settled)
}

/// The record with the number 7, as long as none is settled.
fn parts(readings: Readings) -> RecordParts {
    let held_bytes = Record::amount(&readings).bytes;
    RecordParts {
        readings,
        seq: Some(7),
        made_by: None,
        held_bytes,
        accepted_at: Instant::now(),
        waiters: Waiters::default(),
    }
}

#[tokio::test]
async fn a_part_is_split_without_loss_at_any_place() {
    for first in 0..7 {
        let (mut part, ..) = lend(5).await;
        let front = part.split_first(first);
        let taken = first.min(5);
        assert_eq!((front.len(), part.len()), (taken, 5 - taken));
        assert_eq!((front.is_empty(), part.is_empty()), (taken == 0, taken == 5));
        assert_eq!([numbers(&front), numbers(&part)].concat(), [0, 1, 2, 3, 4]);
        assert_eq!(front.accepted_at(), part.accepted_at());
    }
    let (mut part, ..) = lend(5).await;
    let mut iter = part.iter();
    iter.next();
    let position = iter.position();
    assert_eq!(numbers(&part.split_to(position)), [0]);
    // Of what is left, again from its front.
    assert_eq!(numbers(&part.split_first(2)), [1, 2]);
    assert_eq!(numbers(&part), [3, 4]);
}

#[tokio::test]
async fn a_part_knows_its_places_in_the_log_whichever_way_it_was_cut() {
    let record = Arc::new(Record::new(parts(numbered(0..5))));
    let place = |index| Place { seq: 7, index };
    let check = |indexes: Range<usize>, expected: Option<Span>| {
        let part = Part::range(&record, indexes.clone());
        assert_eq!(part.span(), expected, "{indexes:?}");
        let from = indexes.start.min(5);
        assert_eq!(part.len(), indexes.end.min(5).saturating_sub(from), "{indexes:?}");
        assert_eq!(numbers(&part), (0..5).skip(from).take(part.len()).collect::<Vec<_>>(), "{indexes:?}");
    };
    check(0..2, Some(Span { from: place(0), to: place(2) }));
    check(2..4, Some(Span { from: place(2), to: place(4) }));
    check(0..5, Some(Span::of_record(7)));
    check(3..5, Some(Span { from: place(3), to: Place::start_of(8) }));
    check(3..9, Some(Span { from: place(3), to: Place::start_of(8) }));
    check(2..2, None);
    check(7..9, None);

    let mut rest = Part::whole(Arc::clone(&record));
    let front = rest.split_first(3);
    assert_eq!(front.span(), Some(Span { from: place(0), to: place(3) }));
    assert_eq!(rest.span(), Some(Span { from: place(3), to: Place::start_of(8) }));
    let in_memory = Record::new(RecordParts { seq: None, ..parts(numbered(0..5)) });
    assert_eq!(Part::whole(in_memory).span(), None);
}

#[tokio::test]
async fn a_record_of_which_some_are_settled_is_done_with_the_rest() {
    let (_, accounts, _) = lend(5).await;
    let (waiter, mut settled) = oneshot::channel();
    let parts = RecordParts { waiters: waiter.into(), ..parts(numbered(0..5)) };
    let record = Arc::new(Record::with_unsettled(parts, 3));
    settle(&[Part::range(&record, 1..3).into()], &accounts, DELIVERED, Instant::now());
    assert!(settled.try_recv().is_err() && accounts.snapshot().held_bytes > 0);
    settle(&[Part::range(&record, 4..5).into()], &accounts, DELIVERED, Instant::now());
    assert_eq!((settled.await, accounts.snapshot().held_bytes), (Ok(Settled::Delivered), 0));
}

#[tokio::test]
async fn room_in_bytes_comes_back_with_the_last_part_whichever_it_is() {
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let (mut part, accounts, mut settled) = lend(5).await;
        let mut parts = [Some(part.split_first(2)), Some(part.split_first(1)), Some(part)];
        let mut left = 5;
        for (step, index) in order.into_iter().enumerate() {
            assert!(settled.try_recv().is_err(), "some are not settled");
            assert!(accounts.snapshot().held_bytes > 0);
            let part = parts[index].take().expect("each once");
            left -= part.len() as u64;
            settle(&[part.into()], &accounts, DELIVERED, Instant::now());
            assert_eq!(accounts.buffered(), left, "step {step}");
        }
        assert_eq!(accounts.snapshot().held_bytes, 0);
        assert_eq!(settled.await, Ok(Settled::Delivered));
    }
}

#[tokio::test]
async fn the_bytes_of_a_record_are_in_flight_from_its_first_part_to_its_last() {
    let (mut part, accounts, _settled) = lend(5).await;
    let bytes = accounts.snapshot().held_bytes;
    let front = part.split_first(2);
    assert_eq!(front.depart(), Amount { readings: 2, bytes });
    assert!(part.is_record_in_flight());
    assert_eq!(part.depart(), Amount { readings: 3, bytes: 0 });
    assert_eq!(front.come_back(), Amount { readings: 2, bytes: 0 });
    assert!(front.is_record_in_flight());
    assert_eq!(part.come_back(), Amount { readings: 3, bytes });
    assert!(!part.is_record_in_flight());
}

#[tokio::test]
async fn one_reading_that_is_given_up_or_set_aside_decides_what_the_request_hears() {
    for (outcomes, expected) in [
        ([DROPPED, DELIVERED], Settled::Dropped),
        ([DELIVERED, DROPPED], Settled::Dropped),
        ([DROPPED, DROPPED], Settled::Dropped),
        ([DAMAGED, DELIVERED], Settled::Damaged),
        ([DELIVERED, DAMAGED], Settled::Damaged),
        ([DAMAGED, DROPPED], Settled::Damaged),
        ([DROPPED, DAMAGED], Settled::Damaged),
        ([REFUSED, DELIVERED], Settled::Refused),
        ([DELIVERED, TOO_LARGE], Settled::Refused),
        ([TOO_LARGE, DROPPED], Settled::Refused),
        ([DROPPED, REFUSED], Settled::Refused),
        ([REFUSED, DAMAGED], Settled::Damaged),
        ([DAMAGED, TOO_LARGE], Settled::Damaged),
    ] {
        let (mut part, accounts, settled) = lend(5).await;
        let front = part.split_first(1);
        settle(&[front.into()], &accounts, outcomes[0], Instant::now());
        settle(&[part.into()], &accounts, outcomes[1], Instant::now());
        assert_eq!(settled.await, Ok(expected));
        assert!(accounts.snapshot().ledger.balances());
    }
}

#[tokio::test]
async fn a_waiter_that_hears_of_the_delivery_finds_it_in_the_ledger() {
    let (part, accounts, settled) = lend(5).await;
    let heard = tokio::spawn({
        let accounts = Arc::clone(&accounts);
        async move { settled.await.map(|_| accounts.snapshot().ledger.delivered[0]) }
    });
    settle(&[part.into()], &accounts, DELIVERED, Instant::now());
    assert_eq!(heard.await.expect("no panic"), Ok(5));
}

#[tokio::test]
#[should_panic(expected = "each reading is settled once")]
async fn settling_a_reading_twice_is_found() {
    let (mut part, accounts, _settled) = lend(2).await;
    let again = Part::of(Arc::clone(&part.record), part.range.clone());
    let front = part.split_first(1);
    settle(&[front.into(), again.into()], &accounts, DELIVERED, Instant::now());
}
