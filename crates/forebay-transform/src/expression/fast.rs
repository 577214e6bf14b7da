//! The common shapes of expressions, evaluated over the borrowed reading without allocating.
//!
//! [`compile`] translates the crate's syntax tree, and gives `None` for shapes that it does not know. The shapes that it
//! knows give exactly the results of the crate, errors included (`super::tests::agreement`). A result that needs memory,
//! such as two joined strings, is [`Miss::Undecided`], and the crate evaluates the expression.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::Regex;

use super::ReadingFields;
use super::scalar::{Comparison, Miss, Operation, Scalar, TextTest};

/// An expression of known shape.
#[derive(Debug)]
pub(super) enum FastNode {
    Literal(Literal),
    Device,
    Sensor,
    Unit,
    Value,
    /// The tag that the text names.
    Tag(Box<FastNode>),
    /// Whether there is the tag that the text names.
    HasTag(Box<FastNode>),
    Not(Box<FastNode>),
    Negate(Box<FastNode>),
    /// `||` if true decides, `&&` if false does.
    Either {
        decisive: bool,
        sides: Box<[FastNode; 2]>,
    },
    /// `condition ? then : otherwise`
    Choose(Box<[FastNode; 3]>),
    Equal {
        expected: bool,
        sides: Box<[FastNode; 2]>,
    },
    Compare(Comparison, Box<[FastNode; 2]>),
    Calculate(Operation, Box<[FastNode; 2]>),
    In(Box<FastNode>, Box<[Literal]>),
    Test(TextTest, Box<[FastNode; 2]>),
    Matches(Box<FastNode>, Regex),
}

/// A literal of an expression.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    Boolean(bool),
    Integer(i64),
    Double(f64),
    Text(Box<str>),
}

impl Literal {
    fn scalar(&self) -> Scalar<'_> {
        match self {
            Literal::Boolean(truth) => Scalar::Boolean(*truth),
            Literal::Integer(number) => Scalar::Integer(*number),
            Literal::Double(number) => Scalar::Double(*number),
            Literal::Text(text) => Scalar::Text(text.as_bytes()),
        }
    }
}

impl FastNode {
    /// The value over the fields of a reading.
    pub(super) fn evaluate<'a>(&'a self, fields: &ReadingFields<'a>) -> Result<Scalar<'a>, Miss> {
        let reading = fields.reading;
        Ok(match self {
            FastNode::Literal(literal) => literal.scalar(),
            FastNode::Device => Scalar::Text(reading.device_bytes()),
            FastNode::Sensor => Scalar::Text(reading.sensor_bytes()),
            FastNode::Unit => Scalar::Text(reading.unit_bytes().unwrap_or_default()),
            FastNode::Value => fields.value(),
            FastNode::Tag(name) => Scalar::Text(fields.tag(name.text(fields)?).ok_or(Miss::Failed)?),
            FastNode::HasTag(name) => Scalar::Boolean(match name.evaluate(fields)? {
                Scalar::Text(name) => fields.tag(name).is_some(),
                _ => false,
            }),
            FastNode::Not(node) => Scalar::Boolean(!node.truth(fields)?),
            FastNode::Negate(node) => node.evaluate(fields)?.negate()?,
            FastNode::Either { decisive, sides } => Scalar::Boolean(either(*decisive, sides, fields)?),
            FastNode::Choose(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if condition.truth(fields)? { then } else { otherwise };
                return chosen.evaluate(fields);
            }
            FastNode::Equal { expected, sides } => {
                let (left, right) = both(sides, fields)?;
                Scalar::Boolean(left.equals(right) == *expected)
            }
            FastNode::Compare(comparison, sides) => {
                let (left, right) = both(sides, fields)?;
                Scalar::Boolean(comparison.holds(left, right)?)
            }
            FastNode::Calculate(operation, sides) => {
                let (left, right) = both(sides, fields)?;
                operation.apply(left, right)?
            }
            FastNode::In(node, literals) => {
                let value = node.evaluate(fields)?;
                Scalar::Boolean(literals.iter().any(|literal| literal.scalar().equals(value)))
            }
            FastNode::Test(test, sides) => {
                // The crate evaluates the argument first, but the error is the same.
                let (text, argument) = (sides[0].text(fields)?, sides[1].text(fields)?);
                Scalar::Boolean(test.holds(text, argument))
            }
            FastNode::Matches(text, pattern) => {
                let text = std::str::from_utf8(text.text(fields)?).map_err(|_| Miss::Undecided)?;
                Scalar::Boolean(pattern.is_match(text))
            }
        })
    }

    fn truth<'a>(&'a self, fields: &ReadingFields<'a>) -> Result<bool, Miss> {
        match self.evaluate(fields)? {
            Scalar::Boolean(truth) => Ok(truth),
            _ => Err(Miss::Failed),
        }
    }

    fn text<'a>(&'a self, fields: &ReadingFields<'a>) -> Result<&'a [u8], Miss> {
        match self.evaluate(fields)? {
            Scalar::Text(text) => Ok(text),
            _ => Err(Miss::Failed),
        }
    }
}

/// A side that is `decisive` decides, even if the other fails. If the left side decides, the right one is not evaluated;
/// if not, a failure of the right one is final.
fn either<'a>(decisive: bool, sides: &'a [FastNode; 2], fields: &ReadingFields<'a>) -> Result<bool, Miss> {
    let left = match sides[0].truth(fields) {
        Ok(left) if left == decisive => return Ok(decisive),
        Err(Miss::Undecided) => return Err(Miss::Undecided),
        left => left,
    };
    match (left, sides[1].truth(fields)?) {
        (Ok(_), right) => Ok(right),
        (Err(_), right) if right == decisive => Ok(decisive),
        (Err(miss), _) => Err(miss),
    }
}

