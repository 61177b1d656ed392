//! Cases that wait for a person: who hears of it, and what makes them go on.

use crate::support::{Running, answer, ask, drop_picture, only_case, settings, wait_for};
use delta_guard::case::{Case, HoldCause, Stage, State};
use delta_guard::engine::asked::{self, Ask, Request};
use delta_guard::engine::{self, Happening};
use delta_guard::inbox::refused::Reason;
use delta_guard::policy::Mode;
use delta_guard::publish;
use delta_guard::settings::Settings;
use delta_guard_contract::Digest;

const ANOMALY: &str = "label=dog\n";

/// Run until the only case is held and that was told.
fn held(running: &Running, settings: &Settings) -> Case {
    let case = wait_for("the hold told", || only_case(settings).filter(|case| case.told));
    assert_eq!(case.state, State::Held, "{case:?}");
    assert!(running.hooks.count(|event| matches!(event, Happening::CaseHeld { .. })) >= 1);
    case
}

/// Replace the production checkpoint at a moment of the guard's work.
fn replace_at(running: &Running, settings: &Settings, mut moment: impl FnMut(&Happening) -> bool + Send + 'static) {
    let checkpoint = settings.model.checkpoint.clone();
    *running.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if moment(event) {
            std::fs::write(&checkpoint, b"other weights").unwrap();
        }
    }));
}

/// Whatever the stage, and whether the guard or the worker meets the other checkpoint: the case waits, both digests are told, nothing is published or promoted.
#[test]
fn a_checkpoint_replaced_between_two_stages_holds_the_case() {
    let stages = [Stage::Fit, Stage::Trace, Stage::Unlearn, Stage::Certify, Stage::Publish];
    for (at, stage) in stages.into_iter().enumerate() {
        for during in [false, true] {
            let root = tempfile::tempdir().unwrap();
            let settings = settings(root.path(), Mode::Enforce);
            let old = publish::digest_file(&settings.model.checkpoint).unwrap();
            let running = Running::start(&settings);
            let before = if at == 0 { Stage::Predict } else { stages[at - 1] };
            replace_at(&running, &settings, move |event| match event {
                Happening::StageStarted { stage: now, .. } => during && *now == stage && stage != Stage::Publish,
                Happening::StageFinished { stage: now, .. } => !during && *now == before || during && stage == Stage::Publish && *now == stage,
                _ => false,
            });
            drop_picture(&settings, "x.png", ANOMALY, None);
            let case = held(&running, &settings);
            running.stop().1.unwrap();
            let new = publish::digest_file(&settings.model.checkpoint).unwrap();
            assert_eq!(case.held_cause(), Some(HoldCause::Base), "{stage} {during}");
            assert_eq!(case.base(), Some(&old));
            assert!(case.reason.contains(&old.0) && case.reason.contains(&new.0), "{stage}: {}", case.reason);
            assert!(case.help.contains(&format!("delta-guard resume {}", case.id.short())), "{}", case.help);
            assert_eq!(
                publish::current(&settings.candidates_dir).unwrap(),
                None,
                "{stage}: promoted all the same"
            );
            if stage != Stage::Publish {
                assert!(!case.seconds.contains_key(&stage), "{stage} counts as done: {case:?}");
            }
        }
    }
}

#[test]
fn a_training_set_that_changed_holds_the_case() {
    for stage in [Stage::Trace, Stage::Unlearn, Stage::Certify] {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), Mode::Propose);
        let running = Running::start(&settings);
        let manifest = settings.worker.setup.cache_dir.join("manifest");
        *running.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
            if matches!(event, Happening::StageStarted { stage: now, .. } if *now == stage) {
                std::fs::write(&manifest, "b".repeat(64)).unwrap();
            }
        }));
        drop_picture(&settings, "x.png", ANOMALY, None);
        let case = held(&running, &settings);
        running.stop().1.unwrap();
        assert_eq!(case.held_cause(), Some(HoldCause::Base), "{stage}");
        for digest in ["a".repeat(64), "b".repeat(64)] {
            assert!(case.reason.contains(&digest), "{stage}: {}", case.reason);
        }
    }
}

