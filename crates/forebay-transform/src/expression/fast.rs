//! The common shapes of expressions, evaluated over the borrowed reading without allocating.
//!
//! [`compile`] takes the crate's syntax tree and gives `None` for whatever it does not know. What it does know gives
//! exactly what the crate gives, errors included (`super::tests::agreement`); where that would need memory, as joining
//! two strings does, the answer is [`Miss::Undecided`], and the crate is asked.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use regex::Regex;

use super::Fields;
use super::scalar::{Comparison, Miss, Operation, Scalar, TextTest};

/// An expression of known shape.
#[derive(Debug)]
pub(super) enum Node {
    Literal(Literal),
    Device,
    Sensor,
    Unit,
    Value,
    /// The tag that the text names.
    Tag(Box<Node>),
    /// Whether there is the tag that the text names.
    HasTag(Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    /// `||` if true decides, `&&` if false does.
    Either {
        decisive: bool,
        sides: Box<[Node; 2]>,
    },
    /// `condition ? then : otherwise`
    Choose(Box<[Node; 3]>),
    Equal {
        expected: bool,
        sides: Box<[Node; 2]>,
    },
    Compare(Comparison, Box<[Node; 2]>),
    Calculate(Operation, Box<[Node; 2]>),
    In(Box<Node>, Box<[Literal]>),
    Test(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
}

/// A value that is written in an expression.
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

impl Node {
    /// The value over the fields of a reading.
    pub(super) fn evaluate<'a>(&'a self, fields: &Fields<'a>) -> Result<Scalar<'a>, Miss> {
        let reading = fields.reading;
        Ok(match self {
            Node::Literal(literal) => literal.scalar(),
            Node::Device => Scalar::Text(reading.device_bytes()),
            Node::Sensor => Scalar::Text(reading.sensor_bytes()),
            Node::Unit => Scalar::Text(reading.unit_bytes().unwrap_or_default()),
            Node::Value => fields.value(),
            Node::Tag(name) => Scalar::Text(fields.tag(name.text(fields)?).ok_or(Miss::Failed)?),
            Node::HasTag(name) => Scalar::Boolean(match name.evaluate(fields)? {
                Scalar::Text(name) => fields.tag(name).is_some(),
                _ => false,
            }),
            Node::Not(node) => Scalar::Boolean(!node.truth(fields)?),
            Node::Negate(node) => node.evaluate(fields)?.negate()?,
            Node::Either { decisive, sides } => Scalar::Boolean(either(*decisive, sides, fields)?),
            Node::Choose(parts) => {
                let [condition, then, otherwise] = &**parts;
                let chosen = if condition.truth(fields)? { then } else { otherwise };
                return chosen.evaluate(fields);
            }
            Node::Equal { expected, sides } => {
                let (left, right) = both(sides, fields)?;
                Scalar::Boolean(left.equals(right) == *expected)
            }
            Node::Compare(comparison, sides) => {
                let (left, right) = both(sides, fields)?;
                Scalar::Boolean(comparison.holds(left, right)?)
            }
            Node::Calculate(operation, sides) => {
                let (left, right) = both(sides, fields)?;
                operation.apply(left, right)?
            }
            Node::In(node, literals) => {
                let value = node.evaluate(fields)?;
                Scalar::Boolean(literals.iter().any(|literal| literal.scalar().equals(value)))
            }
            Node::Test(test, sides) => {
                // The crate looks at the argument first, but either error is one.
                let (text, argument) = (sides[0].text(fields)?, sides[1].text(fields)?);
                Scalar::Boolean(test.holds(text, argument))
            }
            Node::Matches(text, pattern) => {
                let text = std::str::from_utf8(text.text(fields)?).map_err(|_| Miss::Undecided)?;
                Scalar::Boolean(pattern.is_match(text))
            }
        })
    }

    fn truth<'a>(&'a self, fields: &Fields<'a>) -> Result<bool, Miss> {
        match self.evaluate(fields)? {
            Scalar::Boolean(truth) => Ok(truth),
            _ => Err(Miss::Failed),
        }
    }

    fn text<'a>(&'a self, fields: &Fields<'a>) -> Result<&'a [u8], Miss> {
        match self.evaluate(fields)? {
            Scalar::Text(text) => Ok(text),
            _ => Err(Miss::Failed),
        }
    }
}

/// A side that is `decisive` decides, even if the other fails. A right side that fails is not made good by the left
/// one, because a left one that decides keeps it from being looked at.
fn either<'a>(decisive: bool, sides: &'a [Node; 2], fields: &Fields<'a>) -> Result<bool, Miss> {
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

fn both<'a>(sides: &'a [Node; 2], fields: &Fields<'a>) -> Result<(Scalar<'a>, Scalar<'a>), Miss> {
    Ok((sides[0].evaluate(fields)?, sides[1].evaluate(fields)?))
}

