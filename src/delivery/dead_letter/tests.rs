//! The promises of the dead letters, under failures and concurrent changes of the directory.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const NO_LIMIT: u64 = u64::MAX;

fn letter(number: usize) -> DeadLetter {
    DeadLetter {
        reading: format!(r#"{{"device":"d","sensor":"s","value":{number},"time":"2007-02-01T00:00:00Z"}}"#)
            .into(),
        reason: "refused",
        status: 422,
        node: "node".to_owned(),
        body: "no".to_owned(),
        at: Timestamp::MIN.saturating_add_nanos(i64::try_from(number).expect("small")),
        origin: None,
    }
}

fn line_bytes(number: usize) -> u64 {
    let mut line = Vec::new();
    letter::write(&letter(number), &mut line);
    line.len() as u64
}

fn letters(path: &Path, max_bytes: u64) -> DeadLetters {
    DeadLetters::new(DeadLetterConfig { path: path.to_owned(), max_bytes })
}

/// The values of all letters in order, and the number of unreadable lines.
fn read(path: &Path) -> (Vec<usize>, usize) {
    let directory = LetterDirectory::new(path);
    let (mut values, mut unreadable) = (Vec::new(), 0);
    for file in directory.files().expect("a directory") {
        for line in directory.read(file.number).expect("it opens").into_iter().flatten() {
            match line.expect("it reads").letter {
                Ok(letter) => values.push(value(&letter.line)),
                Err(_) => unreadable += 1,
            }
        }
    }
    (values, unreadable)
}

fn value(line: &[u8]) -> usize {
    let letter: serde_json::Value = serde_json::from_slice(line).expect("JSON");
    usize::try_from(letter["reading"]["value"].as_u64().expect("a number")).expect("small")
}

/// The names in a directory, without the reserve's.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.retain(|name| name != reserve::NAME);
    names.sort();
    names
}

#[test]
fn nothing_is_made_before_the_first_letter_and_its_file_is_private() {
    let above = tempfile::tempdir().expect("a directory");
    let path = above.path().join("data/dead-letters");
    let kept = letters(&path, NO_LIMIT);
    kept.append(&[]).expect("nothing to do");
    assert_eq!((kept.trouble(), names(above.path())), (None, Vec::<String>::new()));
    assert_eq!(read(&path), (vec![], 0));

    kept.append(&[letter(1), letter(2)]).expect("a sound disk");
    kept.append(&[letter(3)]).expect("a sound disk");
    assert_eq!(read(&path), (vec![1, 2, 3], 0));
    assert_eq!(names(&path), ["00000001.ndjson", "lock"]);
    let mode = fs::metadata(path.join("00000001.ndjson")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}

#[test]
fn letters_beyond_the_limit_are_refused_none_is_removed_and_free_room_is_used_again() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), line_bytes(1) * 2);
    kept.append(&[letter(1)]).expect("room");
    let full = kept.append(&[letter(2), letter(3)]).expect_err("no room for both");
    assert!(matches!(full, DeadLetterError::Full { .. }), "{full}");
    let trouble = kept.trouble().expect("told");
    assert!(
        trouble.contains("dead_letter.max_bytes") && trouble.contains("forebay dead-letters"),
        "{trouble}"
    );
    assert_eq!(read(above.path()), (vec![1], 0));

    kept.append(&[letter(2)]).expect("room for one");
    assert_eq!(kept.clone().trouble(), None);
    kept.append(&[letter(3)]).expect_err("full");
    let removed =
        LetterDirectory::new(above.path()).remove(1, &mut |line| value(line) == 1).expect("removed");
    assert_eq!(removed, 1);
    kept.append(&[letter(3)]).expect("room again");
    assert_eq!((read(above.path()), kept.trouble()), ((vec![2, 3], 0), None));
}