/// The manifest of a candidate names the checkpoint that was predicted with, also where another one lay there when the picture was taken in.
#[test]
fn the_base_is_the_one_that_predict_read() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let running = Running::start(&settings);
    replace_at(&running, &settings, |event| {
        matches!(event, Happening::StageStarted { stage: Stage::Predict, .. })
    });
    drop_picture(&settings, "x.png", ANOMALY, None);
    let case = wait_for("the end", || only_case(&settings).filter(|case| case.told));
    running.stop().1.unwrap();
    assert_eq!(case.state, State::Proposed, "{case:?}");
    let new = publish::digest_file(&settings.model.checkpoint).unwrap();
    assert_ne!(case.accepted.checkpoint, new);
    let folder = settings.candidates_dir.join(&case.published().unwrap().folder);
    assert_eq!(publish::read_manifest(&folder).unwrap().0.base_checkpoint, new);
}

/// One message for each hold, and none for a start that changes nothing.
#[test]
fn every_hold_is_told_once() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    drop_picture(&settings, "x.png", "label=dog\nfault=trace:internal\n", None);
    let running = Running::start(&settings);
    let case = held(&running, &settings);
    let report = std::fs::read_to_string(settings.case_dir(&case.id).join("report.html")).unwrap();
    assert!(report.contains("held"), "{report}");
    let waiting = running.started.ledger.pending_messages();
    assert_eq!(waiting.len(), 1);
    let content: serde_json::Value = engine::load(&settings.case_dir(&case.id), waiting[0].1.kept.as_ref().unwrap()).unwrap();
    assert_eq!(content["state"], "held");
    running.stop().1.unwrap();
    // The same again: nothing is tried and nothing is told.
    let running = Running::start(&settings);
    drop_picture(&settings, "y.png", "BROKEN", None);
    wait_for("the second picture refused", || {
        let cases = running.started.ledger.cases().unwrap();
        cases.iter().any(|case| case.state == State::Refused && case.told).then_some(())
    });
    let holds = |running: &Running| {
        let mut ids: Vec<String> = running
            .started
            .ledger
            .pending_messages()
            .into_iter()
            .map(|(_, message)| message.id)
            .collect();
        ids.sort();
        ids.dedup();
        ids.len() - 1
    };
    assert_eq!(holds(&running), 1);
    running.stop().1.unwrap();
    // Another configuration: tried again, held again, told again.
    settings.worker.attempts = 2;
    let running = Running::start(&settings);
    wait_for("a second message", || (holds(&running) == 2).then_some(()));
    running.stop().1.unwrap();
}

fn stage_runs(settings: &Settings, stage: &str) -> usize {
    let runs = std::fs::read_to_string(settings.worker.setup.cache_dir.join("runs")).unwrap();
    runs.lines().filter(|line| *line == stage).count()
}

