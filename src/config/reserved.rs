//! The settings that only some kinds of buffer have.

use std::path::PathBuf;
use std::time::Duration;

use super::layers::{Layers, Raw};
use super::{CENTURY, HOUR, MILLISECOND, duration_within, within};
use crate::buffer::Fsync;
use crate::quantity::format_duration;

/// Settings that only some kinds of buffer have. They are checked whatever the kind is, and have an effect with
/// those that name them in [`Kind::settings`](crate::buffer::Kind::settings).
pub(super) struct Reserved {
    pub(super) path: PathBuf,
    pub(super) fsync: Fsync,
    pub(super) memos_kept: Duration,
}

impl Reserved {
    pub(super) fn read(layers: &mut Layers) -> Reserved {
        Reserved {
            path: layers.get_reserved("buffer.path", "data/buffer", path),
            fsync: layers.get_reserved("buffer.fsync", "always", fsync),
            memos_kept: layers.get_reserved("ingest.idempotency_window", "10m", |raw| {
                duration_within(raw, &(MILLISECOND..=CENTURY))
            }),
        }
    }
}

fn path(raw: &Raw) -> Result<PathBuf, String> {
    let text = raw.text()?;
    if text.is_empty() {
        Err("must be the path of a directory, got nothing".to_owned())
    } else {
        Ok(text.into())
    }
}

fn fsync(raw: &Raw) -> Result<Fsync, String> {
    let text = raw.text()?;
    match text.parse().map_err(|_| format!("must be `always`, or an interval such as 200ms, got `{text}`"))? {
        Fsync::Always => Ok(Fsync::Always),
        Fsync::Every(interval) => {
            within(interval, &(MILLISECOND..=HOUR), |interval| format_duration(*interval)).map(Fsync::Every)
        }
    }
}