#[test]
fn a_file_that_would_grow_too_large_is_followed_by_another() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), NO_LIMIT);
    kept.append(&[letter(1)]).expect("a sound disk");
    let first = fs::OpenOptions::new().append(true).open(above.path().join("00000001.ndjson"));
    let filler = vec![b'\n'; usize::try_from(FILE_BYTES - 2 * line_bytes(1)).expect("it fits")];
    io::Write::write_all(&mut first.expect("it is there"), &filler).expect("written");
    kept.append(&[letter(2)]).expect("it fits exactly");
    assert_eq!(names(above.path()), ["00000001.ndjson", "lock"]);
    kept.append(&[letter(3)]).expect("a sound disk");
    kept.append(&[letter(4)]).expect("a sound disk");
    assert_eq!(names(above.path()), ["00000001.ndjson", "00000002.ndjson", "lock"]);
    assert_eq!(read(above.path()), (vec![1, 2, 3, 4], 0));
}

#[test]
fn a_torn_line_stays_and_makes_no_other_unreadable() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), NO_LIMIT);
    kept.append(&[letter(1), letter(2)]).expect("a sound disk");
    let path = above.path().join("00000001.ndjson");
    let torn =
        fs::read(&path).expect("a file")[..usize::try_from(line_bytes(1)).expect("small") + 20].to_vec();
    fs::write(&path, &torn).expect("written");
    kept.append(&[letter(3)]).expect("a sound disk");
    kept.append(&[letter(4)]).expect("a sound disk");
    assert_eq!(read(above.path()), (vec![1, 3, 4], 1));
    assert_eq!(fs::read(&path).expect("a file"), torn);
    // Removing other lines does not touch it either.
    let removed =
        LetterDirectory::new(above.path()).remove(1, &mut |line| line.ends_with(b"}")).expect("removed");
    assert_eq!((removed, read(above.path())), (1, (vec![3, 4], 1)));
}

#[test]
fn an_unusable_directory_is_reported_until_an_append_succeeds() {
    let above = tempfile::tempdir().expect("a directory");
    let path = above.path().join("dead-letters");
    fs::write(&path, "no directory").expect("written");
    let kept = letters(&path, NO_LIMIT);
    let error = kept.append(&[letter(1)]).expect_err("it is a file").to_string();
    assert!(error.starts_with(&format!("cannot make {}", path.display())), "{error}");
    assert_eq!(kept.trouble(), Some(error));
    fs::remove_file(&path).expect("it is there");
    kept.append(&[letter(1)]).expect("a sound disk");
    assert_eq!((kept.trouble(), read(&path)), (None, (vec![1], 0)));
}

#[test]
fn a_full_disk_is_reported_and_letters_can_still_be_removed() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), NO_LIMIT);
    kept.append(&[letter(1)]).expect("a sound disk");
    // A device of the system that is always full.
    std::os::unix::fs::symlink("/dev/full", above.path().join("00000002.ndjson")).expect("made");
    let error = kept.append(&[letter(2)]).expect_err("no space left").to_string();
    assert!(error.contains("00000002.ndjson") && error.contains("No space left"), "{error}");
    fs::remove_file(above.path().join("00000002.ndjson")).expect("it is there");
    assert_eq!(read(above.path()), (vec![1], 0));
    assert_eq!(LetterDirectory::new(above.path()).remove(1, &mut |_| true).expect("removed"), 1);
    assert_eq!(names(above.path()), ["lock"]);
}

#[test]
fn an_unfinished_rewrite_is_removed_and_does_not_count() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), line_bytes(1) * 2);
    kept.append(&[letter(1)]).expect("room");
    fs::write(above.path().join("00000001.new"), "half a li").expect("written");
    assert_eq!(read(above.path()), (vec![1], 0));
    kept.append(&[letter(2)]).expect("room");
    assert_eq!(names(above.path()), ["00000001.ndjson", "lock"]);
    fs::write(above.path().join("00000001.new"), "half a li").expect("written");
    LetterDirectory::new(above.path()).remove(1, &mut |line| value(line) == 1).expect("removed");
    assert_eq!((read(above.path()), names(above.path()).len()), ((vec![2], 0), 2));
}

