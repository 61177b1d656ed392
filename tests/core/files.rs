//! What can grow without bound lies in files of the case, which the journal names by their digest; and a record for which there is no room costs its case at most.

use crate::support::{Recorder, Running, ask, case_named, drop_picture, only_case, run_to_end, settings, told, wait_for};
use delta_guard::case::{Case, State};
use delta_guard::config::file::Mail;
use delta_guard::engine::asked::Ask;
use delta_guard::engine::{Happening, query};
use delta_guard::journal::Reader;
use delta_guard::policy::Mode;
use delta_guard::settings::Settings;
use delta_guard::vfs::{Disk, Vfs};
use delta_guard_contract::TrainId;
use std::path::PathBuf;
use std::sync::Arc;

/// How many records of a kind there are, and the bytes of the largest of all.
fn records(settings: &Settings, kind: &str) -> (usize, usize) {
    let (mut count, mut largest) = (0, 0);
    let mut reader = Reader::new(Arc::new(Disk), &settings.journal_dir());
    reader
        .read(&mut |record, _| {
            count += usize::from(record.kind == kind);
            largest = largest.max(serde_json::to_vec(&record)?.len());
            Ok(())
        })
        .unwrap();
    (count, largest)
}

fn flagged_file(settings: &Settings, case: &Case) -> PathBuf {
    let file = case.trace().unwrap().flagged.as_ref().unwrap();
    settings.case_dir(&case.id).join(&file.file)
}

/// The examples are in the file, all of them, and nothing that grows with them is in the journal.
#[test]
fn flagged_examples_lie_in_a_file_of_the_case() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Observe);
    drop_picture(&settings, "a.png", "label=dog\nflag=1500\n", None);
    let case = run_to_end(&settings);
    let (count, largest) = records(&settings, "flagged");
    assert!(count == 0 && largest < 4000, "{count} records, the largest of {largest} bytes");
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    let flagged = query::flagged(&vfs, &settings.journal_dir(), &case.id).unwrap();
    assert_eq!(flagged.len(), 1500);
    assert!(flagged.iter().map(|one| one.rank).eq(1..=1500), "strongest first");
}

/// Gone or changed, it is told with what to do, whoever asks; the guard starts all the same, and an older answer of the index that its digest proves is given.
#[test]
fn a_missing_or_changed_file_is_told_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Enforce);
    drop_picture(&settings, "a.png", "label=dog\nflag=30\n", None);
    let case = run_to_end(&settings);
    let file = flagged_file(&settings, &case);
    let sound = std::fs::read(&file).unwrap();
    let example = TrainId("dog/0003.png".into());
    let vfs: Arc<dyn Vfs> = Arc::new(Disk);
    for damage in [None, Some(b"[]".to_vec())] {
        // An index that has read the file.
        std::fs::write(&file, &sound).unwrap();
        std::fs::remove_dir_all(settings.index_dir()).unwrap();
        Running::start(&settings).stop().1.unwrap();
        match &damage {
            None => std::fs::remove_file(&file).unwrap(),
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
        }
        let running = Running::start(&settings);
        assert_eq!(running.started.ledger.flagged(&case.id).unwrap().len(), 30);
        running.stop().1.unwrap();
        // Nobody knows.
        std::fs::remove_dir_all(settings.index_dir()).unwrap();
        let running = Running::start(&settings);
        let ledger = &running.started.ledger;
        let said = [
            ledger.flagged(&case.id).unwrap_err(),
            ledger.cases_of(&example).unwrap_err(),
            ledger.standing().unwrap_err(),
            query::flagged(&vfs, &settings.journal_dir(), &case.id).unwrap_err(),
            query::standing(&settings.state_dir).unwrap_err(),
        ];
        for error in said {
            let error = format!("{error:#}");
            assert!(error.contains(file.to_str().unwrap()) && error.contains("put their file back"), "{error}");
        }
        assert!(ledger.has_index(), "that is not the index's fault");
        // A list with a hole would let poisons back in.
        drop_picture(&settings, "b.png", "label=cat\nflag=20\n", None);
        let other = told(&settings, "b.png");
        assert!(other.state == State::Held || other.state == State::Promoted, "{other:?}");
        assert!(damage.is_some() || other.state == State::Held, "{other:?}");
        // Put back, every answer is right again, without a new index.
        std::fs::write(&file, &sound).unwrap();
        assert_eq!(ledger.flagged(&case.id).unwrap().len(), 30);
        assert_eq!(ledger.cases_of(&example).unwrap(), std::slice::from_ref(&case.id));
        if other.state == State::Held {
            assert!(ask(&settings, Ask::Resume { case: other.id }).0);
            wait_for("the promotion", || {
                case_named(&settings, "b.png").filter(|case| case.told && case.state == State::Promoted)
            });
        }
        running.stop().1.unwrap();
    }
}

