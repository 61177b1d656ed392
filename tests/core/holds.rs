//! Cases that wait for a person: who hears of it, and what makes them go on.

use crate::support::{Running, drop_picture, only_case, settings, wait_for};
use delta_guard::case::{Case, HoldCause, Stage, State};
use delta_guard::engine::{self, Event};
use delta_guard::policy::Mode;
use delta_guard::publish;
use delta_guard::settings::Settings;

const ANOMALY: &str = "label=dog\n";

/// Run until the only case is held and that was told.
fn held(running: &Running, settings: &Settings) -> Case {
    let case = wait_for("the hold told", || only_case(settings).filter(|case| case.told));
    assert_eq!(case.state, State::Held, "{case:?}");
    assert!(running.hooks.count(|event| matches!(event, Event::CaseHeld { .. })) >= 1);
    case
}

/// Replace the production checkpoint at a moment of the guard's work.
fn replace_at(running: &Running, settings: &Settings, mut moment: impl FnMut(&Event) -> bool + Send + 'static) {
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
                Event::StageStarted { stage: now, .. } => during && *now == stage && stage != Stage::Publish,
                Event::StageFinished { stage: now, .. } => !during && *now == before || during && stage == Stage::Publish && *now == stage,
                _ => false,
            });
            drop_picture(&settings, "x.png", ANOMALY, None);
            let case = held(&running, &settings);
            running.stop().1.unwrap();
            let new = publish::digest_file(&settings.model.checkpoint).unwrap();
            assert_eq!(case.held_cause, Some(HoldCause::Base), "{stage} {during}");
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
            if matches!(event, Event::StageStarted { stage: now, .. } if *now == stage) {
                std::fs::write(&manifest, "b".repeat(64)).unwrap();
            }
        }));
        drop_picture(&settings, "x.png", ANOMALY, None);
        let case = held(&running, &settings);
        running.stop().1.unwrap();
        assert_eq!(case.held_cause, Some(HoldCause::Base), "{stage}");
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
        matches!(event, Event::StageStarted { stage: Stage::Predict, .. })
    });
    drop_picture(&settings, "x.png", ANOMALY, None);
    let case = wait_for("the end", || only_case(&settings).filter(|case| case.told));
    running.stop().1.unwrap();
    assert_eq!(case.state, State::Proposed, "{case:?}");
    let new = publish::digest_file(&settings.model.checkpoint).unwrap();
    assert_ne!(case.accepted.checkpoint, new);
    let folder = settings.candidates_dir.join(case.published.unwrap().folder);
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
