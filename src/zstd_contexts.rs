//! Pools of zstd contexts, because making a context takes longer than compressing a small body.
//!
//! A context serves one body at a time and is reset for each, so an aborted body leaves no trace in the next one. A pool
//! holds at most one context a core, and none larger than [`CONTEXT_BYTES_MAX`]: a context that decompressed a body with
//! a large window keeps that window's memory.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use zstd::stream::read::Decoder;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// Largest context that goes back into its pool, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 1024 * 1024;
/// The compression level: the fastest.
const LEVEL: i32 = 1;

static DECOMPRESSING: Pool<DCtx<'static>> = Pool::new();
static COMPRESSING: Pool<CCtx<'static>> = Pool::new();

/// Idle contexts.
struct Pool<C> {
    /// The lock is held to take one context or to put one back.
    idle: Mutex<Vec<C>>,
    /// Most idle contexts: one a core.
    most: LazyLock<usize>,
}

impl<C> Pool<C> {
    const fn new() -> Pool<C> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        Pool { idle: Mutex::new(Vec::new()), most: LazyLock::new(cores) }
    }

    fn take(&self) -> Option<C> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Puts a context of this size back, if it is small enough and the pool has room.
    fn put_back(&self, context: C, bytes: usize) {
        if bytes > CONTEXT_BYTES_MAX {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < *self.most {
            idle.push(context);
        }
    }
}

/// Calls `read` with the decompressed body. A frame may ask for a window of at most 2^`window_log_max` bytes.
///
/// # Errors
///
/// zstd does not allow this `window_log_max`.
pub fn decompress<'b, T>(
    body: &'b [u8],
    window_log_max: u32,
    read: impl FnOnce(Decoder<'_, &'b [u8]>) -> T,
) -> io::Result<T> {
    let mut context = DECOMPRESSING.take().unwrap_or_else(DCtx::create);
    // This resets the context.
    let mut decoder = Decoder::with_context(body, &mut context);
    decoder.window_log_max(window_log_max)?;
    let read = read(decoder);
    let bytes = context.sizeof();
    DECOMPRESSING.put_back(context, bytes);
    Ok(read)
}

/// Compresses a body into one frame.
///
/// # Errors
///
/// There is not enough memory.
pub fn compress(body: &[u8]) -> io::Result<Vec<u8>> {
    let failed = |code| io::Error::other(get_error_name(code));
    let mut context = match COMPRESSING.take() {
        Some(context) => context,
        None => {
            let mut context = CCtx::create();
            context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
            context
        }
    };
    let mut compressed = Vec::with_capacity(compress_bound(body.len()));
    // On an error the context is dropped.
    context.compress2(&mut compressed, body).map_err(failed)?;
    let bytes = context.sizeof();
    COMPRESSING.put_back(context, bytes);
    // The body may wait for a node: it must not hold the room that the plain body would need.
    compressed.shrink_to_fit();
    Ok(compressed)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn plain(body: &[u8], window_log_max: u32) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decompress(body, window_log_max, |mut decoder| decoder.read_to_end(&mut plain))??;
        Ok(plain)
    }

    /// The result of a new decoder.
    fn fresh(body: &[u8], window_log_max: u32) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::with_buffer(body)?;
        decoder.window_log_max(window_log_max)?;
        let mut plain = Vec::new();
        decoder.read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// A frame without a content size, with a window of 2^`window_log` bytes.
    fn windowed(text: &[u8], window_log: u32) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).expect("an encoder");
        encoder.window_log(window_log).expect("a window");
        std::io::Write::write_all(&mut encoder, text).expect("written");
        encoder.finish().expect("finished")
    }

    fn text(bytes: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..bytes).map(|_| random.u8(b'a'..=b'p')).collect()
    }

    #[test]
    fn a_used_context_gives_the_same_result_as_a_new_one() {
        let long = text(300_000);
        let good = compress(&long).expect("compressed");
        let small = compress(b"small").expect("compressed");
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x40;
        let two = [good.clone(), small.clone()].concat();
        let bodies: [&[u8]; 9] = [
            &good,
            &good[..good.len() / 2],
            &small,
            &flipped,
            b"no zstd at all",
            &small[..small.len() - 1],
            &two,
            &windowed(&long, 20),
            b"",
        ];
        for first in bodies {
            for second in bodies {
                let (_, got) = (plain(first, 24), plain(second, 24));
                let expected = fresh(second, 24);
                assert_eq!(got.as_ref().ok(), expected.as_ref().ok());
                assert_eq!(got.is_ok(), expected.is_ok());
            }
        }
    }

    #[test]
    fn a_reader_that_stops_half_way_leaves_no_trace_for_the_next_body() {
        let good = compress(&text(300_000)).expect("compressed");
        let mut some = [0; 100];
        decompress(&good, 24, |mut decoder| decoder.read_exact(&mut some)).expect("a bound").expect("read");
        assert_eq!(plain(&compress(b"next").expect("compressed"), 24).expect("plain"), b"next");
    }

    #[test]
    fn each_body_has_its_own_window_limit() {
        let large = windowed(&text(300_000), 22);
        for _ in 0..3 {
            assert!(plain(&large, 22).is_ok());
            assert!(plain(&large, 21).is_err(), "a window of 2^22 bytes where 2^21 are allowed");
        }
    }

    #[test]
    fn a_context_goes_back_unless_it_is_too_large_or_the_pool_is_full() {
        let pool: Pool<u8> = Pool::new();
        pool.put_back(1, CONTEXT_BYTES_MAX + 1);
        assert!(pool.take().is_none());
        (0..200).for_each(|context| pool.put_back(context, CONTEXT_BYTES_MAX));
        let idle = std::iter::from_fn(|| pool.take()).count();
        assert_eq!(idle, *pool.most);
    }

    #[test]
    fn contexts_of_common_bodies_are_small_enough_for_the_pool() {
        let mut context = DCtx::create();
        let body = windowed(&text(400_000), 19);
        let mut plain = Vec::new();
        Decoder::with_context(&*body, &mut context).read_to_end(&mut plain).expect("plain");
        assert!(context.sizeof() <= CONTEXT_BYTES_MAX, "{} bytes with a window of 512 KiB", context.sizeof());
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(LEVEL)).expect("a level");
        let body = text(CONTEXT_BYTES_MAX);
        let mut compressed = Vec::with_capacity(compress_bound(body.len()));
        context.compress2(&mut compressed, &body).expect("compressed");
        assert!(context.sizeof() <= CONTEXT_BYTES_MAX, "{} bytes for a batch of 1 MiB", context.sizeof());
    }
}
