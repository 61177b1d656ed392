//! The index is disposable: lost, damaged or behind, it is made again, and no answer changes.

use crate::support::{Running, drop_picture, only_case, run_to_end, settings, wait_for};
use delta_guard::engine::{Happening, query};
use delta_guard::index::Store;
use delta_guard::policy::Mode;
use delta_guard::settings::Settings;
use delta_guard::vfs::{Disk, Vfs};
use delta_guard_contract::TrainId;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Every answer, as JSON, from a daemon that is started and stopped for it; and how often it rebuilt the index.
fn answers(settings: &Settings) -> (serde_json::Value, usize) {
    let running = Running::start(settings);
    let ledger = &running.started.ledger;
    let cases = ledger.cases().unwrap();
    let flagged: Vec<_> = cases.iter().map(|case| ledger.flagged(&case.id).unwrap()).collect();
    let of = ledger.cases_of(&TrainId("dog/0003.png".into())).unwrap();
    assert!(ledger.has_index());
    let answers = serde_json::json!({ "cases": cases, "flagged": flagged, "of": of });
    let (hooks, outcome) = running.stop();
    outcome.unwrap();
    (answers, hooks.count(|event| matches!(event, Happening::IndexRebuilt { .. })))
}

/// The same from the journal alone.
fn from_journal(settings: &Settings) -> serde_json::Value {
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    let cases: Vec<_> = query::read(&settings.state_dir).unwrap().0.cases.into_values().collect();
    let flagged: Vec<_> = cases
        .iter()
        .map(|case| query::flagged(&vfs, &settings.journal_dir(), &case.id).unwrap())
        .collect();
    let of = query::cases_of(&vfs, &settings.journal_dir(), &TrainId("dog/0003.png".into())).unwrap();
    serde_json::json!({ "cases": cases, "flagged": flagged, "of": of })
}

fn prepared(root: &Path) -> Settings {
    let settings = settings(root, Mode::Observe);
    drop_picture(&settings, "x.png", "label=dog\nflag=40\n", None);
    run_to_end(&settings);
    settings
}

#[test]
fn deleted_it_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let settings = prepared(root.path());
    let (before, rebuilt) = answers(&settings);
    assert_eq!(rebuilt, 0, "a sound index is kept");
    assert_eq!(before, from_journal(&settings));
    assert_eq!(
        (before["flagged"][0].as_array().unwrap().len(), before["of"].as_array().unwrap().len()),
        (40, 1)
    );
    std::fs::remove_dir_all(settings.index_dir()).unwrap();
    assert_eq!(answers(&settings), (before.clone(), 1));
    assert_eq!(answers(&settings), (before, 0));
}

/// Flip bits and cut bytes all over sled's file: whatever sled makes of it (an error, a panic, silently lost keys), no answer changes.
#[test]
fn damaged_it_changes_no_answer() {
    let root = tempfile::tempdir().unwrap();
    let settings = prepared(root.path());
    let truth = from_journal(&settings);
    let db = settings.index_dir().join("db");
    let sound = std::fs::read(&db).unwrap();
    // Where entries lie, live ones and outdated ones; the rest of the file is sled's own and zeros that it holds ready.
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
    let entries: Vec<usize> = sound
        .windows(5)
        .enumerate()
        .filter(|(_, bytes)| *bytes == b"\"dog/")
        .map(|(at, _)| at)
        .collect();
    assert!(entries.len() >= 40, "{}", entries.len());
    let snapshot: Vec<_> = std::fs::read_dir(settings.index_dir())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    let saved: Vec<_> = snapshot.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let (position, head) = {
        let store = Store::open(&settings.index_dir()).unwrap();
        (store.position().0, query::read(&settings.state_dir).unwrap().1.head.seq)
    };
    assert_eq!(position, head);
    let (mut refused, mut behind) = (0, 0);
    for n in 0..60 {
        std::fs::remove_dir_all(settings.index_dir()).unwrap();
        std::fs::create_dir_all(settings.index_dir()).unwrap();
        for (path, bytes) in &saved {
            std::fs::write(path, bytes).unwrap();
        }
        let mut bytes = sound.clone();
        match n {
            0 => bytes.clear(),
            1 => bytes.truncate(used / 2),
            2 => bytes[..4096].fill(0xff),
            _ => {
                let at = if n % 4 == 0 {
                    n * 7919 * 31 % used
                } else {
                    entries[n * 7919 % entries.len()] + n % 5
                };
                bytes[at] ^= 1 << (n % 8);
            }
        }
        std::fs::write(&db, bytes).unwrap();
        // What sled makes of it: an error, a panic, or a shorter history that it calls sound.
        match Store::open(&settings.index_dir()) {
            Err(_) => refused += 1,
            Ok(store) => behind += usize::from(store.position().0 < position),
        }
        // Starting wrote records of its own, which change no answer.
        assert_eq!(answers(&settings).0, truth, "damage {n}");
    }
    println!("of 60 damages {refused} made the index unreadable and {behind} took away its last records");
    assert!(refused + behind >= 50, "{refused}, {behind}: the damages missed");
}

