//! The inbox against half-written, hostile and doubled files. Time is turned by hand.

use crate::folder::Place;
use crate::support::{drop_picture, only_case, tree};
use delta_guard::engine::{Happening, Refusal};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

#[test]
fn a_file_is_taken_when_it_has_not_changed_for_a_while() {
    let mut place = Place::new();
    for n in 0..20 {
        // A slow writer: every scan finds it longer.
        place.put("slow.png", "x".repeat(n + 1));
        assert_eq!(place.scan_after(1).waiting, 1);
        assert!(place.cases().is_empty());
    }
    assert_eq!(place.scan_after(1).waiting, 1);
    assert_eq!(place.scan_after(1).waiting, 0);
    let cases = place.cases();
    assert_eq!((cases.len(), cases[0].accepted.bytes), (1, 20));
    assert_eq!(
        std::fs::read(place.settings.spool_dir().join(&cases[0].accepted.content.0)).unwrap(),
        "x".repeat(20).as_bytes()
    );
    assert_eq!(cases[0].accepted.content.0, blake3::hash("x".repeat(20).as_bytes()).to_hex().as_str());
    assert!(place.names().is_empty());
}

#[test]
fn a_rewritten_file_settles_anew() {
    let mut place = Place::new();
    place.put("a.png", "first");
    place.scan_after(0);
    place.clock.advance(Duration::from_secs(2));
    // The same length, another content: the time of change or the inode tells.
    std::fs::remove_file(place.path("a.png")).unwrap();
    place.put("other", "x");
    place.put("a.png", "secnd");
    assert_eq!(place.inbox.scan().waiting, 2);
    place.scan_after(2);
    assert_eq!(place.cases().len(), 2);
    assert!(
        place
            .cases()
            .iter()
            .all(|case| case.accepted.content.0 != blake3::hash(b"first").to_hex().as_str())
    );
}

#[test]
fn unfinished_names_are_left_alone() {
    let mut place = Place::new();
    for name in ["a.png.tmp", "b.part", "c.SWP", ".hidden.png"] {
        place.put(name, "x");
    }
    let report = place.settle();
    assert_eq!((report.waiting, place.cases().len(), place.names().len()), (4, 0, 4));
    assert!(place.refused().is_empty());
    std::fs::rename(place.path("a.png.tmp"), place.path("a.png")).unwrap();
    place.settle();
    assert_eq!(place.cases().len(), 1);
}

