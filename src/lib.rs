//! Forebay takes sensor readings from devices over HTTP, holds them in a bounded buffer, batches them by size
//! or time, and forwards the batches over HTTP to the nodes of a downstream cluster.

pub mod cli;
pub mod codec;
pub mod reading;
pub mod registry;
pub mod timestamp;
