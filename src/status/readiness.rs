//! `/readyz`: whether the gateway accepts readings, and if not, why.

use serde::Serialize;
use url::form_urlencoded;
use utoipa::ToSchema;

use super::StatusView;

/// Whether the gateway should be sent readings.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`; `degraded` (readings are taken, but something needs a look); or why none are taken: `draining`, `failing`
    /// or `full`.
    #[schema(example = "ready")]
    pub(super) status: &'static str,
    /// The checks and their reasons.
    pub(super) checks: Checks,
}

/// The checks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Checks {
    /// Whether requests are taken: the gateway is not shutting down, and there is room.
    pub(super) intake: Check,
    /// Whether readings can be stored, and read again.
    pub(super) storage: Check,
    /// Whether there is room.
    pub(super) buffer: Check,
    /// Whether some node takes batches.
    pub(super) nodes: Check,
    /// Whether readings that nodes refuse can be written down.
    pub(super) dead_letters: Check,
}

impl Checks {
    /// The checks that are metrics, with the names of their labels.
    pub(super) fn named(&self) -> [(&'static str, &Check); 4] {
        let Checks { intake, storage, nodes, dead_letters, .. } = self;
        [("intake", intake), ("storage", storage), ("nodes", nodes), ("dead_letters", dead_letters)]
    }
}

/// One check.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Check {
    /// Whether all is well.
    pub(super) ok: bool,
    /// The reason if it is not.
    pub(super) reason: Option<String>,
}

/// What `/readyz` requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requirement {
    /// The gateway accepts readings.
    Intake,
    /// Besides, nodes are up.
    Nodes,
}

impl Requirement {
    /// Reads the query of `/readyz`: `require=nodes`. Other parameters are ignored; they may be meant for a proxy.
    pub(super) fn from_query(query: &str) -> Result<Requirement, String> {
        let mut required = Requirement::Intake;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            required = match (name.as_ref(), value.as_ref()) {
                ("require", "nodes") => Requirement::Nodes,
                ("require", other) => {
                    let other: String = other.chars().take(64).collect();
                    return Err(format!("query parameter `require` is `{other}`; allowed: nodes"));
                }
                _ => required,
            };
        }
        Ok(required)
    }
}

impl Check {
    fn good() -> Check {
        Check { ok: true, reason: None }
    }

    fn bad(reason: String) -> Check {
        Check { ok: false, reason: Some(reason) }
    }

    fn unless(reason: Option<String>) -> Check {
        reason.map_or_else(Check::good, Check::bad)
    }
}

impl Readiness {
    pub(super) fn of(view: &StatusView) -> Readiness {
        let buffer = Check::unless(view.full.clone());
        let checks = Checks {
            intake: if view.is_draining {
                Check::bad("the gateway is shutting down".to_owned())
            } else {
                buffer.clone()
            },
            storage: Check::unless(view.trouble.clone()),
            buffer,
            nodes: nodes(view),
            // Until this is repaired, refused readings stay in the buffer, and later ones wait behind them.
            dead_letters: Check::unless(view.dead_letter_trouble.clone()),
        };
        let status = match checks.named().iter().all(|(_, check)| check.ok) {
            _ if view.is_draining => "draining",
            _ if view.is_failing => "failing",
            _ if !checks.buffer.ok => "full",
            true => "ready",
            false => "degraded",
        };
        Readiness { status, checks }
    }

    /// The same without the reasons.
    pub(super) fn without_reasons(&self) -> Readiness {
        let without = |check: &Check| Check { ok: check.ok, reason: None };
        let Checks { intake, storage, buffer, nodes, dead_letters } = &self.checks;
        let checks = Checks {
            intake: without(intake),
            storage: without(storage),
            buffer: without(buffer),
            nodes: without(nodes),
            dead_letters: without(dead_letters),
        };
        Readiness { status: self.status, checks }
    }

    /// Whether the answer is 200.
    pub(super) fn is_ready(&self, required: Requirement) -> bool {
        let takes = matches!(self.status, "ready" | "degraded");
        takes && (required == Requirement::Intake || self.checks.nodes.ok)
    }
}

