//! A node that is away until it is switched on, and looks at the order in which requests arrive.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::numbered::numbers_in;

/// The requests that arrived.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Arrived {
    /// Whether the node takes batches.
    pub(crate) back: bool,
    /// Readings of all batches that it took.
    pub(crate) readings: u64,
    /// Numbers that arrived again.
    pub(crate) twice: u64,
    /// The highest number.
    pub(crate) highest: u64,
    /// How far a number was behind the highest one before it, at most.
    pub(crate) overtaken_by: u64,
}

#[derive(Debug, Default)]
struct Seen {
    arrived: Arrived,
    numbers: Vec<bool>,
}

type Shared = Arc<Mutex<Seen>>;

/// Serves until the process ends: `POST /v1/batches` takes NDJSON once there was a `POST /back`; `GET /arrived`.
pub(crate) async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/v1/batches", post(take))
        .route("/back", post(come_back))
        .route("/arrived", get(arrived));
    axum::serve(listener, routes.with_state(Shared::default())).await
}

async fn take(State(seen): State<Shared>, body: Bytes) -> StatusCode {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.arrived.back {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    seen.arrived.readings += body.iter().filter(|byte| **byte == b'\n').count() as u64;
    numbers_in(&body).for_each(|number| seen.see(number));
    StatusCode::OK
}

async fn come_back(State(seen): State<Shared>) {
    seen.lock().unwrap_or_else(PoisonError::into_inner).arrived.back = true;
}

async fn arrived(State(seen): State<Shared>) -> Result<String, StatusCode> {
    let arrived = seen.lock().unwrap_or_else(PoisonError::into_inner).arrived;
    serde_json::to_string(&arrived).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

impl Seen {
    fn see(&mut self, number: u64) {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if self.numbers.len() <= index {
            self.numbers.resize(2 * index + 1, false);
        }
        self.arrived.twice += u64::from(std::mem::replace(&mut self.numbers[index], true));
        self.arrived.overtaken_by =
            self.arrived.overtaken_by.max(self.arrived.highest.saturating_sub(number));
        self.arrived.highest = self.arrived.highest.max(number);
    }
}