/// With a running guard and without; once, and only what is held.
#[test]
fn a_held_case_goes_on_when_somebody_asks() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let moved = root.path().join("moved.safetensors");
    let running = Running::start(&settings);
    let (from, to) = (settings.model.checkpoint.clone(), moved.clone());
    *running.hooks.1.lock().unwrap() = Some(Box::new(move |event| {
        if matches!(event, Happening::StageStarted { stage: Stage::Trace, .. }) && !to.exists() {
            std::fs::copy(&from, &to).unwrap();
            std::fs::write(&from, b"other weights").unwrap();
        }
    }));
    drop_picture(&settings, "x.png", ANOMALY, None);
    let case = held(&running, &settings);
    let resume = || Ask::Resume { case: case.id.clone() };
    // The cause is still there: held again, and told again.
    assert_eq!(ask(&settings, resume()), (true, "it goes on at stage trace".into()));
    let again = wait_for("held again", || only_case(&settings).filter(|case| case.holds == 2 && case.told));
    assert_eq!((again.held_cause(), again.base()), (Some(HoldCause::Base), case.base()));
    running.stop().1.unwrap();
    // Mended, and asked for while the guard is down.
    std::fs::copy(&moved, &settings.model.checkpoint).unwrap();
    let request = Request {
        ask: resume(),
        reason: String::new(),
    };
    let id = asked::put(&settings.state_dir, &request).unwrap();
    assert_eq!(answer(&settings, &id), None);
    let running = Running::start(&settings);
    let done = wait_for("the end", || {
        only_case(&settings).filter(|case| case.told && case.state == State::Proposed)
    });
    assert_eq!((done.state, answer(&settings, &id).unwrap().0), (State::Proposed, true));
    let (done, why) = ask(&settings, resume());
    assert!(!done && why.contains("waits for your word"), "{why}");
    let (done, why) = ask(
        &settings,
        Ask::Resume {
            case: Digest("0".repeat(64)),
        },
    );
    assert!(!done && why.contains("there is no case"), "{why}");
    // What is no request is put away, and the next one is heard.
    let folder = asked::folder(&settings.state_dir);
    std::fs::write(folder.join("0.json"), "{\"ask\": \"sing\"}").unwrap();
    std::fs::write(folder.join("1.json"), vec![b' '; 1 << 20]).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("2.json")).unwrap();
    assert!(!ask(&settings, resume()).0);
    wait_for("an empty folder", || (std::fs::read_dir(&folder).unwrap().count() == 0).then_some(()));
    running.stop().1.unwrap();
}

/// Rejected: by another method, by an owner's own candidate, and from the beginning. Each attempt has its message, its candidate, its verdict.
#[test]
fn a_rejected_case_is_tried_again() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Enforce);
    drop_picture(&settings, "x.png", "label=dog\nafter=dog\n", None);
    let running = Running::start(&settings);
    let first = wait_for("the rejection", || only_case(&settings).filter(|case| case.told));
    assert_eq!((first.state, first.attempt), (State::Rejected, 0));
    let attempt = |wanted: u32| {
        wait_for("the next end", || {
            only_case(&settings).filter(|case| case.told && case.state.is_end() && case.attempt == wanted)
        })
    };
    let retry = |method, candidate, whole| Ask::Retry {
        case: first.id.clone(),
        whole,
        method,
        candidate,
    };
    assert_eq!(
        ask(&settings, retry(Some("cf".parse().unwrap()), None, false)),
        (true, "a new candidate is made by cf, with the settings of now".into())
    );
    let second = attempt(1);
    assert_eq!((second.state, second.method), (State::Rejected, Some("cf".parse().unwrap())));
    assert_ne!(
        second.candidate_file(),
        first.candidate_file(),
        "the other method made the same candidate"
    );
    assert_eq!((stage_runs(&settings, "trace"), stage_runs(&settings, "unlearn")), (1, 2));
    // The owner's own: measured and judged, and never promoted by the guard.
    let own = root.path().join("own.safetensors");
    std::fs::write(&own, b"weights of the owner").unwrap();
    let digest = asked::put_candidate(&settings.state_dir, &own).unwrap();
    assert_eq!(digest, publish::digest_file(&own).unwrap());
    assert!(ask(&settings, retry(None, Some(digest.clone()), false)).0);
    let third = attempt(2);
    assert_eq!((third.state, third.candidate_file().map(|file| file.1)), (State::Rejected, Some(&digest)));
    assert_eq!((stage_runs(&settings, "unlearn"), stage_runs(&settings, "certify")), (2, 3));
    let folder = settings.candidates_dir.join(&third.published().unwrap().folder);
    let (manifest, _) = publish::read_manifest(&folder).unwrap();
    assert_eq!((manifest.made_by.as_str(), manifest.gate.as_str()), ("owner", "rejected"));
    assert_eq!(std::fs::read(folder.join("model.safetensors")).unwrap(), b"weights of the owner");
    // The same again is another attempt with a folder of its own.
    assert!(
        ask(
            &settings,
            retry(None, Some(asked::put_candidate(&settings.state_dir, &own).unwrap()), false)
        )
        .0
    );
    assert_ne!(attempt(3).published(), third.published());
    assert!(ask(&settings, retry(None, None, true)).0);
    assert_eq!((attempt(4).state, stage_runs(&settings, "predict")), (State::Rejected, 2));
    let mut messages: Vec<String> = running
        .started
        .ledger
        .pending_messages()
        .into_iter()
        .map(|(_, message)| message.id)
        .collect();
    messages.dedup();
    assert_eq!(messages.len(), 5);
    // A candidate that was never laid down, or is another one.
    let (done, why) = ask(&settings, retry(None, Some(Digest("e".repeat(64))), false));
    assert!(!done && why.contains("cannot be taken"), "{why}");
    let (_, outcome) = running.stop();
    outcome.unwrap();
    // The index can go: the journal tells the same.
    let before = only_case(&settings).unwrap();
    std::fs::remove_dir_all(settings.index_dir()).unwrap();
    let running = Running::start(&settings);
    assert_eq!(running.started.ledger.case(&first.id).unwrap(), Some(before));
    assert!(ask(&settings, retry(Some("eu".parse().unwrap()), None, false)).0);
    assert_eq!(attempt(5).state, State::Rejected);
    running.stop().1.unwrap();
}

