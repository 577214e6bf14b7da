//! Taking in a body: bounded in size, in time, and in what all bodies together may hold.

use std::borrow::Cow;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::content::Encoding;
use super::error::IngestError;
use crate::zstd_contexts;

/// A refused body is read on, so that its sender sees the answer, up to this many times `server.max_body`.
const DISCARD_FACTOR: u64 = 8;
/// Largest window that a zstd frame may ask for, as a power of two: 16 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Bytes that the bodies of all requests under way may hold together.
#[derive(Debug)]
pub(super) struct BodyBudget {
    limit: u64,
    held: AtomicU64,
}

/// Bytes that one request holds of the budget, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<BodyBudget>,
    bytes: u64,
}

impl BodyBudget {
    pub(super) fn new(limit: u64) -> Arc<BodyBudget> {
        Arc::new(BodyBudget { limit, held: AtomicU64::new(0) })
    }

    pub(super) fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Holds `bytes` more.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), IngestError> {
        let bytes = bytes as u64;
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.budget.limit { Err(IngestError::Busy) } else { Ok(()) }
    }
}

impl Held {
    /// Holds `bytes` instead of what was held until now.
    pub(super) fn replace(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.budget.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        self.grow(bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads a body to its end.
///
/// A body of one piece, the usual case, is not copied.
pub(super) async fn read(
    mut body: Incoming,
    limit: usize,
    within: Duration,
    held: &mut Held,
) -> Result<Bytes, IngestError> {
    let deadline = Instant::now() + within;
    let read = tokio::time::timeout_at(deadline, collect(&mut body, limit, held)).await;
    match read.unwrap_or(Err(IngestError::BodyTooSlow { limit: within })) {
        Err(error @ (IngestError::BodyTooLarge { .. } | IngestError::Busy)) => {
            discard(body, limit, deadline).await;
            Err(error)
        }
        done => done,
    }
}

/// Reads what is left of a refused body, within bounds, and forgets it: a connection that is closed with bytes
/// unread is reset, and the sender may never see why.
pub(super) async fn discard(mut body: Incoming, limit: usize, deadline: Instant) {
    let mut left = limit as u64 * DISCARD_FACTOR;
    let read_on = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout_at(deadline, read_on).await;
}

async fn collect(body: &mut Incoming, limit: usize, held: &mut Held) -> Result<Bytes, IngestError> {
    let first = next(body, limit, 0, held).await?.unwrap_or_default();
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    while let Some(piece) = next(body, limit, all.len(), held).await? {
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

async fn next(
    body: &mut Incoming,
    limit: usize,
    before: usize,
    held: &mut Held,
) -> Result<Option<Bytes>, IngestError> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| IngestError::BodyBroken(error.to_string()))?;
        // Trailers carry nothing for us.
        let Ok(data) = frame.into_data() else { continue };
        if before + data.len() > limit {
            return Err(IngestError::BodyTooLarge { limit });
        }
        held.grow(data.len())?;
        return Ok(Some(data));
    }
}

/// Undoes the encoding of a body. The result holds at most `limit` bytes, however small the body is.
///
/// Takes as long as the bytes take; call it where blocking is allowed if they are many.
pub(super) fn decompress<'a>(
    body: &'a [u8],
    encoding: Encoding,
    limit: usize,
    held: &mut Held,
) -> Result<Cow<'a, [u8]>, IngestError> {
    let broken =
        |error: io::Error| IngestError::Compression { encoding: encoding.name(), detail: error.to_string() };
    let plain = match encoding {
        Encoding::Identity => return Ok(Cow::Borrowed(body)),
        Encoding::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(body), limit, held, broken),
        Encoding::Deflate if has_zlib_header(body) => {
            read_bounded(flate2::read::ZlibDecoder::new(body), limit, held, broken)
        }
        // RFC 9110, section 8.4.1.2: some senders leave the zlib format out.
        Encoding::Deflate => read_bounded(flate2::read::DeflateDecoder::new(body), limit, held, broken),
        Encoding::Zstd => zstd_contexts::decompress(body, ZSTD_WINDOW_LOG_MAX, |decoder| {
            read_bounded(decoder, limit, held, broken)
        })
        .map_err(broken)?,
    };
    plain.map(Cow::Owned)
}

fn read_bounded(
    mut reader: impl Read,
    limit: usize,
    held: &mut Held,
    broken: impl Fn(io::Error) -> IngestError,
) -> Result<Vec<u8>, IngestError> {
    const STEP: usize = 64 * 1024;
    let mut out = Vec::new();
    loop {
        let read = (&mut reader).take(STEP as u64).read_to_end(&mut out).map_err(&broken)?;
        if out.len() > limit {
            return Err(IngestError::BodyTooLarge { limit });
        }
        if read == 0 {
            return Ok(out);
        }
        held.grow(read)?;
    }
}

/// RFC 1950, section 2.2: the method is 8 and the first two bytes are a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    }
}
