use super::next::{Rules, Step, next};
use super::*;
use crate::policy::{Action, Found, GateLimits, Mode};
use delta_guard_contract::{FaultKind, TraceVerdict};
use std::collections::BTreeSet;

pub(crate) fn accepted() -> Accepted {
    let file = FileIdentity {
        dev: 1,
        ino: 2,
        size: 3,
        mtime_ns: 4,
    };
    Accepted {
        content: Digest("aa".into()),
        bytes: 3,
        name: "x.png".into(),
        name_base64: "eC5wbmc=".into(),
        claim: Claim::default(),
        checkpoint: Digest("bb".into()),
        file,
        sidecar: None,
        sidecar_content: None,
        uid: 0,
    }
}

/// A case that was just taken in.
pub(crate) fn case() -> Case {
    Case::new(Digest("cc".into()), accepted(), 7, Timestamp::UNIX_EPOCH)
}

/// A case that was predicted, and is to be fitted.
pub(crate) fn predicted() -> Case {
    let mut case = case();
    let event = Event::Predicted {
        prediction: prediction(),
        whole: None,
        seconds: 1.0,
    };
    case.apply(&event, 8, Timestamp::UNIX_EPOCH).expect("legal");
    case
}

fn prediction() -> Prediction {
    Prediction {
        label: "dog".into(),
        probability: 0.9,
        top: vec![],
        classes: vec!["cat".into(), "dog".into()],
        checkpoint: Digest("bb".into()),
    }
}

fn certify() -> CertifyResult {
    CertifyResult {
        anomalies_before: vec![prediction()],
        anomalies_after: vec![prediction()],
        before: Default::default(),
        after: Default::default(),
        paired: None,
        flagged: None,
        candidate: Digest("dd".into()),
        manifest: None,
        seconds: 1.0,
    }
}

fn approved(by_hand: bool) -> Event {
    Event::Approved(Approval {
        by: By::User(7),
        why: "w".into(),
        by_hand,
    })
}

fn summary() -> TraceSummary {
    let found = Found {
        detector: Default::default(),
        verdict: TraceVerdict::Flagged,
        predicted_label: "dog".into(),
        notes: Vec::new(),
        flagged: [("dog".to_string(), 3)].into(),
        examples: 100,
        examples_of_label: 10,
    };
    TraceSummary {
        found,
        file: "t".into(),
        digest: Digest("t".into()),
        ids: Digest("i".into()),
        flagged: None,
        manifest: None,
    }
}

fn retraced(trace: Option<Box<TraceSummary>>) -> Event {
    Event::Retraced {
        found: Regrowth {
            flagged: 9,
            removed: 3,
            more: None,
            count: 6,
            again: trace.is_some(),
        },
        doubt: trace.is_none().then(|| "d".into()),
        trace,
        seconds: 1.0,
    }
}

/// One event of every kind and, where it matters, every content.
pub(crate) fn events() -> Vec<Event> {
    let trace = summary();
    let factors = delta_guard_contract::finding::FactorUse {
        key: Digest("f".into()),
        reused: true,
        examples: 1,
    };
    let result = TrainResult {
        file: "m".into(),
        digest: Digest("m".into()),
        made: None,
        examples: 1,
        train_loss: 0.0,
        train_accuracy: 1.0,
        seconds: 1.0,
        resumed_epochs: 0,
        device: None,
        peak_memory: None,
        base: None,
        manifest: None,
    };
    let mut events = vec![
        Event::Accepted(accepted()),
        Event::Predicted {
            prediction: prediction(),
            whole: None,
            seconds: 1.0,
        },
        Event::Fitted {
            fit: FitResult {
                factors,
                seconds: Default::default(),
                layers: vec![],
                checkpoint: None,
                manifest: None,
            },
            whole: None,
            seconds: 1.0,
        },
        Event::FitSkipped { detector: "d".into() },
        Event::Flagged { examples: vec![] },
        Event::Traced { trace, seconds: 1.0 },
        Event::Decided(Decision {
            action: Action::Unlearn,
            mode: Mode::Enforce,
            reason: "r".into(),
            over_caps: vec![],
        }),
        Event::Unlearned {
            result,
            file: "f".into(),
            digest: Digest("m".into()),
            seconds: 1.0,
            standing: None,
        },
        Event::Certified {
            result: certify(),
            whole: None,
            gate: GateVerdict {
                pass: true,
                reasons: vec![],
                notes: vec![],
                ..GateVerdict::default()
            },
            seconds: 1.0,
        },
        retraced(None),
        retraced(Some(Box::new(summary()))),
        Event::Published {
            published: Published {
                folder: "p".into(),
                manifest: Digest("q".into()),
            },
            seconds: 1.0,
        },
        Event::Proposed {
            reason: "r".into(),
            help: "h".into(),
        },
        approved(false),
        approved(true),
        Event::Declined { by: 7, why: "w".into() },
        Event::Outdated { why: "w".into() },
        Event::CandidateGiven {
            file: "f".into(),
            digest: Digest("m".into()),
        },
        Event::PromoteIntent { from: None, to: "p".into() },
        Event::Held {
            kind: FaultKind::Configuration,
            reason: "r".into(),
            help: "h".into(),
            cause: HoldCause::Fault,
        },
        Event::Resumed { why: "w".into(), by: None },
        Event::Queued { after: 0, messages: vec![] },
        Event::Told {
            report: None,
            messages: vec![],
            list: None,
        },
    ];
    for end in End::ALL {
        events.push(Event::Ended {
            end,
            reason: "r".into(),
            help: String::new(),
        });
    }
    for &stage in Stage::ALL {
        events.push(Event::StageStarted { stage, attempt: 1 });
        events.push(Event::StageFailed {
            stage,
            kind: FaultKind::Internal,
            code: None,
            message: "m".into(),
            help: String::new(),
        });
    }
    events
}