/// Where an owner's own candidate passes, it is proposed, in `enforce`, too.
#[test]
fn an_owners_candidate_is_not_promoted_without_a_word() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Enforce);
    settings.gate.max_accuracy_drop = 0.0;
    drop_picture(&settings, "x.png", "label=dog\ncorrect_after=255\n", None);
    let case = crate::support::run_to_end(&settings);
    assert_eq!(case.state, State::Rejected);
    settings.gate.max_accuracy_drop = 0.5;
    settings.gate.max_class_drop = 0.5;
    let running = Running::start(&settings);
    let own = root.path().join("own.safetensors");
    std::fs::write(&own, b"weights of the owner").unwrap();
    let candidate = Some(asked::put_candidate(&settings.state_dir, &own).unwrap());
    let retry = Ask::Retry {
        case: case.id,
        whole: false,
        method: None,
        candidate,
    };
    assert!(ask(&settings, retry).0);
    let case = wait_for("the end", || only_case(&settings).filter(|case| case.told && case.attempt == 1));
    assert_eq!(case.state, State::Proposed, "{case:?}");
    assert_eq!(publish::current(&settings.candidates_dir).unwrap(), None);
    // Its owner's word is another thing.
    let approve = Ask::Approve {
        case: case.id.clone(),
        by_hand: false,
    };
    assert!(ask(&settings, approve).0);
    let case = wait_for("the promotion", || only_case(&settings).filter(|case| case.told && case.state.is_end()));
    running.stop().1.unwrap();
    assert_eq!(
        publish::current(&settings.candidates_dir).unwrap(),
        Some(case.published().unwrap().folder.clone())
    );
}

