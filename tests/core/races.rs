//! Files that change, vanish or are replaced while the inbox is being read, and crashes between a record and what follows from it.

use crate::folder::Place;
use crate::support::tree;
use delta_guard::engine::{Happening, Refusal};
use delta_guard::journal::Reader;
use delta_guard::vfs::Disk;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Do this when `a.png` was accepted: the folder is listed, `b` is next.
fn after_a(place: &Place, mut meddle: impl FnMut(&Path) + Send + 'static) {
    let dir = place.settings.inbox.dir.clone();
    *place.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if matches!(event, Happening::Accepted { name, .. } if name == "a.png") {
            meddle(&dir);
        }
    }));
}

/// How often each kind of record was written.
fn records(place: &Place) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    Reader::new(Arc::new(Disk), &place.settings.journal_dir())
        .read(&mut |record, _| {
            *counts.entry(record.kind).or_default() += 1;
            Ok(())
        })
        .unwrap();
    counts
}

fn contents(place: &Place) -> Vec<String> {
    let spooled = tree(&place.settings.spool_dir());
    let mut contents: Vec<String> = place
        .cases()
        .iter()
        .map(|case| String::from_utf8(spooled[&case.accepted.content.0].clone()).unwrap())
        .collect();
    contents.sort();
    contents
}

#[test]
fn a_file_that_vanishes_between_listing_and_taking_is_no_trouble() {
    let mut place = Place::new();
    place.put("a.png", "a");
    place.put("b.png", "b");
    after_a(&place, |dir| std::fs::remove_file(dir.join("b.png")).unwrap());
    assert_eq!(place.settle().trouble, None);
    assert_eq!((contents(&place), place.refused().len()), (vec!["a".into()], 0));
    assert_eq!((place.scan_after(2).waiting, place.names().len()), (0, 0));
    // Between two listings, while it settles.
    place.put("c.png", "c");
    assert_eq!(place.scan_after(0).waiting, 1);
    std::fs::remove_file(place.path("c.png")).unwrap();
    assert_eq!(place.scan_after(2).waiting, 0);
    assert_eq!(place.cases().len(), 1);
}

#[test]
fn a_file_that_is_rewritten_in_that_moment_is_taken_as_it_is_then() {
    type Rewrite = fn(&Path);
    let rewrites: [(Rewrite, &str); 3] = [
        (
            |b| {
                std::fs::write(b.with_extension("new"), "B").unwrap();
                std::fs::rename(b.with_extension("new"), b).unwrap();
            },
            "B",
        ),
        (|b| std::fs::write(b, "longer").unwrap(), "longer"),
        (
            |b| {
                let meta = b.metadata().unwrap();
                std::fs::write(b, "c").unwrap();
                // The writer puts the time back: the inode's own time of change cannot be.
                let file = std::fs::File::options().write(true).open(b).unwrap();
                file.set_modified(meta.modified().unwrap() + std::time::Duration::from_nanos(1)).unwrap();
            },
            "c",
        ),
    ];
    for (rewrite, expected) in rewrites {
        let mut place = Place::new();
        place.put("a.png", "a");
        place.put("b.png", "b");
        after_a(&place, move |dir| rewrite(&dir.join("b.png")));
        assert_eq!(place.settle().trouble, None);
        assert_eq!(contents(&place), ["a"], "{expected} has not settled yet");
        place.scan_after(0);
        place.scan_after(2);
        let mut all = vec!["a".to_owned(), expected.to_owned()];
        all.sort();
        assert_eq!((contents(&place), place.refused().len()), (all, 0));
    }
}