#[test]
fn files_of_others_are_left_alone() {
    let above = tempfile::tempdir().expect("a directory");
    let others = ["1.ndjson", "notes.txt", "99999999999999999999.ndjson", "0000000a.ndjson"];
    others.iter().for_each(|name| fs::write(above.path().join(name), "mine").expect("written"));
    letters(above.path(), NO_LIMIT).append(&[letter(1)]).expect("a sound disk");
    assert_eq!((read(above.path()), names(above.path()).len()), ((vec![1], 0), others.len() + 2));
}

#[test]
fn a_directory_without_a_lock_is_read_and_nothing_is_made() {
    let above = tempfile::tempdir().expect("a directory");
    letters(above.path(), NO_LIMIT).append(&[letter(1)]).expect("a sound disk");
    fs::remove_file(above.path().join("lock")).expect("it is there");
    assert_eq!(read(above.path()), (vec![1], 0));
    assert_eq!(names(above.path()), ["00000001.ndjson"]);
}

#[test]
fn a_file_is_read_as_it_was_when_it_was_opened() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), NO_LIMIT);
    kept.append(&[letter(1), letter(2)]).expect("a sound disk");
    let directory = LetterDirectory::new(above.path());
    let lines = directory.read(1).expect("it opens").expect("it is there");
    kept.append(&[letter(3)]).expect("a sound disk");
    directory.remove(1, &mut |line| value(line) == 1).expect("removed");
    assert_eq!(lines.count(), 2);
    assert_eq!(read(above.path()), (vec![2, 3], 0));
}

#[test]
fn letters_appended_while_others_are_removed_are_not_lost() {
    const LETTERS: usize = 400;
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), NO_LIMIT);
    let (done, directory) = (AtomicBool::new(false), LetterDirectory::new(above.path()));
    let mut removed = Vec::new();
    std::thread::scope(|scope| {
        let appending: Vec<_> = (0..2)
            .map(|half| {
                let kept = kept.clone();
                scope.spawn(move || {
                    for number in (half * LETTERS / 2)..((half + 1) * LETTERS / 2) {
                        kept.append(&[letter(number)]).expect("a sound disk");
                    }
                })
            })
            .collect();
        let removing = scope.spawn(|| {
            let mut removed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                for file in directory.files().expect("a directory") {
                    let goes = &mut |line: &[u8]| {
                        let goes = value(line).is_multiple_of(3);
                        removed.extend(goes.then(|| value(line)));
                        goes
                    };
                    directory.remove(file.number, goes).expect("a sound disk");
                }
            }
            removed
        });
        // The other thread must end even if this one fails.
        let appended: Vec<_> = appending.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Ordering::Relaxed);
        removed = removing.join().expect("no panic");
        appended.into_iter().for_each(|ended| ended.expect("no panic"));
    });
    let (mut all, unreadable) = read(above.path());
    all.extend(removed);
    all.sort_unstable();
    assert_eq!((all, unreadable), ((0..LETTERS).collect(), 0));
}

#[test]
fn garbage_at_the_end_of_a_file_after_a_crash_is_reported_and_costs_no_other_letter() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), NO_LIMIT);
    kept.append(&[letter(1)]).expect("a sound disk");
    // After a crash, a file's size may have reached the disk before its bytes.
    let file = fs::OpenOptions::new().write(true).open(above.path().join("00000001.ndjson")).expect("a file");
    file.write_all_at(b"\0", line_bytes(1) + 4095).expect("written");
    kept.append(&[letter(2)]).expect("a sound disk");
    assert_eq!(read(above.path()), (vec![1, 2], 1));
}

