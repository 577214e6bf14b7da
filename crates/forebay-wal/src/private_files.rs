//! Files and directories that only the user of this process can read, whatever the umask: readings and the keys of
//! clients are private.
//!
//! Under root, a new file or directory gets the owner of the directory above it, so that a gateway that runs as that
//! owner can use it afterwards. Existing files and directories stay as they are.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;

use rustix::process::geteuid;

/// The mode of a new file.
const FILE_MODE: u32 = 0o600;
/// The mode of a new directory.
const DIRECTORY_MODE: u32 = 0o700;

/// Opens a file with `options`, and makes it if it is not there.
///
/// # Errors
///
/// Any I/O error.
pub fn make_or_open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    match make_new(path, options) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path),
        made => made,
    }
}

/// Makes a new file, and opens it with `options`.
///
/// # Errors
///
/// Any I/O error, also that the file exists.
pub fn make_new(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let file = options.clone().create_new(true).mode(FILE_MODE).open(path)?;
    finish(&file, FILE_MODE, path);
    Ok(file)
}

/// Makes a directory and its missing ancestors.
///
/// # Errors
///
/// Any I/O error.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_directory(above)?;
    }
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        // Another process has made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            finish(&File::open(path)?, DIRECTORY_MODE, path);
            Ok(())
        }
    }
}

/// Gives a new file or directory its mode, which the umask may have changed, and under root the owner and group of the
/// directory above. Failures are ignored: some file systems have no owners, and some containers forbid the change.
fn finish(made: &File, mode: u32, path: &Path) {
    let _ = made.set_permissions(Permissions::from_mode(mode));
    if geteuid().is_root() {
        let _ = keep_owner(made, path);
    }
}

fn keep_owner(made: &File, path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (above, ours) = (fs::metadata(above)?, made.metadata()?);
    if (above.uid(), above.gid()) != (ours.uid(), ours.gid()) {
        fchown(made, Some(above.uid()), Some(above.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o7777
    }

    #[test]
    fn new_files_and_directories_are_private_and_existing_ones_stay_as_they_are() {
        let above = tempfile::tempdir().expect("a directory");
        let (old, new) = (above.path().join("old"), above.path().join("old/a/b"));
        fs::create_dir(&old).expect("made");
        fs::set_permissions(&old, Permissions::from_mode(0o755)).expect("ours");
        make_directory(&new).expect("made");
        make_directory(&new).expect("it is there");
        assert_eq!([&old, &old.join("a"), &new].map(|path| mode(path)), [0o755, 0o700, 0o700]);
        let options = OpenOptions::new().read(true).write(true).clone();
        let file = new.join("file");
        make_or_open(&file, &options).expect("made");
        assert_eq!(mode(&file), 0o600);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("ours");
        make_or_open(&file, &options).expect("it is there");
        assert_eq!(mode(&file), 0o644);
        assert!(make_new(&file, &options).is_err());
        assert!(make_directory(&file).is_err(), "it is a file");
    }

    #[test]
    fn root_gives_new_files_to_the_owner_of_the_directory() {
        if !geteuid().is_root() {
            return;
        }
        let above = tempfile::tempdir().expect("a directory");
        fchown(File::open(above.path()).expect("it is there"), Some(10_001), Some(10_002))
            .expect("we are root");
        let directory = above.path().join("a/b");
        make_directory(&directory).expect("made");
        let file = directory.join("file");
        make_or_open(&file, OpenOptions::new().write(true)).expect("made");
        for path in [&above.path().join("a"), &directory, &file] {
            let found = fs::metadata(path).expect("it is there");
            assert_eq!((found.uid(), found.gid()), (10_001, 10_002), "{}", path.display());
        }
    }
}
