//! Limits of a syntax tree, which bound the cost of an evaluation.

use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};
use forebay_reading::TAGS_MAX;

use super::fault::ExpressionFault;
use super::{DEPTH_MAX, ROUNDS_MAX};

/// Most loops within one another.
const LOOPS_MAX: usize = 2;

/// The message about a tree that is too deep.
pub(super) fn too_deep() -> String {
    format!("is nested too deeply: at most {DEPTH_MAX} levels are allowed")
}

/// Checks that a tree keeps the limits. It recurses to the depth of the tree.
pub(super) fn check(tree: &IdedExpr) -> Result<(), ExpressionFault> {
    let fault = |problem: String| Err(ExpressionFault { id: tree.id, problem });
    if depth(tree) > DEPTH_MAX {
        return fault(too_deep());
    }
    if loops(tree) > LOOPS_MAX {
        return fault(format!("has too many loops within one another: at most {LOOPS_MAX} are allowed"));
    }
    // No literal list and no map of tags has more members than this.
    let longest = nodes(tree).max(TAGS_MAX);
    let rounds = rounds(tree, longest);
    if rounds > ROUNDS_MAX {
        return fault(format!("may go round its loops {rounds} times: at most {ROUNDS_MAX} are allowed"));
    }
    Ok(())
}

/// The parts of a tree.
pub(super) fn parts(tree: &IdedExpr) -> Vec<&IdedExpr> {
    match &tree.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Comprehension(looped) => {
            vec![&looped.iter_range, &looped.accu_init, &looped.loop_cond, &looped.loop_step, &looped.result]
        }
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

fn depth(tree: &IdedExpr) -> usize {
    1 + parts(tree).into_iter().map(depth).max().unwrap_or(0)
}

fn nodes(tree: &IdedExpr) -> usize {
    1 + parts(tree).into_iter().map(nodes).sum::<usize>()
}

fn loops(tree: &IdedExpr) -> usize {
    let inner = parts(tree).into_iter().map(loops).max().unwrap_or(0);
    inner + usize::from(matches!(tree.expr, Expr::Comprehension(_)))
}

fn rounds(tree: &IdedExpr, longest: usize) -> usize {
    let Expr::Comprehension(looped) = &tree.expr else {
        return parts(tree).into_iter().fold(0, |sum, part| sum.saturating_add(rounds(part, longest)));
    };
    let ComprehensionExpr { iter_range, loop_cond, loop_step, .. } = &**looped;
    let body = 1 + rounds(loop_cond, longest) + rounds(loop_step, longest);
    let around = length(iter_range, longest).saturating_mul(body);
    around.saturating_add(rounds(iter_range, longest))
}

/// Most members of the range of a loop.
fn length(range: &IdedExpr, longest: usize) -> usize {
    match &range.expr {
        Expr::List(list) => list.elements.len(),
        Expr::Map(map) => map.entries.len(),
        Expr::Ident(name) if name == "tags" => TAGS_MAX,
        // `map` and `filter` give at most as many members as their range has.
        Expr::Comprehension(looped) => length(&looped.iter_range, longest),
        Expr::Call(call) if call.func_name == operators::ADD && call.args.len() == 2 => {
            call.args.iter().map(|side| length(side, longest)).sum()
        }
        _ => longest,
    }
}