#[test]
fn a_letter_that_a_crash_wrote_twice_is_one_and_lines_without_an_origin_are_never_duplicates() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let of = |number: usize, batch: &str, place: u64| DeadLetter {
        origin: Some(LetterOrigin { batch: batch.to_owned(), place }),
        ..letter(number)
    };
    let kept = letters(path, NO_LIMIT);
    kept.append(&[of(0, "a", 0), of(1, "a", 1), letter(2), letter(2)]).expect("a sound disk");
    // A torn line makes the next append begin another file.
    fs::write(LetterDirectory::new(path).file(2), "{\"reading\":{\"dev").expect("written");
    kept.append(&[of(3, "a", 1), of(4, "b", 1), of(5, "b", 1), letter(2)]).expect("a sound disk");
    let directory = LetterDirectory::new(path);
    assert_eq!(directory.files().expect("a directory").len(), 3);

    let mut met = LetterSet::default();
    let mut values = Vec::new();
    for file in directory.files().expect("a directory") {
        let lines = directory.read(file.number).expect("it opens").into_iter().flatten();
        let found = lines.filter_map(|line| line.expect("it reads").letter.ok());
        values.extend(found.filter(|letter| met.insert(letter)).map(|letter| value(&letter.line)));
    }
    assert_eq!(
        values,
        [0, 1, 2, 2, 4, 2],
        "the same place of the same batch, and nothing else, is the same letter"
    );

    assert_eq!(directory.remove_doubles().expect("a sound disk"), 2);
    assert_eq!(read(path), (vec![0, 1, 2, 2, 4, 2], 1));
    assert_eq!(directory.remove_doubles().expect("a sound disk"), 0);
}

#[test]
fn a_directory_is_tested_and_remains_only_if_requested() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    let error = LetterDirectory::new(&file.join("a/b"))
        .try_out(Leftover::TheDirectory)
        .expect_err("a file is in the way");
    assert!(error.to_string().contains("file/a/b"), "{error}");
    let deep = directory.path().join("a/b/c");
    LetterDirectory::new(&deep).try_out(Leftover::Nothing).expect("a sound disk");
    assert!(!directory.path().join("a").exists());
    for leftover in [Leftover::TheDirectory, Leftover::Nothing] {
        LetterDirectory::new(&deep).try_out(leftover).expect("a sound disk");
        let left = fs::read_dir(&deep).expect("it was there before, or was to stay").count();
        assert_eq!(left, 0, "{leftover:?}");
    }
}

#[test]
fn the_reserve_does_not_count_as_a_letter() {
    let above = tempfile::tempdir().expect("a directory");
    let kept = letters(above.path(), line_bytes(1) * 2);
    kept.append(&[letter(1), letter(2)]).expect("the limit is for letters alone");
    let reserve = fs::metadata(above.path().join("reserve")).expect("it is there");
    assert_eq!(reserve.len(), line_bytes(1) * 2, "no larger than all letters may be");
    assert_eq!(read(above.path()), (vec![1, 2], 0));
    assert_eq!(kept.waiting(), Some(LetterTotals { letters: 2, bytes: line_bytes(1) * 2 }));
    assert!(!kept.takes_care());

    // If the reserve is removed, it is made again.
    fs::remove_file(above.path().join("reserve")).expect("it is there");
    kept.look_after();
    assert!(above.path().join("reserve").exists() && !kept.takes_care());
}

#[test]
fn an_unreadable_directory_shows_its_last_count() {
    let above = tempfile::tempdir().expect("a directory");
    let path = above.path().join("letters");
    letters(&path, NO_LIMIT).append(&[letter(1)]).expect("a sound disk");
    let kept = letters(&path, NO_LIMIT);
    kept.look_after();
    fs::rename(&path, above.path().join("elsewhere")).expect("moved");
    fs::write(&path, "no directory").expect("written");
    assert_eq!(kept.waiting(), Some(LetterTotals { letters: 1, bytes: line_bytes(1) }));
}