/// Each of sled's files lost, empty, or written only so far.
#[test]
fn half_of_it_changes_no_answer() {
    let root = tempfile::tempdir().unwrap();
    let settings = prepared(root.path());
    let truth = from_journal(&settings);
    let copy = root.path().join("whole");
    copy_dir(&settings.index_dir(), &copy);
    let files: Vec<_> = std::fs::read_dir(&copy)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    assert!(files.iter().any(|path| path.ends_with("db")), "{files:?}");
    let mut rebuilt = 0;
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for part in 0..6 {
            let _ = std::fs::remove_dir_all(settings.index_dir());
            copy_dir(&copy, &settings.index_dir());
            let damaged = settings.index_dir().join(file.file_name().unwrap());
            match part {
                0 => std::fs::remove_file(damaged).unwrap(),
                _ => std::fs::write(damaged, &bytes[..used * (part - 1) / 5]).unwrap(),
            }
            let (found, again) = answers(&settings);
            assert_eq!(found, truth, "{}, part {part}", file.display());
            rebuilt += again;
        }
    }
    assert!(rebuilt >= 4, "{rebuilt}: the damages missed");
}

#[test]
fn behind_it_catches_up() {
    let root = tempfile::tempdir().unwrap();
    let settings = prepared(root.path());
    let copy = root.path().join("old-index");
    copy_dir(&settings.index_dir(), &copy);
    drop_picture(&settings, "y.png", "label=dog\nflag=10\n", None);
    let running = Running::start(&settings);
    wait_for("the second case", || {
        // One answer for both questions: the second case may come between two.
        let cases = running.started.ledger.cases().unwrap();
        (cases.len() == 2 && cases.iter().all(|case| case.told)).then_some(())
    });
    running.stop().1.unwrap();
    std::fs::remove_dir_all(settings.index_dir()).unwrap();
    copy_dir(&copy, &settings.index_dir());
    let (found, rebuilt) = answers(&settings);
    assert_eq!((found["of"].as_array().unwrap().len(), rebuilt), (2, 0));
    assert_eq!(found, from_journal(&settings));
}

#[test]
fn another_journals_index_is_not_believed() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = prepared(root.path());
    let foreign = prepared(other.path());
    std::fs::remove_dir_all(settings.index_dir()).unwrap();
    copy_dir(&foreign.index_dir(), &settings.index_dir());
    let (found, rebuilt) = answers(&settings);
    assert_eq!((found, rebuilt), (from_journal(&settings), 1));
}

#[test]
fn a_daemon_that_cannot_have_an_index_goes_on_without() {
    let root = tempfile::tempdir().unwrap();
    let settings = prepared(root.path());
    std::fs::remove_dir_all(settings.index_dir()).unwrap();
    // A file where the folder should be, and its parking place taken by a folder that cannot be replaced: nothing can be made here.
    std::fs::write(settings.index_dir(), "in the way").unwrap();
    std::fs::write(settings.state_dir.join("index.damaged"), "in the way too").unwrap();
    let running = Running::start(&settings);
    let ledger = &running.started.ledger;
    assert!(!ledger.has_index());
    assert_eq!(running.hooks.count(|event| matches!(event, Happening::IndexTrouble { .. })), 1);
    let case = only_case(&settings).unwrap();
    assert_eq!(ledger.case(&case.id).unwrap(), Some(case.clone()));
    assert_eq!(ledger.flagged(&case.id).unwrap().len(), 40);
    assert_eq!(ledger.cases_of(&TrainId("dog/0003.png".into())).unwrap(), [case.id]);
    running.stop().1.unwrap();
}

/// The files are damaged under a guard that is at work: every answer is right at every moment, and after a while the index is in use again, made without a start.
#[test]
fn damaged_under_a_running_guard_it_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Observe);
    let running = Running::start(&settings);
    // More than sled keeps in memory.
    for n in 0..4 {
        drop_picture(&settings, &format!("{n}.png"), &format!("label=dog\nflag=12000\nn={n}\n"), None);
    }
    let ledger = Arc::clone(&running.started.ledger);
    let all_told = |count: usize| {
        let cases: Vec<_> = query::read(&settings.state_dir).unwrap().0.cases.into_values().collect();
        (cases.len() == count && cases.iter().all(|case| case.told)).then_some(())
    };
    wait_for("the cases", || all_told(4));
    let ask = || {
        let cases = ledger.cases().unwrap();
        let flagged: Vec<_> = cases.iter().map(|case| ledger.flagged(&case.id).unwrap()).collect();
        let of = ledger.cases_of(&TrainId("dog/0003.png".into())).unwrap();
        serde_json::json!({ "cases": cases, "flagged": flagged, "of": of })
    };
    assert!(ask() == from_journal(&settings));
    let rebuilt = || running.hooks.count(|event| matches!(event, Happening::IndexRebuilt { .. }));
    assert!(ledger.has_index() && rebuilt() == 0);
    let damage = || {
        for entry in std::fs::read_dir(settings.index_dir()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let length = std::fs::metadata(&path).unwrap().len();
                std::fs::OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .write_all_at(&vec![0xff; length as usize], 0)
                    .unwrap();
            }
        }
    };
    damage();
    assert!(ask() == from_journal(&settings), "right at once");
    // What comes meanwhile is in the new one, too.
    drop_picture(&settings, "late.png", "label=dog\nflag=7\n", None);
    wait_for("the late case", || all_told(5));
    wait_for("the new index", || (rebuilt() == 1 && ledger.has_index()).then_some(()));
    let truth = from_journal(&settings);
    assert!(ask() == truth && ledger.has_index());
    drop(ledger);
    running.stop().1.unwrap();
    // It is a sound one.
    let (found, again) = answers(&settings);
    assert_eq!(again, 0);
    assert!(found == truth);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}
