//! Permissions and free space of places on disk.
//!
//! "Permission denied" names neither the user nor the owner of the place. This module adds both to the errors at a start,
//! with the command that gives the user access.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

/// Most bytes that are read of the lists of users and groups.
const USERS_BYTES_MAX: u64 = 1 << 20;
/// Files that container engines put into their containers.
const CONTAINER_MARKS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Bytes that this process can still write on the file system of `path`, which must exist.
///
/// # Errors
///
/// The system's error, or an error for a file system without storage, such as `/proc`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    if found.f_blocks == 0 {
        return Err(io::Error::other("the file system keeps nothing"));
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// `path` itself if it exists, or else its nearest ancestor that does.
pub fn nearest_existing(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find(|path| path.exists());
    found.unwrap_or(Path::new("/")).to_owned()
}

/// Text to append to the system's error about a directory that cannot be made or used: the user, the owner of the place,
/// and what to do. Empty unless permission was denied.
pub fn advice_on_directory(path: &Path, error: &io::Error) -> String {
    advice(path, PlaceKind::Directory, error)
}

/// Like [`advice_on_directory`], for a file that cannot be made, read or written.
pub fn advice_on_file(path: &Path, error: &io::Error) -> String {
    advice(path, PlaceKind::File, error)
}

/// What a path should lead to.
#[derive(Clone, Copy, Debug)]
enum PlaceKind {
    Directory,
    File,
}

fn advice(path: &Path, kind: PlaceKind, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(obstacle) = obstacle(&path, kind) else { return String::new() };
    let denial = Denial {
        process: Owner { user: geteuid().as_raw(), group: getegid().as_raw() },
        users: &names("/etc/passwd"),
        groups: &names("/etc/group"),
        obstacle,
        in_container: CONTAINER_MARKS.iter().any(|mark| Path::new(mark).exists()),
    };
    denial.to_string()
}

/// The ids of a user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

/// The place that denies the process access.
#[derive(Debug, PartialEq, Eq)]
struct Obstacle {
    path: PathBuf,
    owner: Owner,
    mode: u32,
    remedy: Remedy,
}

/// The remedy for an obstacle.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    /// Give the directory with its content to the user.
    GiveDirectory,
    /// Give the file to the user.
    GiveFile,
    /// Let root make this directory for the user. Its parent keeps its owner; it may be the system's.
    Make(PathBuf),
    /// Let every user pass through the directory.
    Pass,
}

/// Finds the place that denied access, from the root down.
fn obstacle(path: &Path, kind: PlaceKind) -> Option<Obstacle> {
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    let mut last = None;
    for step in steps {
        match fs::metadata(step) {
            Ok(found) => last = Some((step, found)),
            Err(error) => {
                let (above, found) = last?;
                let remedy = match (error.kind(), kind) {
                    (io::ErrorKind::PermissionDenied, _) => Remedy::Pass,
                    (_, PlaceKind::Directory) => Remedy::Make(path.to_owned()),
                    (_, PlaceKind::File) if step == path => Remedy::GiveDirectory,
                    (_, PlaceKind::File) => Remedy::Make(path.parent().unwrap_or(path).to_owned()),
                };
                return Some(Obstacle::of(above, &found, remedy));
            }
        }
    }
    let (path, found) = last?;
    let remedy = if found.is_dir() { Remedy::GiveDirectory } else { Remedy::GiveFile };
    Some(Obstacle::of(path, &found, remedy))
}

impl Obstacle {
    fn of(path: &Path, found: &fs::Metadata, remedy: Remedy) -> Obstacle {
        let owner = Owner { user: found.uid(), group: found.gid() };
        Obstacle { path: path.to_owned(), owner, mode: found.mode() & 0o7777, remedy }
    }
}

/// The facts of a denial, which `Display` puts into words.
struct Denial<'a> {
    process: Owner,
    /// The lists of users and groups, as text.
    users: &'a str,
    groups: &'a str,
    obstacle: Obstacle,
    in_container: bool,
}

impl fmt::Display for Denial<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Obstacle { path, owner, mode, remedy } = &self.obstacle;
        let (path, process) = (path.display(), self.process);
        write!(
            formatter,
            "; this process runs as {}, and {path} belongs to {}, with the mode {mode:04o}: ",
            self.name(process),
            self.name(*owner),
        )?;
        let Owner { user, group } = process;
        match remedy {
            // The user owns the place, so its mode is the obstacle.
            _ if owner.user == user => write!(formatter, "`chmod u+rwX {path}` lets that user in")?,
            Remedy::GiveDirectory => {
                write!(formatter, "`chown -R {user}:{group} {path}` gives it to that user")?
            }
            Remedy::GiveFile => write!(formatter, "`chown {user}:{group} {path}` gives it to that user")?,
            Remedy::Make(missing) => {
                let missing = missing.display();
                write!(
                    formatter,
                    "`mkdir -p {missing} && chown {user}:{group} {missing}`, run as root, makes it for that user"
                )?;
            }
            Remedy::Pass => write!(formatter, "`chmod a+x {path}` lets every user pass through it")?,
        }
        if self.in_container {
            let which = "of a mounted directory it is the one outside of the container that has to change";
            write!(formatter, " ({which})")?;
        }
        Ok(())
    }
}