/// What a new attempt begins with, for each state that it may begin in.
#[test]
fn where_a_new_attempt_begins() {
    for (words, sidecar, state, stages) in [
        ("label=dog\nverdict=undecided\n", None, State::Undecided, [1, 2, 2]),
        ("BROKEN", None, State::Refused, [2, 0, 0]),
        (ANOMALY, Some(r#"{"true_label": "dog"}"#), State::NoAnomaly, [2, 0, 0]),
        (ANOMALY, None, State::Proposed, [1, 1, 1]),
    ] {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(root.path(), Mode::Propose);
        drop_picture(&settings, "x.png", words, sidecar);
        let running = Running::start(&settings);
        let case = wait_for("the end", || only_case(&settings).filter(|case| case.told));
        assert_eq!(case.state, state);
        let ask_for = |method| Ask::Retry {
            case: case.id.clone(),
            whole: false,
            method,
            candidate: None,
        };
        if state != State::Proposed {
            let (done, why) = ask(&settings, ask_for(Some("cf".parse().unwrap())));
            assert!(!done && why.contains("nothing to unlearn"), "{why}");
        }
        assert!(ask(&settings, ask_for(None)).0, "{state}");
        let after = wait_for("the second end", || only_case(&settings).filter(|case| case.told && case.attempt == 1));
        running.stop().1.unwrap();
        assert_eq!(after.state, state);
        assert_eq!(["predict", "fit", "trace"].map(|stage| stage_runs(&settings, stage)), stages, "{state}");
    }
}

/// A known picture is answered with its case and with how to ask again, and the note is not laid over another file's.
#[test]
fn a_known_picture_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let running = Running::start(&settings);
    drop_picture(&settings, "x.png", "label=dog\nafter=dog\n", None);
    let case = wait_for("the rejection", || only_case(&settings).filter(|case| case.told));
    drop_picture(&settings, "y.png", "label=dog\nafter=dog\n", None);
    let note = settings.inbox.refused_dir.join("y.png.reason.json");
    let reason: Reason = wait_for("the note", || serde_json::from_slice(&std::fs::read(&note).ok()?).ok());
    assert_eq!(reason.case.as_ref(), Some(&case.id.0));
    assert!(
        reason.sentence.contains("ended as rejected: the candidate still reads"),
        "{}",
        reason.sentence
    );
    assert!(reason.help.contains(&format!("delta-guard retry {}", case.id.short())), "{}", reason.help);
    assert!(
        !settings.inbox.refused_dir.join("y.png").exists()
            && wait_for("an empty inbox", || { (!settings.inbox.dir.join("y.png").exists()).then_some(true) })
    );
    // Another file's note of that name stays.
    drop_picture(&settings, "z.png", "BROKEN", None);
    let other = settings.inbox.refused_dir.join("z.png.reason.json");
    let before = wait_for("the other note", || {
        std::fs::read(&other).ok().filter(|_| settings.inbox.refused_dir.join("z.png").exists())
    });
    drop_picture(&settings, "z.png", "label=dog\nafter=dog\n", None);
    let beside = settings.inbox.refused_dir.join(format!("{}-again-z.png.reason.json", case.id.short()));
    wait_for("the note beside it", || beside.exists().then_some(()));
    assert_eq!(std::fs::read(&other).unwrap(), before);
    running.stop().1.unwrap();
}

/// Behind a long stage, a text file named .png: what was taken in meanwhile is answered before the next long stage.
#[test]
fn new_pictures_are_answered_before_the_next_long_stage() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    // One scan takes in both, the good one first.
    drop_picture(&settings, "a.png", ANOMALY, None);
    drop_picture(&settings, "b.png", "BROKEN", None);
    let running = Running::start(&settings);
    wait_for("both told", || {
        let cases = running.started.ledger.cases().unwrap();
        (cases.len() == 2 && cases.iter().all(|case| case.told)).then_some(())
    });
    let (hooks, outcome) = running.stop();
    outcome.unwrap();
    let seen = hooks.0.lock().unwrap();
    let at = |wanted: &dyn Fn(&Happening) -> bool| seen.iter().position(wanted).expect("it happened");
    let refused = at(&|event| matches!(event, Happening::CaseEnded { state: State::Refused, .. }));
    let traced = at(&|event| matches!(event, Happening::StageStarted { stage: Stage::Trace, .. }));
    assert!(refused < traced, "the broken picture waited for the trace");
}
