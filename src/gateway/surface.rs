//! Which routes are served on which listener, and to whom.
//!
//! | listener | taking readings | `/healthz` and what clients ask before they write | what the operator sees |
//! |---|---|---|---|
//! | `server.listen` alone | with a key, once there are keys | to all | with a key for reading, once there are keys |
//! | `server.listen` beside an operator's | likewise | to all | not at all: 404 |
//! | `server.operator.listen` | not at all | `/healthz` to all | to all; with `keys = true` with a key for reading |

use std::sync::Arc;

use axum::Router;
use axum::routing::MethodRouter;

use crate::ingest::{Access, Front, READINGS_PATH, for_operators, readings_routes};
use crate::node::Latest;
use crate::status::{ReadinessDetail, StatusSources};

/// The parts that the routes need.
#[derive(Debug)]
pub(super) struct Surface {
    pub(super) access: Arc<Access>,
    pub(super) front: Arc<Front>,
    pub(super) status: Arc<StatusSources>,
    pub(super) latest: Latest,
}

impl Surface {
    /// The routes of a gateway that has one listener.
    pub(super) fn whole(&self) -> Router {
        let guard = |route| for_operators(&self.access, route);
        let detail = if self.access.has_keys() { ReadinessDetail::NamesOnly } else { ReadinessDetail::Whole };
        readings_routes(&self.front)
            .merge(self.status.open_routes(detail))
            .merge(self.status.operator_routes(&guard))
            .merge(self.latest.clone().routes(READINGS_PATH, &guard))
    }

    /// The routes for senders, beside an operator's listener.
    pub(super) fn for_senders(&self) -> Router {
        readings_routes(&self.front).merge(self.status.open_routes(ReadinessDetail::NamesOnly))
    }

    /// The routes of the operator's listener.
    pub(super) fn for_operators(&self, keys: bool) -> Router {
        let guard = |route: MethodRouter| if keys { for_operators(&self.access, route) } else { route };
        let latest = self.latest.clone().operator_listener_routes(READINGS_PATH, &guard);
        self.status.operator_listener_routes(&guard).merge(latest)
    }
}
