//! From a file in the inbox to the end of its case.

use crate::support::{Recorder, Running, ask, drop_picture, only_case, run_to_end, settings, tree, wait_for};
use delta_guard::case::{HoldCause, Stage, State};
use delta_guard::engine::asked::Ask;
use delta_guard::engine::entry::mail::Note;
use delta_guard::engine::{CaseView, Happening, Ledger};
use delta_guard::inbox::refused::Reason;
use delta_guard::policy::Mode;
use delta_guard::publish;
use delta_guard_contract::{Code, FaultKind, TrainId};
use std::time::Duration;

const ANOMALY: &str = "label=dog\n";

#[test]
fn a_poisoned_picture_becomes_a_candidate() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let production = std::fs::read(&settings.model.checkpoint).unwrap();
    drop_picture(&settings, "odd.png", ANOMALY, Some(r#"{"predicted_label": "dog", "true_label": "ship"}"#));
    let case = run_to_end(&settings);
    assert_eq!((case.state, case.told), (State::Proposed, true), "{case:?}");
    for stage in [Stage::Predict, Stage::Fit, Stage::Trace, Stage::Unlearn, Stage::Certify, Stage::Publish] {
        assert!(case.seconds.contains_key(&stage), "{stage}");
    }
    let view = CaseView::new(&case, &settings);
    assert_eq!(view.trace.as_ref().unwrap().flagged.len(), 30);
    let (manifest, digest) = publish::read_manifest(view.paths.candidate.as_ref().unwrap()).unwrap();
    assert_eq!((manifest.gate.as_str(), &manifest.case), ("passed", &case.id));
    assert_eq!(digest, case.published().unwrap().manifest);
    assert!(view.paths.report.is_file() && view.paths.checkpoint.unwrap().is_file());
    assert_eq!(publish::current(&settings.candidates_dir).unwrap(), None, "propose must not promote");
    assert_eq!(std::fs::read(&settings.model.checkpoint).unwrap(), production);
    assert!(tree(&settings.inbox.dir).is_empty());
    // The index knows it, also after a restart.
    let running = Running::start(&settings);
    let ledger = &running.started.ledger;
    assert_eq!(ledger.flagged(&case.id).unwrap().len(), 30);
    assert_eq!(ledger.cases_of(&TrainId("dog/0007.png".into())).unwrap(), std::slice::from_ref(&case.id));
    assert_eq!(ledger.cases_of(&TrainId("dog/000".into())).unwrap(), []);
    assert_eq!(ledger.pending_messages().len(), 1);
    let id = ledger.pending_messages()[0].1.id.clone();
    ledger.message_sent(&id, "250 ok").unwrap();
    assert!(ledger.pending_messages().is_empty());
    running.stop().1.unwrap();
    let running = Running::start(&settings);
    assert!(running.started.ledger.pending_messages().is_empty(), "a sent message is not sent again");
    running.stop().1.unwrap();
}

#[test]
fn every_stage_runs_at_the_configured_niceness() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    let own = rustix::process::getpriority_process(None).unwrap();
    let nice = (own.max(0) + 4).clamp(0, 19);
    settings.worker.nice = nice.cast_unsigned();
    drop_picture(&settings, "odd.png", ANOMALY, None);
    assert_eq!(run_to_end(&settings).state, State::Proposed);
    let seen = std::fs::read_to_string(settings.worker.setup.cache_dir.join("niceness")).unwrap();
    assert_eq!(seen.lines().collect::<Vec<_>>(), vec![nice.to_string(); 5]);
}