#[test]
fn a_file_that_is_replaced_by_something_else_in_that_moment_is_refused_unread() {
    type Replace = fn(&Path, &Path);
    let replacements: [(Replace, Refusal); 3] = [
        (|b, secret| std::os::unix::fs::symlink(secret, b).unwrap(), Refusal::NotRegular),
        (
            |b, _| rustix::fs::mknodat(rustix::fs::CWD, b, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap(),
            Refusal::NotRegular,
        ),
        (|b, _| std::fs::create_dir(b).unwrap(), Refusal::NotRegular),
    ];
    for (replace, reason) in replacements {
        let mut place = Place::new();
        let secret = place.root.path().join("secret");
        std::fs::write(&secret, "the secret").unwrap();
        place.put("a.png", "a");
        place.put("b.png", "b");
        let target = secret.clone();
        after_a(&place, move |dir| {
            std::fs::remove_file(dir.join("b.png")).unwrap();
            replace(&dir.join("b.png"), &target);
        });
        assert_eq!(place.settle().trouble, None);
        assert_eq!(contents(&place), ["a"]);
        assert_eq!(place.refused().iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), [reason]);
        let kept = tree(&place.settings.state_dir);
        assert!(!kept.values().any(|bytes| bytes.windows(10).any(|part| part == b"the secret")));
        assert_eq!(std::fs::read(&secret).unwrap(), b"the secret");
        assert!(place.names().is_empty() && place.scan_after(2).trouble.is_none());
    }
}

#[test]
fn a_second_name_that_appears_in_that_moment_is_seen() {
    let mut place = Place::new();
    place.put("a.png", "a");
    place.put("b.png", "b");
    let other = place.root.path().join("other name");
    after_a(&place, move |dir| std::fs::hard_link(dir.join("b.png"), &other).unwrap());
    assert_eq!(place.settle().trouble, None);
    assert_eq!((contents(&place), place.refused()[0].0), (vec!["a".into()], Refusal::HardLinks));
}

