//! The gateway that takes dead letters again: one request, sent until there is an answer that decides.
//!
//! A request is `strict`, so that a gateway takes all of it or nothing and says which readings it would not take. It
//! asks for `ack=disk`: once the letters are removed, nothing else has the readings. A gateway whose buffer is in
//! memory cannot give that, and is asked for `ack=memory`.

use std::cell::Cell;
use std::time::Duration;

use anyhow::bail;
use forebay_load::client::{self, PostAnswer, READINGS, RawAnswer, ReadingFaults, causes};
use forebay_reading::clock::wall_time;
use http::header;
use reqwest::Client;
use url::Url;

use crate::buffer::Ack;

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
    TurnedAway(ReadingFaults),
    /// None was taken: there are too many, or one among them that cannot be read at all.
    Indigestible(String),
    /// None was taken, and to come again soon would not help.
    Denied(String),
}

impl Gateway {
    /// A gateway at an address.
    ///
    /// # Errors
    ///
    /// The client cannot be set up.
    pub(super) fn new(base: &Url, timeout: Duration) -> anyhow::Result<Gateway> {
        let client = client::build("forebay-dead-letters", 1, timeout)?;
        let url = client::join(base, READINGS);
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
            let (answer, detail, told) = match self.exchange(parcel).await {
                Ok(heard) => {
                    let detail = super::shown(heard.detail().trim(), ANSWER_CHARS);
                    let told = format!("{}: answered {}: {detail}", self.url, heard.status);
                    (heard.answer(parcel.readings, wall_time()), detail, told)
                }
                // Nobody has heard of it.
                Err(error) if error.is_connect() && lost == 0 => {
                    return Ok(Fate::Denied(format!("{}: {}", self.url, causes(&error))));
                }
                Err(error) => {
                    let told = format!("{}: {}", self.url, causes(&error));
                    (PostAnswer::Lost { what: "no answer" }, String::new(), told)
                }
            };
            if let Some(fate) = fate(&answer, detail) {
                return Ok(fate);
            }
            match answer {
                // The gateway cannot give this acknowledgement, or something else is wrong with the request as a whole.
                PostAnswer::TurnedAway { .. } if self.ack.get() == Ack::Disk => self.ack.set(Ack::Memory),
                PostAnswer::NotNow { retry_after } if refusals < REFUSALS_MAX => {
                    refusals += 1;
                    tokio::time::sleep(retry_after).await;
                }
                // The gateway knows the key, if it has taken the request.
                PostAnswer::Taken { .. } | PostAnswer::Lost { .. } if lost < LOST_MAX => {
                    lost += 1;
                    tokio::time::sleep(LOST_PAUSE).await;
                }
                PostAnswer::NotNow { .. } | PostAnswer::TurnedAway { .. } | PostAnswer::Denied
                    if lost == 0 =>
                {
                    return Ok(Fate::Denied(told));
                }
                PostAnswer::Taken { .. }
                | PostAnswer::TurnedAway { .. }
                | PostAnswer::Indigestible
                | PostAnswer::NotNow { .. }
                | PostAnswer::Denied
                | PostAnswer::Lost { .. } => bail!(told),
            }
        }
    }

    async fn exchange(&self, parcel: &Parcel) -> reqwest::Result<RawAnswer> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("strict", "true").append_pair("ack", self.ack.get().name());
        let request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .header("idempotency-key", format!("\"{}\"", parcel.key));
        client::exchange(request.body(parcel.body.clone())).await
    }
}

/// What an answer to a strict request decides by itself, if it does.
fn fate(answer: &PostAnswer, detail: String) -> Option<Fate> {
    match answer {
        PostAnswer::Taken { rejected: 0, .. } => Some(Fate::Taken),
        PostAnswer::TurnedAway { faults } if !faults.is_empty() => Some(Fate::TurnedAway(faults.clone())),
        PostAnswer::Indigestible => Some(Fate::Indigestible(detail)),
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

    fn decided(answer: &PostAnswer) -> Option<Fate> {
        fate(answer, "too large".to_owned())
    }

    #[test]
    fn only_a_202_for_all_readings_lets_letters_go() {
        let taken = |rejected| PostAnswer::Taken { rejected, faults: ReadingFaults::new() };
        assert_eq!(decided(&taken(0)), Some(Fate::Taken));
        for other in [taken(1), PostAnswer::Lost { what: "lost by a proxy" }, PostAnswer::Denied] {
            assert_eq!(decided(&other), None, "{other:?}");
        }
    }

    #[test]
    fn an_answer_that_names_readings_or_takes_no_such_request_decides_too() {
        let faults = || ReadingFaults::from([(1, "no".to_owned())]);
        assert_eq!(decided(&PostAnswer::TurnedAway { faults: faults() }), Some(Fate::TurnedAway(faults())));
        assert_eq!(decided(&PostAnswer::TurnedAway { faults: ReadingFaults::new() }), None);
        assert_eq!(decided(&PostAnswer::Indigestible), Some(Fate::Indigestible("too large".to_owned())));
        assert_eq!(decided(&PostAnswer::NotNow { retry_after: Duration::ZERO }), None);
    }
}
