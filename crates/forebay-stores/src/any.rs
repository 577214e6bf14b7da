//! Any program that accepts readings as JSON over HTTP, such as the embedded node.

use std::sync::Arc;

use forebay_codec::Encoder;

use crate::diagnosis::diagnose_empty_batch;
use crate::{NodeAnswer, Silence, Store, TrialRequest};

/// The store behind the formats `ndjson` and `json`.
#[derive(Debug)]
pub(super) struct AnyProgram {
    encoder: Arc<dyn Encoder>,
    empty_batch: &'static [u8],
}

impl AnyProgram {
    /// A program that accepts the bodies of `encoder`. `empty_batch` is a body without readings.
    pub(super) fn new(encoder: impl Encoder + 'static, empty_batch: &'static [u8]) -> AnyProgram {
        AnyProgram { encoder: Arc::new(encoder), empty_batch }
    }
}

impl Store for AnyProgram {
    fn encoder(&self) -> Arc<dyn Encoder> {
        Arc::clone(&self.encoder)
    }

    fn trials(&self) -> Vec<TrialRequest> {
        vec![TrialRequest { query: None, body: self.empty_batch.to_vec(), silence: Silence::Allowed }]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        diagnose_empty_batch(answer)
    }
}
