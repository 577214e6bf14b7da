//! Reading a file of dead letters line by line, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Take};
use std::path::PathBuf;

use super::DeadLetterError;
use super::letter::{self, Letter};

/// Longest line that may be a letter, in bytes. A reading takes 100 KiB at the most, fully escaped.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// What it says, or why it cannot be read.
    pub letter: Result<Letter, String>,
}

/// The lines of a file as they were when it was opened.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    pieces: Pieces<Take<BufReader<File>>>,
    number: u64,
}

impl Lines {
    /// Reads the first `bytes` bytes of a file.
    pub(super) fn new(file: File, path: PathBuf, bytes: u64) -> Lines {
        Lines { path, pieces: Pieces::new(BufReader::new(file).take(bytes)), number: 0 }
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            let letter = match self.pieces.next()? {
                None => return Ok(None),
                Some(Piece::Rest(_)) => continue,
                Some(Piece::TooLong(_)) => Err(format!("longer than {LINE_BYTES_MAX} bytes")),
                Some(Piece::Line(line)) => match line.trim_ascii() {
                    [] => {
                        self.number += 1;
                        continue;
                    }
                    line => letter::read(line),
                },
            };
            self.number += 1;
            return Ok(Some(Line { number: self.number, letter }));
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line, DeadLetterError>;

    fn next(&mut self) -> Option<Result<Line, DeadLetterError>> {
        self.next_line().map_err(DeadLetterError::io("read", &self.path)).transpose()
    }
}

/// A file in pieces that are small enough: a line each, or a part of one that is too long. All of them together are
/// the file.
#[derive(Debug)]
pub(super) struct Pieces<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Whether the last piece was a part of a line that goes on.
    is_inside: bool,
}

/// Bytes as they stand in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A line with its end; the last one may have none.
    Line(&'a [u8]),
    /// The beginning of a line that is too long.
    TooLong(&'a [u8]),
    /// More of it.
    Rest(&'a [u8]),
}

impl<R: BufRead> Pieces<R> {
    pub(super) fn new(reader: R) -> Pieces<R> {
        Pieces { reader, buffer: Vec::new(), is_inside: false }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        self.buffer.clear();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let goes_on = read as u64 == LINE_BYTES_MAX && self.buffer.last() != Some(&b'\n');
        let was_inside = std::mem::replace(&mut self.is_inside, goes_on);
        Ok(Some(match (was_inside, goes_on) {
            (true, _) => Piece::Rest(&self.buffer),
            (false, true) => Piece::TooLong(&self.buffer),
            (false, false) => Piece::Line(&self.buffer),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_whole_file_whatever_is_in_it() {
        let max = usize::try_from(LINE_BYTES_MAX).expect("it fits");
        let long = [vec![b'x'; 2 * max + 7], b"\n".to_vec()].concat();
        let exact = vec![b'y'; max - 1];
        let file = [b"a\n\n" as &[u8], &long, b"b\n", &exact, b"\n", b"torn"].concat();
        let mut pieces = Pieces::new(&file[..]);
        let (mut whole, mut kinds) = (Vec::new(), String::new());
        while let Some(piece) = pieces.next().expect("memory reads") {
            let (kind, bytes) = match piece {
                Piece::Line(bytes) => ('l', bytes),
                Piece::TooLong(bytes) => ('t', bytes),
                Piece::Rest(bytes) => ('r', bytes),
            };
            kinds.push(kind);
            whole.extend_from_slice(bytes);
        }
        assert!(whole == file);
        assert_eq!(kinds, "lltrrlll");
    }
}
