//! One connection: it sends a batch, waits for the answer, and only then takes the next.
//!
//! A refusal (429, 503) is waited out as long as `Retry-After` says and the same body is sent again. Where the
//! answer was lost, nothing is sent again: the readings may have arrived, and the audit takes both for right.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use hyper::body::Bytes;
use reqwest::Client;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::csv_source::CsvError;
use super::fates::{Fate, Fates};
use super::pacer::Pacer;
use super::source::{Batch, Source};
use super::tally::Tally;
use crate::cli::http_client::{causes, read, retry_after};

/// Pause after an error, so that a gateway that is away is not asked as fast as the machine can.
const ERROR_PAUSE: Duration = Duration::from_millis(100);
/// How much of an answer's body is shown as an example: a problem with all the errors that it lists.
const EXAMPLE_CHARS: usize = 16_384;

/// What all connections of a run share.
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

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// Taken, apart from the readings at these places in the batch.
    Taken { rejected: BTreeSet<usize> },
    /// Taken in part, and not every rejected reading is listed.
    TakenInPart { accepted: u64, rejected: u64, listed: BTreeSet<usize> },
    /// Every reading was turned away.
    Rejected,
    /// Nothing was taken; the same request may be taken after this time.
    Refused { retry_after: Duration },
    /// Nothing was taken, and the same request never will be.
    Denied,
    /// Nobody knows.
    Lost { what: &'static str },
}

/// The body of a 202.
#[derive(Debug, Deserialize)]
struct Receipt {
    accepted: u64,
    #[serde(default)]
    rejected: u64,
    #[serde(default)]
    errors: Vec<Fault>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    index: usize,
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
            if matches!(answer, Answer::Taken { .. } | Answer::TakenInPart { .. }) {
                let now = Instant::now();
                self.tally(|tally| {
                    tally.since_sent.add(now - sent);
                    tally.since_due.add(now.saturating_duration_since(due));
                });
            }
            self.record(batch, &answer);
            match answer {
                Answer::Refused { retry_after } => {
                    if !self.wait_until(Instant::now() + retry_after).await {
                        return;
                    }
                }
                Answer::Lost { .. } => {
                    self.wait_until(Instant::now() + ERROR_PAUSE).await;
                    return;
                }
                Answer::Taken { .. } | Answer::TakenInPart { .. } | Answer::Rejected | Answer::Denied => {
                    return;
                }
            }
        }
    }

    async fn post(&self, body: Bytes, readings: usize) -> Answer {
        self.tally(|tally| tally.requests += 1);
        let request = self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json");
        let exchange = async {
            let mut response = request.body(body).send().await?;
            let body = read(&mut response).await?;
            Ok((response.status(), response.headers().clone(), body))
        };
        let (status, headers, body) = match exchange.await {
            Ok(exchange) => exchange,
            Err(error) => return self.lost(&error),
        };
        let body = body.unwrap_or_default();
        let answer = classify(status, &headers, &body, readings, SystemTime::now());
        let example = || {
            let text = String::from_utf8_lossy(&body);
            let shown: String = text.chars().take(EXAMPLE_CHARS).collect();
            let rest = if shown.len() < text.len() { "… (there is more of it)" } else { "" };
            format!("{status}: {shown}{rest}")
        };
        self.tally(|tally| match &answer {
            Answer::Taken { .. } | Answer::TakenInPart { .. } => {}
            Answer::Lost { what } => tally.add_error(what, example),
            Answer::Rejected | Answer::Refused { .. } | Answer::Denied => tally.add_refusal(status, example),
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
            Answer::Taken { rejected } => {
                tally.accepted += readings - rejected.len() as u64;
                tally.rejected += rejected.len() as u64;
            }
            Answer::TakenInPart { accepted, rejected, .. } => {
                tally.accepted += accepted;
                tally.rejected += rejected;
            }
            Answer::Rejected => tally.rejected += readings,
            Answer::Lost { .. } => tally.unanswered += readings,
            Answer::Refused { .. } | Answer::Denied => {}
        });
        let mut fates = self.fates.lock().expect("nothing panics while it sets fates");
        for (place, ordinal) in batch.ordinals.iter().enumerate() {
            fates.set(*ordinal, answer.fate(place));
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

impl Answer {
    /// What this answer says of the reading at `place` in the batch.
    fn fate(&self, place: usize) -> Fate {
        match self {
            Answer::Taken { rejected } if rejected.contains(&place) => Fate::NotTaken,
            Answer::Taken { .. } => Fate::Acknowledged,
            Answer::TakenInPart { listed, .. } if listed.contains(&place) => Fate::NotTaken,
            Answer::TakenInPart { .. } | Answer::Lost { .. } => Fate::Unknown,
            Answer::Rejected | Answer::Refused { .. } | Answer::Denied => Fate::NotTaken,
        }
    }
}

/// What an answer says of a request with `readings` readings.
fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    readings: usize,
    now: SystemTime,
) -> Answer {
    match status {
        StatusCode::ACCEPTED => receipt(body, readings),
        StatusCode::UNPROCESSABLE_ENTITY => Answer::Rejected,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Answer::Refused { retry_after: retry_after(headers, now) }
        }
        // A proxy in between cannot say what the gateway did.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => Answer::Lost { what: "lost by a proxy" },
        status if status.is_success() => Answer::Lost { what: "answer not understood" },
        _ => Answer::Denied,
    }
}