impl Denial<'_> {
    /// `user 10001 (forebay), group 10001 (forebay)`.
    fn name(&self, owner: Owner) -> String {
        let user = with_name(self.users, owner.user);
        let group = with_name(self.groups, owner.group);
        format!("user {user}, group {group}")
    }
}

/// An id with its name in a list: `0 (root)`. Lines are `NAME:PASSWORD:ID:…`.
fn with_name(list: &str, number: u32) -> String {
    let wanted = number.to_string();
    let has_it = |line: &&str| line.split(':').nth(2) == Some(wanted.as_str());
    match list.lines().find(has_it).and_then(|line| line.split(':').next()) {
        Some(name) => format!("{wanted} ({name})"),
        None => wanted,
    }
}

/// Reads a list of names; empty if it cannot be read.
fn names(path: &str) -> String {
    let mut list = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // After a read error, the names read so far still help.
        let _ = file.take(USERS_BYTES_MAX).read_to_end(&mut list);
    }
    String::from_utf8_lossy(&list).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/:/bin/sh\nbroken\nforebay:x:10001:10001::/data:/usr/sbin/nologin\n";
    const GROUPS: &str = "root:x:0:\nforebay:x:10001:\n";

    #[track_caller]
    fn check(process: u32, mode: u32, remedy: Remedy, in_container: bool, expected: &str) {
        let process = Owner { user: process, group: process };
        let owner = Owner { user: 0, group: 0 };
        let obstacle = Obstacle { path: "/data".into(), owner, mode, remedy };
        let denial = Denial { process, users: USERS, groups: GROUPS, obstacle, in_container };
        assert_eq!(denial.to_string(), expected);
    }

    #[test]
    fn a_denial_names_the_user_the_owner_the_mode_and_what_to_do() {
        check(
            10001,
            0o755,
            Remedy::GiveDirectory,
            true,
            "; this process runs as user 10001 (forebay), group 10001 (forebay), and /data belongs to user 0 (root), \
             group 0 (root), with the mode 0755: `chown -R 10001:10001 /data` gives it to that user (of a mounted \
             directory it is the one outside of the container that has to change)",
        );
        let nobody = "; this process runs as user 7, group 7, and /data belongs to user 0 (root), group 0 (root), \
                      with the mode 0700: ";
        let check = |remedy, words: &str| check(7, 0o700, remedy, false, &format!("{nobody}{words}"));
        check(Remedy::GiveFile, "`chown 7:7 /data` gives it to that user");
        check(Remedy::Pass, "`chmod a+x /data` lets every user pass through it");
        check(
            Remedy::Make("/data/x".into()),
            "`mkdir -p /data/x && chown 7:7 /data/x`, run as root, makes it for that user",
        );
    }

    #[test]
    fn the_owner_of_a_place_is_advised_to_change_its_mode() {
        check(
            0,
            0o500,
            Remedy::GiveDirectory,
            false,
            "; this process runs as user 0 (root), group 0 (root), and /data belongs to user 0 (root), group 0 (root), \
             with the mode 0500: `chmod u+rwX /data` lets that user in",
        );
    }

    #[test]
    fn the_remedy_is_to_make_a_missing_place_and_to_give_an_existing_one() {
        let above = tempfile::tempdir().expect("a directory");
        let above = above.path().canonicalize().expect("it is there");
        let file = above.join("file");
        fs::write(&file, "").expect("written");
        let check = |path: &Path, kind, at: &Path, remedy| {
            let obstacle = obstacle(path, kind).expect("the root is there");
            assert_eq!((obstacle.path.as_path(), obstacle.remedy), (at, remedy));
        };
        check(&above, PlaceKind::Directory, &above, Remedy::GiveDirectory);
        check(&file, PlaceKind::File, &file, Remedy::GiveFile);
        let (absent, deep) = (above.join("absent"), above.join("absent/deep"));
        // The advice must never give away a directory that may be the system's.
        check(&deep, PlaceKind::Directory, &above, Remedy::Make(deep.clone()));
        check(&deep, PlaceKind::File, &above, Remedy::Make(absent.clone()));
        check(&absent, PlaceKind::File, &above, Remedy::GiveDirectory);
    }

    #[test]
    fn only_a_denied_permission_gets_advice() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(advice_on_directory(Path::new("/nowhere"), &error), "");
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(advice_on_file(Path::new("/nowhere"), &error).contains("this process runs as user "));
    }

    #[test]
    fn free_bytes_are_known_of_existing_places_with_storage_alone() {
        let above = tempfile::tempdir().expect("a directory");
        assert!(free_bytes(above.path()).expect("a file system") > 0);
        assert!(free_bytes(&above.path().join("absent")).is_err());
        assert!(!Path::new("/proc/self").exists() || free_bytes(Path::new("/proc")).is_err());
        assert_eq!(nearest_existing(&above.path().join("a/b")), above.path());
    }
}
