//! A journal of the first version, kept whole: it is read, verified, folded and gone on with.
//!
//! `tests/fixtures/journal-1` was written by the last program of schema 1, with the fake worker: one case of every end, a retried one, two held ones, several
//! `queued` records, an approval, a withdrawal, messages sent and given up, a duplicate and a refused file. It is not made anew.

use crate::support::{Running, ask, case_named, drop_picture, settings, told, wait_for};
use delta_guard::case::{CaseId, HoldCause, State};
use delta_guard::engine::asked::Ask;
use delta_guard::engine::{Book, query};
use delta_guard::journal::Witness;
use delta_guard::journal::verify::{Verdict, verify};
use delta_guard::policy::Mode;
use delta_guard::publish;
use delta_guard::settings::Settings;
use delta_guard::vfs::{Disk, Vfs};
use delta_guard_contract::TrainId;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A copy of it.
fn old(root: &Path) -> Settings {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/journal-1");
    for (name, bytes) in crate::support::tree(&from) {
        let to = root.join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::write(to, bytes).unwrap();
    }
    settings(root, Mode::Propose)
}

/// Is every record as it was written, and does none contradict the others? Returns how many there are.
fn whole(settings: &Settings) -> u64 {
    let mut book = Book::default();
    let found = verify(Arc::new(Disk), &settings.journal_dir(), &Witness::None, &mut |record| {
        book.fold_record(record).map(|_| ())
    });
    assert_eq!((found.verdict, found.what.as_str()), (Verdict::Whole, ""));
    found.records
}

fn states(settings: &Settings) -> BTreeMap<String, State> {
    let (book, _) = query::read(&settings.state_dir).unwrap();
    book.cases.into_values().map(|case| (case.accepted.name, case.state)).collect()
}

const STATES: [(&str, State); 13] = [
    // Ended as proposed then, and approved beside that: its owner had put it in use.
    ("a.png", State::Promoted),
    ("broken.png", State::Refused),
    ("cap.png", State::Promoted),
    ("caught.png", State::Held),
    ("held.png", State::Held),
    ("last.png", State::Proposed),
    ("observed.png", State::Observed),
    ("promoted.png", State::Promoted),
    ("queued.png", State::Failed),
    ("rejected.png", State::Rejected),
    ("right.png", State::NoAnomaly),
    ("unclear.png", State::Undecided),
    ("waits.png", State::Proposed),
];

#[test]
fn it_says_what_it_said() {
    let root = tempfile::tempdir().unwrap();
    let settings = old(root.path());
    assert_eq!(whole(&settings), 192);
    assert_eq!(states(&settings), STATES.map(|(name, state)| (name.to_string(), state)).into());
    let (book, _) = query::read(&settings.state_dir).unwrap();
    let case = |name: &str| case_named(&settings, name).unwrap();
    assert!(book.cases.values().all(|case| case.told), "every end and hold of it was told");
    assert_eq!(
        (case("caught.png").held_cause(), case("held.png").held_cause()),
        (Some(HoldCause::Cap), Some(HoldCause::Fault))
    );
    assert_eq!(case("rejected.png").attempt, 1);
    // Of the four messages of queued.png, which lie in three records, two were sent and one was given up.
    let of = |name: &str| {
        let id = case(name).id;
        book.outbox.waiting.values().filter(|one| one.case == id).count()
    };
    assert_eq!(["a.png", "queued.png", "rejected.png", "cap.png", "waits.png"].map(of), [3, 1, 2, 2, 1]);
    // What stays out: the approved and the promoted ones, without the one that was withdrawn.
    let (excluded, standing) = query::standing(&settings.state_dir).unwrap();
    let names: Vec<CaseId> = excluded.iter().map(|one| one.case.clone()).collect();
    assert_eq!(names, [case("a.png").id, case("cap.png").id]);
    // The second one was held by a cap, and let pass.
    assert!(excluded.iter().all(|one| one.by.is_some()));
    assert_eq!(standing.ids.len(), 9);
    // What was flagged, strongest first.
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    let flagged = query::flagged(&vfs, &settings.journal_dir(), &case("cap.png").id).unwrap();
    assert_eq!(flagged.iter().map(|one| one.rank).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((flagged[0].id.0.as_str(), flagged[0].label.as_str()), ("ship/0000.png", "ship"));
    let of_dogs = query::cases_of(&vfs, &settings.journal_dir(), &TrainId("dog/0004.png".into())).unwrap();
    assert_eq!(of_dogs.len(), 2, "a.png and last.png");
}

/// A guard of today works with it: it answers from it, its index is made, a new case comes to its end, and a person's word on an old proposal counts.
#[test]
fn a_guard_goes_on_with_it() {
    let root = tempfile::tempdir().unwrap();
    let settings = old(root.path());
    let before = whole(&settings);
    let running = Running::start(&settings);
    assert!(running.started.ledger.has_index());
    drop_picture(&settings, "new.png", "label=dog\nflag=7\n", None);
    assert_eq!(told(&settings, "new.png").state, State::Proposed);
    let last = case_named(&settings, "last.png").unwrap();
    assert!(
        ask(
            &settings,
            Ask::Approve {
                case: last.id.clone(),
                by_hand: false
            }
        )
        .0
    );
    let promoted = wait_for("the promotion", || {
        case_named(&settings, "last.png").filter(|case| case.told && case.state.is_end())
    });
    running.stop().1.unwrap();
    let folder = promoted.published().map(|published| published.folder.clone());
    assert_eq!(publish::current(&settings.candidates_dir).unwrap(), folder);
    assert!(whole(&settings) > before);
    let mut expected: BTreeMap<String, State> = STATES.map(|(name, state)| (name.to_string(), state)).into();
    expected.insert("new.png".into(), State::Proposed);
    expected.insert("last.png".into(), State::Promoted);
    assert_eq!(states(&settings), expected);
    assert_eq!(query::standing(&settings.state_dir).unwrap().1.ids.len(), 10);
}
