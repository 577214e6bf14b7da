//! The listener's own certificate: when it ends, in `/metrics`, in `/status` and, in its last days, in the log.

use std::time::{Duration, SystemTime};

use forebay_reading::clock::wall_time;
use forebay_reading::timestamp::Timestamp;
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use super::StatusSources;
use crate::metrics::{Sample, sample};

/// From so long before its end on, the log speaks of it.
const WARN_FROM: Duration = Duration::from_secs(14 * 86_400);
/// Time between two lines in the log.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(86_400);

/// The listener's own certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertificateReport {
    /// When it ends.
    #[schema(example = "2027-02-01T00:00:00Z")]
    pub(super) not_after: String,
    /// Seconds until then; negative once it has ended.
    pub(super) ends_in_seconds: i64,
}

impl CertificateReport {
    /// The report; `None` without TLS.
    pub(super) fn of(status: &StatusSources) -> Option<CertificateReport> {
        let end = end(status)?;
        Some(CertificateReport {
            not_after: Timestamp::from_system(end).to_string(),
            ends_in_seconds: seconds_until(end, wall_time()),
        })
    }
}

/// The metric; nothing without TLS.
#[expect(clippy::cast_precision_loss, reason = "the text format holds doubles")]
pub(super) fn samples(status: &StatusSources) -> Option<Sample> {
    let seconds = seconds_until(end(status)?, SystemTime::UNIX_EPOCH);
    Some(sample("tls_certificate_expiry_timestamp_seconds", &[], seconds as f64))
}

/// Says in the log that the certificate ends soon, or has ended.
pub(super) fn tell(status: &StatusSources) {
    let Some(end) = end(status) else { return };
    let seconds = seconds_until(end, wall_time());
    let not_after = Timestamp::from_system(end);
    if seconds <= 0 {
        error!(%not_after, "the certificate of the listener has ended: clients refuse it; replace the files of server.tls");
    } else if Duration::from_secs(seconds.unsigned_abs()) <= WARN_FROM {
        let days = seconds / 86_400;
        warn!(%not_after, days, "the certificate of the listener ends soon: replace the files of server.tls");
    }
}

fn end(status: &StatusSources) -> Option<SystemTime> {
    status.tls.as_ref().map(|tls| tls.load().leaf().validity.not_after)
}

/// Whole seconds from one moment to another, negative if it is over.
fn seconds_until(end: SystemTime, now: SystemTime) -> i64 {
    let whole = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match end.duration_since(now) {
        Ok(left) => whole(left),
        Err(over) => -whole(over.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_in_whole_seconds_and_negative_once_it_is_over() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(seconds_until(at(100), at(40)), 60);
        assert_eq!(seconds_until(at(40), at(100)), -60);
        assert_eq!(seconds_until(at(100), SystemTime::UNIX_EPOCH), 100);
    }
}
