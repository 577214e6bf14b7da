//! Remembers how a connection began, so that plain HTTP on a TLS port can be told from garbage.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes are remembered: the longest methods of HTTP with their space.
const COUNT: usize = 8;

/// A stream, and the first bytes that were read from it. They stay in the stream.
#[derive(Debug)]
pub struct FirstBytes<S> {
    stream: S,
    first: [u8; COUNT],
    count: usize,
}

impl<S> FirstBytes<S> {
    pub(super) fn new(stream: S) -> FirstBytes<S> {
        FirstBytes { stream, first: [0; COUNT], count: 0 }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    pub(super) fn first(&self) -> &[u8] {
        &self.first[..self.count]
    }

    fn remember(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(COUNT - self.count);
        self.first[self.count..self.count + count].copy_from_slice(&bytes[..count]);
        self.count += count;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if this.count < COUNT {
            this.remember(&buffer.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn the_first_bytes_are_remembered_however_they_come_and_stay_in_the_stream() {
        let mut stream = FirstBytes::new((&b"GET"[..]).chain(&b" / HTTP/1.1\r\n"[..]));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("text");
        assert_eq!(text, "GET / HTTP/1.1\r\n");
        assert_eq!(stream.first(), b"GET / HT");
    }
}
