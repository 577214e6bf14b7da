//! A name service for tests.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use forebay::delivery::Resolve;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::node::FakeNode;

/// A name service with scripted answers.
#[derive(Clone, Debug, Default)]
pub struct Names(Arc<Mutex<Option<Vec<SocketAddr>>>>);

impl Names {
    /// From now on the name has these addresses.
    pub fn set(&self, nodes: &[&FakeNode]) {
        let address = |node: &&FakeNode| node.id().parse().expect("an address");
        self.set_addresses(&nodes.iter().map(address).collect::<Vec<_>>());
    }

    /// From now on the name has these addresses.
    pub fn set_addresses(&self, addresses: &[SocketAddr]) {
        *self.0.lock().expect("not poisoned") = Some(addresses.to_vec());
    }

    /// From now on no look-up succeeds.
    pub fn fail(&self) {
        *self.0.lock().expect("not poisoned") = None;
    }
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let known = self.0.lock().expect("not poisoned").clone();
        std::future::ready(known.ok_or_else(|| io::Error::other("no such name"))).boxed()
    }
}
