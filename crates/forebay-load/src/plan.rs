//! The plan of a run: simulated devices or a file, as sources for the connections and as windows for the audit.

use std::sync::Arc;

use crate::csv_error::CsvError;
use crate::csv_source::CsvFile;
use crate::simulate::Simulation;
use crate::source::{AuditWindow, BatchSource};

/// The readings of a run.
#[derive(Debug)]
pub(super) enum Plan {
    /// Simulated devices.
    Simulation(Simulation),
    /// The rows of a file, once through.
    Csv(Arc<CsvFile>),
}

/// The windows of a plan, one after another.
pub(super) type AuditWindows<'a> = Box<dyn Iterator<Item = Result<AuditWindow, CsvError>> + Send + 'a>;

impl Plan {
    /// One source for each of at most `connections` connections.
    ///
    /// # Errors
    ///
    /// The file could not be opened again.
    pub(super) fn sources(&self, connections: usize) -> Result<Vec<Box<dyn BatchSource>>, CsvError> {
        match self {
            Plan::Simulation(simulation) => Ok(simulation.sources(connections)),
            Plan::Csv(file) => file.sources(connections),
        }
    }

    /// The number of readings, where it is known.
    pub(super) fn readings(&self) -> Option<usize> {
        match self {
            Plan::Simulation(_) => None,
            Plan::Csv(file) => Some(file.readings()),
        }
    }

    /// Whether an earlier run may have sent the same readings.
    pub(super) fn repeats(&self) -> bool {
        match self {
            Plan::Simulation(_) => false,
            Plan::Csv(_) => true,
        }
    }

    /// The reason why the audit cannot be done, if there is one.
    pub(super) fn no_audit_because(&self) -> Option<String> {
        match self {
            Plan::Simulation(_) => None,
            Plan::Csv(file) => file.no_audit_because(),
        }
    }

    /// The windows that hold all readings with ordinals below `end`, of about `size` readings each.
    ///
    /// # Errors
    ///
    /// The file could not be opened again.
    pub(super) fn windows(&self, end: usize, size: usize) -> Result<AuditWindows<'_>, CsvError> {
        match self {
            Plan::Simulation(simulation) => Ok(Box::new(simulation.windows(end, size).map(Ok))),
            Plan::Csv(file) => Ok(Box::new(file.windows(size)?)),
        }
    }
}
