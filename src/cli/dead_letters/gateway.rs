//! The client of a replay: sends one request to the gateway until an answer decides on it.
//!
//! A request is `strict`, so that the gateway accepts all of it or nothing and names the readings that it refuses. It asks
//! for `ack=disk`, because the gateway has the only copy once the letters are removed. A gateway with a buffer in memory
//! cannot promise that and is asked for `ack=memory`.

use std::cell::Cell;
use std::time::Duration;

use anyhow::bail;
use forebay_load::access::ServerAccess;
use forebay_load::advice;
use forebay_load::call_failure;
use forebay_load::client::{self, PostAnswer, READINGS, RawAnswer, ReadingFaults, causes};
use forebay_reading::clock::wall_time;
use http::header;
use reqwest::Client;
use url::Url;

use crate::buffer::Ack;

/// Most "not now" answers to one request.
const REFUSALS_MAX: u32 = 30;
/// Most lost answers to one request.
const LOST_MAX: u32 = 3;
/// Pause after a lost answer.
const LOST_PAUSE: Duration = Duration::from_secs(1);
/// Longest part of an answer in a message, in characters.
const ANSWER_CHARS: usize = 300;

/// A client of one gateway.
#[derive(Debug)]
pub(super) struct GatewayClient {
    client: Client,
    url: Url,
    /// The acknowledgement to ask for.
    ack: Cell<Ack>,
}

/// A request with readings.
#[derive(Clone, Debug)]
pub(super) struct ReplayRequest {
    /// The readings as NDJSON.
    pub(super) body: Vec<u8>,
    /// The number of readings.
    pub(super) readings: usize,
    /// The idempotency key, always the same for the same letters.
    pub(super) key: String,
}

/// The outcome of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// All readings were accepted.
    Taken,
    /// No reading was accepted, because of the readings at these places, for these reasons.
    TurnedAway(ReadingFaults),
    /// No reading was accepted: there are too many, or one of them cannot be parsed at all.
    Indigestible(String),
    /// No reading was accepted, and trying again soon would not help.
    Denied(String),
}

impl GatewayClient {
    /// Creates a client for the gateway at `base`, which is reached as `access` says.
    ///
    /// # Errors
    ///
    /// The client cannot be set up.
    pub(super) fn new(base: &Url, access: &ServerAccess, timeout: Duration) -> anyhow::Result<GatewayClient> {
        let client = access.client("forebay-dead-letters", 1, timeout)?;
        let url = client::join(base, READINGS);
        Ok(GatewayClient { client, url, ack: Cell::new(Ack::Disk) })
    }

    /// Sends readings until an answer decides, a bounded number of times.
    ///
    /// # Errors
    ///
    /// It is unknown whether the readings were accepted.
    pub(super) async fn post(&self, request: &ReplayRequest) -> anyhow::Result<RequestOutcome> {
        let (mut refusals, mut lost) = (0, 0);
        loop {
            let (answer, detail, message) = match self.exchange(request).await {
                Ok(heard) => {
                    let detail = super::shown(heard.detail().trim(), ANSWER_CHARS);
                    let advice = advice::on_status(heard.status).map(|advice| format!("; {advice}"));
                    let advice = advice.unwrap_or_default();
                    let message =
                        format!("{}: answered {}: {detail}{advice}", client::shown(&self.url), heard.status);
                    (heard.answer(request.readings, wall_time()), detail, message)
                }
                // The request never reached a gateway.
                Err(error) if lost == 0 && never_arrived(&error) => {
                    return Ok(RequestOutcome::Denied(format!(
                        "{}: {}",
                        client::shown(&self.url),
                        causes(&error)
                    )));
                }
                Err(error) => {
                    let message = format!("{}: {}", client::shown(&self.url), causes(&error));
                    (PostAnswer::Lost { what: "no answer" }, String::new(), message)
                }
            };
            if let Some(outcome) = outcome(&answer, detail) {
                return Ok(outcome);
            }
            match answer {
                // The gateway cannot promise `ack=disk`, or the request as a whole has another fault.
                PostAnswer::TurnedAway { .. } if self.ack.get() == Ack::Disk => self.ack.set(Ack::Memory),
                PostAnswer::NotNow { retry_after } if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    tokio::time::sleep(retry_after).await;
                }
                // If the gateway has accepted the request, it recognizes the key.
                PostAnswer::Taken { .. } | PostAnswer::Lost { .. } if lost < LOST_MAX => {
                    lost += 1;
                    tokio::time::sleep(LOST_PAUSE).await;
                }
                PostAnswer::NotNow { .. } | PostAnswer::TurnedAway { .. } | PostAnswer::Denied
                    if lost == 0 =>
                {
                    return Ok(RequestOutcome::Denied(message));
                }
                PostAnswer::Taken { .. }
                | PostAnswer::TurnedAway { .. }
                | PostAnswer::Indigestible
                | PostAnswer::NotNow { .. }
                | PostAnswer::Denied
                | PostAnswer::Lost { .. } => bail!(message),
            }
        }
    }

    async fn exchange(&self, request: &ReplayRequest) -> reqwest::Result<RawAnswer> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("strict", "true").append_pair("ack", self.ack.get().name());
        let builder = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header("idempotency-key", format!("\"{}\"", request.key));
        client::exchange(builder.body(request.body.clone())).await
    }
}

/// Whether the request of this error never reached a gateway: there was no connection, or it was refused because of a
/// certificate, which a server of TLS 1.3 tells only after the client has begun to send.
fn never_arrived(error: &reqwest::Error) -> bool {
    error.is_connect() || call_failure::of(error).is_some_and(|failure| failure.is_about_own_certificate())
}

/// The outcome of a strict request, if this answer decides it.
fn outcome(answer: &PostAnswer, detail: String) -> Option<RequestOutcome> {
    match answer {
        PostAnswer::Taken { rejected: 0, .. } => Some(RequestOutcome::Taken),
        PostAnswer::TurnedAway { faults } if !faults.is_empty() => {
            Some(RequestOutcome::TurnedAway(faults.clone()))
        }
        PostAnswer::Indigestible => Some(RequestOutcome::Indigestible(detail)),
        PostAnswer::Taken { .. }
        | PostAnswer::TurnedAway { .. }
        | PostAnswer::NotNow { .. }
        | PostAnswer::Denied
        | PostAnswer::Lost { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(answer: &PostAnswer) -> Option<RequestOutcome> {
        outcome(answer, "too large".to_owned())
    }

    #[test]
    fn only_a_202_for_all_readings_settles_the_letters() {
        let taken = |rejected| PostAnswer::Taken { rejected, faults: ReadingFaults::new() };
        assert_eq!(decided(&taken(0)), Some(RequestOutcome::Taken));
        for other in [taken(1), PostAnswer::Lost { what: "lost by a proxy" }, PostAnswer::Denied] {
            assert_eq!(decided(&other), None, "{other:?}");
        }
    }

    #[test]
    fn an_answer_that_names_readings_or_refuses_the_size_decides_too() {
        let faults = || ReadingFaults::from([(1, "no".to_owned())]);
        assert_eq!(
            decided(&PostAnswer::TurnedAway { faults: faults() }),
            Some(RequestOutcome::TurnedAway(faults()))
        );
        assert_eq!(decided(&PostAnswer::TurnedAway { faults: ReadingFaults::new() }), None);
        assert_eq!(
            decided(&PostAnswer::Indigestible),
            Some(RequestOutcome::Indigestible("too large".to_owned()))
        );
        assert_eq!(decided(&PostAnswer::NotNow { retry_after: Duration::ZERO }), None);
    }
}
