//! `/readyz`: whether the gateway should be sent readings, and why not.

use serde::Serialize;
use utoipa::ToSchema;

use super::View;

/// Whether the gateway should be sent readings.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`, `draining`, `full` or `degraded`.
    #[schema(example = "ready")]
    pub(super) status: &'static str,
    /// The checks and their reasons.
    pub(super) checks: Checks,
}

/// The checks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checks {
    /// Whether requests are taken.
    pub(super) intake: Check,
    /// Whether readings can be stored.
    pub(super) storage: Check,
    /// Whether there is room.
    pub(super) buffer: Check,
    /// Whether some node takes batches.
    pub(super) nodes: Check,
    /// Whether readings that nodes refuse can be written down.
    pub(super) dead_letters: Check,
}

/// One check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Check {
    /// Whether all is well.
    pub(super) ok: bool,
    /// What is not.
    pub(super) reason: Option<String>,
}

impl Check {
    fn good() -> Check {
        Check { ok: true, reason: None }
    }

    fn bad(reason: String) -> Check {
        Check { ok: false, reason: Some(reason) }
    }
}

impl Readiness {
    pub(super) fn of(view: &View, draining: bool) -> Readiness {
        let checks = Checks {
            intake: intake(draining),
            storage: storage(view),
            buffer: buffer(view),
            nodes: nodes(view),
            dead_letters: dead_letters(view),
        };
        let status = match &checks {
            Checks { intake, .. } if !intake.ok => "draining",
            Checks { storage, .. } if !storage.ok => "degraded",
            Checks { buffer, .. } if !buffer.ok => "full",
            Checks { nodes, .. } if !nodes.ok => "degraded",
            Checks { dead_letters, .. } if !dead_letters.ok => "degraded",
            _ => "ready",
        };
        Readiness { status, checks }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.status == "ready"
    }
}

fn intake(draining: bool) -> Check {
    if draining { Check::bad("the gateway is shutting down".to_owned()) } else { Check::good() }
}

fn storage(view: &View) -> Check {
    view.trouble.clone().map_or_else(Check::good, Check::bad)
}

fn buffer(view: &View) -> Check {
    if !view.snapshot.full {
        return Check::good();
    }
    let (held, limit) = (&view.snapshot, view.snapshot.limit);
    Check::bad(format!(
        "the buffer holds {} readings of {} and {} bytes of {}",
        held.ledger.buffered, limit.readings, held.held_bytes, limit.bytes
    ))
}

/// Too many nodes down is no reason to refuse readings, but nothing gets on: that must not go unnoticed.
fn nodes(view: &View) -> Check {
    let up = view.nodes.iter().filter(|node| node.up).count();
    if up >= view.nodes_needed {
        return Check::good();
    }
    let reason = |node: &crate::delivery::NodeStatus| {
        format!("{}: {}", node.id, node.reason.as_deref().unwrap_or("no answer yet"))
    };
    if !view.nodes.iter().any(|node| node.present) {
        return Check::bad("no node is known: the names of the nodes are not found".to_owned());
    }
    let down: Vec<_> = view.nodes.iter().filter(|node| node.present && !node.up).map(reason).collect();
    if up == 0 {
        return Check::bad(format!("no node is up: {}", down.join("; ")));
    }
    let needed = view.nodes_needed;
    let told = if down.is_empty() { "no others are known".to_owned() } else { down.join("; ") };
    Check::bad(format!("{up} of the {needed} nodes are up that each batch has to reach: {told}"))
}

/// Until it is mended, refused readings stay in the buffer, and what comes after them waits.
fn dead_letters(view: &View) -> Check {
    view.dead_letter_trouble.clone().map_or_else(Check::good, Check::bad)
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::buffer::accounts::Bounds;
    use crate::buffer::{Accounts, Amount};

    /// A buffer with room for this many readings, and with this trouble.
    fn view(readings: u64, trouble: Option<&str>) -> View {
        let limit = Amount { readings, bytes: 1 };
        let bounds = Bounds { limit, least: Amount { readings: 1, bytes: 1 } };
        let snapshot = Accounts::new(bounds, 0, Instant::now()).snapshot();
        let trouble = trouble.map(str::to_owned);
        View {
            snapshot,
            trouble,
            dead_letter_trouble: None,
            nodes: Vec::new(),
            nodes_needed: 1,
            oldest_seconds: 0.0,
            transforms: Vec::new(),
        }
    }

    #[test]
    fn a_buffer_that_cannot_store_is_degraded_with_the_reason_also_when_it_is_full() {
        for room in [0, 1] {
            let readiness = Readiness::of(&view(room, Some("no space left")), false);
            assert_eq!((readiness.status, readiness.is_ready()), ("degraded", false));
            assert_eq!(readiness.checks.storage.reason.as_deref(), Some("no space left"));
            assert!(!readiness.checks.storage.ok);
        }
        assert_eq!(Readiness::of(&view(1, Some("no space left")), true).status, "draining");
        let unburied = View { dead_letter_trouble: Some("they are full".to_owned()), ..view(1, None) };
        let unburied = Readiness::of(&View { nodes_needed: 0, ..unburied }, false);
        assert_eq!(
            (unburied.status, unburied.checks.dead_letters.reason.as_deref()),
            ("degraded", Some("they are full"))
        );
        let full = Readiness::of(&view(0, None), false);
        assert!(full.status == "full" && full.checks.storage.ok);
    }
}
