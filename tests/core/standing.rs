//! What promoted and approved repairs took out stays out, and how much the guard promotes without a person.

use crate::support::{Running, ask, case_named, drop_picture, settings, told, wait_for};
use delta_guard::case::{Case, HoldCause, State};
use delta_guard::engine::asked::Ask;
use delta_guard::engine::{CaseView, Happening, query};
use delta_guard::policy::Mode;
use delta_guard::publish::{self, CandidateManifest};
use delta_guard::settings::Settings;
use delta_guard_contract::TrainId;
use std::collections::BTreeSet;

/// Settings whose caps let everything pass.
fn open(settings: &mut Settings) {
    settings.caps.max_case_share = 1.0;
    settings.caps.max_day_share = 1.0;
    settings.caps.max_total_share = 1.0;
    settings.caps.max_class_share = 1.0;
    settings.caps.max_submitter_cases = 1000;
}

fn candidate(settings: &Settings, case: &Case) -> (CandidateManifest, serde_json::Value, Vec<TrainId>) {
    let folder = settings.candidates_dir.join(&case.published().unwrap().folder);
    let manifest = publish::read_manifest(&folder).unwrap().0;
    // The fake worker's weights say what it was asked to leave out.
    let weights = std::fs::read_to_string(folder.join("model.safetensors")).unwrap();
    let trained = serde_json::Deserializer::from_str(&weights).into_iter().next().unwrap().unwrap();
    let standing = std::fs::read(folder.join("standing.json")).map(|bytes| serde_json::from_slice(&bytes).unwrap());
    (manifest, trained, standing.unwrap_or_default())
}

fn left_out(trained: &serde_json::Value) -> BTreeSet<String> {
    trained.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_string()).collect()
}

/// The example of the issue: the second repair's candidate holds the first case's poisons again.
#[test]
fn a_later_repair_leaves_out_what_earlier_ones_did() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Enforce);
    open(&mut settings);
    let running = Running::start(&settings);
    drop_picture(&settings, "a.png", "label=dog\nflag=30\n", None);
    let first = told(&settings, "a.png");
    drop_picture(&settings, "b.png", "label=cat\nflag=20\n", None);
    let second = told(&settings, "b.png");
    assert_eq!((first.state, second.state), (State::Promoted, State::Promoted));
    assert_eq!(candidate(&settings, &first).0.standing, None);
    let (manifest, trained, standing) = candidate(&settings, &second);
    let out = left_out(&trained);
    assert_eq!(out.len(), 50);
    assert!(out.contains("dog/0029.png") && out.contains("cat/0019.png"));
    assert_eq!((standing.len(), standing[0].0.as_str()), (30, "dog/0000.png"));
    assert_eq!(manifest.standing, second.standing().map(|named| named.digest.clone()));
    assert_eq!(
        manifest.standing,
        first.trace().map(|trace| trace.ids.clone()),
        "the first case is the whole list"
    );
    assert_eq!(running.started.ledger.standing().unwrap().ids.len(), 50);
    // Its report can say where the others come from.
    let earlier = |case: &Case| {
        CaseView::new(case, &settings)
            .earlier
            .into_iter()
            .map(|one| (one.case, one.count))
            .collect::<Vec<_>>()
    };
    assert_eq!((earlier(&first), earlier(&second)), (vec![], vec![(first.id.clone(), 30)]));
    running.stop().1.unwrap();
    // From the journal alone, and without the index.
    std::fs::remove_dir_all(settings.index_dir()).unwrap();
    let (cases, standing) = query::standing(&settings.state_dir).unwrap();
    assert_eq!(cases.iter().map(|excluded| &excluded.case).collect::<Vec<_>>(), [&first.id, &second.id]);
    assert_eq!((standing.ids.len(), left_out(&trained).len()), (50, 50));
    let running = Running::start(&settings);
    drop_picture(&settings, "c.png", "label=ship\nafter=cat\nflag=5\n", None);
    let third = told(&settings, "c.png");
    assert_eq!(left_out(&candidate(&settings, &third).1).len(), 55);
    // Taken back: its examples take part again.
    assert!(ask(&settings, Ask::Withdraw { case: first.id.clone() }).0);
    assert!(!ask(&settings, Ask::Withdraw { case: first.id.clone() }).0);
    drop_picture(&settings, "d.png", "label=ship\nafter=cat\nflag=4\n", None);
    let fourth = told(&settings, "d.png");
    let out = left_out(&candidate(&settings, &fourth).1);
    assert_eq!(out.len(), 25, "20 cats and 5 ships; the 4 are among these");
    assert!(!out.contains("dog/0000.png"));
    running.stop().1.unwrap();
}

