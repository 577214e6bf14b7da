//! A fault of an expression, and its place in the text.

use cel::common::ast::SourceInfo;

/// A fault of the part with this number in the syntax tree.
#[derive(Debug)]
pub(super) struct ExpressionFault {
    pub(super) id: u64,
    pub(super) problem: String,
}

impl ExpressionFault {
    /// The problem with its place before it.
    pub(super) fn with_place(self, source: &SourceInfo) -> String {
        match source.offset_for(self.id) {
            Some((start, _)) => format!("{}: {}", place(&source.source, start as usize), self.problem),
            None => self.problem,
        }
    }
}

/// Line and column of the character after `before` bytes.
fn place(text: &str, before: usize) -> String {
    let before = text.get(..before).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = 1 + before.matches('\n').count();
    format!("line {line}, column {}", 1 + before[line_start..].chars().count())
}

/// The nearest known name, if it is near enough to be meant.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distances = known.into_iter().map(|known| (strsim::osa_distance(name, known), known));
    let (distance, known) = distances.min()?;
    (distance <= 3 && 2 * distance <= name.chars().count()).then_some(known)
}