fn receipt(body: &[u8], readings: usize) -> Answer {
    let not_understood = Answer::Lost { what: "answer not understood" };
    let Ok(Receipt { accepted, rejected, errors }) = serde_json::from_slice(body) else {
        return not_understood;
    };
    if accepted.checked_add(rejected) != Some(readings as u64) {
        return not_understood;
    }
    let listed: BTreeSet<usize> =
        errors.iter().map(|fault| fault.index).filter(|at| *at < readings).collect();
    if listed.len() as u64 == rejected {
        return Answer::Taken { rejected: listed };
    }
    Answer::TakenInPart { accepted, rejected, listed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http_client::RETRY_AFTER_DEFAULT;

    fn check(status: u16, body: &str, readings: usize, expected: Answer) {
        let status = StatusCode::from_u16(status).expect("a status");
        let answer = classify(status, &HeaderMap::new(), body.as_bytes(), readings, SystemTime::UNIX_EPOCH);
        assert_eq!(answer, expected, "{status} {body}");
    }

    #[test]
    fn an_answer_says_what_became_of_the_readings() {
        let not_understood = || Answer::Lost { what: "answer not understood" };
        check(202, r#"{"accepted":3,"rejected":0,"ack":"disk"}"#, 3, Answer::Taken { rejected: [].into() });
        check(
            202,
            r#"{"accepted":2,"rejected":1,"errors":[{"index":1,"pointer":"/1","detail":"x"}]}"#,
            3,
            Answer::Taken { rejected: [1].into() },
        );
        check(
            202,
            r#"{"accepted":1,"rejected":2,"errors":[{"index":1}]}"#,
            3,
            Answer::TakenInPart { accepted: 1, rejected: 2, listed: [1].into() },
        );
        check(202, r#"{"accepted":2,"rejected":0}"#, 3, not_understood());
        check(202, r#"{"accepted":18446744073709551615,"rejected":4}"#, 3, not_understood());
        check(202, "<html>", 3, not_understood());
        check(200, "{}", 3, not_understood());
        check(422, "", 3, Answer::Rejected);
        check(400, "", 3, Answer::Denied);
        check(500, "", 3, Answer::Denied);
        check(502, "", 3, Answer::Lost { what: "lost by a proxy" });
        check(503, "", 3, Answer::Refused { retry_after: RETRY_AFTER_DEFAULT });
    }

    #[test]
    fn only_the_listed_readings_of_a_half_known_answer_are_certain() {
        let answer = Answer::TakenInPart { accepted: 1, rejected: 2, listed: [1].into() };
        assert_eq!((answer.fate(0), answer.fate(1)), (Fate::Unknown, Fate::NotTaken));
    }
}
