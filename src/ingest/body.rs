//! Receives and decompresses bodies, with limits for the size, the time, and the memory of all bodies together.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::time::Instant;

use super::encoding::Encoding;
use super::error::IngestError;
use crate::zstd_contexts;

/// The rest of a refused body is read, so that its sender sees the answer, up to this many times `server.max_body`.
const DISCARD_FACTOR: u64 = 8;
/// Largest window that a zstd frame may ask for, as a power of two: 16 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// The memory budget of the bodies of all requests in progress.
#[derive(Debug)]
pub(super) struct BodyBudget {
    limit: u64,
    held_bytes: AtomicU64,
}

/// One request's share of the budget, which dropping it gives back.
#[derive(Debug)]
pub(super) struct BudgetShare {
    budget: Arc<BodyBudget>,
    bytes: u64,
}

impl BodyBudget {
    pub(super) fn new(limit: u64) -> Arc<BodyBudget> {
        Arc::new(BodyBudget { limit, held_bytes: AtomicU64::new(0) })
    }

    pub(super) fn share(self: &Arc<Self>) -> BudgetShare {
        BudgetShare { budget: Arc::clone(self), bytes: 0 }
    }
}

impl BudgetShare {
    /// Takes `bytes` more from the budget, all or none: a refused request takes no room from others.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), IngestError> {
        let bytes = bytes as u64;
        let grown = |now: u64| now.checked_add(bytes).filter(|now| *now <= self.budget.limit);
        let done = self.budget.held_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown);
        done.map_err(|_full| IngestError::Busy)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` back.
    fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.budget.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// Makes the share `bytes` large. It is empty if there is no room for them.
    pub(super) fn replace(&mut self, bytes: usize) -> Result<(), IngestError> {
        self.release();
        self.grow(bytes)
    }

    /// Gives everything back.
    fn release(&mut self) {
        self.budget.held_bytes.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.release();
    }
}

/// Reads a body to its end. A body of one piece, the usual case, is not copied.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    within: Duration,
    share: &mut BudgetShare,
) -> Result<Bytes, IngestError> {
    let deadline = Instant::now() + within;
    let read = tokio::time::timeout_at(deadline, collect(&mut body, limit, share)).await;
    match read.unwrap_or(Err(IngestError::BodyTooSlow { limit: within })) {
        Err(error @ (IngestError::BodyTooLarge { .. } | IngestError::Busy)) => {
            // The collected pieces are dropped, so other requests may have their room while this sender finishes.
            share.release();
            discard(body, limit, deadline).await;
            Err(error)
        }
        done => done,
    }
}

/// Reads and discards the rest of a refused body, within limits: closing a connection with unread bytes resets it, and
/// its sender may never see the answer.
pub(super) async fn discard(mut body: Body, limit: usize, deadline: Instant) {
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

async fn collect(body: &mut Body, limit: usize, share: &mut BudgetShare) -> Result<Bytes, IngestError> {
    let length = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok());
    let Some(first) = next(body, limit, 0).await? else { return Ok(Bytes::new()) };
    if body.is_end_stream() {
        share.grow(first.len())?;
        return Ok(first);
    }
    // No body is longer than its `Content-Length`.
    let most = length.map_or(limit, |length| length.min(limit));
    let mut all = Vec::new();
    add(&mut all, &first, most, share)?;
    drop(first);
    while let Some(piece) = next(body, limit, all.len()).await? {
        add(&mut all, &piece, most, share)?;
    }
    Ok(all.into())
}

/// Appends a piece to a body. The body never takes more than twice the bytes that have arrived: an announced length
/// takes neither memory nor budget from others.
fn add(all: &mut Vec<u8>, piece: &[u8], most: usize, share: &mut BudgetShare) -> Result<(), IngestError> {
    let arrived = all.len() + piece.len();
    make_room(all, piece.len(), arrived.saturating_mul(2).min(most), share)?;
    all.extend_from_slice(piece);
    Ok(())
}

/// Makes room for `more` bytes, and for `wanted` bytes in all if that is enough. The new capacity is taken from the
/// budget before it is allocated. The old allocation is not counted while it is copied, which each thread does for one
/// body at a time.
fn make_room(
    bytes: &mut Vec<u8>,
    more: usize,
    wanted: usize,
    share: &mut BudgetShare,
) -> Result<(), IngestError> {
    let (length, before) = (bytes.len(), bytes.capacity());
    if before - length >= more {
        return Ok(());
    }
    let room = wanted.max(length + more);
    share.grow(room - before)?;
    bytes.reserve_exact(room - length);
    Ok(())
}

/// The next piece of a body of which `before` bytes have arrived.
async fn next(body: &mut Body, limit: usize, before: usize) -> Result<Option<Bytes>, IngestError> {
    loop {
        let Some(frame) = body.frame().await else { return Ok(None) };
        let frame = frame.map_err(|error| IngestError::BodyBroken(error.to_string()))?;
        // Trailers are ignored.
        let Ok(data) = frame.into_data() else { continue };
        if before + data.len() > limit {
            return Err(IngestError::BodyTooLarge { limit });
        }
        return Ok(Some(data));
    }
}

/// Decompresses a body to at most `limit` bytes. Afterwards only the result counts in the budget.
///
/// It blocks in proportion to the size of the result: call it for a large body only where blocking is allowed.
pub(super) fn decompress(
    body: Bytes,
    encoding: Encoding,
    limit: usize,
    share: &mut BudgetShare,
) -> Result<Bytes, IngestError> {
    let broken =
        |error: io::Error| IngestError::Compression { encoding: encoding.name(), detail: error.to_string() };
    let bytes = &body[..];
    let room = first_room(bytes.len());
    let plain = match encoding {
        Encoding::Identity => return Ok(body),
        Encoding::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(bytes), room, limit, share, broken),
        Encoding::Deflate if has_zlib_header(bytes) => {
            read_bounded(flate2::read::ZlibDecoder::new(bytes), room, limit, share, broken)
        }
        // RFC 9110, section 8.4.1.2: some senders leave out the zlib wrapper.
        Encoding::Deflate => {
            read_bounded(flate2::read::DeflateDecoder::new(bytes), room, limit, share, broken)
        }
        Encoding::Zstd => zstd_contexts::decompress(bytes, ZSTD_WINDOW_LOG_MAX, |decoder| {
            read_bounded(decoder, room, limit, share, broken)
        })
        .map_err(broken)?,
    }?;
    share.shrink(body.len());
    Ok(plain.into())
}

/// The initial capacity for the result of `compressed_bytes`: readings compress about tenfold.
fn first_room(compressed_bytes: usize) -> usize {
    compressed_bytes.saturating_mul(8).clamp(1024, 64 * 1024)
}

fn read_bounded(
    mut reader: impl Read,
    first_room: usize,
    limit: usize,
    share: &mut BudgetShare,
    broken: impl Fn(io::Error) -> IngestError,
) -> Result<Vec<u8>, IngestError> {
    // One byte more than the limit shows that the body is too large.
    let most = limit.saturating_add(1);
    let mut out = Vec::new();
    let mut more = first_room.min(most);
    loop {
        let wanted = out.capacity().saturating_mul(2).min(most);
        make_room(&mut out, more, wanted, share)?;
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
    fn a_decompressed_body_counts_with_its_capacity_and_its_compressed_bytes_no_more() {
        let budget = BodyBudget::new(1 << 20);
        for length in [0, 1, 1000, 64 * 1024, 100_000] {
            let plain: Vec<u8> =
                (0..length).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            let body = gzip(&plain);
            let mut share = budget.share();
            share.grow(body.len()).expect("room");
            let made = decompress(body, Encoding::Gzip, 100_000, &mut share).expect("gzip");
            assert_eq!(made, plain, "{length}");
            let bytes = budget.held_bytes.load(Ordering::Relaxed);
            assert!(
                (length.into()..=(2 * u64::from(length)).max(64 * 1024)).contains(&bytes),
                "{length}: {bytes}"
            );
            drop(share);
            assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_growing_body_counts_with_its_capacity_which_is_at_most_twice_what_arrived() {
        let budget = BodyBudget::new(1 << 20);
        for most in [10_000, 64 * 1024, usize::MAX] {
            let (mut share, mut body) = (budget.share(), Vec::new());
            assert_eq!(body.capacity(), 0, "nothing for an announced length");
            for piece in [1, 100, 1, 99, 1000, 8799] {
                add(&mut body, &vec![b' '; piece], most, &mut share).expect("room");
                assert_eq!(budget.held_bytes.load(Ordering::Relaxed), body.capacity() as u64);
                assert!(body.capacity() <= (2 * body.len()).min(most), "{most}: {}", body.capacity());
            }
            assert_eq!(body.len(), 10_000);
        }
    }

    #[test]
    fn half_sent_bodies_leave_room_for_others() {
        let (budget, length) = (BodyBudget::new(256 << 20), 8 << 20);
        // A seventh of each of these has arrived: 35 MiB in all, of a budget of 256 MiB.
        let waiting: Vec<_> = (0..33)
            .map(|_| {
                let (mut share, mut body) = (budget.share(), Vec::new());
                (0..17).for_each(|_| add(&mut body, &[b' '; 64 * 1024], length, &mut share).expect("room"));
                (share, body)
            })
            .collect();
        let arrived: usize = waiting.iter().map(|(_, body)| body.len()).sum();
        assert!(budget.held_bytes.load(Ordering::Relaxed) <= 2 * arrived as u64);
        for bytes in [37, length] {
            budget.share().grow(bytes).expect("room for others");
        }
    }

    #[test]
    fn one_body_may_take_the_whole_budget() {
        let budget = BodyBudget::new(64 * 1024);
        let (mut share, mut body) = (budget.share(), Vec::new());
        for _ in 0..64 {
            add(&mut body, &[b' '; 1024], 64 * 1024, &mut share).expect("room");
        }
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 64 * 1024);
    }

    #[test]
    fn large_bodies_at_once_stay_within_the_budget() {
        let (budget, length, piece) = (BodyBudget::new(4 << 20), 128 << 10, vec![b' '; 8 << 10]);
        let mut bodies: Vec<_> = (0..64).map(|_| Some((budget.share(), Vec::new()))).collect();
        for _ in 0..length / piece.len() {
            for place in &mut bodies {
                let Some((share, body)) = place else { continue };
                if add(body, &piece, length, share).is_err() {
                    *place = None;
                }
                assert!(budget.held_bytes.load(Ordering::Relaxed) <= 4 << 20);
            }
        }
        let done = bodies.iter().flatten().filter(|(_, body)| body.len() == length).count();
        assert_eq!(bodies.iter().flatten().count(), done, "each is whole or was refused");
        assert_eq!(done, 32, "as many as there is room for");
        drop(bodies);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_refused_body_takes_no_room_from_others() {
        let budget = BodyBudget::new(1000);
        let (mut first, mut second) = (budget.share(), budget.share());
        first.grow(600).expect("room");
        assert!(matches!(second.grow(401), Err(IngestError::Busy)));
        assert!(matches!(second.grow(usize::MAX), Err(IngestError::Busy)));
        second.grow(400).expect("room");
        drop((first, second));
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_body_that_outgrows_the_budget_is_refused_before_it_takes_the_memory() {
        let budget = BodyBudget::new(100_000);
        let decompress = |body: Bytes, limit| {
            let mut share = budget.share();
            share.grow(body.len()).expect("room");
            decompress(body, Encoding::Gzip, limit, &mut share).map(|plain| plain.len())
        };
        let body = gzip(&vec![0; 90_000]);
        assert!(matches!(decompress(body.clone(), 1 << 20), Err(IngestError::Busy)));
        assert!(matches!(decompress(body, 50_000), Err(IngestError::BodyTooLarge { limit: 50_000 })));
        assert_eq!(decompress(gzip(&[0; 40_000]), 50_000).expect("it fits"), 40_000);
    }
}
