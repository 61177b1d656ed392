//! Files whose writers are still at work, files that something is wrong with, and a scan that is stopped: none of them costs another file.

use crate::folder::Place;
use crate::support::tree;
use delta_guard::engine::{Happening, Refusal};
use delta_guard::stop;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn pixel() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pixel.png")).unwrap()
}

/// What the cases were made of, by file name.
fn taken(place: &Place) -> Vec<(String, Vec<u8>)> {
    let spooled = tree(&place.settings.spool_dir());
    let mut all: Vec<_> = place
        .cases()
        .iter()
        .map(|case| (case.accepted.name.clone(), spooled[&case.accepted.content.0].clone()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_writer_that_pauses_keeps_its_file_until_it_is_whole() {
    let png = pixel();
    for (name, first, second) in [("a.png", &png[..png.len() / 2], &png[png.len() / 2..]), ("a.txt", b"label=", b"dog\n")] {
        let mut place = Place::new();
        let mut writer = std::fs::File::create(place.path(name)).unwrap();
        writer.write_all(first).unwrap();
        place.put("b.png", "another file goes on");
        place.scan_after(0);
        for seconds in [2, 4, 100, 400] {
            let report = place.scan_after(seconds);
            assert_eq!(
                (report.waiting, report.overdue, report.trouble),
                (1, 0, None),
                "{name} after {seconds} s more"
            );
        }
        assert_eq!(taken(&place).len(), 1);
        // After ten minutes it is told.
        let report = place.scan_after(100);
        assert_eq!((report.waiting, report.overdue, report.expects()), (1, 1, false));
        assert!(
            report.notes[0].contains(name) && report.notes[0].contains("10 minutes"),
            "{:?}",
            report.notes
        );
        assert!(place.hooks.count(|event| matches!(event, Happening::Waiting { files: 1, overdue: 1 })) > 0);
        writer.write_all(second).unwrap();
        drop(writer);
        // A program that another test starts at this moment holds every open file until it is on its own: the file is taken at a scan soon after.
        let deadline = Instant::now() + Duration::from_secs(10);
        place.settle();
        while taken(&place).len() < 2 && Instant::now() < deadline {
            place.settle();
        }
        assert_eq!(taken(&place)[0], (name.to_owned(), [first, second].concat()));
        assert!(place.names().is_empty() && place.refused().is_empty());
    }
}

#[test]
fn a_picture_that_ends_in_the_middle_is_waited_for_though_nobody_holds_it() {
    let mut place = Place::new();
    let png = pixel();
    place.put("a.png", &png[..30]);
    place.put("b.png", &png[..40]);
    place.put("c.json", r#"{"true_label": "do"#);
    place.put("c.png", "c");
    place.scan_after(0);
    for _ in 0..4 {
        assert_eq!(place.scan_after(4).waiting, 4);
    }
    // Its writer opens it again, as `curl --continue` or a copy tool does.
    std::fs::File::options()
        .append(true)
        .open(place.path("a.png"))
        .unwrap()
        .write_all(&png[30..])
        .unwrap();
    std::fs::File::options()
        .append(true)
        .open(place.path("c.json"))
        .unwrap()
        .write_all(b"g\"}")
        .unwrap();
    place.scan_after(0);
    place.scan_after(2);
    // What nobody finishes is taken as it is: the worker will say what is wrong with it.
    place.scan_after(3);
    assert_eq!(
        taken(&place),
        [
            ("a.png".into(), png.clone()),
            ("b.png".into(), png[..40].to_vec()),
            ("c.png".into(), b"c".to_vec())
        ]
    );
    assert!(place.cases().iter().any(|case| case.accepted.claim.true_label.as_deref() == Some("dog")));
    assert!(place.names().is_empty());
}

/// A process that holds write leases, which nobody else's opening gets through.
struct Leases(Child);

impl Leases {
    fn on(files: &[PathBuf]) -> Option<Self> {
        let code = "import fcntl, os, signal, sys\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nfor path in sys.argv[1:]:\n    fcntl.fcntl(os.open(path, os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)\nprint('held', flush=True)\nsys.stdin.read()\n";
        let mut child = Command::new("python3")
            .args(["-c", code])
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (line == "held\n").then_some(Self(child))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_that_cannot_be_opened_do_not_stop_those_after_them() {
    let mut place = Place::new();
    for n in 0..10 {
        place.put(format!("{n}.png"), format!("picture {n}"));
    }
    let held = [0, 3, 5].map(|n| place.path(format!("{n}.png")));
    let Some(leases) = Leases::on(&held) else {
        eprintln!(
            "SKIPPED: files under a lease: the file system of {} gives none",
            place.root.path().display()
        );
        return;
    };
    let report = place.settle();
    assert_eq!((report.waiting, report.trouble), (3, None));
    assert_eq!((taken(&place).len(), place.names().len()), (7, 3));
    drop(leases);
    assert_eq!(place.scan_after(2).waiting, 0);
    assert_eq!((taken(&place).len(), place.names().len(), place.refused().len()), (10, 0, 0));
}

/// Makes a file unchangeable, even for root, until it is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: PathBuf) -> Option<Self> {
        let file = std::fs::File::open(&path).ok()?;
        let flags = rustix::fs::ioctl_getflags(&file).ok()?;
        rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::IMMUTABLE).ok()?;
        Some(Self(path))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        if let Ok(file) = std::fs::File::open(&self.0)
            && let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        {
            let _ = rustix::fs::ioctl_setflags(&file, flags - rustix::fs::IFlags::IMMUTABLE);
        }
    }
}

#[test]
fn files_that_cannot_be_moved_are_their_own_trouble_and_are_tried_again_later() {
    let mut place = Place::new();
    place.put("a.png", "taken, not removed");
    place.put("b.png", "");
    for n in 0..5 {
        place.put(format!("c{n}.png"), format!("picture {n}"));
    }
    let [Some(a), Some(b)] = ["a.png", "b.png"].map(|name| Immutable::new(place.path(name))) else {
        eprintln!(
            "SKIPPED: files that cannot be moved: immutable files cannot be made in {}",
            place.root.path().display()
        );
        return;
    };
    let troubles = |place: &Place| place.hooks.count(|event| matches!(event, Happening::FileTrouble { .. }));
    let report = place.settle();
    assert_eq!((report.waiting, report.trouble), (2, None));
    assert_eq!(
        (taken(&place).len(), place.names(), troubles(&place)),
        (6, vec!["a.png".to_owned(), "b.png".to_owned()], 2)
    );
    // Tried again after 2, 4, 8 … seconds, not at each scan.
    for (seconds, told) in [(1, 2), (1, 4), (1, 4), (1, 4), (2, 6), (1, 6)] {
        assert_eq!(place.scan_after(seconds).waiting, 2);
        assert_eq!(troubles(&place), told);
    }
    let report = place.scan_after(600);
    assert_eq!((report.overdue, report.notes.len()), (2, 2));
    assert!(report.notes.iter().any(|note| note.contains("cannot be removed")), "{:?}", report.notes);
    drop((a, b));
    assert_eq!(place.scan_after(300).waiting, 0);
    assert!(place.names().is_empty());
    assert_eq!(
        (taken(&place).len(), place.refused().len(), place.reason("b.png").reason),
        (6, 1, Refusal::Empty),
        "recorded once each"
    );
    assert_eq!(place.hooks.count(|event| matches!(event, Happening::Duplicate { .. })), 0);
}

/// The folder of refused files cannot be made: what should go there is each file's own trouble, and pictures are taken in all the same.
#[test]
fn a_file_that_cannot_be_refused_does_not_stop_those_after_it() {
    let mut place = Place::new();
    std::fs::write(&place.settings.inbox.refused_dir, "a file in its place").unwrap();
    place.put("a.png", "");
    place.put("b.png", "good");
    place.put("c.png", "");
    place.put("d.png", "good, too");
    let report = place.settle();
    assert_eq!((report.waiting, report.trouble), (2, None));
    assert_eq!((taken(&place).len(), place.names()), (2, vec!["a.png".to_owned(), "c.png".to_owned()]));
    std::fs::remove_file(&place.settings.inbox.refused_dir).unwrap();
    assert_eq!(place.scan_after(2).waiting, 0);
    assert_eq!(
        (place.reason("a.png").reason, place.reason("c.png").reason),
        (Refusal::Empty, Refusal::Empty)
    );
    assert_eq!(place.refused().len(), 2, "recorded once each");
}

#[test]
fn names_that_wait_are_counted_and_told_and_a_folder_is_refused() {
    let mut place = Place::new();
    place.put(".hidden.png", "x");
    place.put("b.part", "x");
    std::fs::create_dir_all(place.path("album/inner")).unwrap();
    std::fs::write(place.path("album/inner/1.png"), "one").unwrap();
    std::fs::create_dir(place.path("lost+found")).unwrap();
    assert_eq!(place.scan_after(0).waiting, 3, "the folder settles, too");
    assert_eq!(place.scan_after(2).waiting, 2);
    let reason = place.reason("album");
    assert_eq!(reason.reason, Refusal::NotRegular);
    assert!(reason.sentence.contains("folder"), "{}", reason.sentence);
    assert_eq!(std::fs::read(place.settings.inbox.refused_dir.join("album/inner/1.png")).unwrap(), b"one");
    assert!(place.path("lost+found").is_dir());
    assert_eq!(place.refused().len(), 1);
    let report = place.scan_after(600);
    assert_eq!((report.waiting, report.overdue, report.expects()), (2, 2, false));
    assert!(report.notes.iter().any(|note| note.contains(".hidden.png")), "{:?}", report.notes);
    std::fs::rename(place.path(".hidden.png"), place.path("seen.png")).unwrap();
    place.settle();
    assert_eq!(taken(&place), [("seen.png".into(), b"x".to_vec())]);
}

#[test]
fn a_leftover_of_a_removal_gets_a_name_whoever_has_its_own() {
    let mut place = Place::new();
    place.put("x.png", "new");
    place.put(".taken-x.png", "left over");
    place.scan_after(0);
    assert_eq!(place.names(), ["2-x.png", "x.png"]);
    place.scan_after(0);
    place.scan_after(2);
    assert_eq!(
        taken(&place).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(),
        [b"left over".to_vec(), b"new".to_vec()]
    );
    // One that appears under the very name that a removal wants is not overwritten.
    let dir = place.settings.inbox.dir.clone();
    let mut done = false;
    *place.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if matches!(event, Happening::Accepted { name, .. } if name == "y.png") && !std::mem::replace(&mut done, true) {
            std::fs::write(dir.join(".taken-y.png"), "somebody's").unwrap();
        }
    }));
    place.put("y.png", "why");
    for _ in 0..4 {
        place.scan_after(2);
    }
    assert!(
        taken(&place).iter().any(|(_, bytes)| bytes == b"somebody's") && place.names().is_empty(),
        "{:?}",
        place.names()
    );
}