#[test]
fn each_ending() {
    for (mode, words, sidecar, state, word) in [
        (Mode::Enforce, ANOMALY, None, State::Promoted, "current"),
        (Mode::Observe, ANOMALY, None, State::Observed, "only reports"),
        (
            Mode::Propose,
            "label=dog\nverdict=undecided\n",
            None,
            State::Undecided,
            "nothing stands out",
        ),
        (
            Mode::Enforce,
            "label=dog\nverdict=undecided\n",
            None,
            State::Undecided,
            "nothing stands out",
        ),
        (
            Mode::Enforce,
            "label=dog\nflag=0\n",
            None,
            State::Undecided,
            "flagged no training example",
        ),
        (Mode::Enforce, "label=dog\nafter=dog\n", None, State::Rejected, "still reads"),
        (
            Mode::Enforce,
            "label=dog\ncorrect_after=200\n",
            None,
            State::Rejected,
            "max_accuracy_drop",
        ),
        (Mode::Enforce, "label=dog\nflag=400\n", None, State::Rejected, "max_flagged_share"),
        (
            Mode::Propose,
            ANOMALY,
            Some(r#"{"true_label": "dog"}"#),
            State::NoAnomaly,
            "reads it correctly",
        ),
        (
            Mode::Propose,
            ANOMALY,
            Some(r#"{"predicted_label": "cat"}"#),
            State::NoAnomaly,
            "predicts \"cat\"",
        ),
        (
            Mode::Propose,
            ANOMALY,
            Some(r#"{"true_label": "horse"}"#),
            State::Refused,
            "\"horse\" is no class",
        ),
        (Mode::Propose, "BROKEN", None, State::Refused, "cannot be decoded"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), mode);
        drop_picture(&settings, "x.png", words, sidecar);
        let case = run_to_end(&settings);
        assert_eq!(case.state, state, "{words:?} {sidecar:?}: {case:?}");
        assert!(case.reason.contains(word), "{}", case.reason);
        let current = publish::current(&settings.candidates_dir).unwrap();
        assert_eq!(current.is_some(), state == State::Promoted);
        assert_eq!(
            case.published().is_some(),
            matches!(state, State::Promoted | State::Rejected),
            "{words:?}"
        );
        if state == State::Rejected {
            let folder = settings.candidates_dir.join(&case.published().unwrap().folder);
            assert_eq!(publish::read_manifest(&folder).unwrap().0.gate, "rejected");
        }
        let refused = tree(&settings.inbox.refused_dir);
        if matches!(state, State::Refused | State::NoAnomaly) {
            assert_eq!(refused["x.png"], words.as_bytes());
            let reason: Reason = serde_json::from_slice(&refused["x.png.reason.json"]).unwrap();
            assert_eq!((reason.case, reason.sentence), (Some(case.id.0), case.reason));
        } else {
            assert!(refused.is_empty());
        }
    }
}

#[test]
fn an_unknown_label_names_the_classes() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    settings.check_prediction = false;
    drop_picture(&settings, "x.png", ANOMALY, Some(r#"{"predicted_label": "hors"}"#));
    assert_eq!(run_to_end(&settings).help, "the classes are: cat, dog, ship");
}

#[test]
fn without_the_check_a_correctly_read_picture_is_traced() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Observe);
    settings.check_prediction = false;
    drop_picture(&settings, "x.png", ANOMALY, Some(r#"{"true_label": "dog", "predicted_label": "ship"}"#));
    assert_eq!(run_to_end(&settings).state, State::Observed);
}

#[test]
fn a_worker_that_crashes_once_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    drop_picture(&settings, "x.png", "label=dog\nonce=trace\n", None);
    let running = Running::start(&settings);
    let case = wait_for("the end", || only_case(&settings).filter(|case| case.told));
    let (hooks, outcome) = running.stop();
    outcome.unwrap();
    assert_eq!(case.state, State::Proposed);
    let failures = hooks.count(|event| {
        matches!(event, Happening::StageFailed { stage: Stage::Trace, message, retry_in: Some(_), .. } if message.contains("signal 11") && message.contains("about to crash"))
    });
    assert_eq!(failures, 1);
}

#[test]
fn faults_hold_a_case_until_a_start_that_may_mend_it() {
    for (words, attempts) in [
        ("label=dog\nfault=trace:internal\n", 3),
        ("label=dog\nfault=trace:configuration\n", 1),
        ("label=dog\nfault=certify:submission\n", 1),
    ] {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path(), Mode::Propose);
        drop_picture(&settings, "x.png", words, None);
        let held = run_to_end(&settings);
        assert_eq!((held.state, held.told), (State::Held, true), "{words:?}");
        assert!(held.reason.contains("told to fail"), "{}", held.reason);
        let stage = if words.contains("trace") { "trace" } else { "certify" };
        let log = settings.worker.setup.cache_dir.join("runs");
        let runs = || std::fs::read_to_string(&log).unwrap().lines().filter(|line| *line == stage).count();
        assert_eq!(runs(), attempts, "{words:?}");
        // A start with other settings is a new try: the same again.
        settings.owner = "somebody else".into();
        let running = Running::start(&settings);
        wait_for("the case held again", || {
            (runs() == 2 * attempts && only_case(&settings).is_some_and(|case| case.state == State::Held && case.told)).then_some(())
        });
        running.stop().1.unwrap();
    }
}

/// A network file system that does not answer twice costs two waits, the second one longer; one that never answers holds the case, which says how often it was tried.
#[test]
fn a_hiccup_of_the_file_system_is_waited_out_and_the_last_one_holds() {
    let waits = |hooks: &Recorder| -> Vec<Option<Duration>> {
        let events = hooks.0.lock().unwrap();
        let failed = events.iter().filter_map(|event| match event {
            Happening::StageFailed {
                stage: Stage::Trace,
                kind: FaultKind::Resource,
                retry_in,
                ..
            } => Some(*retry_in),
            _ => None,
        });
        failed.collect()
    };
    let wait = |n| Some(Duration::from_millis(n));
    for (times, wanted, state) in [
        (2, vec![wait(10), wait(50)], State::Proposed),
        (3, vec![wait(10), wait(50), None], State::Held),
    ] {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), Mode::Propose);
        drop_picture(&settings, "x.png", &format!("label=dog\nhiccups=trace:{times}\n"), None);
        let running = Running::start(&settings);
        let case = wait_for("the case told", || only_case(&settings).filter(|case| case.told));
        let (hooks, outcome) = running.stop();
        outcome.unwrap();
        assert_eq!((case.state, waits(&hooks)), (state, wanted), "{case:?}");
        let holds = hooks.count(|event| matches!(event, Happening::CaseHeld { .. }));
        assert_eq!(holds, usize::from(state == State::Held));
        if state == State::Held {
            assert!(case.reason.starts_with("tried 3 times within "), "{}", case.reason);
            assert!(case.reason.ends_with("Input/output error (os error 5)"), "{}", case.reason);
            assert_eq!((case.help.as_str(), case.held_cause()), ("look at the mount", Some(HoldCause::Fault)));
            assert_eq!(case.failed_code, Some(Code::Resource));
        }
    }
}

