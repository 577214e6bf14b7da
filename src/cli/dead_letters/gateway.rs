//! The gateway that takes dead letters again: one request, sent until there is an answer that decides.
//!
//! A request is `strict`, so that a gateway takes all of it or nothing and says which readings it would not take. It
//! asks for `ack=disk`: once the letters are removed, nothing else has the readings. A gateway whose buffer is in
//! memory cannot give that, and is asked for `ack=memory`.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use http::{HeaderMap, StatusCode, header};
use reqwest::Client;
use serde::Deserialize;
use url::Url;

use crate::buffer::Ack;
use crate::cli::http_client::{self, causes, retry_after};
use crate::problem::ReadingFault;

/// Times that a gateway may say "not now" to a request.
const REFUSALS_MAX: u32 = 30;
/// Times that the answer to a request may be lost.
const LOST_MAX: u32 = 3;
/// Pause after an answer that was lost.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// Most of an answer that is shown, in characters.
const ANSWER_CHARS: usize = 300;

/// A gateway, as a client sees it.
#[derive(Debug)]
pub(super) struct Gateway {
    client: Client,
    url: Url,
    /// What it is asked for.
    ack: Cell<Ack>,
}

/// Readings to be taken.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    /// As NDJSON.
    pub(super) body: Vec<u8>,
    /// How many.
    pub(super) readings: usize,
    /// Always the same for the same letters.
    pub(super) key: String,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All readings were taken.
    Taken,
    /// None was taken, because of those at these places, for these reasons.
    TurnedAway(Vec<(usize, String)>),
    /// None was taken: there are too many, or one among them that cannot be read at all.
    Indigestible(String),
    /// None was taken, and to come again soon would not help.
    Denied(String),
}

/// What one answer says.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Decided(Fate),
    /// Nothing was taken; the same request may be taken after this time.
    NotNow {
        retry_after: Duration,
    },
    /// The gateway cannot give this acknowledgement, or something else is wrong with the request as a whole.
    Unprocessable,
    /// Nothing was taken.
    Denied,
    /// Somebody answered who cannot say what the gateway did; the gateway knows the key, if it has taken the request.
    Lost,
}

/// The body of a 202.
#[derive(Debug, Deserialize)]
struct Receipt {
    accepted: usize,
}

/// The body of another answer, as far as it is of interest.
#[derive(Debug, Default, Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<ReadingFault>,
}

impl Gateway {
    /// A gateway at an address.
    ///
    /// # Errors
    ///
    /// The client cannot be set up.
    pub(super) fn new(base: &Url, timeout: Duration) -> anyhow::Result<Gateway> {
        let client = http_client::build("forebay-dead-letters", 1, timeout)?;
        let url = http_client::join(base, "/v1/readings");
        Ok(Gateway { client, url, ack: Cell::new(Ack::Disk) })
    }

    /// Sends readings until an answer decides, a bounded number of times.
    ///
    /// # Errors
    ///
    /// The readings may have been taken or not.
    pub(super) async fn post(&self, parcel: &Parcel) -> anyhow::Result<Fate> {
        let (mut refusals, mut lost) = (0, 0);
        loop {
            let (answer, told) = match self.exchange(parcel).await {
                Ok((status, headers, body)) => {
                    let answer = classify(status, &headers, &body, parcel.readings, SystemTime::now());
                    (answer, format!("{}: answered {status}: {}", self.url, detail(&body)))
                }
                // Nobody has heard of it.
                Err(error) if error.is_connect() && lost == 0 => {
                    return Ok(Fate::Denied(format!("{}: {}", self.url, causes(&error))));
                }
                Err(error) => (Answer::Lost, format!("{}: {}", self.url, causes(&error))),
            };
            match answer {
                Answer::Decided(fate) => return Ok(fate),
                Answer::Unprocessable if self.ack.get() == Ack::Disk => self.ack.set(Ack::Memory),
                Answer::NotNow { retry_after } if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    tokio::time::sleep(retry_after).await;
                }
                Answer::Lost if lost < LOST_MAX => {
                    lost += 1;
                    tokio::time::sleep(LOST_PAUSE).await;
                }
                Answer::NotNow { .. } | Answer::Unprocessable | Answer::Denied if lost == 0 => {
                    return Ok(Fate::Denied(told));
                }
                Answer::NotNow { .. } | Answer::Unprocessable | Answer::Denied | Answer::Lost => bail!(told),
            }
        }
    }

    async fn exchange(&self, parcel: &Parcel) -> reqwest::Result<(StatusCode, HeaderMap, Vec<u8>)> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("strict", "true").append_pair("ack", self.ack.get().name());
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header("idempotency-key", format!("\"{}\"", parcel.key));
        let mut response = request.body(parcel.body.clone()).send().await?;
        let body = http_client::read(&mut response).await?;
        Ok((response.status(), response.headers().clone(), body.unwrap_or_default()))
    }
}

