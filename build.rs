//! Finds the commit that is built, and its date, for `forebay --version`.
//!
//! They come from the variables FOREBAY_COMMIT and FOREBAY_DATE, or else from git, where the sources are those of a
//! repository; or else they are unknown. Nothing depends on the clock, so that the same commit makes the same binary.
//!
//! A release is built anew when the commit changes. Other builds are not: a developer would compile everything
//! once more after each commit. They say of which commit they are at least.

use std::path::Path;
use std::process::Command;

const COMMIT: &str = "FOREBAY_COMMIT";
const DATE: &str = "FOREBAY_DATE";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    println!("cargo::rerun-if-env-changed={DATE}");
    let is_release = set("PROFILE").as_deref() == Some("release");
    let repository = is_repository();
    if repository && is_release {
        watch_commits();
    }
    let ask = |arguments: &[&str]| if repository { git(arguments) } else { None };
    let commit = set(COMMIT).or_else(|| ask(&["rev-parse", "--short=10", "HEAD"]));
    let date = set(DATE).or_else(|| ask(&["log", "-1", "--format=%cs"]));
    let unknown = || "unknown".to_owned();
    let (commit, date) = (commit.unwrap_or_else(unknown), date.unwrap_or_else(unknown));
    let version = set("CARGO_PKG_VERSION").unwrap_or_else(unknown);
    let suffix = if is_release { "" } else { " or later" };
    println!("cargo::rustc-env=FOREBAY_VERSION={version} ({commit} {date}){suffix}");
}

/// The first line of a variable; `None` if it is not set or empty.
fn set(variable: &str) -> Option<String> {
    let value = std::env::var(variable).ok()?;
    let line = value.lines().next().unwrap_or_default().trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Whether these sources are the root of a repository. Unpacked into somebody else's, they have none of its commits.
fn is_repository() -> bool {
    let root = git(&["rev-parse", "--show-toplevel"]);
    let (Some(root), Some(here)) = (root, set("CARGO_MANIFEST_DIR")) else { return false };
    Path::new(&root).canonicalize().ok() == Path::new(&here).canonicalize().ok()
}

/// Has cargo run this again when another commit is checked out or made.
fn watch_commits() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD", "logs/HEAD", "packed-refs"].into_iter().map(str::to_owned).chain(branch);
    for path in names.filter_map(|name| git(&["rev-parse", "--git-path", &name])) {
        // Cargo takes a file that is not there for one that has changed each time.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

/// The output of git, if git is there and succeeds.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
