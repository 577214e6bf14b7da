//! What zstd works with, kept from one body to the next: to make it takes longer than a small body does.
//!
//! A context belongs to one body at a time, and begins anew with each: nothing of a body that was broken off is left
//! for the next one. Kept are at most as many as there are cores, and none that has grown beyond
//! [`CONTEXT_BYTES_MAX`]: one that decompressed a body with a large window holds that window's memory.

use std::io;
use std::sync::{LazyLock, Mutex, PoisonError};

use zstd::stream::read::Decoder;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// Most memory of a context that is kept, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 1024 * 1024;
/// How hard bodies are compressed: as quickly as can be.
const LEVEL: i32 = 1;

static DECOMPRESSING: Pool<DCtx<'static>> = Pool::new();
static COMPRESSING: Pool<CCtx<'static>> = Pool::new();

/// Contexts that nobody uses at present.
struct Pool<C> {
    /// The lock protects nothing else, and is held to take one or to put one back.
    idle: Mutex<Vec<C>>,
    /// How many are kept.
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

    /// Keeps a context of this size, if there is room for it.
    fn keep(&self, context: C, bytes: usize) {
        if bytes > CONTEXT_BYTES_MAX {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < *self.most {
            idle.push(context);
        }
    }
}

/// Has `read` read what a body holds. A frame may ask for a window of at most 2^`window_log_max` bytes.
///
/// # Errors
///
/// If the bound for windows is none that zstd knows.
pub fn decompress<'b, T>(
    body: &'b [u8],
    window_log_max: u32,
    read: impl FnOnce(Decoder<'_, &'b [u8]>) -> T,
) -> io::Result<T> {
    let mut context = DECOMPRESSING.take().unwrap_or_else(DCtx::create);
    // It begins anew with this.
    let mut decoder = Decoder::with_context(body, &mut context);
    decoder.window_log_max(window_log_max)?;
    let read = read(decoder);
    let bytes = context.sizeof();
    DECOMPRESSING.keep(context, bytes);
    Ok(read)
}

/// Compresses a body into one frame.
///
/// # Errors
///
/// If there is not enough memory.
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
    // A context that failed is not kept.
    context.compress2(&mut compressed, body).map_err(failed)?;
    let bytes = context.sizeof();
    COMPRESSING.keep(context, bytes);
    // What is on its way to a node is not to hold the room of what was not compressed.
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

    /// What a decoder that is made anew says.
    fn fresh(body: &[u8], window_log_max: u32) -> io::Result<Vec<u8>> {
        let mut decoder = Decoder::with_buffer(body)?;
        decoder.window_log_max(window_log_max)?;
        let mut plain = Vec::new();
        decoder.read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// A frame that does not say how long its content is, with a window of so many bytes.
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
    fn a_kept_context_gives_what_a_new_one_gives_whatever_came_before() {
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
    fn a_reader_that_stops_half_way_leaves_nothing_for_the_next() {
        let good = compress(&text(300_000)).expect("compressed");
        let mut some = [0; 100];
        decompress(&good, 24, |mut decoder| decoder.read_exact(&mut some)).expect("a bound").expect("read");
        assert_eq!(plain(&compress(b"next").expect("compressed"), 24).expect("plain"), b"next");
    }

    #[test]
    fn the_bound_for_windows_is_that_of_the_body_and_not_of_the_one_before() {
        let large = windowed(&text(300_000), 22);
        for _ in 0..3 {
            assert!(plain(&large, 22).is_ok());
            assert!(plain(&large, 21).is_err(), "a window of 2^22 bytes where 2^21 are allowed");
        }
    }

    #[test]
    fn a_context_is_kept_unless_it_has_grown_too_large_or_there_are_enough() {
        let pool: Pool<u8> = Pool::new();
        pool.keep(1, CONTEXT_BYTES_MAX + 1);
        assert!(pool.take().is_none());
        (0..200).for_each(|context| pool.keep(context, CONTEXT_BYTES_MAX));
        let kept = std::iter::from_fn(|| pool.take()).count();
        assert_eq!(kept, *pool.most);
    }

    #[test]
    fn contexts_of_common_bodies_are_small_enough_to_be_kept() {
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
