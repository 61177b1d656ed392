//! Proposals, and whose word they wait for.

use super::*;

fn course(kinds: &[&str]) -> Case {
    let mut case = case();
    for kind in kinds {
        let event = events().into_iter().find(|event| event.kind() == *kind).expect("listed");
        case.apply(&event, 9, Timestamp::UNIX_EPOCH).expect("legal");
    }
    case
}

const PROPOSED: [&str; 8] = [
    "predicted",
    "fitted",
    "traced",
    "decided",
    "unlearned",
    "certified",
    "published",
    "proposed",
];

/// A proposal waits; an answer is heard only when it was asked for, and each answer has its own consequence.
#[test]
fn a_proposal_waits_for_a_word() {
    let rules = Rules {
        allow_unlearn: None,
        without_factors: None,
        mode: Mode::Observe,
        check_prediction: true,
        gate: GateLimits::default(),
    };
    let told = events().into_iter().find(|event| event.kind() == "told").expect("listed");
    let declined = Event::Declined { by: 7, why: "no".into() };
    let mut case = course(&PROPOSED);
    for answer in [approved(false), approved(true), declined.clone()] {
        assert!(case.clone().apply(&answer, 9, Timestamp::UNIX_EPOCH).is_err(), "before the question");
    }
    assert_eq!(next(&case, &rules), Step::Tell);
    case.apply(&told, 9, Timestamp::UNIX_EPOCH).expect("legal");
    assert_eq!((next(&case, &rules), case.state.is_end(), case.is_over()), (Step::Wait, false, false));
    let answered = |event: &Event| {
        let mut case = case.clone();
        case.apply(event, 9, Timestamp::UNIX_EPOCH).expect("legal");
        (case.state, next(&case, &rules), case.occasion() != self::case().occasion())
    };
    assert_eq!(answered(&approved(false)), (State::Approved, Step::Promote, true));
    let (state, step, _) = answered(&approved(true));
    assert!(
        state == State::Approved && matches!(step, Step::Record(Event::Ended { end: End::Promoted, .. })),
        "{step:?}"
    );
    assert_eq!(answered(&declined), (State::Declined, Step::Tell, true));
    case.apply(&declined, 9, Timestamp::UNIX_EPOCH).expect("legal");
    assert_eq!(case.reason, "user 7 declined the candidate: no");
    assert_eq!(case.phase.approval().map(|word| word.by), Some(By::User(7)));
    case.apply(&told, 9, Timestamp::UNIX_EPOCH).expect("legal");
    assert!(case.is_over());
}

#[test]
fn whose_word_it_was_survives_its_json() {
    for (by, json) in [(By::User(1000), "1000"), (By::POLICY, "\"policy\"")] {
        assert_eq!(serde_json::to_string(&by).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<By>(json).expect("what was written"), by);
    }
    assert!(serde_json::from_str::<By>("\"somebody\"").is_err());
}

/// Journals of the first version: a proposal was an end, and a promotion needed no approval.
#[test]
fn what_the_first_version_recorded_is_understood() {
    let old = serde_json::json!({"end": "proposed", "reason": "the candidate passed the gate", "help": "h"});
    let Ok(Event::Proposed { reason, .. }) = Event::read("ended", old) else {
        panic!("another event")
    };
    assert_eq!(reason, "the candidate passed the gate");
    let mut case = course(&PROPOSED[..7]);
    case.apply(&Event::PromoteIntent { from: None, to: "p".into() }, 9, Timestamp::UNIX_EPOCH)
        .expect("legal");
    assert_eq!(
        (case.state, case.phase.approval().map(|word| word.by)),
        (State::Promoting, Some(By::POLICY))
    );
}

/// Once a candidate: what stands out either makes another one, or stays with this one as a doubt that no mode passes over; a failed attempt is forgotten then.
#[test]
fn a_candidate_is_traced_once() {
    let rules = Rules {
        allow_unlearn: None,
        without_factors: None,
        mode: Mode::Enforce,
        check_prediction: true,
        gate: GateLimits {
            regrowth: 1,
            ..GateLimits::default()
        },
    };
    let mut case = course(&["predicted", "fitted", "traced", "decided", "unlearned", "certified"]);
    assert_eq!(next(&case, &rules), Step::Work(Stage::Retrace));
    assert_eq!(
        next(
            &case,
            &Rules {
                gate: GateLimits::default(),
                ..rules.clone()
            }
        ),
        Step::Publish
    );
    let failed = Event::StageFailed {
        stage: Stage::Retrace,
        kind: FaultKind::Resource,
        code: None,
        message: "m".into(),
        help: String::new(),
    };
    case.apply(&failed, 9, Timestamp::UNIX_EPOCH).expect("legal");
    assert_eq!(case.failures, 1);
    let mut again = case.clone();
    again
        .apply(&retraced(Some(Box::new(summary()))), 10, Timestamp::UNIX_EPOCH)
        .expect("legal");
    assert_eq!((again.state, again.failures, again.regrown.len()), (State::Traced, 0, 1));
    case.apply(&retraced(None), 10, Timestamp::UNIX_EPOCH).expect("legal");
    assert_eq!((case.state, case.failures, next(&case, &rules)), (State::Certified, 0, Step::Publish));
    assert!(case.clone().apply(&retraced(None), 11, Timestamp::UNIX_EPOCH).is_err(), "twice");
    let published = events().into_iter().find(|event| event.kind() == "published").expect("listed");
    case.apply(&published, 11, Timestamp::UNIX_EPOCH).expect("legal");
    let Step::Record(Event::Proposed { reason, .. }) = next(&case, &rules) else {
        panic!("{:?}", next(&case, &rules))
    };
    assert_eq!(reason, "the candidate passed the gate, but a person should look: d");
}