#[test]
fn a_sidecar_that_changes_or_vanishes_in_that_moment() {
    for (after, expected) in [(Some(r#"{"true_label": "ship"}"#), Some("ship")), (None, None)] {
        let mut place = Place::new();
        place.put("a.png", "a");
        place.put("b.png", "b");
        place.put("b.json", r#"{"true_label": "cat"}"#);
        after_a(&place, move |dir| match after {
            Some(text) => std::fs::write(dir.join("b.json"), text).unwrap(),
            None => std::fs::remove_file(dir.join("b.json")).unwrap(),
        });
        assert_eq!(place.settle().trouble, None);
        assert_eq!(contents(&place), ["a"], "the sidecar has not settled yet");
        place.scan_after(0);
        place.scan_after(2);
        let b = place.cases().into_iter().find(|case| case.accepted.name == "b.png").unwrap();
        assert_eq!(b.accepted.claim.true_label.as_deref(), expected);
        assert!(place.names().is_empty() && place.refused().is_empty());
    }
}

#[test]
fn a_sidecar_that_comes_while_its_picture_settles_is_waited_for() {
    let mut place = Place::new();
    place.put("a.png", "a");
    assert_eq!(place.scan_after(0).waiting, 1);
    place.put("a.json", r#"{"true_label": "ship"}"#);
    assert_eq!(place.scan_after(1).waiting, 2);
    assert_eq!(place.scan_after(1).waiting, 2, "the picture has settled, its sidecar has not");
    assert_eq!(place.scan_after(1).waiting, 0);
    assert_eq!(place.cases()[0].accepted.claim.true_label.as_deref(), Some("ship"));
    // After its picture was taken it is too late: it waits for another one, then it is refused.
    place.put("b.png", "b");
    place.settle();
    place.put("b.json", r#"{"true_label": "ship"}"#);
    assert_eq!(place.settle().waiting, 1);
    place.scan_after(600);
    assert_eq!(place.reason("b.json").reason, Refusal::LoneSidecar);
    assert_eq!(place.cases().len(), 2);
}

#[test]
fn a_sidecar_that_is_no_file_of_its_own_says_nothing() {
    let mut place = Place::new();
    let secret = place.root.path().join("secret.json");
    std::fs::write(&secret, r#"{"note": "the secret"}"#).unwrap();
    place.put("a.png", "a");
    std::os::unix::fs::symlink(&secret, place.path("a.json")).unwrap();
    place.put("b.png", "b");
    std::fs::hard_link(&secret, place.path("b.json")).unwrap();
    std::fs::create_dir(place.path("c.json")).unwrap();
    place.put("c.png", "c");
    place.settle();
    assert_eq!(place.reason("a.json").reason, Refusal::NotRegular);
    assert_eq!(place.reason("b.png").reason, Refusal::BadSidecar);
    assert_eq!(place.reason("c.json").reason, Refusal::NotRegular);
    assert_eq!(contents(&place), ["a", "c"]);
    assert!(place.cases().iter().all(|case| case.accepted.claim.note.is_none()));
}

/// The process ends between the record and the removal: a panic unwinds from there.
fn crash_at(place: &mut Place, at: fn(&Happening) -> bool) {
    *place.hooks.1.lock().unwrap() = Some(Box::new(move |event| assert!(!at(event), "the crash that the test asked for")));
    place.scan_after(0);
    let clock = Arc::clone(&place.clock);
    clock.advance(std::time::Duration::from_secs(2));
    assert!(catch_unwind(AssertUnwindSafe(|| place.inbox.scan())).is_err(), "it did not come so far");
}

#[test]
fn a_crash_between_record_and_removal_is_finished_at_the_next_start() {
    for hidden in [false, true] {
        let mut place = Place::new();
        place.put("a.png", "a");
        place.put("a.json", "{}");
        crash_at(&mut place, |event| matches!(event, Happening::Accepted { .. }));
        assert_eq!(place.names(), ["a.json", "a.png"]);
        if hidden {
            // So far the removal came: the file has its hidden name already.
            std::fs::rename(place.path("a.png"), place.path(".taken-a.png")).unwrap();
        }
        let mut place = place.again();
        place.settle();
        assert!(place.names().is_empty(), "{:?}", place.names());
        let counts = records(&place);
        assert_eq!((counts.get("accepted"), counts.get("duplicate")), (Some(&1), None), "hidden: {hidden}");
    }
}

/// What lies under that name after the crash is another file: it is not removed.
#[test]
fn a_file_that_came_after_the_crash_is_not_taken_for_the_one_before() {
    let mut place = Place::new();
    place.put("a.png", "a");
    crash_at(&mut place, |event| matches!(event, Happening::Accepted { .. }));
    place.put("another", "another");
    std::fs::rename(place.path("another"), place.path("a.png")).unwrap();
    let mut place = place.again();
    place.settle();
    assert_eq!((contents(&place), place.names().len()), (vec!["a".into(), "another".into()], 0));
}

#[test]
fn a_crash_between_a_refusal_and_the_move_is_finished_at_the_next_start() {
    let mut place = Place::new();
    place.put("a.png", "a");
    place.put("a.json", "no JSON");
    crash_at(&mut place, |event| matches!(event, Happening::Refused { .. }));
    assert_eq!(place.names(), ["a.json", "a.png"]);
    let mut place = place.again();
    place.settle();
    assert!(place.names().is_empty(), "{:?}", place.names());
    assert_eq!(place.reason("a.png").reason, Refusal::BadSidecar);
    assert_eq!(std::fs::read(place.settings.inbox.refused_dir.join("a.json")).unwrap(), b"no JSON");
    assert_eq!((records(&place).get("file-refused"), place.cases().len()), (Some(&1), 0));
}

#[test]
fn a_refused_folder_on_another_file_system_gets_copies_of_what_can_be_copied() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: refused files across file systems: no folder can be made in /dev/shm");
        return;
    };
    let refused: PathBuf = other.path().join("refused");
    let mut place = Place::with(|settings| settings.inbox.refused_dir = refused.clone());
    if other.path().metadata().unwrap().dev() == place.settings.inbox.dir.metadata().unwrap().dev() {
        eprintln!("SKIPPED: refused files across file systems: /dev/shm is none of its own");
        return;
    }
    place.put("a.png", "a");
    place.put("a.json", "no JSON");
    place.put("large.png", "x".repeat(10_001));
    std::os::unix::fs::symlink("/etc/passwd", place.path("link.png")).unwrap();
    assert_eq!(place.settle().trouble, None);
    let found: Vec<String> = tree(&refused).into_keys().collect();
    assert_eq!(
        found,
        ["a.json", "a.png", "a.png.reason.json", "large.png.reason.json", "link.png.reason.json"]
    );
    assert_eq!(std::fs::read(refused.join("a.png")).unwrap(), b"a");
    // What is too large or no file is put out of the way where it is, and not looked at again.
    assert_eq!(place.names(), [".refused-large.png", ".refused-link.png"]);
    assert_eq!((place.scan_after(2).waiting, records(&place)["file-refused"]), (0, 3));
    assert!(place.again().settle().trouble.is_none());
}
