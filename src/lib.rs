//! Forebay takes sensor readings from devices over HTTP, holds them in a bounded buffer, batches them by size
//! or time, and forwards the batches over HTTP to the nodes of a downstream cluster.
//!
//! # The path of a reading
//!
//! A request comes in through [`listener`], [`door`] and [`ingest`], is decoded by [`forebay_codec`] into readings in one internal
//! encoding ([`forebay_reading`]), and finds room in the [`buffer`], whole or not at all. The buffer on disk
//! ([`buffer::disk`]) writes it to its log ([`forebay_wal`]), with all requests that wait, and syncs once for them. Then it is
//! answered with 202. The [`delivery`] pulls the oldest readings, gathers them into batches, has the buffer note which
//! readings are in each, asks [`routing`] for a node, and sends them until a node has them; then they are settled, and
//! their room is free again.
//!
//! # The guarantees
//!
//! - The 202 is sent after the buffer has fulfilled the promise that [`buffer::Ack`] names, never before.
//! - Readings that were acknowledged on disk survive the end of the process and power loss. Damage is detected, reported
//!   and set aside; nothing is repaired by deletion.
//! - A request that is sent again with its `Idempotency-Key` gets the same answer, and no reading is accepted twice.
//! - Every accepted reading is in exactly one account of the [`buffer::ledger`] at all times.
//! - A batch always carries the same key with the same readings, at every try, to every node, and, with a buffer on
//!   disk, after every restart.
//! - Everything is bounded, and nothing from outside can cause a panic.
//!
//! The pages in `docs/src/` explain this to users; `docs/src/inside/invariants.md` names the tests of each guarantee.
//!
//! # The parts, in reading order
//!
//! 1. [`forebay_reading`], with [`forebay_reading::timestamp`]: a reading and its encoding.
//! 2. [`forebay_codec`]: bytes to readings and back, one file per format; [`forebay_stores`]: the answers of the stores
//!    that take such bodies.
//! 3. [`buffer`]: the room, the ledger, the leases; the promise of an acknowledgement ([`buffer::Ack`]) and the choices
//!    when there is no room ([`buffer::OnFull`]).
//! 4. [`forebay_wal`]: a log of byte records, its files and its promises.
//! 5. [`buffer::disk`]: readings, batches and settlements in that log, and the one thread that writes them.
//! 6. [`forebay_transform`]: fewer readings, or better ones, before they are gathered into batches.
//! 7. [`routing`] and [`delivery`]: which node gets a batch, when, and how its answer is handled.
//! 8. [`ingest`] and [`status`]: the HTTP surface, with [`problem`] for errors and [`rejections`] for the last refused
//!    readings.
//! 9. [`node`]: the embedded node, a small store on SQLite.
//! 10. [`config`] and [`gateway`]: the settings; the parts that are built from them, and their order of start and stop.
//! 11. [`cli`]: the commands.
//!
//! Small modules that use no other: [`listener`], [`door`], [`metrics`],
//! [`backoff`], [`node_id`], [`filesystem`], [`tasks`], [`zstd_contexts`], [`via`], [`tls`].

// It panics where standard error takes nothing, as on a full disk; `cli::terminal` has what does not.
#![warn(clippy::print_stderr)]

pub mod auth;
pub mod backoff;
pub mod buffer;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod directory_lock;
pub mod door;
pub mod filesystem;
pub mod gateway;
pub mod ingest;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod node_id;
pub mod problem;
pub mod rejections;
pub mod routing;
pub mod status;
pub mod tasks;
pub mod tls;
pub mod via;
pub mod watched;
pub mod zstd_contexts;
