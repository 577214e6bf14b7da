//! One key: who its owner is, and what that one may do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_codec::grant::Grant;
use forebay_reading::registry::Registry;
use forebay_reading::timestamp::Timestamp;

/// What the owner of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Send readings.
    Write,
    /// See what the operator sees: status, metrics, the page.
    Read,
}

impl Role {
    /// The roles by the names that files give them.
    pub const NAMES: Registry<Role> =
        Registry { what: "role", members: &[("write", Role::Write), ("read", Role::Read)] };

    /// The name in files.
    pub fn name(self) -> &'static str {
        Role::NAMES.members[self as usize].0
    }
}

/// When a key, or one of its hashes, holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldPeriod {
    /// From this moment on.
    pub not_before: Option<Timestamp>,
    /// Until this moment, which is included.
    pub not_after: Option<Timestamp>,
}

impl HoldPeriod {
    /// Whether `now` is within it.
    pub fn contains(&self, now: SystemTime) -> bool {
        let now = Timestamp::from_system(now);
        self.not_before.is_none_or(|start| start <= now) && !self.is_over(now)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|end| end < now)
    }

    /// Whether it was over before `now`.
    pub fn has_ended(&self, now: SystemTime) -> bool {
        self.is_over(Timestamp::from_system(now))
    }
}

/// How much the owner of a key may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Readings in `per`.
    pub readings: u64,
    /// The unit of time of the rate.
    pub per: Duration,
}

/// A key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name, for people, metrics and logs.
    pub name: Arc<str>,
    /// What its owner may do.
    pub role: Role,
    /// Which readings its owner may write, and what is put on them; `None`: any, and nothing.
    pub grant: Option<Arc<Grant>>,
    /// When it holds.
    pub validity: HoldPeriod,
}