/// Every case that any sequence of legal events leads to, up to what distinguishes transitions.
fn reachable() -> Vec<Case> {
    let by_hand = |case: &Case| case.phase.approval().is_some_and(|approval| approval.by_hand);
    let key = |case: &Case| (case.state, case.phase.state(), case.told, by_hand(case));
    let mut found = vec![case()];
    let mut seen = BTreeSet::from([key(&found[0])]);
    let mut at = 0;
    while at < found.len() {
        for event in events() {
            let mut next = found[at].clone();
            if next.apply(&event, 9, Timestamp::UNIX_EPOCH).is_ok() && seen.insert(key(&next)) {
                found.push(next);
            }
        }
        at += 1;
    }
    found
}

#[test]
fn every_state_can_be_reached_and_no_end_left() {
    assert!(State::ALL.iter().all(|state| state.is_end() == End::of(*state).is_some()));
    let cases = reachable();
    let states: BTreeSet<State> = cases.iter().map(|case| case.state).collect();
    assert_eq!(states, State::ALL.iter().copied().collect());
    for case in cases.iter().filter(|case| case.state.is_end()) {
        for event in events() {
            let mut after = case.clone();
            if after.apply(&event, 9, Timestamp::UNIX_EPOCH).is_ok() {
                assert_eq!(after.state, case.state, "{event:?}");
                assert!(!case.told, "{event:?} after everything was told");
            }
        }
    }
}

#[test]
fn an_illegal_event_changes_nothing() {
    for case in reachable() {
        for event in events() {
            let mut after = case.clone();
            if after.apply(&event, 9, Timestamp::UNIX_EPOCH).is_err() {
                assert_eq!(after, case);
            }
        }
    }
    let mut fresh = case();
    let illegal = fresh
        .apply(&Event::PromoteIntent { from: None, to: "p".into() }, 8, Timestamp::UNIX_EPOCH)
        .expect_err("nothing to promote");
    assert_eq!(illegal.to_string(), "a case in state `accepted` cannot have the event `promote-intent`");
}

/// Promotion needs a published candidate, which needs a verdict, which needs a candidate, which needs a decision: no short cut.
#[test]
fn there_is_one_way_to_a_promotion() {
    let mut case = case();
    let course = [
        "predicted",
        "fitted",
        "traced",
        "decided",
        "unlearned",
        "certified",
        "published",
        "approved",
        "promote-intent",
    ];
    for kind in course {
        let promoted = Event::Ended {
            end: End::Promoted,
            reason: String::new(),
            help: String::new(),
        };
        assert!(case.clone().apply(&promoted, 9, Timestamp::UNIX_EPOCH).is_err(), "before {kind}");
        let event = events().into_iter().find(|event| event.kind() == kind).expect("listed");
        case.apply(&event, 9, Timestamp::UNIX_EPOCH).expect("legal");
    }
    case.apply(
        &Event::Ended {
            end: End::Promoted,
            reason: String::new(),
            help: String::new(),
        },
        9,
        Timestamp::UNIX_EPOCH,
    )
    .expect("legal");
    assert_eq!(case.state, State::Promoted);
}

/// What `next` asks for can be done: its records are legal, its work is that of the state's stage; and only held and told cases wait.
#[test]
fn next_asks_for_what_is_possible() {
    for mode in [Mode::Observe, Mode::Propose, Mode::Enforce] {
        for (check_prediction, without_factors, regrowth) in [(true, None, 0), (false, None, 1), (false, Some("d".to_owned()), 2)] {
            let rules = Rules {
                allow_unlearn: None,
                without_factors,
                mode,
                check_prediction,
                gate: GateLimits {
                    regrowth,
                    ..GateLimits::default()
                },
            };
            for case in reachable() {
                match next(&case, &rules) {
                    Step::Wait => assert!(case.told && case.state.rests(), "{:?}", case.state),
                    Step::Record(event) => case.clone().apply(&event, 9, Timestamp::UNIX_EPOCH).expect("legal"),
                    Step::Work(Stage::Retrace) => {
                        assert_eq!((case.state, regrowth > 0), (State::Certified, true));
                        let started = Event::StageStarted {
                            stage: Stage::Retrace,
                            attempt: 1,
                        };
                        case.clone().apply(&started, 9, Timestamp::UNIX_EPOCH).expect("legal");
                    }
                    Step::Work(stage) => assert_eq!(case.state.stage(), Some(stage)),
                    Step::Publish | Step::Approve | Step::Promote => assert_eq!(case.state.stage(), Some(Stage::Publish)),
                    Step::Tell => assert!(case.is_to_be_told()),
                }
            }
        }
    }
}

