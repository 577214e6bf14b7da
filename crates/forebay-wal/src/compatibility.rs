//! The check, before anything is changed, that no other version has written a directory.

use std::path::Path;

use crate::checkpoint;
use crate::error::{LogError, refusal};
use crate::fs::Fs;
use crate::segment::{self, HEADER_BYTES, HEADER_PLACES};
use crate::version::VERSION;

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
