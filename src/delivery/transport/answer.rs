//! Interprets the answer to a batch: its status, its headers, and its body as the format reads it.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_reading::clock::wall_time;
use forebay_stores::{Blame, FailedItem, Judgement, NodeAnswer, Store, is_page, judge};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http::header::CONTENT_ENCODING;
use http::response::Parts;
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::retry_after::retry_after;
use crate::delivery::secrets::{Extent, Secrets};
use crate::delivery::wire::{WireAnswer, WireError};

/// Longest excerpt of an answer that people see, in bytes.
const EXCERPT_BYTES_MAX: usize = 1024;
/// Length of the text that the excerpt is made from, in bytes: hiding secrets shortens it.
const EXCERPT_WINDOW_BYTES: usize = 4 * EXCERPT_BYTES_MAX;
/// Longest part of an answer that is judged, and that is read so that its connection can be reused, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Longest text of a node about one reading, in bytes; longer ones were cut to this.
const ITEM_BYTES_MAX: usize = 1024;
/// Most texts about single readings in which secrets are hidden on the async thread; more go to a blocking thread.
const ITEMS_INLINE_MAX: usize = 16;

/// The meaning of an answer, or of its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerVerdict {
    /// The node has the batch.
    Delivered,
    /// The node cannot take it now.
    Retry(RetryReason),
    /// The node refuses these readings.
    Refused,
    /// The node wants smaller batches.
    TooLarge,
    /// The node is set up wrongly: any batch would fail.
    Misconfigured,
}

impl AnswerVerdict {
    /// The value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            AnswerVerdict::Delivered => "delivered",
            AnswerVerdict::Retry(_) => "unavailable",
            AnswerVerdict::Refused => "refused",
            AnswerVerdict::TooLarge => "too_large",
            AnswerVerdict::Misconfigured => "misconfigured",
        }
    }

    /// The value of the label `reason` of a retry.
    pub fn reason(self) -> &'static str {
        match self {
            AnswerVerdict::Retry(reason) => reason.name(),
            other => other.name(),
        }
    }
}

/// Why a node could not take a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryReason {
    /// No connection was made; the node has seen nothing.
    Connect,
    /// The connection broke during the exchange.
    Broken,
    /// No answer in time.
    Timeout,
    /// The node asked to try again later (408, 409, 425, 429, 503).
    Busy,
    /// The node failed (5xx), or its answer cannot be understood.
    ServerError,
    /// The node stored some of the readings and could not take others.
    Partly,
    /// The request could not be built: an internal error.
    Internal,
}

impl RetryReason {
    fn name(self) -> &'static str {
        match self {
            RetryReason::Connect => "connect",
            RetryReason::Broken => "broken",
            RetryReason::Timeout => "timeout",
            RetryReason::Busy => "busy",
            RetryReason::ServerError => "server_error",
            RetryReason::Partly => "partly",
            RetryReason::Internal => "internal",
        }
    }

    /// Whether the node may have stored the batch nevertheless.
    pub fn may_be_stored(self) -> bool {
        match self {
            RetryReason::Connect | RetryReason::Busy | RetryReason::Internal => false,
            RetryReason::Broken | RetryReason::Timeout | RetryReason::ServerError | RetryReason::Partly => {
                true
            }
        }
    }

    /// Whether fewer concurrent batches may help.
    pub fn is_overload(self) -> bool {
        matches!(self, RetryReason::Timeout | RetryReason::Busy | RetryReason::Partly)
    }
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its meaning.
    pub verdict: AnswerVerdict,
    /// A description for people: the status and the start of the body, or the error.
    pub detail: String,
    /// How long the node asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The HTTP status; `None` if no answer arrived.
    pub status: Option<u16>,
    /// The start of the body.
    pub body: String,
    /// The readings of a delivered batch that the node refused, by their index in the body.
    pub refused: Vec<FailedItem>,
    /// Whether the node stored some of the readings of a batch that must be sent again.
    pub is_stored_in_part: bool,
}

