use std::sync::{Arc, Mutex};

use prometheus::IntCounter;
use tempfile::TempDir;

use super::*;

/// Takes everything but what begins with `bad`.
#[derive(Clone, Debug)]
struct Recorder {
    paths: Vec<PathBuf>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Subject for Recorder {
    fn name(&self) -> &'static str {
        "the files of a test"
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    fn take(&mut self, contents: &FileContents) -> Result<(), String> {
        let content = |path: &PathBuf| String::from_utf8_lossy(contents.of(path)).into_owned();
        let text = self.paths.iter().map(content).collect::<Vec<_>>().join("|");
        if text.starts_with("bad") {
            return Err("it is bad".to_owned());
        }
        self.taken.lock().expect("not poisoned").push(text);
        Ok(())
    }
}

struct Setup {
    directory: TempDir,
    recorder: Recorder,
    taken: IntCounter,
    refused: IntCounter,
    _stop: tokio_util::sync::DropGuard,
}

impl Setup {
    /// Two files with the contents `a` and `b`, under watch.
    fn new() -> Setup {
        let directory = tempfile::tempdir().expect("a directory");
        let paths: Vec<_> = ["one", "two"].map(|name| directory.path().join(name)).into();
        std::fs::write(&paths[0], "a").expect("written");
        std::fs::write(&paths[1], "b").expect("written");
        let counter = |name| IntCounter::new(name, "of a test").expect("a good name");
        let (taken, refused) = (counter("taken"), counter("refused"));
        let recorder = Recorder { paths: paths.clone(), taken: Arc::default() };
        let contents = FileContents::read(paths.iter().map(PathBuf::as_path)).expect("both can be read");
        let counter = |result: &str| if result == "taken" { taken.clone() } else { refused.clone() };
        let watched = Watched::new(recorder.clone(), &contents, counter);
        let stop = CancellationToken::new();
        tokio::spawn(FileWatcher::new(vec![watched], WatchTimes::default()).run(stop.clone()));
        Setup { directory, recorder, taken, refused, _stop: stop.drop_guard() }
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.directory.path().join(name), content).expect("written");
    }

    fn seen(&self) -> Vec<String> {
        self.recorder.taken.lock().expect("not poisoned").clone()
    }

    /// Waits until so much content was taken, and so much refused.
    async fn until(&self, taken: u64, refused: u64) {
        for _ in 0..1000 {
            if (self.taken.get(), self.refused.get()) == (taken, refused) {
                return;
            }
            // The clock stands still and jumps; the threads that read files take real time.
            tokio::time::sleep(LOOK_EVERY / 10).await;
            tokio::task::spawn_blocking(std::thread::yield_now).await.expect("it yields");
        }
        panic!("{} taken, {} refused", self.taken.get(), self.refused.get());
    }

    /// Waits for several looks.
    async fn some_looks(&self) {
        for _ in 0..50 {
            tokio::time::sleep(LOOK_EVERY / 5).await;
            tokio::task::spawn_blocking(std::thread::yield_now).await.expect("it yields");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn new_content_is_taken_once_and_the_same_content_never_again() {
    let setup = Setup::new();
    setup.some_looks().await;
    assert_eq!(setup.seen(), Vec::<String>::new());
    setup.write("two", "c");
    setup.until(1, 0).await;
    setup.some_looks().await;
    assert_eq!(setup.seen(), ["a|c"]);
}

#[tokio::test(start_paused = true)]
async fn content_that_does_not_fit_is_refused_once_and_the_next_that_does_is_taken() {
    let setup = Setup::new();
    setup.write("one", "bad");
    setup.until(0, 1).await;
    setup.some_looks().await;
    assert_eq!((setup.taken.get(), setup.refused.get()), (0, 1));
    setup.write("one", "good");
    setup.until(1, 1).await;
    assert_eq!(setup.seen(), ["good|b"]);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_gone_is_refused_once_and_taken_when_it_is_back() {
    let setup = Setup::new();
    std::fs::remove_file(setup.directory.path().join("one")).expect("removed");
    setup.until(0, 1).await;
    setup.some_looks().await;
    assert_eq!(setup.refused.get(), 1);
    setup.write("one", "back");
    setup.until(1, 1).await;
    assert_eq!(setup.seen(), ["back|b"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_leads_to_another_directory_is_seen() {
    let setup = Setup::new();
    let one = setup.directory.path().join("one");
    std::fs::remove_file(&one).expect("removed");
    setup.until(0, 1).await;
    std::fs::create_dir(setup.directory.path().join("version-2")).expect("made");
    setup.write("version-2/one", "linked");
    std::os::unix::fs::symlink(setup.directory.path().join("version-2/one"), &one).expect("linked");
    setup.until(1, 1).await;
    assert_eq!(setup.seen(), ["linked|b"]);
}

#[test]
fn only_regular_files_of_a_bounded_size_are_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let told = read(directory.path()).expect_err("a directory");
    assert!(told.ends_with("cannot be read: it is a directory; allowed: a file"), "{told}");
    let told = read(Path::new("/dev/zero")).expect_err("not a file");
    assert_eq!(told, "/dev/zero cannot be read: it is not a regular file; allowed: a file");
    let told = read(&directory.path().join("none")).expect_err("not there");
    assert!(told.contains("none cannot be read: No such file"), "{told}");
    let large = directory.path().join("large");
    std::fs::File::create(&large).expect("made").set_len(FILE_BYTES_MAX + 1).expect("long");
    let told = read(&large).expect_err("too large");
    assert!(told.ends_with("it is larger than 16 MiB"), "{told}");
}

#[test]
fn contents_are_found_by_their_paths_and_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
    std::fs::write(&one, "hush").expect("written");
    std::fs::write(&two, "b").expect("written");
    let old = FileContents::read([one.as_path(), two.as_path()]).expect("both can be read");
    std::fs::write(&one, "new").expect("written");
    let new = old.with(&FileContents::read([one.as_path()]).expect("it can be read"));
    assert_eq!((old.of(&one), old.of(&two)), (&b"hush"[..], &b"b"[..]));
    assert_eq!((new.of(&one), new.of(&two)), (&b"new"[..], &b"b"[..]));
    assert_eq!(new.of(Path::new("other")), b"");
    let shown = format!("{old:?}");
    assert!(shown.contains("one") && !shown.contains("hush"), "{shown}");
}