#[test]
fn a_held_case_does_not_stop_the_next_one() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Observe);
    drop_picture(&settings, "a.png", "label=dog\nfault=trace:configuration\n", None);
    let running = Running::start(&settings);
    wait_for("the first case held", || (running.started.ledger.snapshot().held == 1).then_some(()));
    drop_picture(&settings, "b.png", ANOMALY, None);
    wait_for("the second case observed", || {
        running
            .started
            .ledger
            .cases()
            .unwrap()
            .iter()
            .any(|case| case.state == State::Observed && case.told)
            .then_some(())
    });
    running.stop().1.unwrap();
}

#[test]
fn a_stopped_daemon_stops_its_worker_and_goes_on_later() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    drop_picture(&settings, "x.png", "label=dog\nhang=trace\n", None);
    let running = Running::start(&settings);
    wait_for("the hanging trace", || {
        (running
            .hooks
            .count(|event| matches!(event, Happening::Progress { progress, .. } if progress.step == "hang"))
            > 0)
        .then_some(())
    });
    running.stop().1.unwrap();
    let case = only_case(&settings).unwrap();
    assert_eq!((case.state, case.failures), (State::Fitted, 0), "a stop is no failure");
    // The same case, with a time limit: that is one.
    settings.worker.limits.trace = std::time::Duration::from_millis(300);
    settings.worker.attempts = 1;
    let held = run_to_end(&settings);
    assert_eq!(held.state, State::Held);
    assert!(held.reason.contains("time limit"), "{}", held.reason);
}

#[test]
fn a_foreign_hand_on_current_holds_the_promotion() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Enforce);
    std::fs::create_dir_all(&settings.candidates_dir).unwrap();
    std::fs::write(settings.candidates_dir.join(publish::CURRENT), "not a link").unwrap();
    drop_picture(&settings, "x.png", ANOMALY, None);
    let case = run_to_end(&settings);
    assert_eq!(case.state, State::Held);
    assert!(case.reason.contains("is not a link"), "{}", case.reason);
    std::fs::remove_file(settings.candidates_dir.join(publish::CURRENT)).unwrap();
    assert_eq!(run_to_end_again(&settings), State::Promoted);
}

fn run_to_end_again(settings: &delta_guard::settings::Settings) -> State {
    let running = Running::start(settings);
    let held = only_case(settings).unwrap();
    assert!(ask(settings, Ask::Resume { case: held.id }).0);
    // Its hold was told before: it is over when it has ended.
    let case = wait_for("the end", || only_case(settings).filter(|case| case.is_over()));
    running.stop().1.unwrap();
    case.state
}

/// How long a mail has been waiting is counted by notes in the journal, which no clock can falsify; one that comes later begins at 0.
#[test]
fn waiting_is_counted_from_when_a_message_came_and_over_restarts() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    drop_picture(&settings, "a.png", ANOMALY, None);
    run_to_end(&settings);
    let running = Running::start(&settings);
    let ledger = &running.started.ledger;
    let waited = |ledger: &Ledger| {
        let mut seconds: Vec<u64> = ledger.waiting_messages().iter().map(|(_, waited)| waited.as_secs()).collect();
        seconds.sort_unstable();
        seconds
    };
    assert_eq!((waited(ledger), ledger.snapshot().outbox), (vec![0], 1));
    ledger.note(Note::OutboxWaited { seconds: 3600 }).unwrap();
    assert_eq!(waited(ledger), [3600]);
    drop_picture(&settings, "b.png", "label=cat\n", None);
    wait_for("a second message", || (ledger.snapshot().outbox == 2).then_some(()));
    ledger.note(Note::OutboxWaited { seconds: 60 }).unwrap();
    assert_eq!(waited(ledger), [60, 3660]);
    running.stop().1.unwrap();
    let running = Running::start(&settings);
    assert_eq!(waited(&running.started.ledger), [60, 3660]);
    running.stop().1.unwrap();
}
