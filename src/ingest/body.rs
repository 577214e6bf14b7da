//! Taking in a body: bounded in size, in time, and in what all bodies together may hold.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::encoding::Encoding;
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
    /// Holds `bytes` more, or, if there is no room for all of them, what it held before: who is refused takes no room
    /// from others.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), IngestError> {
        let bytes = bytes as u64;
        let grown = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.budget.limit);
        let done = self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        done.map_err(|_held| IngestError::Busy)?;
        self.bytes += bytes;
        Ok(())
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
    // No body is longer than its sender said.
    let most = length.map_or(limit, |length| length.min(limit));
    let mut all = Vec::new();
    add(&mut all, &first, most, held)?;
    drop(first);
    while let Some(piece) = next(body, limit, all.len()).await? {
        add(&mut all, &piece, most, held)?;
    }
    Ok(all.into())
}

/// Adds a piece to a body. The body never takes more than twice the bytes that have come of it: a length that was only
/// said takes nothing from others, neither memory nor room in the budget.
fn add(all: &mut Vec<u8>, piece: &[u8], most: usize, held: &mut Held) -> Result<(), IngestError> {
    let come = all.len() + piece.len();
    make_room(all, piece.len(), come.saturating_mul(2).min(most), held)?;
    all.extend_from_slice(piece);
    Ok(())
}

/// Makes room for `more` bytes, for `wanted` in all if that is enough. All that is reserved is held, before it is
/// reserved; the old room is not while it is copied, which each thread does for one body at a time.
fn make_room(bytes: &mut Vec<u8>, more: usize, wanted: usize, held: &mut Held) -> Result<(), IngestError> {
    let (length, before) = (bytes.len(), bytes.capacity());
    if before - length >= more {
        return Ok(());
    }
    let room = wanted.max(length + more);
    held.grow(room - before)?;
    bytes.reserve_exact(room - length);
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
        let wanted = out.capacity().saturating_mul(2).min(most);
        make_room(&mut out, more, wanted, held)?;
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
    fn a_body_takes_what_it_is_counted_for_and_at_most_twice_what_has_come_of_it() {
        let budget = BodyBudget::new(1 << 20);
        for most in [10_000, 64 * 1024, usize::MAX] {
            let (mut held, mut body) = (budget.hold(), Vec::new());
            assert_eq!(body.capacity(), 0, "nothing for a length that was only said");
            for piece in [1, 100, 1, 99, 1000, 8799] {
                add(&mut body, &vec![b' '; piece], most, &mut held).expect("room");
                assert_eq!(budget.held.load(Ordering::Relaxed), body.capacity() as u64);
                assert!(body.capacity() <= (2 * body.len()).min(most), "{most}: {}", body.capacity());
            }
            assert_eq!(body.len(), 10_000);
        }
    }

    #[test]
    fn bodies_that_wait_half_sent_leave_others_their_room() {
        let (budget, length) = (BodyBudget::new(256 << 20), 8 << 20);
        // Of each of these a seventh has come: 35 MiB of all, where 256 MiB may be held.
        let waiting: Vec<_> = (0..33)
            .map(|_| {
                let (mut held, mut body) = (budget.hold(), Vec::new());
                (0..17).for_each(|_| add(&mut body, &[b' '; 64 * 1024], length, &mut held).expect("room"));
                (held, body)
            })
            .collect();
        let come: usize = waiting.iter().map(|(_, body)| body.len()).sum();
        assert!(budget.held.load(Ordering::Relaxed) <= 2 * come as u64);
        for bytes in [37, length] {
            budget.hold().grow(bytes).expect("room for others");
        }
    }

    #[test]
    fn one_body_may_take_all_the_room_that_there_is() {
        let budget = BodyBudget::new(64 * 1024);
        let (mut held, mut body) = (budget.hold(), Vec::new());
        for _ in 0..64 {
            add(&mut body, &[b' '; 1024], 64 * 1024, &mut held).expect("room");
        }
        assert_eq!(budget.held.load(Ordering::Relaxed), 64 * 1024);
    }

    #[test]
    fn large_bodies_that_come_at_once_stay_within_what_all_may_hold() {
        let (budget, length, piece) = (BodyBudget::new(4 << 20), 128 << 10, vec![b' '; 8 << 10]);
        let mut bodies: Vec<_> = (0..64).map(|_| Some((budget.hold(), Vec::new()))).collect();
        for _ in 0..length / piece.len() {
            for place in &mut bodies {
                let Some((held, body)) = place else { continue };
                if add(body, &piece, length, held).is_err() {
                    *place = None;
                }
                assert!(budget.held.load(Ordering::Relaxed) <= 4 << 20);
            }
        }
        let done = bodies.iter().flatten().filter(|(_, body)| body.len() == length).count();
        assert_eq!(bodies.iter().flatten().count(), done, "each is whole or was refused");
        assert_eq!(done, 32, "as many as there is room for");
        drop(bodies);
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn who_is_refused_takes_no_room_from_others() {
        let budget = BodyBudget::new(1000);
        let (mut first, mut second) = (budget.hold(), budget.hold());
        first.grow(600).expect("room");
        assert!(matches!(second.grow(401), Err(IngestError::Busy)));
        assert!(matches!(second.grow(usize::MAX), Err(IngestError::Busy)));
        second.grow(400).expect("room");
        drop((first, second));
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
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
