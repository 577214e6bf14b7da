//! One key: the name, the role and the rights of its owner.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_codec::grant::Grant;
use forebay_reading::registry::Registry;
use forebay_reading::timestamp::Timestamp;

/// The task of a key's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Send readings.
    Write,
    /// Read the operator's paths: status, metrics, the page.
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

/// The time in which a key, or one of its hashes, is valid.
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
        self.not_before.is_none_or(|start| start <= now) && self.not_after.is_none_or(|end| now <= end)
    }
}

/// How often something may happen: so many times in a unit of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// How many times.
    pub count: u64,
    /// The unit of time.
    pub per: Duration,
}

/// A key.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its name, for people, metrics and logs.
    pub name: Arc<str>,
    /// The task of its owner.
    pub role: Role,
    /// The rights of its owner; `None` if the owner may write every reading, and readings stay as they are.
    pub grant: Option<Arc<Grant>>,
    /// The time in which it is valid.
    pub validity: HoldPeriod,
}