#[test]
fn what_is_no_regular_file_is_refused_unread() {
    let mut place = Place::new();
    let secret = place.root.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::os::unix::fs::symlink(&secret, place.path("link.png")).unwrap();
    std::os::unix::fs::symlink("loop.png", place.path("loop.png")).unwrap();
    std::os::unix::fs::symlink("/nonexistent", place.path("dangling.png")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("pipe.png"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("sock.png")).unwrap();
    place.put("hard.png", "two names");
    std::fs::hard_link(place.path("hard.png"), place.root.path().join("other name")).unwrap();
    place.put("empty.png", "");
    place.put("large.png", "x".repeat(10_001));
    let sparse = std::fs::File::create(place.path("sparse.png")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    place.put("good.png", "good");
    place.settle();
    let mut reasons: Vec<_> = place.refused().into_iter().map(|(reason, _)| reason.as_str()).collect();
    reasons.sort_unstable();
    let mut expected = vec!["not-regular"; 5];
    expected.extend(["hard-links", "empty", "too-large", "too-large"]);
    expected.sort_unstable();
    assert_eq!(reasons, expected);
    assert!(place.names().is_empty(), "{:?}", place.names());
    assert_eq!(only_case(&place.settings).unwrap().accepted.name, "good.png");
    // The link itself was moved, not what it points to.
    assert_eq!(std::fs::read_link(place.settings.inbox.refused_dir.join("link.png")).unwrap(), secret);
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_eq!(place.reason("sparse.png").reason, Refusal::TooLarge);
    assert!(place.reason("large.png").sentence.contains("10001 bytes; at most 10000"));
    assert_eq!(place.reason("pipe.png").case, None);
}

#[test]
fn hostile_names_stay_in_their_folder_and_are_shown_escaped() {
    let mut place = Place::new();
    let long = [&[b'n'; 251][..], b".png"].concat();
    let names: [&[u8]; 6] = [
        b"x\r\nBcc: a@b.png",
        b"\xff\xfe\x80.png",
        "e\u{202e}gnp.exe".as_bytes(),
        b"-rf *.png",
        &long,
        b"a\\..\\..\\x.png",
    ];
    for (n, name) in names.iter().enumerate() {
        place.put(OsStr::from_bytes(name), format!("picture {n}"));
        // And once more as something to be refused.
        place.put(OsStr::from_bytes(&[b"!", &name[..name.len().min(250)]].concat()), "");
    }
    place.settle();
    assert!(place.names().is_empty(), "{:?}", place.names());
    let cases = place.cases();
    assert_eq!(cases.len(), names.len());
    for case in &cases {
        assert!(
            !case.accepted.name.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{}",
            case.accepted.name
        );
    }
    let mut stored: Vec<String> = cases.iter().map(|case| case.accepted.name_base64.clone()).collect();
    stored.sort();
    use base64::Engine;
    let mut given: Vec<String> = names.iter().map(|name| base64::engine::general_purpose::STANDARD.encode(name)).collect();
    given.sort();
    assert_eq!(stored, given);
    let refused = tree(&place.settings.inbox.refused_dir);
    assert_eq!(refused.len(), 2 * names.len(), "{:?}", refused.keys());
    assert_eq!(
        std::fs::read_dir(place.root.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name() == "x.png")
            .count(),
        0
    );
}

#[test]
fn sidecars() {
    let mut place = Place::new();
    // A sidecar that comes first waits for its picture.
    place.put("a.json", r#"{"predicted_label": "dog", "note": "odd"}"#);
    assert_eq!(place.settle().waiting, 1);
    place.put("a.png", "picture");
    assert_eq!(place.scan_after(1).waiting, 2);
    place.scan_after(2);
    let case = only_case(&place.settings).unwrap();
    assert_eq!(
        (case.accepted.claim.predicted_label.as_deref(), case.accepted.claim.note.as_deref()),
        (Some("dog"), Some("odd"))
    );
    assert!(place.names().is_empty());
    // A bad one is refused with its picture, in words.
    for (name, sidecar, word) in [
        ("b", "dog", "not JSON"),
        ("c", r#"{"lable": "dog"}"#, "unknown key \"lable\""),
        ("d", "", "empty"),
    ] {
        place.put(format!("{name}.json"), sidecar);
        place.put(format!("{name}.png"), name);
        place.settle();
        let reason = place.reason(&format!("{name}.png"));
        assert_eq!(reason.reason, Refusal::BadSidecar);
        assert!(reason.sentence.contains(word), "{}", reason.sentence);
        assert!(place.settings.inbox.refused_dir.join(format!("{name}.json")).is_file());
    }
    // A large one is not read.
    place.put("e.json", format!("{{\"note\": \"{}\"}}", "n".repeat(70_000)));
    place.put("e.png", "e");
    place.settle();
    assert!(place.reason("e.png").sentence.contains("at most 65536"));
    // A lone one is refused after its time.
    place.put("f.json", "{}");
    assert_eq!(place.settle().waiting, 1);
    place.scan_after(599);
    assert_eq!(place.reason("f.json").reason, Refusal::LoneSidecar);
    // Two pictures of one name.
    place.put("g.json", "{}");
    place.put("g.png", "g");
    place.put("g.jpg", "g2");
    place.settle();
    assert_eq!(place.reason("g.jpg").reason, Refusal::AmbiguousSidecar);
    assert_eq!(place.cases().len(), 1);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn the_same_content_is_one_case_and_another_claim_another() {
    let mut place = Place::new();
    for n in 0..5 {
        place.put(format!("{n}.png"), "same");
    }
    place.settle();
    assert_eq!(place.cases().len(), 1);
    assert_eq!(place.hooks.count(|event| matches!(event, Happening::Duplicate { .. })), 4);
    drop_picture(&place.settings, "x.png", "same", Some(r#"{"true_label": "ship"}"#));
    drop_picture(
        &place.settings,
        "y.png",
        "same",
        Some(r#"{"true_label": "ship", "note": "a note makes no other case"}"#),
    );
    place.settle();
    assert_eq!(place.cases().len(), 2);
    // Another production checkpoint: another question.
    std::fs::write(&place.settings.model.checkpoint, "new weights").unwrap();
    place.put("z.png", "same");
    place.settle();
    assert_eq!(place.cases().len(), 3);
    assert!(place.names().is_empty());
    let mut place = place.again();
    place.put("later.png", "same");
    place.settle();
    assert_eq!(place.cases().len(), 3, "also after a restart");
    assert_eq!(place.hooks.count(|event| matches!(event, Happening::Duplicate { .. })), 1);
}

/// A crash between the record and the removal: the file is removed without becoming a duplicate, or moved without a second record.
#[test]
fn a_crash_before_the_removal_repeats_nothing() {
    use std::os::unix::fs::MetadataExt;
    let mut place = Place::new();
    place.put("a.png", "picture");
    place.put("a.json", "{}");
    let keep = |name: &str| {
        let meta = std::fs::metadata(place.path(name)).unwrap();
        (meta.ino(), meta.modified().unwrap())
    };
    let (picture, sidecar) = (keep("a.png"), keep("a.json"));
    // Held open, the inodes stay what they are; linked back under their names, the files are what they were before the removal.
    let hold = place.root.path().join("hold");
    std::fs::create_dir(&hold).unwrap();
    place.inbox.scan();
    // The removal fails: the folder may not be written. (Nothing to see for root, who may do anything.)
    place.scan_after(2);
    assert_eq!(place.cases().len(), 1);
    assert!(place.names().is_empty());
    // The files as they were: same inode is only possible where the system gives it again; so compare what the journal remembers.
    let accepted = place.cases()[0].accepted.clone();
    assert_eq!((accepted.file.ino, accepted.sidecar.unwrap().ino), (picture.0, sidecar.0));
    // A file under the hidden name, unknown to the journal: it was renamed, not yet recorded as removed.
    std::fs::write(place.path(".taken-b.png"), "not recorded").unwrap();
    let mut place = place.again();
    place.scan_after(0);
    assert_eq!(place.names(), ["b.png"], "it gets its name back");
    place.scan_after(2);
    assert_eq!((place.cases().len(), place.names().len()), (2, 0));
}

#[test]
fn without_a_checkpoint_nothing_is_taken_in_and_nothing_is_lost() {
    let mut place = Place::new();
    std::fs::remove_file(&place.settings.model.checkpoint).unwrap();
    place.put("a.png", "picture");
    place.put("empty.png", "");
    let report = place.settle();
    assert!(report.trouble.unwrap().contains("model.checkpoint"));
    assert!(place.names().contains(&"a.png".to_string()));
    std::fs::write(&place.settings.model.checkpoint, "back").unwrap();
    assert_eq!(place.scan_after(1).trouble, None);
    assert_eq!((place.cases().len(), place.names().len()), (1, 0));
}

#[test]
fn an_inbox_that_vanished_is_said_and_comes_back() {
    let mut place = Place::new();
    std::fs::remove_dir(&place.settings.inbox.dir).unwrap();
    assert!(place.inbox.scan().trouble.unwrap().contains("inbox"));
    std::fs::create_dir(&place.settings.inbox.dir).unwrap();
    place.put("a.png", "picture");
    assert_eq!(place.settle().trouble, None);
    assert_eq!(place.cases().len(), 1);
}

#[test]
fn a_thousand_files_at_once() {
    let mut place = Place::new();
    for n in 0..1000 {
        place.put(format!("{n}.png"), format!("picture {}", n % 700));
    }
    assert_eq!(place.scan_after(0).waiting, 1000);
    place.scan_after(2);
    assert_eq!((place.cases().len(), place.names().len()), (700, 0));
    assert_eq!(place.hooks.count(|event| matches!(event, Happening::FileSeen)), 1000);
    assert_eq!(
        place
            .hooks
            .count(|event| matches!(event, Happening::Accepted { .. } | Happening::Duplicate { .. })),
        1000
    );
    assert_eq!(place.ledger.snapshot().open, 700);
}

/// A long list takes minutes: what still waits is told while it is worked through, not after.
#[test]
fn the_backlog_is_told_as_it_goes_down() {
    let mut place = Place::new();
    for n in 0..6 {
        place.put(format!("{n}.png"), format!("label=cat\nn={n}\n"));
    }
    place.scan_after(0);
    place.hooks.0.lock().unwrap().clear();
    place.scan_after(2);
    let mut told = Vec::new();
    let (mut taken, mut order) = (0, Vec::new());
    for event in place.hooks.0.lock().unwrap().iter() {
        match event {
            Happening::Backlog { files } => {
                told.push(*files);
                order.push((*files, taken));
            }
            Happening::Accepted { .. } => taken += 1,
            _ => {}
        }
    }
    assert_eq!(told, [6, 5, 4, 3, 2, 1, 0]);
    assert!(order.iter().all(|(files, taken)| files + taken == 6), "{order:?}");
}
