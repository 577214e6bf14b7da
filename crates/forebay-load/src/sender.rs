//! One connection: it sends a batch, waits for the answer, and only then takes the next.
//!
//! A refusal that may pass (408, 409, 429, 503) is waited out as long as `Retry-After` says, and the same body is sent
//! again. Where the answer was lost, nothing is sent again: the readings may have arrived, and the audit takes both for
//! right.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay_reading::clock::wall_time;
use http::header;
use reqwest::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::client::{self, Answer, causes};
use crate::csv_error::CsvError;
use crate::fates::{Fate, Fates};
use crate::pacer::Pacer;
use crate::source::{Batch, Source};
use crate::tally::Tally;

/// Pause after an error, so that a gateway that is away is not asked as fast as the machine can.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How much of an answer's body is shown as an example: a problem with all the errors that it lists.
const EXAMPLE_CHARS: usize = 16_384;

/// The state that all connections of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    /// Where readings are posted to.
    pub(super) url: Url,
    /// Readings a request.
    pub(super) batch: usize,
    pub(super) pacer: Pacer,
    pub(super) started: Instant,
    /// When `stop` comes by itself, if so; nothing that is due then or later is sent.
    pub(super) deadline: Option<Instant>,
    /// Ends the sending; requests under way are still answered.
    pub(super) stop: CancellationToken,
    /// Held for a few additions at a time.
    pub(super) tally: Mutex<Tally>,
    /// Held for one batch at a time.
    pub(super) fates: Mutex<Fates>,
}

/// Sends what `source` gives until it ends or the run is stopped.
///
/// # Errors
///
/// The source could not be read on.
pub(super) async fn run(mut source: Box<dyn Source>, shared: Arc<Shared>) -> Result<(), CsvError> {
    while !shared.stop.is_cancelled() {
        let Some(batch) = source.next_batch(shared.batch)? else { break };
        let due = shared.started + shared.pacer.take(batch.ordinals.len());
        if !shared.wait_until(due).await {
            break;
        }
        shared.deliver(&batch, due).await;
    }
    Ok(())
}

impl Shared {
    /// Sends one batch until it is taken, denied, lost, or the run is stopped.
    async fn deliver(&self, batch: &Batch, due: Instant) {
        let body = batch.body(self.batch);
        self.tally(|tally| tally.sent += batch.ordinals.len() as u64);
        loop {
            let sent = Instant::now();
            let answer = self.post(body.clone(), batch.ordinals.len()).await;
            if matches!(answer, Answer::Taken { .. }) {
                let now = Instant::now();
                self.tally(|tally| {
                    tally.since_sent.add(now - sent);
                    tally.since_due.add(now.saturating_duration_since(due));
                });
            }
            self.record(batch, &answer);
            match answer {
                Answer::NotNow { retry_after } => {
                    if !self.wait_until(Instant::now() + retry_after).await {
                        return;
                    }
                }
                Answer::Lost { .. } => {
                    self.wait_until(Instant::now() + ERROR_PAUSE).await;
                    return;
                }
                Answer::Taken { .. } | Answer::TurnedAway { .. } | Answer::Indigestible | Answer::Denied => {
                    return;
                }
            }
        }
    }

    async fn post(&self, body: Bytes, readings: usize) -> Answer {
        self.tally(|tally| tally.requests += 1);
        let request = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json");
        let heard = match client::exchange(request.body(body)).await {
            Ok(heard) => heard,
            Err(error) => return self.lost(&error),
        };
        let answer = heard.answer(readings, wall_time());
        let example = || {
            let text = String::from_utf8_lossy(&heard.body);
            let shown: String = text.chars().take(EXAMPLE_CHARS).collect();
            let rest = if shown.len() < text.len() { "… (there is more of it)" } else { "" };
            format!("{}: {shown}{rest}", heard.status)
        };
        self.tally(|tally| match &answer {
            Answer::Taken { .. } => {}
            Answer::Lost { what } => tally.add_error(what, example),
            Answer::TurnedAway { .. } | Answer::Indigestible | Answer::NotNow { .. } | Answer::Denied => {
                tally.add_refusal(heard.status, example);
            }
        });
        answer
    }

