//! Where the gateways and nodes of this user listen: each leaves a file while it runs, so that `forebay healthcheck`
//! asks the right one without being told, and `forebay check` knows whose port it finds taken.
//!
//! The files are in a directory that only their user can look into, in the first of these places that can be had:
//! `/run/user/UID/forebay`, `/tmp/forebay-UID`, `/dev/shm/forebay-UID`. The name of each is its process's number. What a
//! process left that did not end in order is known by the time at which it was started, and does no harm.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, geteuid, test_kill_process};
use serde::{Deserialize, Serialize};
use tracing::warn;

/// What the names end in.
const SUFFIX: &str = ".json";
/// The same while a file is written.
const SUFFIX_NEW: &str = ".new";
/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;
/// Most files that are looked at; from half as many on, those of dead processes are removed.
const FILES_MAX: usize = 1024;

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Server {
    /// `forebay serve`.
    Gateway,
    /// `forebay node`.
    Node,
}

/// A process that serves, or served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its number.
    pub(super) process: u32,
    /// When it was started, in the system's own units; numbers of processes are used again.
    started: Option<u64>,
    /// What it is.
    pub(super) server: Server,
    /// Where it was told to listen.
    pub(super) listen: SocketAddr,
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// Which directory it was started in: device and inode.
    directory: (u64, u64),
}

/// The file of this process. It goes with this value.
#[derive(Debug)]
pub(super) struct AddressFile(PathBuf);

impl AddressFile {
    /// Leaves the address of this process. That it cannot be left is logged, and no reason not to serve.
    pub(super) fn leave(server: Server, listen: SocketAddr, address: SocketAddr) -> Option<AddressFile> {
        let process = std::process::id();
        let left = current_directory().and_then(|directory| {
            let entry = Entry { process, started: started(process), server, listen, address, directory };
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
        // What stays is known to be of a dead process.
        let _ = fs::remove_file(&self.0);
    }
}

impl Entry {
    /// Whether the process still runs.
    pub(super) fn is_alive(&self) -> bool {
        match (self.started, started(self.process)) {
            (Some(then), Some(now)) => then == now,
            (Some(_), None) if Path::new("/proc/self/stat").exists() => false,
            _ => runs(self.process),
        }
    }
}

/// Whether a process with this number runs that this user may send signals to.
fn runs(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| test_kill_process(process).is_ok())
}

/// The gateways and nodes that this user started in the current directory, the dead ones included.
pub(super) fn started_here() -> Vec<Entry> {
    let Ok(here) = current_directory() else { return Vec::new() };
    let mut entries = all();
    entries.retain(|entry| entry.directory == here);
    entries
}

/// The gateways and nodes of this user, the dead ones included.
pub(super) fn all() -> Vec<Entry> {
    let directories = places().into_iter().filter(|place| is_private(place));
    directories.flat_map(|directory| read(&directory)).map(|(_, entry)| entry).collect()
}

/// Where the files may be, the best place first.
fn places() -> [PathBuf; 3] {
    let user = geteuid().as_raw();
    [format!("/run/user/{user}/forebay"), format!("/tmp/forebay-{user}"), format!("/dev/shm/forebay-{user}")]
        .map(PathBuf::from)
}

/// Whether a directory is this user's and nobody else can look into it or put anything there.
fn is_private(directory: &Path) -> bool {
    fs::symlink_metadata(directory)
        .is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0)
}

fn write(places: &[PathBuf], entry: &Entry) -> io::Result<AddressFile> {
    let mut result = Err(io::Error::other("there is no place for it"));
    for place in places {
        result = write_in(place, entry);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn write_in(directory: &Path, entry: &Entry) -> io::Result<AddressFile> {
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

/// Removes what dead processes left half written, and what else they left, when that is a lot.
fn remove_dead(directory: &Path) {
    halves(directory).for_each(|path| _ = fs::remove_file(path));
    let entries = read(directory);
    if entries.len() >= FILES_MAX / 2 {
        for (path, _) in entries.iter().filter(|(_, entry)| !entry.is_alive()) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The files that dead processes were killed at.
fn halves(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let names = fs::read_dir(directory).into_iter().flatten();
    names.filter_map(|name| {
        let name = name.ok()?;
        let process = name.file_name().to_str()?.strip_suffix(SUFFIX_NEW)?.parse().ok()?;
        (!runs(process)).then(|| name.path())
    })
}

/// The entries in a directory. What is no entry is passed over.
fn read(directory: &Path) -> Vec<(PathBuf, Entry)> {
    let Ok(names) = fs::read_dir(directory) else { return Vec::new() };
    let paths = names.filter_map(|name| Some(name.ok()?.path()));
    let paths = paths.filter(|path| path.to_string_lossy().ends_with(SUFFIX)).take(FILES_MAX);
    paths.filter_map(|path| read_one(&path).map(|entry| (path, entry))).collect()
}

fn read_one(path: &Path) -> Option<Entry> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

fn current_directory() -> io::Result<(u64, u64)> {
    fs::metadata(".").map(|found| (found.dev(), found.ino()))
}

/// When a process was started, in ticks since the system was: field 22 of proc_pid_stat(5). The second one, the name,
/// may have anything in it.
fn started(process: u32) -> Option<u64> {
    let text = fs::read(format!("/proc/{process}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    text.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
impl Entry {
    /// An entry of this process, or of one that has ended.
    pub(super) fn example(server: Server, listen: &str, address: &str, alive: Alive) -> Entry {
        let process = std::process::id();
        let started = started(process).map(|started| match alive {
            Alive::Yes => started,
            Alive::No => started + 1,
        });
        let parse = |text: &str| text.parse().expect("an address");
        Entry { process, started, server, listen: parse(listen), address: parse(address), directory: (0, 0) }
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

    fn entry(alive: Alive) -> Entry {
        Entry::example(Server::Node, "127.0.0.1:0", "127.0.0.1:9", alive)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").mode() & 0o777
    }

    #[test]
    fn an_address_is_left_for_its_user_alone_and_goes_with_the_process() {
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
    fn what_a_process_was_killed_at_goes_with_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let dead = i32::MAX;
        let ours = format!("{}.new", std::process::id());
        for name in [&format!("{dead}.new"), "0.new", &ours, "x.new"] {
            fs::write(directory.path().join(name), "{").expect("written");
        }
        remove_dead(directory.path());
        let left = |name: &str| directory.path().join(name).exists();
        assert!(!left(&format!("{dead}.new")) && !left("0.new"));
        assert!(left(&ours) && left("x.new"), "it runs, and nobody knows whose that is");
    }

    #[test]
    fn nothing_is_left_where_others_can_look_or_have_put_a_link() {
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
    fn a_process_that_has_ended_is_known_also_when_its_number_is_used_again() {
        assert!(entry(Alive::Yes).is_alive());
        assert!(!entry(Alive::No).is_alive());
        assert!(!Entry { process: u32::MAX, ..entry(Alive::Yes) }.is_alive());
        assert!(!Entry { process: 0, started: None, ..entry(Alive::Yes) }.is_alive());
    }

    #[test]
    fn what_is_no_entry_is_passed_over() {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in [("1.json", "{"), ("2.json", ""), ("3.txt", "x"), ("4.json", "\u{0}")] {
            fs::write(directory.path().join(name), text).expect("written");
        }
        fs::create_dir(directory.path().join("5.json")).expect("made");
        assert_eq!(read(directory.path()), []);
    }
}
