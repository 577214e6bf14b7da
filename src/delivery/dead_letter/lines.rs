//! Reads a file of dead letters line by line, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Take};
use std::path::PathBuf;

use super::DeadLetterError;
use super::letter::{self, Letter};

/// Longest line that may be a letter, in bytes. A fully escaped reading takes at most 100 KiB.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// A line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterLine {
    /// The line's number in the file, from 1.
    pub number: u64,
    /// The letter, or why the line cannot be read.
    pub letter: Result<Letter, String>,
}

/// The lines of a file at the time of its opening.
#[derive(Debug)]
pub struct LetterLines {
    path: PathBuf,
    pieces: LinePieces<Take<BufReader<File>>>,
    number: u64,
}

impl LetterLines {
    /// Reads the first `bytes` bytes of a file.
    pub(super) fn new(file: File, path: PathBuf, bytes: u64) -> LetterLines {
        LetterLines { path, pieces: LinePieces::new(BufReader::new(file).take(bytes)), number: 0 }
    }

    fn next_line(&mut self) -> io::Result<Option<LetterLine>> {
        loop {
            let letter = match self.pieces.next()? {
                None => return Ok(None),
                Some(LinePiece::Rest(_)) => continue,
                Some(LinePiece::TooLong(_)) => Err(format!("longer than {LINE_BYTES_MAX} bytes")),
                Some(LinePiece::Line(line)) => match line.trim_ascii() {
                    [] => {
                        self.number += 1;
                        continue;
                    }
                    line => letter::read(line),
                },
            };
            self.number += 1;
            return Ok(Some(LetterLine { number: self.number, letter }));
        }
    }
}

impl Iterator for LetterLines {
    type Item = Result<LetterLine, DeadLetterError>;

    fn next(&mut self) -> Option<Result<LetterLine, DeadLetterError>> {
        self.next_line().map_err(DeadLetterError::io("read", &self.path)).transpose()
    }
}

/// A file in pieces of bounded size: whole lines, or parts of lines that are too long. Together the pieces are the whole file.
#[derive(Debug)]
pub(super) struct LinePieces<R> {
    reader: R,
    buffer: Vec<u8>,
    /// Whether the last piece ended within a line.
    is_inside: bool,
}

/// A piece of the file, unchanged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LinePiece<'a> {
    /// A line with its end, which the last line may lack.
    Line(&'a [u8]),
    /// The start of a line that is too long.
    TooLong(&'a [u8]),
    /// A further part of a line that is too long.
    Rest(&'a [u8]),
}

impl<R: BufRead> LinePieces<R> {
    pub(super) fn new(reader: R) -> LinePieces<R> {
        LinePieces { reader, buffer: Vec::new(), is_inside: false }
    }

    pub(super) fn next(&mut self) -> io::Result<Option<LinePiece<'_>>> {
        self.buffer.clear();
        let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        let goes_on = read as u64 == LINE_BYTES_MAX && self.buffer.last() != Some(&b'\n');
        let was_inside = std::mem::replace(&mut self.is_inside, goes_on);
        Ok(Some(match (was_inside, goes_on) {
            (true, _) => LinePiece::Rest(&self.buffer),
            (false, true) => LinePiece::TooLong(&self.buffer),
            (false, false) => LinePiece::Line(&self.buffer),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_together_the_whole_file() {
        let max = usize::try_from(LINE_BYTES_MAX).expect("it fits");
        let long = [vec![b'x'; 2 * max + 7], b"\n".to_vec()].concat();
        let exact = vec![b'y'; max - 1];
        let file = [b"a\n\n" as &[u8], &long, b"b\n", &exact, b"\n", b"torn"].concat();
        let mut pieces = LinePieces::new(&file[..]);
        let (mut whole, mut kinds) = (Vec::new(), String::new());
        while let Some(piece) = pieces.next().expect("memory reads") {
            let (kind, bytes) = match piece {
                LinePiece::Line(bytes) => ('l', bytes),
                LinePiece::TooLong(bytes) => ('t', bytes),
                LinePiece::Rest(bytes) => ('r', bytes),
            };
            kinds.push(kind);
            whole.extend_from_slice(bytes);
        }
        assert!(whole == file);
        assert_eq!(kinds, "lltrrlll");
    }
}
