//! Checks that the buffer and the dead letters have separate directories: they would block each other.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::layers::Layers;
use crate::buffer::BufferConfig;
use crate::buffer::disk::DIRECTORIES_WITHIN;
use crate::delivery::DeadLetterConfig;
use crate::filesystem;

const KEYS: [&str; 2] = ["buffer.path", "dead_letter.path"];

/// Records a fault of both settings if the dead letters are in a directory of the buffer's own files.
pub(super) fn check(layers: &mut Layers, buffer: &BufferConfig, letters: &DeadLetterConfig) {
    let is_known = !layers.faults.iter().any(|fault| KEYS.contains(&fault.key.as_str()));
    if !is_known || !buffer.is_on_disk() || !is_shared(&buffer.path, &letters.path) {
        return;
    }
    for (key, [other, path]) in [
        (KEYS[0], [KEYS[1], &*letters.path.to_string_lossy()]),
        (KEYS[1], [KEYS[0], &*buffer.path.to_string_lossy()]),
    ] {
        let problem = format!(
            "must not be the same directory as `{other}`, nor may dead letters be in the buffer's own directories \
             (`{}`); `{other}` is {path}",
            DIRECTORIES_WITHIN.join("`, `")
        );
        layers.fault(key, problem);
    }
}

/// Whether letters would be among the files of the buffer, also where links give a directory several names.
fn is_shared(buffer: &Path, letters: &Path) -> bool {
    let [buffer, letters] = [buffer, letters].map(real);
    let is_within = |name| letters.starts_with(buffer.join(name));
    is_same(&buffer, &letters) || DIRECTORIES_WITHIN.into_iter().any(is_within)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    one == other || identity(one).is_some_and(|one| Some(one) == identity(other))
}

/// The path without links; directories that do not exist yet are taken as they would be made.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = filesystem::nearest_existing(&path);
    let mut real = fs::canonicalize(&there).unwrap_or_else(|_| there.clone());
    for part in path.strip_prefix(&there).into_iter().flat_map(Path::components) {
        match part {
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => real.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    real
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;

    fn faults(set: &[(&str, &str)]) -> Vec<String> {
        let set: Vec<_> =
            set.iter().map(|(key, value)| (format!("FOREBAY__{key}"), (*value).to_owned())).collect();
        let faults = Config::read(None, &set).err().unwrap_or_default();
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dead_letters_in_a_directory_of_the_buffer_are_a_fault_of_both_settings() {
        let found = faults(&[("BUFFER__PATH", "data/x"), ("DEAD_LETTER__PATH", "data/x")]);
        assert_eq!(
            found,
            [
                "environment variable FOREBAY__BUFFER__PATH: buffer.path: must not be the same directory as \
                 `dead_letter.path`, nor may dead letters be in the buffer's own directories (`keys`, `quarantine`); \
                 `dead_letter.path` is data/x",
                "environment variable FOREBAY__DEAD_LETTER__PATH: dead_letter.path: must not be the same directory as \
                 `buffer.path`, nor may dead letters be in the buffer's own directories (`keys`, `quarantine`); \
                 `buffer.path` is data/x",
            ]
        );
        for path in ["data/buffer/", "./data//buffer", "data/other/../buffer", "data/buffer/quarantine/x"] {
            assert_eq!(faults(&[("DEAD_LETTER__PATH", path)]).len(), 2, "{path}");
        }
        let in_memory = [("BUFFER__KIND", "memory"), ("DEAD_LETTER__PATH", "data/buffer")];
        assert_eq!(faults(&in_memory), Vec::<String>::new(), "it has no directory");
        assert_eq!(
            faults(&[("DEAD_LETTER__PATH", "data")]),
            Vec::<String>::new(),
            "the buffer is a directory within"
        );
        assert_eq!(
            faults(&[("DEAD_LETTER__PATH", "data/buffer/letters")]),
            Vec::<String>::new(),
            "the buffer has no files in this one"
        );
    }

    #[test]
    fn a_directory_is_recognised_by_every_name_and_link() {
        let above = tempfile::tempdir().expect("a directory");
        let path = |name: &str| above.path().join(name);
        fs::create_dir_all(path("disk")).expect("made");
        symlink(path("disk"), path("link")).expect("made");
        for (letters, expected) in [
            ("link/buffer", true),
            ("disk/../link/buffer", true),
            ("link/buffer/keys", true),
            ("link/letters", false),
            ("disk/buffers", false),
        ] {
            assert_eq!(is_shared(&path("disk/buffer"), &path(letters)), expected, "{letters}");
        }
        fs::create_dir(path("disk/buffer")).expect("made");
        symlink(path("disk/buffer"), path("letters")).expect("made");
        assert!(is_shared(&path("disk/buffer"), &path("letters")));
    }
}