impl Answer {
    /// The answer to a request that could not be built.
    pub fn internal(detail: String) -> Answer {
        Answer::none(RetryReason::Internal, detail)
    }

    /// The absence of an answer, with its reason. The detail is cut: it may have names of the node's certificate.
    pub(super) fn none(reason: RetryReason, mut detail: String) -> Answer {
        detail.truncate(detail.floor_char_boundary(EXCERPT_BYTES_MAX));
        let verdict = AnswerVerdict::Retry(reason);
        Answer {
            verdict,
            detail,
            retry_after: None,
            status: None,
            body: String::new(),
            refused: Vec::new(),
            is_stored_in_part: false,
        }
    }
}

/// Interprets a status, as the table in the contract with nodes says.
pub fn classify(status: StatusCode) -> AnswerVerdict {
    match status.as_u16() {
        200..=299 => AnswerVerdict::Delivered,
        408 | 409 | 425 | 429 | 503 => AnswerVerdict::Retry(RetryReason::Busy),
        413 => AnswerVerdict::TooLarge,
        400 | 422 => AnswerVerdict::Refused,
        // 508 comes from a gateway that finds itself in the batch's `Forebay-Via`.
        501 | 508 => AnswerVerdict::Misconfigured,
        500..=599 => AnswerVerdict::Retry(RetryReason::ServerError),
        // 401, 403, 404, 405 and 3xx by the contract. Statuses that it does not name must not lose readings either.
        _ => AnswerVerdict::Misconfigured,
    }
}

/// Reads the answer to one batch.
pub(super) struct AnswerReader<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) secrets: &'a Arc<Secrets>,
    /// The number of readings in the batch.
    pub(super) readings: usize,
    pub(super) deadline: Instant,
}

impl AnswerReader<'_> {
    /// Reads an answer. Its status counts even if the body does not arrive.
    pub(super) async fn read(&self, answer: WireAnswer) -> Answer {
        let (head, body) = answer.into_parts();
        let items_max = self.store.item_answer_bytes_max(self.readings).filter(|_| head.status.is_success());
        let bytes_max = items_max.unwrap_or(ANSWER_BYTES_MAX);
        let body =
            decompress(read_body(body, bytes_max, self.deadline).await, &head.headers, bytes_max).await;
        let answer = self.answer(&head, &body);
        let text = String::from_utf8_lossy(&body.bytes[..body.bytes.len().min(ANSWER_BYTES_MAX)]);
        match items_max {
            // An empty body is a valid answer in every format.
            Some(_) if body.bytes.is_empty() && body.is_whole => answer,
            Some(_) if is_page(&text) => {
                false_success(answer, Blame::Node, "is a web page, and no answer of such a node")
            }
            Some(most) => {
                let items = items(&body, self.store, self.readings, most);
                self.hide_in_items(judge_items(answer, items, self.readings)).await
            }
            None => {
                let heard = NodeAnswer { status: head.status.as_u16(), headers: &head.headers, body: &text };
                match judge(self.store, &heard) {
                    Some(Judgement { blame, why: Some(why) }) => false_success(answer, blame, why),
                    Some(Judgement { blame, why: None }) => Answer { verdict: verdict_of(blame), ..answer },
                    None => answer,
                }
            }
        }
    }

    /// Builds the answer from its status and the start of its body.
    fn answer(&self, head: &Parts, body: &BodyPrefix) -> Answer {
        let excerpt = self.excerpt(body);
        let looped = match head.status {
            StatusCode::LOOP_DETECTED => "batches that are sent there come back to this gateway: ",
            _ => "",
        };
        Answer {
            verdict: classify(head.status),
            detail: format!("{}: {looped}{}", head.status, excerpt.trim()),
            retry_after: retry_after(&head.headers, wall_time()),
            status: Some(head.status.as_u16()),
            body: excerpt,
            refused: Vec::new(),
            is_stored_in_part: false,
        }
    }

    /// The start of a body for people, without secrets. Secrets are hidden before the text is cut, since a cut secret would
    /// not be recognised.
    fn excerpt(&self, body: &BodyPrefix) -> String {
        let window = &body.bytes[..body.bytes.len().min(EXCERPT_WINDOW_BYTES)];
        let is_whole = body.is_whole && window.len() == body.bytes.len();
        let text = String::from_utf8_lossy(window);
        let mut text =
            self.secrets.hide(&text, if is_whole { Extent::Whole } else { Extent::Cut }).into_owned();
        text.truncate(text.floor_char_boundary(EXCERPT_BYTES_MAX));
        text
    }

    /// Hides secrets in the texts about single readings.
    async fn hide_in_items(&self, mut answer: Answer) -> Answer {
        answer.detail = self.secrets.hide(&answer.detail, Extent::Cut).into_owned();
        let mut refused = std::mem::take(&mut answer.refused);
        if refused.len() <= ITEMS_INLINE_MAX {
            hide_in(&mut refused, self.secrets);
            return Answer { refused, ..answer };
        }
        let secrets = Arc::clone(self.secrets);
        let hide = move || {
            hide_in(&mut refused, &secrets);
            refused
        };
        match tokio::task::spawn_blocking(hide).await {
            Ok(refused) => Answer { refused, ..answer },
            Err(error) => Answer::internal(error.to_string()),
        }
    }
}

