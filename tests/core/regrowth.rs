//! The regrowth check: what stands out on the candidate is removed, too, or a person decides.

use crate::support::{Running, drop_picture, run_to_end, settings};
use delta_guard::case::{Case, State};
use delta_guard::engine::query;
use delta_guard::policy::Mode;
use delta_guard::publish;
use delta_guard::settings::Settings;
use delta_guard_contract::TrainId;
use std::collections::BTreeSet;
use std::path::Path;

fn run(root: &Path, picture: &str, change: impl FnOnce(&mut Settings)) -> (Case, Settings) {
    let mut settings = settings(root, Mode::Enforce);
    settings.gate.regrowth = 1;
    let caps = &mut settings.caps;
    (caps.max_case_share, caps.max_day_share, caps.max_total_share, caps.max_class_share) = (0.1, 0.1, 0.1, 0.5);
    change(&mut settings);
    drop_picture(&settings, "a.png", picture, None);
    (run_to_end(&settings), settings)
}

/// Worker runs: traces, trainings, certifications.
fn runs(settings: &Settings) -> [usize; 3] {
    let runs = std::fs::read_to_string(settings.worker.setup.cache_dir.join("runs")).unwrap();
    ["trace", "unlearn", "certify"].map(|stage| runs.lines().filter(|line| *line == stage).count())
}

fn removed(case: &Case, settings: &Settings) -> BTreeSet<TrainId> {
    let folder = settings.candidates_dir.join(&case.published().unwrap().folder);
    serde_json::from_slice(&std::fs::read(folder.join("removed.json")).unwrap()).unwrap()
}

#[test]
fn a_group_that_grows_back_is_removed_too() {
    let root = tempfile::tempdir().unwrap();
    let (case, settings) = run(root.path(), "label=dog\nregrow=6\n", |_| {});
    assert_eq!(case.state, State::Promoted, "{}", case.reason);
    assert_eq!(runs(&settings), [3, 2, 2]);
    let [first, second] = &case.regrown[..] else {
        panic!("{:?}", case.regrown)
    };
    assert_eq!((first.flagged, first.removed, first.count, first.again), (36, 30, 6, true));
    assert_eq!((second.flagged, second.removed, second.count, second.again), (36, 36, 0, false));
    // All of them are what the case flagged: for the candidate, the command line, and every later repair.
    let ids = removed(&case, &settings);
    assert_eq!(ids.len(), 36);
    assert_eq!(case.trace().unwrap().found.count(), 36);
    let running = Running::start(&settings);
    let ledger = &running.started.ledger;
    let flagged = ledger.flagged(&case.id).unwrap();
    assert_eq!((flagged.len(), flagged[35].rank), (36, 36));
    assert_eq!(flagged.iter().map(|example| example.id.clone()).collect::<BTreeSet<_>>(), ids);
    assert_eq!(ledger.standing().unwrap().ids, ids.iter().cloned().collect::<Vec<_>>());
    assert_eq!(
        ledger.cases_of(&TrainId("dog/grown-0-0003.png".into())).unwrap(),
        std::slice::from_ref(&case.id)
    );
    // The index has a copy of the list as it is now, not of both.
    let file = case.trace().unwrap().flagged.clone().unwrap().file;
    std::fs::remove_file(settings.case_dir(&case.id).join(file)).unwrap();
    assert_eq!(ledger.flagged(&case.id).unwrap(), flagged);
    running.stop().1.unwrap();
    assert!(query::read(&settings.state_dir).is_ok(), "the journal can be read");
    // A candidate's factors are nobody's any more.
    let work = settings.case_dir(&case.id).join("work");
    let left: Vec<_> = std::fs::read_dir(work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_str().unwrap().starts_with("trace-")), "{left:?}");
}

/// Every round costs a training; after the last one a person decides, whatever the mode.
#[test]
fn what_grows_back_again_and_again_is_a_persons() {
    let root = tempfile::tempdir().unwrap();
    let (case, settings) = run(root.path(), "label=dog\nregrow=6,7,8\n", |_| {});
    assert_eq!((case.state, publish::current(&settings.candidates_dir).unwrap()), (State::Proposed, None));
    assert_eq!(runs(&settings), [3, 2, 2]);
    assert_eq!(removed(&case, &settings).len(), 36);
    let last = case.regrown.last().unwrap();
    assert_eq!((last.count, last.again), (7, false));
    let [doubt] = &case.gate().unwrap().doubts[..] else {
        panic!("{:?}", case.gate())
    };
    assert!(
        doubt.starts_with("after another removal 7 training examples") && case.reason.contains(doubt.as_str()),
        "{doubt}"
    );
    let more: Vec<delta_guard_contract::Flagged> = delta_guard::engine::load(&settings.case_dir(&case.id), last.more.as_ref().unwrap()).unwrap();
    assert!(
        more.len() == 7 && more.iter().all(|example| example.id.0.starts_with("dog/grown-1-")),
        "{more:?}"
    );
    // One more round, and it goes on.
    let root = tempfile::tempdir().unwrap();
    let (case, settings) = run(root.path(), "label=dog\nregrow=6,7\n", |settings| settings.gate.regrowth = 2);
    assert_eq!((case.state, removed(&case, &settings).len()), (State::Promoted, 43));
    assert_eq!(runs(&settings), [4, 3, 3]);
}

#[test]
fn a_handful_is_no_group_and_a_large_group_has_a_larger_handful() {
    for (picture, promoted) in [
        ("label=dog\nregrow=4\n", true),
        ("label=dog\nflag=120\nregrow=5\n", true),
        ("label=dog\nflag=120\nregrow=6,9\n", false),
        // Nothing stands out at all.
        ("label=dog\n", true),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (case, settings) = run(root.path(), picture, |_| {});
        let first = &case.regrown[0];
        assert_eq!((first.more.is_none(), first.again), (promoted, !promoted), "{picture:?}: {first:?}");
        assert_eq!(case.state == State::Promoted, promoted, "{picture:?}: {}", case.reason);
        assert_eq!(runs(&settings)[1], if promoted { 1 } else { 2 }, "{picture:?}");
    }
}

/// It costs a fit and a trace: only where it is asked for, and only of a candidate that passes.
#[test]
fn only_what_passes_is_traced_again_and_only_when_asked() {
    for (picture, regrowth, traces, state) in [
        ("label=dog\nregrow=6\n", 0, 1, State::Promoted),
        ("label=dog\nregrow=6\nafter=dog\n", 1, 1, State::Rejected),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (case, settings) = run(root.path(), picture, |settings| settings.gate.regrowth = regrowth);
        assert_eq!((case.state, runs(&settings)[0], case.regrown.len()), (state, traces, 0), "{picture:?}");
    }
    // The ceilings hold for all that is removed: 30 of 3,000 are within 1.1 %, 36 are not.
    let root = tempfile::tempdir().unwrap();
    let (case, _) = run(root.path(), "label=dog\nregrow=6\n", |settings| settings.gate.max_flagged_share = 0.011);
    assert_eq!(case.state, State::Rejected);
    assert!(case.reason.contains("36 of 3000"), "{}", case.reason);
}
