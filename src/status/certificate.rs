//! The gateway's own certificates, the listener's and that for nodes: when they end, in `/metrics`, in `/status` and, in their
//! last days, in the log.

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

/// A certificate of the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnCertificate {
    /// The one that clients are shown.
    Listener,
    /// The one that nodes are shown.
    ForNodes,
}

impl OwnCertificate {
    const ALL: [OwnCertificate; 2] = [OwnCertificate::Listener, OwnCertificate::ForNodes];

    fn metric(self) -> &'static str {
        match self {
            OwnCertificate::Listener => "tls_certificate_expiry_timestamp_seconds",
            OwnCertificate::ForNodes => "cluster_tls_certificate_expiry_timestamp_seconds",
        }
    }

    /// Its end; `None` if the gateway has no such certificate.
    fn end(self, status: &StatusSources) -> Option<SystemTime> {
        match self {
            OwnCertificate::Listener => status.tls.as_ref().map(|tls| tls.load().leaf().validity.not_after),
            OwnCertificate::ForNodes => {
                let tls = status.node_tls.as_ref()?.load();
                tls.identity().map(|identity| identity.leaf().validity.not_after)
            }
        }
    }

    /// Says in the log that it ends soon, or has ended.
    fn tell(self, end: SystemTime, now: SystemTime) {
        let not_after = Timestamp::from_system(end);
        let (whose, who, files) = match self {
            OwnCertificate::Listener => ("of the listener", "clients", "server.tls"),
            OwnCertificate::ForNodes => ("for nodes", "nodes", "cluster.tls"),
        };
        let seconds = seconds_until(end, now);
        if seconds <= 0 {
            error!(%not_after, "the certificate {whose} has ended: {who} refuse it; replace the files of {files}");
        } else if Duration::from_secs(seconds.unsigned_abs()) <= WARN_FROM {
            let days = seconds / 86_400;
            warn!(%not_after, days, "the certificate {whose} ends soon: replace the files of {files}");
        }
    }
}

/// When a certificate of the gateway ends.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertificateReport {
    /// When it ends.
    #[schema(example = "2027-02-01T00:00:00Z")]
    pub(super) not_after: String,
    /// Seconds until then; negative once it has ended.
    pub(super) ends_in_seconds: i64,
}

impl CertificateReport {
    /// The report; `None` without such a certificate.
    pub(super) fn of(status: &StatusSources, certificate: OwnCertificate) -> Option<CertificateReport> {
        let end = certificate.end(status)?;
        Some(CertificateReport {
            not_after: Timestamp::from_system(end).to_string(),
            ends_in_seconds: seconds_until(end, wall_time()),
        })
    }
}

/// The metrics: one for each certificate that there is.
#[expect(clippy::cast_precision_loss, reason = "the text format holds doubles")]
pub(super) fn samples(status: &StatusSources) -> impl Iterator<Item = Sample> {
    OwnCertificate::ALL.into_iter().filter_map(|certificate| {
        let seconds = seconds_until(certificate.end(status)?, SystemTime::UNIX_EPOCH);
        Some(sample(certificate.metric(), &[], seconds as f64))
    })
}

/// Says in the log which certificates end soon, or have ended.
pub(super) fn tell(status: &StatusSources) {
    for certificate in OwnCertificate::ALL {
        if let Some(end) = certificate.end(status) {
            certificate.tell(end, wall_time());
        }
    }
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