    fn lost(&self, error: &reqwest::Error) -> Answer {
        let what = if error.is_timeout() {
            "timed out"
        } else if error.is_connect() {
            "no connection"
        } else {
            "connection broken"
        };
        self.tally(|tally| tally.add_error(what, || causes(error)));
        Answer::Lost { what }
    }

    /// Counts the readings of an answer and remembers their fates.
    fn record(&self, batch: &Batch, answer: &Answer) {
        let readings = batch.ordinals.len() as u64;
        self.tally(|tally| match answer {
            Answer::Taken { rejected, .. } => {
                tally.accepted += readings - *rejected as u64;
                tally.rejected += *rejected as u64;
            }
            Answer::TurnedAway { .. } => tally.rejected += readings,
            Answer::Lost { .. } => tally.unanswered += readings,
            Answer::Indigestible | Answer::NotNow { .. } | Answer::Denied => {}
        });
        let mut fates = self.fates.lock().expect("nothing panics while it sets fates");
        for (place, ordinal) in batch.ordinals.iter().enumerate() {
            fates.set(*ordinal, fate(answer, place));
        }
    }

    /// Waits for an instant; `false` if the run was stopped before, or ends then.
    async fn wait_until(&self, instant: Instant) -> bool {
        if self.deadline.is_some_and(|deadline| deadline <= instant) {
            self.stop.cancelled().await;
            return false;
        }
        tokio::select! {
            // The stop comes first: at an instant that has passed, a stopped run still does not go on.
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep_until(instant) => true,
        }
    }

    /// Hands over the fates, once all senders have ended.
    pub(super) fn take_fates(&self) -> Fates {
        let mut fates = self.fates.lock().expect("nothing panics while it sets fates");
        std::mem::replace(&mut *fates, Fates::new(0))
    }

    pub(super) fn tally<T>(&self, use_it: impl FnOnce(&mut Tally) -> T) -> T {
        use_it(&mut self.tally.lock().expect("nothing panics while it counts"))
    }
}

/// The fate of the reading at `place` in a batch that was answered like this.
fn fate(answer: &Answer, place: usize) -> Fate {
    match answer {
        Answer::Taken { faults, .. } if faults.contains_key(&place) => Fate::NotTaken,
        Answer::Taken { rejected, faults } if faults.len() == *rejected => Fate::Acknowledged,
        // Some were rejected, and the answer does not list which.
        Answer::Taken { .. } | Answer::Lost { .. } => Fate::Unknown,
        Answer::TurnedAway { .. } | Answer::Indigestible | Answer::NotNow { .. } | Answer::Denied => {
            Fate::NotTaken
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_readings_of_a_half_known_answer_are_certain() {
        let answer = |rejected| Answer::Taken { rejected, faults: [(1, String::new())].into() };
        assert_eq!((fate(&answer(1), 0), fate(&answer(1), 1)), (Fate::Acknowledged, Fate::NotTaken));
        assert_eq!((fate(&answer(2), 0), fate(&answer(2), 1)), (Fate::Unknown, Fate::NotTaken));
    }

    #[test]
    fn the_readings_of_a_request_have_one_fate_where_no_reading_is_named() {
        let check = |answer: Answer, expected| assert_eq!(fate(&answer, 0), expected, "{answer:?}");
        check(Answer::Taken { rejected: 0, faults: [].into() }, Fate::Acknowledged);
        check(Answer::Lost { what: "timed out" }, Fate::Unknown);
        check(Answer::TurnedAway { faults: [].into() }, Fate::NotTaken);
        check(Answer::NotNow { retry_after: Duration::ZERO }, Fate::NotTaken);
        check(Answer::Indigestible, Fate::NotTaken);
        check(Answer::Denied, Fate::NotTaken);
    }
}