#[test]
fn a_held_case_goes_on_where_it_was() {
    for case in reachable() {
        let mut held = case.clone();
        let hold = Event::Held {
            kind: FaultKind::Resource,
            reason: "r".into(),
            help: "h".into(),
            cause: HoldCause::Fault,
        };
        if held.apply(&hold, 9, Timestamp::UNIX_EPOCH).is_err() {
            continue;
        }
        assert_eq!((held.state, held.reason.as_str(), held.is_open()), (State::Held, "r", true));
        let told = Event::Told {
            report: None,
            messages: vec![],
            list: None,
        };
        held.apply(&told, 10, Timestamp::UNIX_EPOCH).expect("legal");
        assert!(
            !held.is_open() && !held.is_over() && held.apply(&told, 10, Timestamp::UNIX_EPOCH).is_err(),
            "told once"
        );
        held.apply(&Event::Resumed { why: "w".into(), by: None }, 10, Timestamp::UNIX_EPOCH)
            .expect("legal");
        assert_eq!((held.state, held.failures, held.reason.as_str()), (case.state, 0, ""));
    }
}

#[test]
fn case_ids_tell_everything_apart_that_matters() {
    let digest = |text: &str| Digest(text.into());
    let claim = |predicted: Option<&str>, right: Option<&str>| Claim {
        predicted_label: predicted.map(String::from),
        true_label: right.map(String::from),
        ..Claim::default()
    };
    let ids = [
        case_id(&digest("a"), &claim(None, None), &digest("c")),
        case_id(&digest("b"), &claim(None, None), &digest("c")),
        case_id(&digest("a"), &claim(None, None), &digest("d")),
        case_id(&digest("a"), &claim(Some("x"), None), &digest("c")),
        case_id(&digest("a"), &claim(None, Some("x")), &digest("c")),
        case_id(&digest("a"), &claim(Some(""), None), &digest("c")),
        case_id(&digest("a"), &claim(Some("x"), Some("y")), &digest("c")),
        case_id(&digest("a"), &claim(Some("xy"), Some("")), &digest("c")),
    ];
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let noted = Claim {
        note: Some("n".into()),
        source: Some("s".into()),
        ..Claim::default()
    };
    assert_eq!(case_id(&digest("a"), &noted, &digest("c")), ids[0]);
}

#[test]
fn events_survive_their_json() {
    for event in events() {
        let json = serde_json::to_value(&event).expect("plain data");
        assert_eq!(json["k"], event.kind());
        assert_eq!(serde_json::from_value::<Event>(json).expect("what was written"), event);
    }
}

/// Every step that there is: what moves a case from where to where, whoever asks and whatever the mode.
#[test]
fn what_may_happen_is_this_and_no_more() {
    let mut steps = BTreeSet::new();
    for case in reachable() {
        for event in events() {
            let mut after = case.clone();
            let moved = after.apply(&event, 9, Timestamp::UNIX_EPOCH).is_ok() && after.state != case.state;
            // A hold goes back to where it was, see below; and every working state may fail.
            if moved && case.state != State::Held && !matches!(after.state, State::Held | State::Failed) {
                steps.insert(format!("{} -{}-> {}", case.state, event.kind(), after.state));
            }
        }
    }
    let expected = [
        "accepted -ended-> refused",
        "accepted -predicted-> predicted",
        "approved -ended-> promoted",
        "approved -outdated-> decided",
        "approved -promote-intent-> promoting",
        "certified -published-> published",
        "certified -retraced-> traced",
        "decided -candidate-given-> unlearned",
        "decided -ended-> observed",
        "decided -ended-> undecided",
        "decided -unlearned-> unlearned",
        "fitted -ended-> refused",
        "fitted -traced-> traced",
        "predicted -ended-> no-anomaly",
        "predicted -ended-> refused",
        "predicted -fit-skipped-> fitted",
        "predicted -fitted-> fitted",
        "promoting -ended-> promoted",
        "proposed -approved-> approved",
        "proposed -declined-> declined",
        "published -approved-> approved",
        "published -ended-> rejected",
        "published -outdated-> decided",
        "published -promote-intent-> promoting",
        "published -proposed-> proposed",
        "traced -decided-> decided",
        "unlearned -certified-> certified",
    ];
    assert_eq!(steps.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

mod proposals;
