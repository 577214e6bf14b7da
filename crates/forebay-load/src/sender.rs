//! One connection: it sends a batch, waits for the answer, and only then takes the next.
//!
//! After a temporary refusal (408, 409, 429, 503) it waits for `Retry-After` and sends the same body again. A batch whose
//! answer was lost is not sent again: its readings may have arrived, and the audit accepts them present or missing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use forebay_reading::clock::wall_time;
use http::header;
use reqwest::Client;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::client::{self, PostAnswer, causes};
use crate::csv_error::CsvError;
use crate::fates::{Fates, SentFate};
use crate::pacer::Pacer;
use crate::source::{BatchSource, LoadBatch};
use crate::tally::LoadTally;

/// Pause after an error, so that the senders do not spin while the gateway is down.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// Longest part of an answer's body that is shown as an example; a problem with all its errors fits.
const EXAMPLE_CHARS: usize = 16_384;

/// The state that all connections of a run share.
#[derive(Debug)]
pub(super) struct RunState {
    pub(super) client: Client,
    /// The address that takes readings.
    pub(super) url: Url,
    /// Readings a request.
    pub(super) batch: usize,
    pub(super) pacer: Pacer,
    pub(super) started: Instant,
    /// The instant at which a timer cancels `stop`; no reading that is due at or after it is sent.
    pub(super) deadline: Option<Instant>,
    /// Ends the sending; requests under way are still answered.
    pub(super) stop: CancellationToken,
    /// Held for a few additions at a time.
    pub(super) tally: Mutex<LoadTally>,
    /// Held for one batch at a time.
    pub(super) fates: Mutex<Fates>,
}