/// What an answer says of a strict request with so many readings.
fn classify(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    readings: usize,
    now: SystemTime,
) -> Answer {
    match status {
        StatusCode::ACCEPTED => match serde_json::from_slice(body) {
            Ok(Receipt { accepted }) if accepted == readings => Answer::Decided(Fate::Taken),
            _ => Answer::Lost,
        },
        StatusCode::UNPROCESSABLE_ENTITY => {
            let Problem { errors, .. } = problem(body).unwrap_or_default();
            let faults = errors.into_iter().filter(|fault| fault.index < readings);
            let faults: Vec<_> = faults.map(|fault| (fault.index, fault.detail)).collect();
            if faults.is_empty() { Answer::Unprocessable } else { Answer::Decided(Fate::TurnedAway(faults)) }
        }
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST => {
            Answer::Decided(Fate::Indigestible(detail(body)))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::REQUEST_TIMEOUT => {
            Answer::NotNow { retry_after: retry_after(headers, now) }
        }
        // The same request came before, from a replay that was stopped or did not wait, and is still under way.
        StatusCode::CONFLICT => Answer::NotNow { retry_after: retry_after(headers, now) },
        status if status.is_redirection() || status.is_client_error() => Answer::Denied,
        _ => Answer::Lost,
    }
}

fn problem(body: &[u8]) -> anyhow::Result<Problem> {
    serde_json::from_slice(body).context("no problem details")
}

/// What an answer says for people.
fn detail(body: &[u8]) -> String {
    let detail = problem(body).map(|problem| problem.detail).unwrap_or_default();
    let text = if detail.is_empty() { String::from_utf8_lossy(body).into_owned() } else { detail };
    super::shown(text.trim(), ANSWER_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: Answer) {
        let status = StatusCode::from_u16(status).expect("a status");
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, "7".parse().expect("a header"))]);
        let answer = classify(status, &headers, body.as_bytes(), 3, SystemTime::UNIX_EPOCH);
        assert_eq!(answer, expected, "{status} {body}");
    }

    #[test]
    fn only_a_202_for_all_readings_lets_letters_go() {
        check(202, r#"{"accepted":3,"rejected":0,"ack":"disk","errors":[]}"#, Answer::Decided(Fate::Taken));
        for status in [202, 200, 204, 500, 501, 502, 504] {
            check(status, r#"{"accepted":2,"rejected":1,"ack":"disk","errors":[]}"#, Answer::Lost);
            check(status, "<html>", Answer::Lost);
        }
        for status in [301, 401, 403, 404, 405, 415] {
            check(status, r#"{"accepted":3,"rejected":0}"#, Answer::Denied);
        }
    }

    #[test]
    fn each_other_answer_says_what_to_do_next() {
        let not_now = || Answer::NotNow { retry_after: Duration::from_secs(7) };
        for status in [408, 409, 429, 503] {
            check(status, "", not_now());
        }
        check(
            422,
            r#"{"detail":"x","errors":[{"index":1,"pointer":"/1","detail":"no"},{"index":3,"pointer":"/3","detail":"?"}]}"#,
            Answer::Decided(Fate::TurnedAway(vec![(1, "no".to_owned())])),
        );
        check(422, r#"{"detail":"acknowledgement"}"#, Answer::Unprocessable);
        check(422, "", Answer::Unprocessable);
        check(413, r#"{"detail":"too\nlarge"}"#, Answer::Decided(Fate::Indigestible("too large".to_owned())));
        check(400, "plain", Answer::Decided(Fate::Indigestible("plain".to_owned())));
    }
}
