#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::case::{End, Stage};
use crate::journal::frame::MAX_WRITTEN;
use crate::policy::{Action, Found, Mode};
use delta_guard_contract::FaultKind;
use delta_guard_contract::finding::Abstain;
use proptest::prelude::*;

/// Any text, mostly of the characters that take the most room; up to 100,000 of them.
fn flood() -> impl Strategy<Value = String> {
    let piece = prop_oneof![Just('\u{1}'), Just('"'), Just('\u{7f}'), Just('\u{10ffff}'), Just('a'), any::<char>()];
    (proptest::collection::vec(piece, 0..8), 0usize..12_000).prop_map(|(piece, times)| piece.iter().collect::<String>().repeat(times))
}

fn events(text: &str, many: usize) -> Vec<Event> {
    let text = || text.to_string();
    let list: Vec<String> = (0..many).map(|n| format!("{n}{}", text())).collect();
    let short: Vec<String> = list.iter().map(|name| cut(name, 240)).collect();
    let digest = Digest("a".repeat(64));
    let prediction = Prediction {
        label: short[0].clone(),
        probability: 0.5,
        top: short.iter().map(|name| (name.clone(), 0.1)).collect(),
        classes: short.clone(),
        checkpoint: digest.clone(),
    };
    let accuracy = Accuracy {
        examples: 1,
        correct: 1,
        classes: short.iter().map(|name| (name.clone(), (u64::MAX, u64::MAX))).collect(),
    };
    let (kind, seconds) = (FaultKind::Internal, 0.1);
    let found = Found {
        verdict: TraceVerdict::Undecided {
            why: Abstain::other(&text(), text()),
        },
        predicted_label: short[0].clone(),
        flagged: short.iter().map(|name| (name.clone(), 1)).collect(),
        examples: 1,
        examples_of_label: 1,
        notes: list.clone(),
        detector: Default::default(),
    };
    vec![
        Event::StageFailed {
            stage: Stage::Trace,
            kind,
            code: None,
            message: text(),
            help: text(),
        },
        Event::Held {
            kind,
            cause: Default::default(),
            reason: text(),
            help: text(),
        },
        Event::Resumed { why: text(), by: None },
        Event::Ended {
            end: End::Refused,
            reason: text(),
            help: text(),
        },
        Event::Predicted {
            prediction: prediction.clone(),
            whole: None,
            seconds,
        },
        Event::Fitted {
            fit: FitResult {
                factors: delta_guard_contract::finding::FactorUse {
                    key: digest.clone(),
                    reused: false,
                    examples: 1,
                },
                seconds: list.iter().map(|name| (name.clone(), 0.1)).collect(),
                layers: list.iter().map(|name| (name.clone(), 1, 1)).collect(),
                checkpoint: None,
                manifest: None,
            },
            whole: None,
            seconds,
        },
        Event::Traced {
            trace: super::super::TraceSummary {
                found,
                file: "f".into(),
                digest: digest.clone(),
                ids: digest.clone(),
                flagged: None,
                manifest: None,
            },
            seconds,
        },
        Event::Decided(Decision {
            action: Action::Hold,
            mode: Mode::Enforce,
            reason: text(),
            over_caps: list.clone(),
        }),
        Event::Certified {
            result: CertifyResult {
                anomalies_before: vec![prediction.clone(); many.min(5)],
                anomalies_after: vec![prediction; many.min(5)],
                before: accuracy.clone(),
                after: accuracy,
                paired: None,
                candidate: digest,
                seconds,
                manifest: None,
                flagged: None,
            },
            whole: None,
            gate: GateVerdict {
                pass: false,
                reasons: list.clone(),
                notes: list,
                ..GateVerdict::default()
            },
            seconds,
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn nothing_that_is_said_makes_a_large_record(text in flood(), many in 1usize..40) {
        for event in events(&text, many) {
            let kind = event.kind();
            let bytes = serde_json::to_vec(&event.bounded()).unwrap().len();
            // The frame and the names of case and kind take a few hundred.
            prop_assert!(bytes < MAX_WRITTEN - 1000, "{kind}: {bytes}");
        }
    }

    #[test]
    fn a_text_is_cut_to_what_was_asked_and_never_otherwise(text in flood(), most in 2usize..5000) {
        for short in [cut(&text, most), cut_middle(&text, most)] {
            prop_assert!(short.chars().count() <= most && json_bytes(&short) <= 4 * most + 3, "{}", short.len());
            prop_assert!(short == text || short.contains('…'));
        }
        prop_assert!(text.starts_with(cut(&text, most).trim_end_matches('…')));
    }
}

#[test]
fn of_a_long_text_both_ends_are_kept() {
    let text = format!("it failed; {} the last words", "x".repeat(10_000));
    let short = cut_middle(&text, 100);
    assert!(
        short.starts_with("it failed; ") && short.ends_with(" the last words") && short.chars().count() <= 100,
        "{short}"
    );
    assert_eq!(json_bytes("a\"\n\u{1}ä"), serde_json::to_string("a\"\n\u{1}ä").unwrap().len() - 2);
}

#[test]
fn parts_hold_everything_once() {
    let list: Vec<String> = (0..3000).map(|n| format!("{n}-{}", "x".repeat(n % 300))).collect();
    let parts = in_parts(list.clone()).unwrap();
    assert!(parts.len() > 5 && parts.iter().all(|part| serde_json::to_vec(part).unwrap().len() < 50_000));
    assert_eq!(parts.concat(), list);
    assert_eq!(in_parts(Vec::<String>::new()).unwrap(), [Vec::<String>::new()]);
}

#[test]
fn a_short_prediction_keeps_what_the_case_is_about() {
    let classes: Vec<String> = (0..8000).map(|n| format!("class number {n}")).collect();
    let whole = Prediction {
        label: classes[7000].clone(),
        probability: 1.0,
        top: vec![],
        classes,
        checkpoint: Digest(String::new()),
    };
    let short = short_prediction(whole.clone(), &["class number 7999", "no class"]);
    for (name, kept) in [
        ("class number 7000", true),
        ("class number 7999", true),
        ("class number 0", true),
        ("class number 7998", false),
        ("no class", false),
    ] {
        assert_eq!(short.classes.iter().any(|class| class == name), kept, "{name}");
    }
    let few = Prediction {
        classes: whole.classes[..100].to_vec(),
        ..whole
    };
    assert_eq!(short_prediction(few.clone(), &[]), few);
}
