//! The promises of the gateway as a whole, a module a promise: over HTTP, through the command line, on disks that fail.
//!
//! One binary has them all, so that the gateway is linked and `tests/support/` compiled once for them, and those that wait
//! do so beside each other. They share a process: a test changes neither its environment nor its working directory, and
//! a test that needs a process of its own starts one (`support::process`).

#[path = "../support/mod.rs"]
mod support;

mod backlog;
mod buffer;
mod buffer_command;
mod clients;
mod damage;
mod dead_letters;
mod delivery;
mod dependencies;
mod derivations;
mod disk;
mod dns;
mod documents;
mod door;
mod examples;
mod formats;
mod full_disk;
mod influx;
mod ingest;
mod keys;
mod keys_command;
mod ledger;
mod lifecycle;
mod notes;
mod private_files;
mod reference;
mod refusals;
mod rehearsal;
mod replicate;
mod shard;
mod sources;
mod status;
mod tls;
mod tls_nodes;
mod transforms;
mod upgrade;
mod windows;