fn hide_in(items: &mut [FailedItem], secrets: &Secrets) {
    for item in items {
        let extent = if item.detail.len() + 4 > ITEM_BYTES_MAX { Extent::Cut } else { Extent::Whole };
        item.detail = secrets.hide(&item.detail, extent).into_owned();
    }
}

/// Turns a success into a failure, because of the body that came with it.
fn false_success(answer: Answer, blame: Blame, why: &str) -> Answer {
    let status = answer.status.unwrap_or_default();
    let detail = format!("{status}, but the body {why}: {}", answer.body.trim());
    Answer { verdict: verdict_of(blame), detail, ..answer }
}

/// The start of a body.
#[derive(Debug)]
pub(super) struct BodyPrefix {
    pub(super) bytes: Vec<u8>,
    /// Whether the prefix is the whole body.
    is_whole: bool,
}

/// Returns the first `bytes_max` bytes of a body. Reads up to [`ANSWER_BYTES_MAX`] of it, since a connection with an unread
/// answer cannot be reused.
pub(super) async fn read_body(
    mut body: BoxStream<'static, Result<Bytes, WireError>>,
    bytes_max: usize,
    deadline: Instant,
) -> BodyPrefix {
    let mut bytes = Vec::new();
    let mut read = 0;
    loop {
        match timeout_at(deadline, body.next()).await {
            Ok(None) => return BodyPrefix { is_whole: read == bytes.len(), bytes },
            Ok(Some(Ok(chunk))) if read <= bytes_max.max(ANSWER_BYTES_MAX) => {
                read += chunk.len();
                bytes.extend_from_slice(&chunk[..chunk.len().min(bytes_max - bytes.len())]);
            }
            Ok(Some(_)) | Err(_) => return BodyPrefix { is_whole: false, bytes },
        }
    }
}

