//! The version of the files. A directory of a later version is left as it is.
//!
//! Every version begins its segments with [`segment::NAME`] and its checkpoints with [`checkpoint::NAME`], followed by
//! the version as one byte, at the same places as this version. A format that this version would misread gets another
//! number, and its writer writes both checkpoints before anything else.

use std::io;
use std::path::Path;

use crate::checkpoint;
use crate::fs::Fs;
use crate::log::LogError;
use crate::segment::{self, HEADER_BYTES, HEADER_PLACES};

/// The version that this program writes, and the only one that it reads.
pub const VERSION: u8 = 1;

/// The version behind `name`, if it is there and is not [`VERSION`].
pub fn foreign(name: &[u8], bytes: &[u8]) -> Option<u8> {
    let version = *bytes.strip_prefix(name)?.first()?;
    (version != VERSION).then_some(version)
}

/// Checks that no file is of another version, before anything is changed.
///
/// # Errors
///
/// A message with both versions and what to do. Unreadable files are reported elsewhere.
pub fn check(fs: &dyn Fs, directory: &Path, names: &[String]) -> Result<(), LogError> {
    let front = |name: &str, place: u64| {
        let mut bytes = [0; HEADER_BYTES];
        let file = fs.open(&directory.join(name)).ok()?;
        let read = file.read_at(&mut bytes, place).ok()?;
        Some(bytes[..read].to_vec())
    };
    for name in names.iter().filter(|name| segment::number_of(name).is_some()) {
        let headers = HEADER_PLACES.map(|place| front(name, place).unwrap_or_default());
        if let Some(found) = segment::foreign_version([&headers[0], &headers[1]]) {
            return Err(refusal(
                &directory.join(name),
                &format!("it is of version {found}, and this program knows version {VERSION}"),
            ));
        }
    }
    let checkpoints = checkpoint::NAMES.map(|name| front(name, 0).unwrap_or_default());
    match checkpoint::foreign_version([&checkpoints[0], &checkpoints[1]]) {
        None => Ok(()),
        Some(found) => Err(refusal(
            &directory.join(checkpoint::NAMES[0]),
            &format!("it is of version {found}, and this program knows version {VERSION}"),
        )),
    }
}

/// The error for a file of another version.
pub fn refusal(path: &Path, what: &str) -> LogError {
    let error = format!(
        "{what}: another version of forebay has written it, most likely a later one; start that version again, or \
         give this one a directory of its own; nothing was changed"
    );
    LogError {
        action: "use",
        path: path.to_owned(),
        error: io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
