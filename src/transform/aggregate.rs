//! aggregate

use std::sync::Arc;

use super::Kind;
use super::settings::Settings;

pub(super) fn read(_settings: &mut Settings) -> Option<Arc<dyn Kind>> {
    None
}