/// As after a crash between record and removal; then other content comes into the same file, of the same length and with the same time.
fn rewritten_after_a_crash(change: impl FnOnce(&Place)) -> Place {
    let mut place = Place::new();
    place.put("a.png", "aaaa");
    place.put("a.json", r#"{"true_label": "cat"}"#);
    place.scan_after(0);
    *place.hooks.1.lock().unwrap() = Some(Box::new(|event| {
        assert!(!matches!(event, Happening::Accepted { .. }), "the crash that the test asked for")
    }));
    place.clock.advance(Duration::from_secs(2));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| place.inbox.scan())).is_err());
    change(&place);
    let mut place = place.again();
    place.settle();
    assert!(place.names().is_empty(), "{:?}", place.names());
    place
}

fn rewrite(place: &Place, name: &str, bytes: &str) {
    let path = place.path(name);
    let before = path.metadata().unwrap();
    assert_eq!(before.len(), bytes.len() as u64);
    let mut file = std::fs::File::options().write(true).open(&path).unwrap();
    file.write_all(bytes.as_bytes()).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = path.metadata().unwrap();
    assert_eq!(
        (before.ino(), before.mtime_nsec(), before.mtime()),
        (after.ino(), after.mtime_nsec(), after.mtime())
    );
}

#[test]
fn a_file_is_removed_after_a_restart_only_if_it_is_what_was_taken_in() {
    let place = rewritten_after_a_crash(|_| {});
    assert_eq!(
        (
            place.cases().len(),
            place.hooks.count(|event| matches!(event, Happening::Duplicate { .. }))
        ),
        (1, 0)
    );
    // Another picture, with the identity of the last one.
    let place = rewritten_after_a_crash(|place| rewrite(place, "a.png", "bbbb"));
    assert_eq!(
        taken(&place).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(),
        [b"aaaa".to_vec(), b"bbbb".to_vec()]
    );
    // The same picture with another word about it is another case.
    let place = rewritten_after_a_crash(|place| rewrite(place, "a.json", r#"{"true_label": "dog"}"#));
    let claims: Vec<_> = place.cases().into_iter().filter_map(|case| case.accepted.claim.true_label).collect();
    assert_eq!(claims, ["cat", "dog"]);
    let place = rewritten_after_a_crash(|place| {
        std::fs::remove_file(place.path("a.json")).unwrap();
        place.put("a.json", r#"{"true_label": "ship"}"#);
    });
    let claims: Vec<_> = place.cases().into_iter().filter_map(|case| case.accepted.claim.true_label).collect();
    assert_eq!(claims, ["cat", "ship"]);
}

#[test]
fn two_guards_do_not_share_an_inbox() {
    let mut first = Place::new();
    let dir = first.settings.inbox.dir.clone();
    let mut second = Place::with(|settings| settings.inbox.dir = dir);
    first.put("a.png", "a");
    assert_eq!(first.scan_after(0).trouble, None);
    let trouble = second.settle().trouble.unwrap();
    assert!(trouble.contains("another guard") && trouble.contains("paths.inbox"), "{trouble}");
    first.scan_after(2);
    assert_eq!((first.cases().len(), second.cases().len()), (1, 0));
    first.put("b.png", "b");
    let root = first.root;
    drop((first.inbox, first.ledger));
    assert_eq!(second.settle().trouble, None, "the other one has ended");
    assert_eq!(second.cases().len(), 1);
    drop(root);
}

#[test]
fn a_scan_stops_when_it_is_asked_to_and_shows_that_it_gets_on() {
    let place = Place::new();
    for n in 0..60 {
        place.put(format!("{n:03}.png"), format!("picture {n}"));
    }
    let (stopper, stop) = stop::channel();
    let mut place = place.stops_with(stop);
    let pulse = place.inbox.pulse();
    let (mut count, mut last) = (0, None::<Instant>);
    let quiet = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&quiet);
    *place.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if matches!(event, Happening::Accepted { .. }) {
            count += 1;
            if let Some(last) = last {
                // The file before this one was a step, and so is this one: the last step is younger than the file before.
                told.lock().unwrap().push(pulse.silence() <= last.elapsed());
            }
            last = Some(Instant::now());
            if count == 10 {
                stopper.stop();
            }
        }
    }));
    place.settle();
    assert_eq!((place.cases().len(), place.names().len()), (10, 50));
    assert_eq!(*quiet.lock().unwrap(), [true; 9]);
    let mut place = place.again();
    place.settle();
    assert_eq!((place.cases().len(), place.names().len()), (60, 0));
}

/// What is refused is never read, so that only the scan itself can ask for the stop.
#[test]
fn a_scan_of_files_that_are_refused_stops_too() {
    let place = Place::new();
    for n in 0..60 {
        place.put(format!("{n:03}.png"), "");
    }
    let (stopper, stop) = stop::channel();
    let mut place = place.stops_with(stop);
    let mut count = 0;
    *place.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        count += u32::from(matches!(event, Happening::Refused { .. }));
        if count == 10 {
            stopper.stop();
        }
    }));
    place.settle();
    assert_eq!((place.refused().len(), place.names().len()), (10, 50));
    let mut place = place.again();
    place.settle();
    assert_eq!((place.refused().len(), place.names().len()), (50, 0));
}
