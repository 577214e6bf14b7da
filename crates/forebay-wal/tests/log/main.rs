//! What the log promises, on a file system that fails, crashes and loses what was not synced.

mod damage;
mod model;
