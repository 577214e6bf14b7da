//! The version of the files. A directory of a later version is left as it is.
//!
//! Every version begins its segments with `FBYLOG`, 0 and its checkpoints with `FBYCKP`, 0, followed by the version as one
//! byte, at the same places as this version. A format that this version would misread gets another number, and its writer
//! writes both checkpoints before anything else.

/// The version that this program writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// The version behind `name`, if it is there and is not [`VERSION`].
pub fn foreign(name: &[u8], bytes: &[u8]) -> Option<u8> {
    let version = *bytes.strip_prefix(name)?.first()?;
    (version != VERSION).then_some(version)
}
