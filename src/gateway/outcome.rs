//! The outcome of a stop: undelivered readings, and how they are logged.

use tracing::{error, info, warn};

use crate::buffer::{Rest, SentAgain};

/// How a gateway's stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct StopOutcome {
    /// Accepted readings that were not delivered.
    pub undelivered: u64,
    /// The fate of these readings.
    pub rest: Rest,
    /// Whether a worker failed.
    pub failed: bool,
}

impl StopOutcome {
    /// Whether accepted readings are gone, or out of the next start's reach.
    pub fn has_lost(self) -> bool {
        match self.rest {
            Rest::Lost => self.undelivered > 0,
            Rest::Kept => false,
            Rest::KeptBut { lost, is_elsewhere, .. } => lost > 0 || (is_elsewhere && self.undelivered > 0),
        }
    }

    /// Readings that are already settled and that the next start sends again.
    pub fn sent_again(self) -> u64 {
        match self.rest {
            Rest::Lost | Rest::Kept => 0,
            Rest::KeptBut { sent_again, .. } => sent_again.readings,
        }
    }

    pub(super) fn log(self) {
        let readings = self.undelivered;
        if let Rest::KeptBut { sent_again, is_elsewhere, .. } = self.rest
            && sent_again.readings > 0
        {
            let SentAgain { readings, under_other_keys } = sent_again;
            let to_do = is_elsewhere.then_some(PUT_BACK);
            error!(
                readings,
                under_other_keys,
                to_do,
                "readings are delivered or accounted for, but the disk could not record it: the next start that finds them sends \
                 them again, under the same keys except for those that are counted as under other keys"
            );
        }
        match self.rest {
            _ if readings == 0 && self.sent_again() > 0 => {}
            Rest::KeptBut { is_elsewhere: true, .. } if readings == 0 => warn!(
                to_do = PUT_BACK,
                "stopped, every accepted reading is delivered or accounted for; the directory of the buffer is not in \
                 its place any more, and without it the next start knows no `Idempotency-Key` of before"
            ),
            _ if readings == 0 => info!("stopped, every accepted reading is delivered or accounted for"),
            Rest::Lost => {
                error!(
                    readings,
                    "readings were accepted and not delivered: they are lost with the memory buffer"
                );
            }
            Rest::Kept => info!(readings, "readings stay on disk for the next start"),
            Rest::KeptBut { lost, is_elsewhere: true, .. } => error!(
                readings = readings.saturating_sub(lost),
                lost,
                to_do = PUT_BACK,
                "readings stay in the directory of the buffer, which is not in its place any more: the next start does \
                 not find them; those that were acknowledged in memory and could not be written are lost"
            ),
            Rest::KeptBut { lost: 0, .. } => info!(readings, "readings stay on disk for the next start"),
            Rest::KeptBut { lost, .. } => error!(
                readings = readings.saturating_sub(lost),
                lost,
                "readings stay on disk for the next start; those that were acknowledged in memory and could not be \
                 written are lost"
            ),
        }
    }
}

/// Advice about a buffer's directory that was moved.
const PUT_BACK: &str = "put the directory back where it was before the next start";