fn many(recipients: usize) -> Recorder {
    let to: Vec<String> = (0..recipients)
        .map(|n| format!("Somebody with a Name {n} <recipient-{n}@example.org>"))
        .collect();
    let mail: Mail = serde_json::from_value(serde_json::json!({"host": "localhost", "from": "guard@example.org", "to": to})).unwrap();
    Recorder(Default::default(), Default::default(), Some(mail))
}

/// Each message waits until it was sent, over every start; of a list whose messages were all sent nobody asks for the file again.
#[test]
fn many_messages_lie_in_a_file_of_the_case() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Observe);
    drop_picture(&settings, "a.png", "label=dog\nflag=3\n", None);
    let running = Running::start_with(&settings, many(200));
    told(&settings, "a.png");
    wait_for("the messages", || (running.started.ledger.snapshot().outbox == 200).then_some(()));
    let (queued, largest) = records(&settings, "queued");
    assert!(queued == 0 && largest < 4000, "{queued} records, the largest of {largest} bytes");
    let ids = |running: &Running| -> Vec<String> {
        let waiting = running.started.ledger.pending_messages();
        waiting.into_iter().map(|(_, message)| message.id).collect()
    };
    let all = ids(&running);
    running.started.ledger.message_sent(&all[0], "250 ok").unwrap();
    running.started.ledger.message_given_up(&all[1], "550 no").unwrap();
    assert_eq!(ids(&running), all[2..]);
    running.stop().1.unwrap();
    let running = Running::start_with(&settings, many(200));
    assert_eq!(ids(&running), all[2..]);
    let (last, others) = all[2..].split_last().unwrap();
    for id in others {
        running.started.ledger.message_sent(id, "250 ok").unwrap();
    }
    running.stop().1.unwrap();
    // The last one waits as long as the first.
    let running = Running::start_with(&settings, many(200));
    assert_eq!(ids(&running), std::slice::from_ref(last));
    running.started.ledger.message_sent(last, "250 ok").unwrap();
    running.stop().1.unwrap();
    // The case's files may go now.
    let case = only_case(&settings).unwrap();
    std::fs::remove_dir_all(settings.case_dir(&case.id).join("kept")).unwrap();
    let running = Running::start(&settings);
    assert!(ids(&running).is_empty());
    running.stop().1.unwrap();
}

/// Where there is no room for what was found, the case is held and told, the guard goes on, and so does the case when somebody asks.
#[test]
fn a_record_that_would_be_too_large_holds_its_case() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let running = Running::start(&settings);
    let ledger = Arc::clone(&running.started.ledger);
    let limited = Arc::clone(&ledger);
    *running.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if matches!(
            event,
            Happening::StageStarted {
                stage: delta_guard::case::Stage::Trace,
                ..
            }
        ) {
            limited.limit_records(600);
        }
    }));
    drop_picture(&settings, "a.png", "label=dog\nflag=30\n", None);
    let held = told(&settings, "a.png");
    assert_eq!(held.state, State::Held);
    assert!(
        held.reason.contains("record of kind traced") && held.help.contains("delta-guard resume"),
        "{held:?}"
    );
    assert_eq!(running.hooks.count(|event| matches!(event, Happening::CaseHeld { .. })), 1);
    *running.hooks.1.lock().unwrap() = None;
    ledger.limit_records(64 << 10);
    drop_picture(&settings, "b.png", "label=cat\nflag=20\n", None);
    assert_eq!(told(&settings, "b.png").state, State::Proposed);
    assert!(ask(&settings, Ask::Resume { case: held.id }).0);
    wait_for("its end", || {
        case_named(&settings, "a.png").filter(|case| case.told && case.state == State::Proposed)
    });
    running.stop().1.unwrap();
}

/// Where there is no room for anything, the case stands aside until the next start.
#[test]
fn not_even_a_hold_that_cannot_be_recorded_stops_the_guard() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let running = Running::start(&settings);
    let ledger = Arc::clone(&running.started.ledger);
    let limited = Arc::clone(&ledger);
    *running.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if matches!(
            event,
            Happening::StageStarted {
                stage: delta_guard::case::Stage::Trace,
                ..
            }
        ) {
            limited.limit_records(50);
        }
    }));
    drop_picture(&settings, "a.png", "label=dog\nflag=30\n", None);
    // What was found, and the hold.
    wait_for("two refusals", || {
        let refused = running.hooks.count(|event| matches!(event, Happening::JournalTrouble { .. }));
        (refused >= 2).then_some(())
    });
    *running.hooks.1.lock().unwrap() = None;
    ledger.limit_records(64 << 10);
    drop_picture(&settings, "b.png", "label=cat\nflag=20\n", None);
    assert_eq!(told(&settings, "b.png").state, State::Proposed);
    assert_eq!(case_named(&settings, "a.png").unwrap().state, State::Fitted);
    // Who has the ledger has the journal's lock.
    drop(ledger);
    running.stop().1.expect("it goes on");
    let running = Running::start(&settings);
    assert_eq!(told(&settings, "a.png").state, State::Proposed);
    running.stop().1.unwrap();
}
