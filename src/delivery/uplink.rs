//! The way to the nodes: what carries requests, and what they carry to be let in.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::DeliveryConfig;
use super::credentials::{Credentials, CredentialsInForce, HeaderFileError};
use super::source::NodeSource;
use super::wire::Wire;

/// The way to the nodes.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Carries requests to nodes.
    pub wire: Arc<dyn Wire>,
    /// What requests carry to be let in.
    pub credentials: CredentialsInForce,
}

impl Uplink {
    /// The way over `wire`; `content` has that of each file of the headers.
    ///
    /// # Errors
    ///
    /// [`HeaderFileError`] if a content cannot be the value of a header.
    pub fn new<'c>(
        wire: Arc<dyn Wire>,
        config: &DeliveryConfig,
        content: impl Fn(&Path) -> &'c [u8],
    ) -> Result<Uplink, HeaderFileError> {
        let urls = config.nodes.iter().map(NodeSource::url);
        let credentials = Credentials::new(urls, &config.headers, content, &Credentials::default())?;
        Ok(Uplink { wire, credentials: Arc::new(ArcSwap::from_pointee(credentials)) })
    }
}