fn both<'a>(sides: &'a [FastNode; 2], fields: &ReadingFields<'a>) -> Result<(Scalar<'a>, Scalar<'a>), Miss> {
    Ok((sides[0].evaluate(fields)?, sides[1].evaluate(fields)?))
}

/// Translates a syntax tree, if every part of it has a known shape.
pub(super) fn compile(tree: &IdedExpr) -> Option<FastNode> {
    match &tree.expr {
        Expr::Literal(value) => literal(value).map(FastNode::Literal),
        Expr::Ident(name) => match name.as_str() {
            "device" => Some(FastNode::Device),
            "sensor" => Some(FastNode::Sensor),
            "unit" => Some(FastNode::Unit),
            "value" => Some(FastNode::Value),
            _ => None,
        },
        Expr::Select(select) if is_tags(&select.operand) => {
            let name = Box::new(FastNode::Literal(Literal::Text(select.field.as_str().into())));
            Some(if select.test { FastNode::HasTag(name) } else { FastNode::Tag(name) })
        }
        Expr::Call(call) => call_of(call),
        _ => None,
    }
}

fn call_of(call: &CallExpr) -> Option<FastNode> {
    match (call.target.as_deref(), call.args.as_slice()) {
        (Some(text), [pattern]) | (None, [text, pattern]) if call.func_name == "matches" => {
            Some(FastNode::Matches(Box::new(compile(text)?), regex(pattern)?))
        }
        (Some(target), [argument]) => {
            let test = TextTest::named(&call.func_name)?;
            Some(FastNode::Test(test, Box::new([compile(target)?, compile(argument)?])))
        }
        (None, [operand]) => match call.func_name.as_str() {
            operators::LOGICAL_NOT => Some(FastNode::Not(Box::new(compile(operand)?))),
            operators::NEGATE => Some(FastNode::Negate(Box::new(compile(operand)?))),
            _ => None,
        },
        (None, [left, right]) => binary(&call.func_name, left, right),
        (None, [condition, then, otherwise]) if call.func_name == operators::CONDITIONAL => {
            Some(FastNode::Choose(Box::new([compile(condition)?, compile(then)?, compile(otherwise)?])))
        }
        _ => None,
    }
}

fn binary(operator: &str, left: &IdedExpr, right: &IdedExpr) -> Option<FastNode> {
    match operator {
        operators::INDEX if is_tags(left) => return Some(FastNode::Tag(Box::new(compile(right)?))),
        operators::IN if is_tags(right) => return Some(FastNode::HasTag(Box::new(compile(left)?))),
        operators::IN => return Some(FastNode::In(Box::new(compile(left)?), literals(right)?)),
        _ => {}
    }
    let sides = || Some(Box::new([compile(left)?, compile(right)?]));
    Some(match operator {
        operators::LOGICAL_OR => FastNode::Either { decisive: true, sides: sides()? },
        operators::LOGICAL_AND => FastNode::Either { decisive: false, sides: sides()? },
        operators::EQUALS => FastNode::Equal { expected: true, sides: sides()? },
        operators::NOT_EQUALS => FastNode::Equal { expected: false, sides: sides()? },
        operators::LESS => FastNode::Compare(Comparison::Less, sides()?),
        operators::LESS_EQUALS => FastNode::Compare(Comparison::LessEqual, sides()?),
        operators::GREATER => FastNode::Compare(Comparison::Greater, sides()?),
        operators::GREATER_EQUALS => FastNode::Compare(Comparison::GreaterEqual, sides()?),
        operators::ADD => FastNode::Calculate(Operation::Add, sides()?),
        operators::SUBSTRACT => FastNode::Calculate(Operation::Subtract, sides()?),
        operators::MULTIPLY => FastNode::Calculate(Operation::Multiply, sides()?),
        operators::DIVIDE => FastNode::Calculate(Operation::Divide, sides()?),
        _ => return None,
    })
}

fn regex(pattern: &IdedExpr) -> Option<Regex> {
    match &pattern.expr {
        Expr::Literal(LiteralValue::String(pattern)) => Regex::new(pattern.inner()).ok(),
        _ => None,
    }
}

fn literal(value: &LiteralValue) -> Option<Literal> {
    Some(match value {
        LiteralValue::Boolean(truth) => Literal::Boolean(*truth.inner()),
        LiteralValue::Double(number) => Literal::Double(*number.inner()),
        LiteralValue::Int(number) => Literal::Integer(*number.inner()),
        LiteralValue::String(text) => Literal::Text(text.inner().into()),
        LiteralValue::Bytes(_) | LiteralValue::Null | LiteralValue::UInt(_) => return None,
    })
}

fn literals(list: &IdedExpr) -> Option<Box<[Literal]>> {
    let Expr::List(list) = &list.expr else { return None };
    let value = |element: &IdedExpr| match &element.expr {
        Expr::Literal(value) => literal(value),
        _ => None,
    };
    // An optional element, `[?a]`, is not a literal.
    list.optional_indices.is_empty().then(|| list.elements.iter().map(value).collect())?
}

fn is_tags(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if name == "tags")
}
