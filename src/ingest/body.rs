//! Taking in a body: bounded in size, in time, and in what all bodies together may hold.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::content::Encoding;
use super::error::IngestError;
use crate::zstd_contexts;

/// A refused body is read on, so that its sender sees the answer, up to this many times `server.max_body`.
const DISCARD_FACTOR: u64 = 8;
/// A body of a known length counts this many times what has come of it, up to that length: one that will find no room is
/// refused early, before it has taken much of the memory, and who sends nothing takes no room from others.
const AHEAD: usize = 8;
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

    /// Holds `bytes` less.
    fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.budget.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// Holds `bytes` instead of what was held until now.
    pub(super) fn replace(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.release();
        self.grow(bytes)
    }

    /// Holds nothing any more.
    fn release(&mut self) {
        self.budget.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
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
            // What was gathered is gone: others may have its room while this sender finishes.
            held.release();
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
    let length = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(first) = next(body, limit, 0).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() {
        held.grow(first.len())?;
        return Ok(first);
    }
    let mut all = match length {
        // The system gives memory as it is written to: a client that says a length and sends nothing takes none.
        Some(length) => Gathering {
            bytes: Vec::with_capacity(length.min(limit)),
            size: Size::Known { length: length.min(limit), counted: 0 },
        },
        None => Gathering { bytes: Vec::new(), size: Size::Unknown },
    };
    all.add(&first, limit, held)?;
    drop(first);
    while let Some(piece) = next(body, limit, all.bytes.len()).await? {
        all.add(&piece, limit, held)?;
    }
    Ok(all.bytes.into())
}

/// A body of several pieces.
struct Gathering {
    bytes: Vec<u8>,
    size: Size,
}

/// Whether the client has said how long its body is.
enum Size {
    /// It has. So many bytes of it count already.
    Known {
        length: usize,
        counted: usize,
    },
    Unknown,
}

impl Gathering {
    fn add(&mut self, piece: &[u8], limit: usize, held: &mut Held) -> Result<(), IngestError> {
        match self.size {
            Size::Known { length, ref mut counted } => {
                let wanted = length.min(AHEAD * (self.bytes.len() + piece.len()));
                held.grow(wanted.saturating_sub(*counted))?;
                *counted = wanted.max(*counted);
            }
            Size::Unknown => make_room(&mut self.bytes, piece.len(), limit, held)?,
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// Makes room for `more` bytes, at least twice what there was, but not beyond `most` if that is enough. All that is
/// reserved is held; for the time of the copy, the old room as well.
fn make_room(bytes: &mut Vec<u8>, more: usize, most: usize, held: &mut Held) -> Result<(), IngestError> {
    let (length, before) = (bytes.len(), bytes.capacity());
    if before - length >= more {
        return Ok(());
    }
    let room = (2 * before).min(most).max(length + more);
    held.grow(room)?;
    bytes.reserve_exact(room - length);
    held.shrink(before);
    Ok(())
}

/// The next piece of a body of which `before` bytes are there.
async fn next(body: &mut Incoming, limit: usize, before: usize) -> Result<Option<Bytes>, IngestError> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| IngestError::BodyBroken(error.to_string()))?;
        // Trailers carry nothing for us.
        let Ok(data) = frame.into_data() else { continue };
        if before + data.len() > limit {
            return Err(IngestError::BodyTooLarge { limit });
        }
        return Ok(Some(data));
    }
}

/// Undoes the encoding of a body. The result holds at most `limit` bytes, however small the body is; of the two, only
/// the result is held afterwards.
///
/// Takes as long as the bytes take; call it where blocking is allowed if they are many.
pub(super) fn decompress(
    body: Bytes,
    encoding: Encoding,
    limit: usize,
    held: &mut Held,
) -> Result<Bytes, IngestError> {
    let broken =
        |error: io::Error| IngestError::Compression { encoding: encoding.name(), detail: error.to_string() };
    let bytes = &body[..];
    let room = first_room(bytes.len());
    let plain = match encoding {
        Encoding::Identity => return Ok(body),
        Encoding::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(bytes), room, limit, held, broken),
        Encoding::Deflate if has_zlib_header(bytes) => {
            read_bounded(flate2::read::ZlibDecoder::new(bytes), room, limit, held, broken)
        }
        // RFC 9110, section 8.4.1.2: some senders leave the zlib format out.
        Encoding::Deflate => {
            read_bounded(flate2::read::DeflateDecoder::new(bytes), room, limit, held, broken)
        }
        Encoding::Zstd => zstd_contexts::decompress(bytes, ZSTD_WINDOW_LOG_MAX, |decoder| {
            read_bounded(decoder, room, limit, held, broken)
        })
        .map_err(broken)?,
    }?;
    held.shrink(body.len());
    Ok(plain.into())
}