/// Takes a syntax tree, if every part of it has a known shape.
pub(super) fn compile(tree: &IdedExpr) -> Option<Node> {
    match &tree.expr {
        Expr::Literal(value) => literal(value).map(Node::Literal),
        Expr::Ident(name) => match name.as_str() {
            "device" => Some(Node::Device),
            "sensor" => Some(Node::Sensor),
            "unit" => Some(Node::Unit),
            "value" => Some(Node::Value),
            _ => None,
        },
        Expr::Select(select) if is_tags(&select.operand) => {
            let name = Box::new(Node::Literal(Literal::Text(select.field.as_str().into())));
            Some(if select.test { Node::HasTag(name) } else { Node::Tag(name) })
        }
        Expr::Call(call) => call_of(call),
        _ => None,
    }
}

fn call_of(call: &CallExpr) -> Option<Node> {
    match (call.target.as_deref(), call.args.as_slice()) {
        (Some(text), [pattern]) | (None, [text, pattern]) if call.func_name == "matches" => {
            Some(Node::Matches(Box::new(compile(text)?), regex(pattern)?))
        }
        (Some(target), [argument]) => {
            let test = TextTest::named(&call.func_name)?;
            Some(Node::Test(test, Box::new([compile(target)?, compile(argument)?])))
        }
        (None, [operand]) => match call.func_name.as_str() {
            operators::LOGICAL_NOT => Some(Node::Not(Box::new(compile(operand)?))),
            operators::NEGATE => Some(Node::Negate(Box::new(compile(operand)?))),
            _ => None,
        },
        (None, [left, right]) => binary(&call.func_name, left, right),
        (None, [condition, then, otherwise]) if call.func_name == operators::CONDITIONAL => {
            Some(Node::Choose(Box::new([compile(condition)?, compile(then)?, compile(otherwise)?])))
        }
        _ => None,
    }
}

fn binary(operator: &str, left: &IdedExpr, right: &IdedExpr) -> Option<Node> {
    match operator {
        operators::INDEX if is_tags(left) => return Some(Node::Tag(Box::new(compile(right)?))),
        operators::IN if is_tags(right) => return Some(Node::HasTag(Box::new(compile(left)?))),
        operators::IN => return Some(Node::In(Box::new(compile(left)?), literals(right)?)),
        _ => {}
    }
    let sides = || Some(Box::new([compile(left)?, compile(right)?]));
    Some(match operator {
        operators::LOGICAL_OR => Node::Either { decisive: true, sides: sides()? },
        operators::LOGICAL_AND => Node::Either { decisive: false, sides: sides()? },
        operators::EQUALS => Node::Equal { expected: true, sides: sides()? },
        operators::NOT_EQUALS => Node::Equal { expected: false, sides: sides()? },
        operators::LESS => Node::Compare(Comparison::Less, sides()?),
        operators::LESS_EQUALS => Node::Compare(Comparison::LessEqual, sides()?),
        operators::GREATER => Node::Compare(Comparison::Greater, sides()?),
        operators::GREATER_EQUALS => Node::Compare(Comparison::GreaterEqual, sides()?),
        operators::ADD => Node::Calculate(Operation::Add, sides()?),
        operators::SUBSTRACT => Node::Calculate(Operation::Subtract, sides()?),
        operators::MULTIPLY => Node::Calculate(Operation::Multiply, sides()?),
        operators::DIVIDE => Node::Calculate(Operation::Divide, sides()?),
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
    // An element that is there only perhaps, `[?a]`, is no literal.
    list.optional_indices.is_empty().then(|| list.elements.iter().map(value).collect())?
}

fn is_tags(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Ident(name) if name == "tags")
}
