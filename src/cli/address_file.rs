//! Address files: each gateway or node of a user leaves a file with its address while it runs. So `forebay healthcheck`
//! finds the right server without arguments, and `forebay check` knows which server uses a port.
//!
//! The files are in a directory that only their user can read, the first usable one of `/run/user/UID/forebay`,
//! `/tmp/forebay-UID` and `/dev/shm/forebay-UID`. Each file is named after its process id. A file that a killed process
//! left behind is recognized by the start time of the process, and does no harm.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid, test_kill_process};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// The ending of a file's name.
const SUFFIX: &str = ".json";
/// The ending while a file is written.
const SUFFIX_NEW: &str = ".new";
/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// Most files that are read; from half as many on, a start removes the files of dead processes.
const FILES_MAX: usize = 1024;

/// The kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ServerKind {
    /// `forebay serve`.
    Gateway,
    /// `forebay node`.
    Node,
}

/// A server process that runs or has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ServerEntry {
    /// Its process id.
    pub(super) process: u32,
    /// Its start time in the system's own units, because process ids are used again.
    started: Option<u64>,
    /// Its kind.
    pub(super) server: ServerKind,
    /// The listen address of its settings.
    pub(super) listen: SocketAddr,
    /// The address that it listens on.
    pub(super) address: SocketAddr,
    /// The address of the operator's listener, if it has one. Files of earlier versions have no such field.
    #[serde(default)]
    pub(super) operator: Option<SocketAddr>,
    /// The directory that it was started in: device and inode number.
    directory: (u64, u64),
}

/// The file of this process. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct AddressFile(PathBuf);

impl AddressFile {
    /// Writes the file of this process. A failure is only logged: the server can run without it.
    pub(super) fn leave(
        server: ServerKind,
        listen: SocketAddr,
        address: SocketAddr,
        operator: Option<SocketAddr>,
    ) -> Option<AddressFile> {
        let process = std::process::id();
        let left = current_directory().and_then(|directory| {
            let entry = ServerEntry {
                process,
                started: started(process),
                server,
                listen,
                address,
                operator,
                directory,
            };
            write(&places(), &entry)
        });
        left.inspect_err(
            |error| warn!(%error, "`forebay healthcheck` cannot be told where this process listens"),
        )
        .ok()
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // A file that stays is recognized as a dead process's.
        let _ = fs::remove_file(&self.0);
    }
}

impl ServerEntry {
    /// Whether the process still runs.
    pub(super) fn is_alive(&self) -> bool {
        match (self.started, started(self.process)) {
            (Some(then), Some(now)) => then == now,
            (Some(_), None) if Path::new("/proc/self/stat").exists() => false,
            _ => runs(self.process),
        }
    }
}

/// Whether a process with this id runs and accepts signals of this user.
fn runs(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process).is_ok())
}

/// The servers that this user started in the current directory, including dead ones.
pub(super) fn started_here() -> Vec<ServerEntry> {
    let Ok(here) = current_directory() else { return Vec::new() };
    let mut entries = all();
    entries.retain(|entry| entry.directory == here);
    entries
}

/// The servers of this user, including dead ones.
pub(super) fn all() -> Vec<ServerEntry> {
    let directories = places().into_iter().filter(|place| is_private(place));
    directories.flat_map(|directory| read(&directory)).map(|(_, entry)| entry).collect()
}

/// The possible directories, the best first.
fn places() -> [PathBuf; 3] {
    let user = geteuid().as_raw();
    [format!("/run/user/{user}/forebay"), format!("/tmp/forebay-{user}"), format!("/dev/shm/forebay-{user}")]
        .map(PathBuf::from)
}

/// Whether a directory belongs to this user and no one else can read or write it.
fn is_private(directory: &Path) -> bool {
    fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0)
}

fn write(places: &[PathBuf], entry: &ServerEntry) -> io::Result<AddressFile> {
    let mut result = Err(io::Error::other("there is no place for it"));
    for place in places {
        result = write_in(place, entry);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn write_in(directory: &Path, entry: &ServerEntry) -> io::Result<AddressFile> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ if !is_private(directory) => {
            return Err(io::Error::other(format!("{} is not this user's alone", directory.display())));
        }
        _ => remove_dead(directory),
    }
    let path = directory.join(format!("{}{SUFFIX}", entry.process));
    let new = directory.join(format!("{}{SUFFIX_NEW}", entry.process));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(serde_json::to_string(entry)?.as_bytes())?;
    fs::rename(&new, &path)?;
    Ok(AddressFile(path))
}