/// How much room a body of so many compressed bytes is given at first: readings compress about tenfold.
fn first_room(compressed_bytes: usize) -> usize {
    compressed_bytes.saturating_mul(8).clamp(1024, 64 * 1024)
}

fn read_bounded(
    mut reader: impl Read,
    first_room: usize,
    limit: usize,
    held: &mut Held,
    broken: impl Fn(io::Error) -> IngestError,
) -> Result<Vec<u8>, IngestError> {
    // One byte beyond the limit tells that there is more.
    let most = limit.saturating_add(1);
    let mut out = Vec::new();
    let mut more = first_room.min(most);
    loop {
        make_room(&mut out, more, most, held)?;
        let room = out.capacity() - out.len();
        let read = (&mut reader).take(room as u64).read_to_end(&mut out).map_err(&broken)?;
        if out.len() > limit {
            return Err(IngestError::BodyTooLarge { limit });
        }
        if read < room {
            return Ok(out);
        }
        more = 1;
    }
}

/// RFC 1950, section 2.2: the method is 8 and the first two bytes are a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    match body {
        [method, flags, ..] => method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).expect("memory");
        encoder.finish().expect("memory").into()
    }

    #[test]
    fn what_is_reserved_for_a_body_is_held_and_what_it_was_made_from_is_not_any_more() {
        let budget = BodyBudget::new(1 << 20);
        for length in [0, 1, 1000, 64 * 1024, 100_000] {
            let plain: Vec<u8> =
                (0..length).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let body = gzip(&plain);
            let mut held = budget.hold();
            held.grow(body.len()).expect("room");
            let made = decompress(body, Encoding::Gzip, 100_000, &mut held).expect("gzip");
            assert_eq!(made, plain, "{length}");
            let bytes = budget.held.load(Ordering::Relaxed);
            assert!(
                (length.into()..=(2 * u64::from(length)).max(64 * 1024)).contains(&bytes),
                "{length}: {bytes}"
            );
            drop(held);
            assert_eq!(budget.held.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_body_of_a_known_length_counts_ahead_of_what_has_come_and_never_beyond_its_length() {
        let budget = BodyBudget::new(1 << 20);
        let mut held = budget.hold();
        let size = Size::Known { length: 10_000, counted: 0 };
        let mut body = Gathering { bytes: Vec::with_capacity(10_000), size };
        for (piece, counted) in [(100, 800), (900, 8000), (1000, 10_000), (8000, 10_000)] {
            body.add(&vec![b' '; piece], 10_000, &mut held).expect("room");
            assert_eq!(budget.held.load(Ordering::Relaxed), counted);
        }
        assert_eq!((body.bytes.len(), body.bytes.capacity()), (10_000, 10_000));
    }

    #[test]
    fn a_body_of_an_unknown_length_counts_with_all_that_is_reserved_for_it() {
        let budget = BodyBudget::new(1 << 20);
        let mut held = budget.hold();
        let mut body = Gathering { bytes: Vec::new(), size: Size::Unknown };
        for piece in [100, 1, 99, 1000, 8800] {
            body.add(&vec![b' '; piece], 10_000, &mut held).expect("room");
            assert_eq!(budget.held.load(Ordering::Relaxed), body.bytes.capacity() as u64);
        }
        assert_eq!((body.bytes.len(), body.bytes.capacity()), (10_000, 10_000));
    }

    #[test]
    fn a_body_that_grows_beyond_what_all_may_hold_is_refused_before_it_takes_the_memory() {
        let budget = BodyBudget::new(100_000);
        let decompress = |body: Bytes, limit| {
            let mut held = budget.hold();
            held.grow(body.len()).expect("room");
            decompress(body, Encoding::Gzip, limit, &mut held).map(|plain| plain.len())
        };
        let body = gzip(&vec![0; 90_000]);
        assert!(matches!(decompress(body.clone(), 1 << 20), Err(IngestError::Busy)));
        assert!(matches!(decompress(body, 50_000), Err(IngestError::BodyTooLarge { limit: 50_000 })));
        assert_eq!(decompress(gzip(&[0; 40_000]), 50_000).expect("it fits"), 40_000);
    }
}