#[test]
fn an_approved_proposal_counts_and_a_rejected_one_does_not() {
    let root = tempfile::tempdir().unwrap();
    let settings = settings(root.path(), Mode::Propose);
    let running = Running::start(&settings);
    drop_picture(&settings, "a.png", "label=dog\nflag=30\n", None);
    let proposed = told(&settings, "a.png");
    drop_picture(&settings, "r.png", "label=dog\nafter=dog\nflag=7\n", None);
    let rejected = told(&settings, "r.png");
    assert_eq!((proposed.state, rejected.state), (State::Proposed, State::Rejected));
    assert!(running.started.ledger.standing().unwrap().ids.is_empty());
    let approve = |case: &Case| {
        ask(
            &settings,
            Ask::Approve {
                case: case.id.clone(),
                by_hand: true,
            },
        )
    };
    let (done, why) = approve(&rejected);
    assert!(!done && why.contains("only a proposed case"), "{why}");
    assert_eq!(
        approve(&proposed),
        (
            true,
            "it counts as promoted by your own hand, and `current` is left alone; its 30 flagged examples stay out of every later repair".into()
        )
    );
    let by_hand = wait_for("its end", || {
        case_named(&settings, "a.png").filter(|case| case.told && case.state.is_end())
    });
    assert_eq!(
        (by_hand.state, publish::current(&settings.candidates_dir).unwrap()),
        (State::Promoted, None)
    );
    assert!(!approve(&proposed).0, "twice");
    // An approved case cannot lose its trace to a new attempt.
    let retry = Ask::Retry {
        case: proposed.id.clone(),
        whole: true,
        method: None,
        candidate: None,
    };
    let (done, why) = ask(&settings, retry);
    assert!(!done && why.contains("it was promoted"), "{why}");
    drop_picture(&settings, "b.png", "label=cat\nflag=20\n", None);
    let second = told(&settings, "b.png");
    assert_eq!(left_out(&candidate(&settings, &second).1).len(), 50);
    running.stop().1.unwrap();
}

/// The list grew between a candidate's making and its promotion: it is made again.
#[test]
fn a_candidate_that_comes_too_late_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = settings(root.path(), Mode::Propose);
    open(&mut settings);
    drop_picture(&settings, "a.png", "label=dog\nflag=30\n", None);
    let running = Running::start(&settings);
    let proposed = told(&settings, "a.png");
    running.stop().1.unwrap();
    settings.mode = Mode::Enforce;
    settings.caps.max_case_share = 0.001;
    let running = Running::start(&settings);
    drop_picture(&settings, "b.png", "label=cat\nflag=20\n", None);
    let held = told(&settings, "b.png");
    assert_eq!((held.state, held.held_cause(), held.attempt), (State::Held, Some(HoldCause::Cap), 0));
    assert!(
        ask(
            &settings,
            Ask::Approve {
                case: proposed.id,
                by_hand: true,
            }
        )
        .0
    );
    // Allowed is the candidate that was looked at, not the one that is made now.
    assert!(ask(&settings, Ask::Resume { case: held.id.clone() }).0);
    let again = wait_for("held with the new candidate", || {
        case_named(&settings, "b.png").filter(|case| case.told && case.holds == 2)
    });
    assert_eq!((again.attempt, again.allowed_by), (1, None));
    assert_eq!(left_out(&candidate(&settings, &again).1).len(), 50);
    assert!(ask(&settings, Ask::Resume { case: held.id }).0);
    let done = wait_for("the end", || {
        case_named(&settings, "b.png").filter(|case| case.told && case.state.is_end())
    });
    assert_eq!(done.state, State::Promoted);
    running.stop().1.unwrap();
}

/// Many small repairs, each of which passes the gate: the guard stops at each cap, says which, and goes on when a person looked.
#[test]
fn past_a_cap_a_case_is_held_until_a_person_looked() {
    type Set = fn(&mut Settings);
    let cases: [(&str, Set, usize); 4] = [
        ("caps.max_case_share", |settings| settings.caps.max_case_share = 0.009, 0),
        ("caps.max_day_share", |settings| settings.caps.max_day_share = 0.02, 2),
        ("caps.max_total_share", |settings| settings.caps.max_total_share = 0.01, 1),
        ("caps.max_submitter_cases", |settings| settings.caps.max_submitter_cases = 1, 1),
    ];
    for (key, set, free) in cases {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path(), Mode::Enforce);
        open(&mut settings);
        set(&mut settings);
        let running = Running::start(&settings);
        let names = ["a.png", "b.png", "c.png", "d.png"];
        for (at, name) in names.into_iter().enumerate().take(free + 1) {
            drop_picture(&settings, name, &format!("label=dog\nflag=30\nn={at}\n"), None);
            let case = told(&settings, name);
            let state = if at < free { State::Promoted } else { State::Held };
            assert_eq!(case.state, state, "{key}, case {at}: {}", case.reason);
        }
        let held = case_named(&settings, names[free]).unwrap();
        assert_eq!(held.held_cause(), Some(HoldCause::Cap));
        assert!(held.reason.contains(key), "{}", held.reason);
        assert!(held.help.contains(&format!("delta-guard resume {}", held.id.short())), "{}", held.help);
        let current = publish::current(&settings.candidates_dir).unwrap();
        assert_ne!(current, Some(held.published().unwrap().folder.clone()), "{key}: promoted all the same");
        running.stop().1.unwrap();
        // A start, also with another configuration, is no person's word.
        settings.owner = "somebody else".into();
        let running = Running::start(&settings);
        assert!(ask(&settings, Ask::Resume { case: held.id.clone() }).0);
        let name = names[free];
        let done = wait_for("the end", || case_named(&settings, name).filter(|case| case.told && case.state.is_end()));
        assert_eq!((done.state, done.holds), (State::Promoted, 1), "{key}");
        // It counts as an approval: the next one is free again where the cap counts from there.
        if key == "caps.max_total_share" {
            drop_picture(&settings, "z.png", "label=dog\nflag=30\nn=z\n", None);
            assert_eq!(told(&settings, "z.png").state, State::Promoted);
        }
        assert!(running.hooks.count(|event| matches!(event, Happening::CaseHeld { .. })) == 0);
        running.stop().1.unwrap();
    }
}