/// Removes half-written files of dead processes, and their other files if there are many.
fn remove_dead(directory: &Path) {
    halves(directory).for_each(|path| _ = fs::remove_file(path));
    let entries = read(directory);
    if entries.len() >= FILES_MAX / 2 {
        for (path, _) in entries.iter().filter(|(_, entry)| !entry.is_alive()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The half-written files of dead processes.
fn halves(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let names = fs::read_dir(directory).into_iter().flatten();
    names.filter_map(|name| {
        let name = name.ok()?;
        let process = name.file_name().to_str()?.strip_suffix(SUFFIX_NEW)?.parse().ok()?;
        (!runs(process)).then(|| name.path())
    })
}

/// The entries in a directory. Other files are skipped.
fn read(directory: &Path) -> Vec<(PathBuf, ServerEntry)> {
    let Ok(names) = fs::read_dir(directory) else { return Vec::new() };
    let paths = names.filter_map(|name| Some(name.ok()?.path()));
    let paths = paths.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).take(FILES_MAX);
    paths.filter_map(|path| read_one(&path).map(|entry| (path, entry))).collect()
}

fn read_one(path: &Path) -> Option<ServerEntry> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn current_directory() -> io::Result<(u64, u64)> {
    fs::metadata(".").map(|found| (found.dev(), found.ino()))
}

/// The start time of a process, in ticks since boot: field 22 of proc_pid_stat(5). The second field, the name, may contain
/// any character.
fn started(process: u32) -> Option<u64> {
    let text = fs::read(format!("/proc/{process}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
impl ServerEntry {
    /// An entry of this process, or of a dead one.
    pub(super) fn example(server: ServerKind, listen: &str, address: &str, alive: Alive) -> ServerEntry {
        let process = std::process::id();
        let started = started(process).map(|started| match alive {
            Alive::Yes => started,
            Alive::No => started + 1,
        });
        let parse = |text: &str| text.parse().expect("an address");
        ServerEntry {
            process,
            started,
            server,
            listen: parse(listen),
            address: parse(address),
            operator: None,
            directory: (0, 0),
        }
    }
}

/// Whether the process of an example runs.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Alive {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(alive: Alive) -> ServerEntry {
        ServerEntry::example(ServerKind::Node, "127.0.0.1:0", "127.0.0.1:9", alive)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    #[test]
    fn an_address_file_is_private_and_is_removed_with_its_process() {
        let above = tempfile::tempdir().expect("a directory");
        let directory = above.path().join("forebay");
        let file =
            write(&[above.path().join("no/such"), directory.clone()], &entry(Alive::Yes)).expect("left");
        assert_eq!((mode(&directory), mode(&file.0)), (0o700, 0o600));
        let found: Vec<_> = read(&directory).into_iter().map(|(_, entry)| entry).collect();
        assert_eq!(found, [entry(Alive::Yes)]);
        drop(file);
        assert_eq!(fs::read_dir(&directory).expect("it is there").count(), 0);
    }

    #[test]
    fn the_next_start_removes_half_written_files_of_dead_processes() {
        let directory = tempfile::tempdir().expect("a directory");
        let dead = i32::MAX;
        let ours = format!("{}.new", std::process::id());
        for name in [&format!("{dead}.new"), "0.new", &ours, "x.new"] {
            fs::write(directory.path().join(name), "{").expect("written");
        }
        remove_dead(directory.path());
        let left = |name: &str| directory.path().join(name).exists();
        assert!(!left(&format!("{dead}.new")) && !left("0.new"));
        assert!(left(&ours) && left("x.new"), "one process runs, and the other file's owner is unknown");
    }

    #[test]
    fn no_file_is_written_where_others_can_read_or_behind_a_link() {
        let above = tempfile::tempdir().expect("a directory");
        let (open, link) = (above.path().join("open"), above.path().join("link"));
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("set");
        let private = above.path().join("private");
        DirBuilder::new().mode(0o700).create(&private).expect("made");
        std::os::unix::fs::symlink(&private, &link).expect("made");
        for place in [open, link] {
            let error = write(std::slice::from_ref(&place), &entry(Alive::Yes)).expect_err("refused");
            assert!(error.to_string().contains("is not this user's alone"), "{error}");
        }
        assert_eq!(fs::read_dir(&private).expect("it is there").count(), 0);
    }

    #[test]
    fn a_dead_process_is_recognized_even_if_its_id_is_used_again() {
        assert!(entry(Alive::Yes).is_alive());
        assert!(!entry(Alive::No).is_alive());
        assert!(!ServerEntry { process: u32::MAX, ..entry(Alive::Yes) }.is_alive());
        assert!(!ServerEntry { process: 0, started: None, ..entry(Alive::Yes) }.is_alive());
    }

    #[test]
    fn a_file_of_an_earlier_version_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = r#"{"process":7,"started":1,"server":"gateway","listen":"127.0.0.1:0","address":"127.0.0.1:9","directory":[1,2]}"#;
        fs::write(directory.path().join("7.json"), text).expect("written");
        let entries = read(directory.path());
        assert_eq!(entries.first().map(|(_, entry)| (entry.process, entry.operator)), Some((7, None)));
    }

    #[test]
    fn files_that_are_no_entries_are_skipped() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in [("1.json", "{"), ("2.json", ""), ("3.txt", "x"), ("4.json", "\u{0}")] {
            fs::write(directory.path().join(name), text).expect("written");
        }
        fs::create_dir(directory.path().join("5.json")).expect("made");
        assert_eq!(read(directory.path()), []);
    }
}
