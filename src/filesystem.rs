//! What the system says of a place on disk: who may use it, and how much room there is.
//!
//! "Permission denied" names neither the user that was denied nor whom the place belongs to. Every error of that kind at
//! a start is put into words here: which user this process runs as, whose the directory or file is, and what lets the
//! one use the other.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{getegid, geteuid};

/// How much of the list of users is read, in bytes.
const USERS_BYTES_MAX: u64 = 1 << 20;
/// Files that engines of containers leave in them.
const MARKS_OF_CONTAINERS: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Bytes that are free for this process on the file system that has `path`, which must exist.
///
/// # Errors
///
/// What the system says, or that the file system has no room to speak of, such as `/proc`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    if found.f_blocks == 0 {
        return Err(io::Error::other("the file system keeps nothing"));
    }
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The nearest of `path` and the directories above it that exists.
pub fn nearest_existing(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = path.ancestors().find(|path| path.exists());
    found.unwrap_or(Path::new("/")).to_owned()
}

/// What to put after the system's words about a directory that cannot be made or used: who was denied, by whose place,
/// and what to do. Nothing if the error is of another kind.
pub fn advice_on_directory(path: &Path, error: &io::Error) -> String {
    advice(path, Missing::Directory, error)
}

/// The same for a file that cannot be made, read or written.
pub fn advice_on_file(path: &Path, error: &io::Error) -> String {
    advice(path, Missing::File, error)
}

/// What a path is to be that does not exist.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Directory,
    File,
}

fn advice(path: &Path, missing: Missing, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(obstacle) = obstacle(&path, missing) else { return String::new() };
    let denial = Denial {
        process: Owner { user: geteuid().as_raw(), group: getegid().as_raw() },
        users: &names("/etc/passwd"),
        groups: &names("/etc/group"),
        obstacle,
        in_container: MARKS_OF_CONTAINERS.iter().any(|mark| Path::new(mark).exists()),
    };
    denial.to_string()
}

/// A user and a group, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    user: u32,
    group: u32,
}

/// The place that does not let the process in.
#[derive(Debug, PartialEq, Eq)]
struct Obstacle {
    path: PathBuf,
    owner: Owner,
    mode: u32,
    remedy: Remedy,
}

/// What removes the obstacle.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    /// The directory is given to the user, with what is in it.
    GiveDirectory,
    /// The file is given to the user.
    GiveFile,
    /// Somebody else makes this directory for the user. The one above it stays whose it is; it may be the system's.
    Make(PathBuf),
    /// The user may pass through the directory.
    Pass,
}

/// Finds what was in the way, from the root down.
fn obstacle(path: &Path, missing: Missing) -> Option<Obstacle> {
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    let mut last = None;
    for step in steps {
        match fs::metadata(step) {
            Ok(found) => last = Some((step, found)),
            Err(error) => {
                let (above, found) = last?;
                let remedy = match (error.kind(), missing) {
                    (io::ErrorKind::PermissionDenied, _) => Remedy::Pass,
                    (_, Missing::Directory) => Remedy::Make(path.to_owned()),
                    (_, Missing::File) if step == path => Remedy::GiveDirectory,
                    (_, Missing::File) => Remedy::Make(path.parent().unwrap_or(path).to_owned()),
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

/// What is known of a denial, to be put into words.
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
            // Its own: it is the mode that does not let it in.
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
        let user = named(self.users, owner.user);
        let group = named(self.groups, owner.group);
        format!("user {user}, group {group}")
    }
}

/// A number with the name that a list has for it: `0 (root)`. Lines are `NAME:PASSWORD:NUMBER:…`.
fn named(list: &str, number: u32) -> String {
    let wanted = number.to_string();
    let has_it = |line: &&str| line.split(':').nth(2) == Some(wanted.as_str());
    match list.lines().find(has_it).and_then(|line| line.split(':').next()) {
        Some(name) => format!("{wanted} ({name})"),
        None => wanted,
    }
}

/// A list of names; nothing of what cannot be read.
fn names(path: &str) -> String {
    let mut list = Vec::new();
    if let Ok(file) = fs::File::open(path) {
        // A part of the list has a part of the names.
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
    fn of_its_own_place_a_user_needs_the_mode_changed() {
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
    fn what_is_missing_is_to_be_made_and_what_is_there_to_be_given() {
        let above = tempfile::tempdir().expect("a directory");
        let above = above.path().canonicalize().expect("it is there");
        let file = above.join("file");
        fs::write(&file, "").expect("written");
        let check = |path: &Path, missing, at: &Path, remedy| {
            let obstacle = obstacle(path, missing).expect("the root is there");
            assert_eq!((obstacle.path.as_path(), obstacle.remedy), (at, remedy));
        };
        check(&above, Missing::Directory, &above, Remedy::GiveDirectory);
        check(&file, Missing::File, &file, Remedy::GiveFile);
        let (absent, deep) = (above.join("absent"), above.join("absent/deep"));
        // Never the advice to give away a directory that may be the system's.
        check(&deep, Missing::Directory, &above, Remedy::Make(deep.clone()));
        check(&deep, Missing::File, &above, Remedy::Make(absent.clone()));
        check(&absent, Missing::File, &above, Remedy::GiveDirectory);
    }

    #[test]
    fn other_errors_need_no_advice() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(advice_on_directory(Path::new("/nowhere"), &error), "");
        let error = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(advice_on_file(Path::new("/nowhere"), &error).contains("this process runs as user "));
    }

    #[test]
    fn there_is_room_where_this_runs_and_none_is_known_of_where_nothing_is() {
        let above = tempfile::tempdir().expect("a directory");
        assert!(free_bytes(above.path()).expect("a file system") > 0);
        assert!(free_bytes(&above.path().join("absent")).is_err());
        assert!(!Path::new("/proc/self").exists() || free_bytes(Path::new("/proc")).is_err());
        assert_eq!(nearest_existing(&above.path().join("a/b")), above.path());
    }
}
