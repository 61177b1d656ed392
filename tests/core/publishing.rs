//! NewCandidate folders and the `current` link.

use delta_guard::policy::GateVerdict;
use delta_guard::publish::{self, MANIFEST, NewCandidate};
use delta_guard_contract::{Digest, TrainId};
use std::path::Path;

fn with_candidate<T>(root: &Path, weights: &[u8], run: impl FnOnce(&NewCandidate) -> T) -> T {
    let checkpoint = root.join("model.safetensors");
    std::fs::write(&checkpoint, weights).unwrap();
    run(&NewCandidate {
        case: &Digest("c".repeat(64)),
        base: &Digest("b".repeat(64)),
        checkpoint: &checkpoint,
        digest: &Digest(blake3::hash(weights).to_hex().to_string()),
        removed: &[TrainId("dog/1.png".into())],
        ids: &Digest("1".repeat(64)),
        standing: None,
        given: false,
        attempt: 0,
        gate: &GateVerdict {
            pass: true,
            reasons: vec![],
            notes: vec![],
            ..GateVerdict::default()
        },
        seq: 17,
    })
}

#[test]
fn a_candidate_is_whole_or_not_there() {
    let root = tempfile::tempdir().unwrap();
    let candidates = root.path().join("candidates");
    let (name, digest) = with_candidate(root.path(), b"weights", |candidate| publish::publish_candidate(&candidates, candidate)).unwrap();
    let folder = candidates.join(&name);
    let (manifest, again) = publish::read_manifest(&folder).unwrap();
    assert_eq!((again, manifest.journal_seq), (digest.clone(), 17));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), b"weights");
    // Again: the same, and nothing is written.
    let before = std::fs::metadata(folder.join(MANIFEST)).unwrap().modified().unwrap();
    let second = with_candidate(root.path(), b"weights", |candidate| publish::publish_candidate(&candidates, candidate)).unwrap();
    assert_eq!(second, (name, digest));
    assert_eq!(std::fs::metadata(folder.join(MANIFEST)).unwrap().modified().unwrap(), before);
    // A changed file shows.
    std::fs::write(folder.join("removed.json"), "[]").unwrap();
    assert!(
        publish::read_manifest(&folder)
            .unwrap_err()
            .to_string()
            .contains("removed.json was changed")
    );
}

#[test]
fn leftovers_of_a_crash_do_not_matter_and_go() {
    let root = tempfile::tempdir().unwrap();
    let candidates = root.path().join("candidates");
    std::fs::create_dir_all(&candidates).unwrap();
    let name = with_candidate(root.path(), b"weights", |candidate| candidate.folder());
    // As after a crash before the rename: half a copy under the temporary name; and half a link.
    let half = candidates.join(format!(".{name}.tmp"));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("model.safetensors"), "wei").unwrap();
    std::os::unix::fs::symlink("nowhere", candidates.join(".current.tmp")).unwrap();
    with_candidate(root.path(), b"weights", |candidate| publish::publish_candidate(&candidates, candidate)).unwrap();
    publish::promote(&candidates, &name).unwrap();
    assert_eq!(publish::current(&candidates).unwrap(), Some(name.clone()));
    std::fs::create_dir(&half).unwrap();
    publish::remove_temporaries(&candidates).unwrap();
    let mut left: Vec<_> = std::fs::read_dir(&candidates)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected = vec![name, "current".into()];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn a_checkpoint_that_changed_since_training_is_not_published() {
    let root = tempfile::tempdir().unwrap();
    let candidates = root.path().join("candidates");
    let outcome = with_candidate(root.path(), b"weights", |candidate| {
        std::fs::write(candidate.checkpoint, b"other weights").unwrap();
        publish::publish_candidate(&candidates, candidate)
    });
    assert!(outcome.unwrap_err().to_string().contains("was changed since it was trained"));
    assert_eq!(std::fs::read_dir(&candidates).unwrap().count(), 0);
}

#[test]
fn current_only_points_to_candidates() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(publish::current(root.path()).unwrap(), None);
    assert!(publish::promote(root.path(), "nothing").is_err());
    std::os::unix::fs::symlink("/etc", root.path().join("current")).unwrap();
    assert!(
        publish::current(root.path())
            .unwrap_err()
            .to_string()
            .contains("points out of its folder")
    );
}

#[test]
fn a_reader_finds_the_old_link_or_the_new_one() {
    let root = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::create_dir(root.path().join(name)).unwrap();
        std::fs::write(root.path().join(name).join(MANIFEST), "{}").unwrap();
    }
    publish::promote(root.path(), "a").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(std::fs::read(root.path().join("current").join(MANIFEST)).is_ok());
                seen += 1;
            }
            seen
        });
        for n in 0..200 {
            publish::promote(root.path(), if n % 2 == 0 { "b" } else { "a" }).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}