/// Sends the batches of `source` until it ends or the run is stopped.
///
/// # Errors
///
/// The rest of the source could not be read.
pub(super) async fn run(mut source: Box<dyn BatchSource>, shared: Arc<RunState>) -> Result<(), CsvError> {
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

impl RunState {
    /// Sends one batch until it is taken, denied, lost, or the run is stopped.
    async fn deliver(&self, batch: &LoadBatch, due: Instant) {
        let body = batch.body(self.batch);
        self.tally(|tally| tally.sent += batch.ordinals.len() as u64);
        loop {
            let sent = Instant::now();
            let answer = self.post(body.clone(), batch.ordinals.len()).await;
            if matches!(answer, PostAnswer::Taken { .. }) {
                let now = Instant::now();
                self.tally(|tally| {
                    tally.since_sent.add(now - sent);
                    tally.since_due.add(now.saturating_duration_since(due));
                });
            }
            self.record(batch, &answer);
            match answer {
                PostAnswer::NotNow { retry_after } => {
                    if !self.wait_until(Instant::now() + retry_after).await {
                        return;
                    }
                }
                PostAnswer::Lost { .. } => {
                    self.wait_until(Instant::now() + ERROR_PAUSE).await;
                    return;
                }
                PostAnswer::Taken { .. }
                | PostAnswer::TurnedAway { .. }
                | PostAnswer::Indigestible
                | PostAnswer::Denied => {
                    return;
                }
            }
        }
    }

    async fn post(&self, body: Bytes, readings: usize) -> PostAnswer {
        self.tally(|tally| tally.requests += 1);
        let request = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json");
        let raw = match client::exchange(request.body(body)).await {
            Ok(raw) => raw,
            Err(error) => return self.lost(&error),
        };
        let answer = raw.answer(readings, wall_time());
        let example = || {
            let text = String::from_utf8_lossy(&raw.body);
            let shown: String = text.chars().take(EXAMPLE_CHARS).collect();
            let rest = if shown.len() < text.len() { "… (there is more of it)" } else { "" };
            format!("{}: {shown}{rest}", raw.status)
        };
        self.tally(|tally| match &answer {
            PostAnswer::Taken { .. } => {}
            PostAnswer::Lost { what } => tally.add_error(what, example),
            PostAnswer::TurnedAway { .. }
            | PostAnswer::Indigestible
            | PostAnswer::NotNow { .. }
            | PostAnswer::Denied => {
                tally.add_refusal(raw.status, example);
            }
        });
        answer
    }

    fn lost(&self, error: &reqwest::Error) -> PostAnswer {
        let what = if error.is_timeout() {
            "timed out"
        } else if error.is_connect() {
            "no connection"
        } else {
            "connection broken"
        };
        self.tally(|tally| tally.add_error(what, || causes(error)));
        PostAnswer::Lost { what }
    }

    /// Counts the readings of an answer and remembers their fates.
    fn record(&self, batch: &LoadBatch, answer: &PostAnswer) {
        let readings = batch.ordinals.len() as u64;
        self.tally(|tally| match answer {
            PostAnswer::Taken { rejected, .. } => {
                tally.accepted += readings - *rejected as u64;
                tally.rejected += *rejected as u64;
            }
            PostAnswer::TurnedAway { .. } => tally.rejected += readings,
            PostAnswer::Lost { .. } => tally.unanswered += readings,
            PostAnswer::Indigestible | PostAnswer::NotNow { .. } | PostAnswer::Denied => {}
        });
        let mut fates = self.fates.lock().expect("nothing panics while it sets fates");
        for (place, ordinal) in batch.ordinals.iter().enumerate() {
            fates.set(*ordinal, fate(answer, place));
        }
    }

    /// Waits for an instant; `false` if the run is stopped first, or its deadline is not later.
    async fn wait_until(&self, instant: Instant) -> bool {
        if self.deadline.is_some_and(|deadline| deadline <= instant) {
            self.stop.cancelled().await;
            return false;
        }
        tokio::select! {
            // The stop comes first: a stopped run does not go on, even if the instant has passed.
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

    pub(super) fn tally<T>(&self, use_it: impl FnOnce(&mut LoadTally) -> T) -> T {
        use_it(&mut self.tally.lock().expect("nothing panics while it counts"))
    }
}

/// The fate of the reading at `place` in a batch with this answer.
fn fate(answer: &PostAnswer, place: usize) -> SentFate {
    match answer {
        PostAnswer::Taken { faults, .. } if faults.contains_key(&place) => SentFate::NotTaken,
        PostAnswer::Taken { rejected, faults } if faults.len() == *rejected => SentFate::Acknowledged,
        // The answer does not list all rejected readings.
        PostAnswer::Taken { .. } | PostAnswer::Lost { .. } => SentFate::Unknown,
        PostAnswer::TurnedAway { .. }
        | PostAnswer::Indigestible
        | PostAnswer::NotNow { .. }
        | PostAnswer::Denied => SentFate::NotTaken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_list_of_rejected_readings_leaves_the_others_unknown() {
        let answer = |rejected| PostAnswer::Taken { rejected, faults: [(1, String::new())].into() };
        assert_eq!((fate(&answer(1), 0), fate(&answer(1), 1)), (SentFate::Acknowledged, SentFate::NotTaken));
        assert_eq!((fate(&answer(2), 0), fate(&answer(2), 1)), (SentFate::Unknown, SentFate::NotTaken));
    }

    #[test]
    fn an_answer_that_names_no_reading_decides_for_all() {
        let check = |answer: PostAnswer, expected| assert_eq!(fate(&answer, 0), expected, "{answer:?}");
        check(PostAnswer::Taken { rejected: 0, faults: [].into() }, SentFate::Acknowledged);
        check(PostAnswer::Lost { what: "timed out" }, SentFate::Unknown);
        check(PostAnswer::TurnedAway { faults: [].into() }, SentFate::NotTaken);
        check(PostAnswer::NotNow { retry_after: Duration::ZERO }, SentFate::NotTaken);
        check(PostAnswer::Indigestible, SentFate::NotTaken);
        check(PostAnswer::Denied, SentFate::NotTaken);
    }
}
