//! Values of the fast path, and operators with the same results as in the crate `cel`.

use std::cmp::Ordering;

use memchr::memmem;

/// A value that needs no memory of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Boolean(bool),
    /// Only literals are integers: a reading's number is a double.
    Integer(i64),
    Double(f64),
    /// UTF-8, whose bytes have the order of the characters.
    Text(&'a [u8]),
}

/// The reason for a missing value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// The expression has no value on this reading.
    Failed,
    /// The fast path cannot compute the value.
    Undecided,
}

impl<'a> Scalar<'a> {
    /// `==`: values of types that cannot be compared differ, and NaN differs from all.
    #[inline]
    pub(super) fn equals(self, other: Scalar<'_>) -> bool {
        match (self, other) {
            (Scalar::Text(left), Scalar::Text(right)) => left == right,
            _ => self.compare(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two booleans, numbers or texts; NaN has none.
    #[inline]
    fn compare(self, other: Scalar<'_>) -> Option<Ordering> {
        match (self, other) {
            (Scalar::Double(left), Scalar::Double(right)) => left.partial_cmp(&right),
            (Scalar::Double(left), Scalar::Integer(right)) => left.partial_cmp(&double(right)),
            (Scalar::Integer(left), Scalar::Double(right)) => double(left).partial_cmp(&right),
            (Scalar::Integer(left), Scalar::Integer(right)) => Some(left.cmp(&right)),
            (Scalar::Text(left), Scalar::Text(right)) => Some(left.cmp(right)),
            (Scalar::Boolean(left), Scalar::Boolean(right)) => Some(left.cmp(&right)),
            _ => None,
        }
    }

    pub(super) fn negate(self) -> Result<Scalar<'a>, Miss> {
        match self {
            Scalar::Double(number) => Ok(Scalar::Double(-number)),
            Scalar::Integer(_) => Err(Miss::Undecided),
            Scalar::Boolean(_) | Scalar::Text(_) => Err(Miss::Failed),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "as the crate does, and as cel-go does")]
fn double(number: i64) -> f64 {
    number as f64
}

/// `<`, `<=`, `>`, `>=`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Comparison {
    #[inline]
    pub(super) fn holds(self, left: Scalar<'_>, right: Scalar<'_>) -> Result<bool, Miss> {
        let ordering = left.compare(right).ok_or(Miss::Failed)?;
        Ok(match self {
            Comparison::Less => ordering.is_lt(),
            Comparison::LessEqual => ordering.is_le(),
            Comparison::Greater => ordering.is_gt(),
            Comparison::GreaterEqual => ordering.is_ge(),
        })
    }
}

/// `+`, `-`, `*`, `/`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operation {
    #[inline]
    pub(super) fn apply<'a>(self, left: Scalar<'a>, right: Scalar<'a>) -> Result<Scalar<'a>, Miss> {
        match (self, left, right) {
            (_, Scalar::Double(left), Scalar::Double(right)) => Ok(Scalar::Double(match self {
                Operation::Add => left + right,
                Operation::Subtract => left - right,
                Operation::Multiply => left * right,
                Operation::Divide => left / right,
            })),
            // Integers may overflow, and strings are joined.
            (_, Scalar::Integer(_), Scalar::Integer(_))
            | (Operation::Add, Scalar::Text(_), Scalar::Text(_)) => Err(Miss::Undecided),
            _ => Err(Miss::Failed),
        }
    }
}

/// `startsWith`, `endsWith`, `contains`.
#[derive(Clone, Copy, Debug)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

impl TextTest {
    pub(super) fn named(function: &str) -> Option<TextTest> {
        match function {
            "startsWith" => Some(TextTest::StartsWith),
            "endsWith" => Some(TextTest::EndsWith),
            "contains" => Some(TextTest::Contains),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn holds(self, text: &[u8], argument: &[u8]) -> bool {
        match self {
            TextTest::StartsWith => text.starts_with(argument),
            TextTest::EndsWith => text.ends_with(argument),
            TextTest::Contains => memmem::find(text, argument).is_some(),
        }
    }
}
