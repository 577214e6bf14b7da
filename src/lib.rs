//! Forebay takes sensor readings from devices over HTTP, holds them in a bounded buffer, batches them by size
//! or time, and forwards the batches over HTTP to the nodes of a downstream cluster.

pub mod backoff;
pub mod buffer;
pub mod cli;
pub mod codec;
pub mod config;
pub mod delivery;
pub mod gateway;
pub mod ingest;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod node_id;
pub mod problem;
pub mod quantity;
pub mod reading;
pub mod registry;
pub mod routing;
pub mod status;
pub mod text;
pub mod timestamp;
