//! Any program that takes readings as JSON over HTTP, such as the embedded node.

use std::sync::Arc;

use forebay_codec::Encoder;

use crate::diagnosis::diagnose_empty_batch;
use crate::{NodeAnswer, Silence, Store, Trial};

/// The store behind the formats `ndjson` and `json`: any program that takes such bodies.
#[derive(Debug)]
pub(super) struct AnyProgram {
    encoder: Arc<dyn Encoder>,
    empty_batch: &'static [u8],
}

impl AnyProgram {
    /// A program that takes what `encoder` writes. `empty_batch` is a body without readings.
    pub(super) fn new(encoder: impl Encoder + 'static, empty_batch: &'static [u8]) -> AnyProgram {
        AnyProgram { encoder: Arc::new(encoder), empty_batch }
    }
}

impl Store for AnyProgram {
    fn encoder(&self) -> Arc<dyn Encoder> {
        Arc::clone(&self.encoder)
    }

    fn trials(&self) -> Vec<Trial> {
        vec![Trial { query: None, body: self.empty_batch.to_vec(), silence: Silence::Allowed }]
    }

    fn diagnose(&self, answer: &NodeAnswer<'_>) -> Result<String, String> {
        diagnose_empty_batch(answer)
    }
}