/// Too many nodes are down to deliver batches. That does not stop the intake, but it must not go unnoticed.
fn nodes(view: &StatusView) -> Check {
    let up = view.nodes.iter().filter(|node| node.up).count();
    if up >= view.nodes_needed {
        return Check::good();
    }
    let reason = |node: &crate::delivery::ClusterNodeStatus| {
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
    let verb = if up == 1 { "is" } else { "are" };
    let present = view.nodes.iter().filter(|node| node.present).count();
    Check::bad(format!("{up} of {present} nodes {verb} up, and each batch has to reach {needed}: {told}"))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::buffer::accounts::Bounds;
    use crate::buffer::{Accounts, Amount};

    /// A healthy gateway that has no nodes and needs none.
    fn view() -> StatusView {
        let limit = Amount { readings: 1, bytes: 1 };
        let bounds = Bounds { limit, least: limit };
        StatusView {
            snapshot: Accounts::new(bounds, 0, Instant::now()).snapshot(),
            trouble: None,
            advice: None,
            is_failing: false,
            full: None,
            is_draining: false,
            dead_letter_trouble: None,
            nodes: Vec::new(),
            nodes_needed: 0,
            oldest_seconds: 0.0,
            transforms: Vec::new(),
        }
    }

    #[test]
    fn readyz_is_503_if_and_only_if_no_readings_are_accepted() {
        let check = |change: fn(&mut StatusView), status: &str, takes: bool, goes_on: bool| {
            let mut view = view();
            change(&mut view);
            let readiness = Readiness::of(&view);
            let ready =
                [Requirement::Intake, Requirement::Nodes].map(|required| readiness.is_ready(required));
            assert_eq!((readiness.status, ready), (status, [takes, goes_on]), "{readiness:?}");
        };
        check(|_| {}, "ready", true, true);
        check(|view| view.nodes_needed = 1, "degraded", true, false);
        check(|view| view.dead_letter_trouble = Some("they are full".to_owned()), "degraded", true, true);
        // A stored reading cannot be read; the gateway still accepts readings.
        check(|view| view.trouble = Some("bad sector".to_owned()), "degraded", true, true);
        check(|view| view.full = Some("1 of 1".to_owned()), "full", false, false);
        let failing: fn(&mut StatusView) = |view| {
            view.is_failing = true;
            view.trouble = Some("no space left".to_owned());
        };
        check(failing, "failing", false, false);
        let also_full: fn(&mut StatusView) = |view| {
            view.is_failing = true;
            view.full = Some("1 of 1".to_owned());
            view.nodes_needed = 1;
        };
        check(also_full, "failing", false, false);
        let all: fn(&mut StatusView) = |view| {
            view.is_failing = true;
            view.is_draining = true;
            view.full = Some("1 of 1".to_owned());
        };
        check(all, "draining", false, false);
    }

    #[test]
    fn each_check_has_its_reason_and_a_full_buffer_fails_the_intake() {
        let text = |text: &str| Some(text.to_owned());
        let view = StatusView {
            trouble: text("no space left"),
            full: text("1 of 1"),
            dead_letter_trouble: text("they are full"),
            nodes_needed: 1,
            ..view()
        };
        let checks = Readiness::of(&view).checks;
        let reasons = checks.named().map(|(name, check)| (name, check.ok, check.reason.as_deref()));
        let unknown = "no node is known: the names of the nodes are not found";
        assert_eq!(
            reasons,
            [
                ("intake", false, Some("1 of 1")),
                ("storage", false, Some("no space left")),
                ("nodes", false, Some(unknown)),
                ("dead_letters", false, Some("they are full")),
            ]
        );
    }

    #[test]
    fn the_query_can_require_nodes_and_nothing_else() {
        let check = |query: &str, expected: Result<Requirement, ()>| {
            assert_eq!(Requirement::from_query(query).map_err(drop), expected, "{query}");
        };
        check("", Ok(Requirement::Intake));
        check("verbose", Ok(Requirement::Intake));
        check("require=nodes", Ok(Requirement::Nodes));
        check("require=n%6fdes&x=1", Ok(Requirement::Nodes));
        check("require=node", Err(()));
        check("require", Err(()));
    }
}