/// Decompresses as much of a body as arrived: Forebay asks for no compression, but a proxy may compress anyway. A body that
/// does not decompress stays as it is.
pub(super) async fn decompress(body: BodyPrefix, headers: &HeaderMap, bytes_max: usize) -> BodyPrefix {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let unpack: fn(&[u8], &mut Vec<u8>, u64) -> std::io::Result<usize> =
        match &*encoding.trim().to_ascii_lowercase() {
            "gzip" | "x-gzip" => {
                |body, out, most| flate2::read::MultiGzDecoder::new(body).take(most).read_to_end(out)
            }
            "deflate" => |body, out, most| flate2::read::ZlibDecoder::new(body).take(most).read_to_end(out),
            "zstd" => |body, out, most| zstd::stream::read::Decoder::new(body)?.take(most).read_to_end(out),
            _ => return body,
        };
    let work = move || {
        let mut plain = Vec::new();
        // One byte beyond the limit shows that the body is longer.
        let is_sound = unpack(&body.bytes, &mut plain, bytes_max as u64 + 1).is_ok();
        if plain.is_empty() {
            return body;
        }
        let is_whole = body.is_whole && is_sound && plain.len() <= bytes_max;
        plain.truncate(bytes_max);
        BodyPrefix { bytes: plain, is_whole }
    };
    let plain = tokio::task::spawn_blocking(work).await;
    plain.unwrap_or_else(|_panic| BodyPrefix { bytes: Vec::new(), is_whole: false })
}

/// Reads the failures of single readings from an answer.
fn items(
    body: &BodyPrefix,
    store: &dyn Store,
    readings: usize,
    bytes_max: usize,
) -> Result<Vec<FailedItem>, String> {
    if !body.is_whole {
        return Err(format!("it is longer than {bytes_max} bytes, or not complete"));
    }
    let failed = store.failed_items(&body.bytes, readings)?;
    match failed.iter().find(|item| item.index >= readings) {
        Some(item) => Err(format!("it speaks of item {} of {readings}", item.index)),
        None => Ok(failed),
    }
}

/// Judges the answer to a batch of which the node took only some readings. A wrong setup counts before failures that pass, and
/// both count before refusals: in either case the whole batch is sent again.
fn judge_items(answer: Answer, items: Result<Vec<FailedItem>, String>, readings: usize) -> Answer {
    let failed = match items {
        Ok(failed) => failed,
        Err(error) => {
            let detail = format!("the answer cannot be understood: {error}; it begins: {}", answer.body);
            return Answer { verdict: AnswerVerdict::Retry(RetryReason::ServerError), detail, ..answer };
        }
    };
    let by_status = |item: &FailedItem| {
        StatusCode::from_u16(item.status).map_or(AnswerVerdict::Retry(RetryReason::ServerError), classify)
    };
    let meaning = |item: &FailedItem| item.blame.map_or_else(|| by_status(item), verdict_of);
    let first = |is_it: fn(AnswerVerdict) -> bool| failed.iter().find(|item| is_it(meaning(item)));
    let setup = first(|verdict| verdict == AnswerVerdict::Misconfigured)
        .map(|item| (AnswerVerdict::Misconfigured, item));
    let again = first(|verdict| matches!(verdict, AnswerVerdict::Retry(_) | AnswerVerdict::Delivered));
    let again = again.map(|item| (AnswerVerdict::Retry(RetryReason::Partly), item));
    match setup.or(again) {
        Some((verdict, item)) => {
            let detail = format!("item {} of the batch: {} {}", item.index, item.status, item.detail);
            Answer { verdict, detail, is_stored_in_part: failed.len() < readings, ..answer }
        }
        None => Answer { refused: failed, ..answer },
    }
}

fn verdict_of(blame: Blame) -> AnswerVerdict {
    match blame {
        Blame::Readings => AnswerVerdict::Refused,
        Blame::Setup => AnswerVerdict::Misconfigured,
        Blame::Node => AnswerVerdict::Retry(RetryReason::ServerError),
    }
}

/// The reason for a retry after an error of the wire.
pub(super) fn reason(error: &WireError) -> RetryReason {
    match error {
        WireError::Connect(_) => RetryReason::Connect,
        WireError::Broken(_) => RetryReason::Broken,
        WireError::Timeout(_) => RetryReason::Timeout,
        WireError::Internal(_) => RetryReason::Internal,
    }
}

#[cfg(test)]
mod tests;
