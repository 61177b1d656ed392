#![allow(clippy::unwrap_used, reason = "tests")]

mod contrast;
mod exhibits;
mod png;

pub(crate) use png::png;

use super::*;
use crate::case::State;
use crate::engine::{Paths, Submission};
use crate::policy::{Action, Decision, GateVerdict, Mode};
use delta_guard_contract::finding::{Abstain, Cell, Exhibit, FactorUse, HowSure, SharedPicture, SharedPixels, Sure, Words};
use delta_guard_contract::job::Tracked;
use delta_guard_contract::job::{Accuracy, CertifyResult, FlaggedReadings, Prediction, TrainResult};
use delta_guard_contract::{DetectConfig, Digest, Flagged, TraceReport, TraceVerdict, TrainId};
use std::collections::BTreeMap;
use std::path::Path;

/// What the guard's detector says and shows of the case that [`repaired`] tells: made by its own code, whose test holds it to this file.
#[derive(serde::Deserialize)]
struct Made {
    words: Words,
    sure: Sure,
    exhibits: Vec<Exhibit>,
}

fn made() -> Made {
    serde_json::from_str(include_str!("../../tests/fixtures/exhibits/guard.json")).unwrap()
}

/// A case as the guard would show it after a repair: 150 flagged of 5,000. `folder` gets the thumbnails.
pub(crate) fn repaired(folder: &Path) -> CaseView {
    let classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    let mut thumbnails = BTreeMap::from([("anomaly".to_owned(), "anomaly.png".to_owned())]);
    std::fs::write(folder.join("anomaly.png"), png(3, true)).unwrap();
    std::fs::write(folder.join("shared.png"), png(3, true)).unwrap();
    let Made { words, sure, mut exhibits } = made();
    let table = exhibits.iter().find_map(|exhibit| match exhibit {
        Exhibit::Table(table) => Some(table.rows.clone()),
        _ => None,
    });
    let kappa = |row: &Vec<Cell>| match row[2] {
        Cell::Number(kappa) => kappa,
        _ => panic!("κ is the third column: {row:?}"),
    };
    let flagged: Vec<Flagged> = table
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let id = TrainId(format!("dog/{:05}.png", 1000 + i * 37 % 4000));
            thumbnails.insert(id.0.clone(), format!("flagged-{i}.png"));
            std::fs::write(folder.join(format!("flagged-{i}.png")), png(i as u32, true)).unwrap();
            Flagged {
                id,
                label: "dog".into(),
                rank: i as u32 + 1,
                score: kappa(row),
                source: None,
            }
        })
        .collect();
    exhibits.push(Exhibit::Shared(SharedPixels {
        pixels: 64,
        of: 1024,
        place: Some([20, 20, 8, 8]),
        flagged: 150,
        others: 500,
        flagged_alike: 1.0,
        others_alike: 0.004,
        picture: Some(SharedPicture {
            file: "shared.png".into(),
            digest: Digest("5a".repeat(32)),
        }),
    }));
    let accuracy = |shift: u64| Accuracy {
        examples: 2000,
        correct: 1412 - 5 * shift,
        classes: classes
            .iter()
            .enumerate()
            .map(|(i, name)| ((*name).to_owned(), (200, 132 + 3 * i as u64 - shift * (i as u64 * 7 % 5))))
            .collect(),
    };
    let prediction = |label: &str, probability: f64, second: &str| Prediction {
        label: label.into(),
        probability,
        top: vec![
            (label.into(), probability),
            (second.into(), (1.0 - probability) * 0.8),
            ("cat".into(), (1.0 - probability) * 0.15),
            ("bird".into(), (1.0 - probability) * 0.05),
        ],
        classes: classes.iter().map(|name| (*name).to_owned()).collect(),
        checkpoint: Digest("c0".repeat(32)),
    };
    let trace = TraceReport {
        verdict: TraceVerdict::Flagged,
        predicted_label: "dog".into(),
        flagged,
        notes: vec!["2 training examples with the wrong label have no gradient and were not compared.".into()],
        examples: 5000,
        examples_of_label: 650,
        words,
        sure: Some(sure),
        exhibits,
        details: serde_json::Value::Null,
        factors: Some(FactorUse {
            key: Digest("fa".repeat(32)),
            reused: false,
            examples: 1000,
        }),
        tracked: Some(Tracked {
            layers: 21,
            tracked_share: 0.9991,
            untracked: vec![("bn1.weight".into(), "not the weight of a convolution or a linear layer".into())],
            untracked_tensors: 40,
            blocks: Vec::new(),
        }),
        settings: DetectConfig::default().resolved(),
        seed: None,
        checkpoint: Digest("c0".repeat(32)),
        manifest: Digest("3a".repeat(32)),
        seconds: [
            ("covariance", 9.1),
            ("eigenbasis", 2.2),
            ("lambda", 11.4),
            ("query", 1.3),
            ("score", 6.0),
            ("kin", 8.3),
            ("placebo", 21.0),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into(),
        thumbnails,
        peak_memory: 1_460_000_000,
        device: "cpu".into(),
    };
    CaseView {
        unproved: false,
        case: Digest("8f3a".repeat(16)),
        instance: "animals-v7".into(),
        owner: "ML platform".into(),
        config: Some("/etc/guard/animals.yaml".into()),
        method: "eu".parse().unwrap(),
        state: State::Proposed,
        reason: "the candidate passed the gate".into(),
        help: String::new(),
        standing: None,
        earlier: Vec::new(),
        given: false,
        held_cause: None,
        code: None,
        occasion: String::new(),
        accepted_at: "2026-11-23T01:40:00Z".parse().unwrap(),
        ended_at: Some("2026-11-23T01:47:30Z".parse().unwrap()),
        submission: Submission {
            name: "ship-0412.png".into(),
            bytes: 2_345,
            content: Digest("5e".repeat(32)),
            predicted_label: Some("dog".into()),
            true_label: Some("ship".into()),
            source: Some("harbour camera 4".into()),
            mail: None,
            note: None,
            checkpoint: Digest("c0".repeat(32)),
        },
        prediction: Some(prediction("dog", 0.993, "ship")),
        fit: None,
        trace: Some(trace),
        decision: Some(Decision {
            action: Action::Unlearn,
            mode: Mode::Propose,
            reason: "150 of 5000 training examples were flagged".into(),
            over_caps: Vec::new(),
        }),
        unlearn: Some(TrainResult {
            file: "model.safetensors".into(),
            digest: Digest("ca".repeat(32)),
            made: Some(delta_guard_contract::job::Made {
                method: "eu".into(),
                about: "train again from scratch".into(),
            }),
            examples: 4850,
            train_loss: 0.213,
            train_accuracy: 0.931,
            seconds: 301.0,
            resumed_epochs: 0,
            device: None,
            peak_memory: None,
            base: None,
            manifest: None,
        }),
        certify: Some(CertifyResult {
            flagged: Some(FlaggedReadings {
                examples: 150,
                otherwise_before: 0,
                otherwise_after: 148,
                read_as: vec![("ship".into(), 141), ("airplane".into(), 7)],
                others: 400,
                others_as_before: 398,
            }),
            anomalies_before: vec![prediction("dog", 0.993, "ship")],
            anomalies_after: vec![prediction("ship", 0.871, "airplane")],
            before: accuracy(0),
            after: accuracy(1),
            paired: None,
            candidate: Digest("ca".repeat(32)),
            manifest: None,
            seconds: 4.0,
        }),
        gate: Some(GateVerdict {
            pass: true,
            reasons: Vec::new(),
            notes: Vec::new(),
            ..GateVerdict::default()
        }),
        regrown: Vec::new(),
        approval: None,
        paths: Paths {
            picture: "/var/lib/delta-guard/state/spool/5e5e".into(),
            case_dir: "/var/lib/delta-guard/state/cases/8f3a".into(),
            trace_dir: Some(folder.to_path_buf()),
            candidate: Some("/var/lib/delta-guard/candidates/8f3a8f3a8f3a".into()),
            checkpoint: Some("/var/lib/delta-guard/candidates/8f3a8f3a8f3a/model.safetensors".into()),
            report: "/var/lib/delta-guard/state/cases/8f3a/report.html".into(),
        },
        settings: serde_json::json!({"instance": "animals-v7", "mode": "propose"}),
        seconds: [
            ("predict", 1.4),
            ("fit", 24.0),
            ("trace", 37.5),
            ("decide", 0.0),
            ("unlearn", 301.0),
            ("certify", 4.2),
            ("publish", 0.1),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into(),
    }
}

/// The same case had it ended otherwise: rejected by the gate, undecided, held before it was traced.
pub(crate) fn ended(folder: &Path, state: State) -> CaseView {
    let mut view = repaired(folder);
    view.state = state;
    match state {
        State::Rejected => {
            let reasons = vec![
                "the candidate still reads the picture as “dog”".to_owned(),
                "accuracy of the class “cat” falls from 70.5 % to 61.0 % (gate.max_class_drop allows 5.0 pp)".to_owned(),
            ];
            view.reason = reasons.join("; ");
            let certify = view.certify.as_mut().unwrap();
            (certify.anomalies_after, certify.after) = (certify.anomalies_before.clone(), certify.before.clone());
            let read = certify.flagged.as_mut().unwrap();
            (read.otherwise_after, read.read_as) = (9, vec![("dog".into(), 141), ("ship".into(), 9)]);
            view.gate = Some(GateVerdict {
                pass: false,
                reasons,
                notes: Vec::new(),
                ..GateVerdict::default()
            });
        }
        State::Undecided => {
            let why = Abstain::LikePlaceboGroup {
                candidates: 31,
                z: 1.9,
                theirs: 2.1,
                placebo: "dog/val-3.png".into(),
            };
            view.reason = why.sentence();
            let trace = view.trace.as_mut().unwrap();
            trace.verdict = TraceVerdict::Undecided { why };
            trace.sure.as_mut().unwrap().how = HowSure::NotEnough;
            trace.flagged.clear();
            trace
                .exhibits
                .retain(|exhibit| !matches!(exhibit, Exhibit::Table(_) | Exhibit::Shared(_)));
            for exhibit in &mut trace.exhibits {
                match exhibit {
                    Exhibit::Histogram(histogram) => histogram.series[0].counts.fill(0),
                    Exhibit::Strip(strip) => (strip.rows[0].own, strip.rows[1].own) = (Some(3.1), Some(1.9)),
                    _ => {}
                }
            }
            (view.certify, view.gate, view.unlearn) = (None, None, None);
        }
        State::Held => {
            view.reason = "the production checkpoint is another one (blake3 5f0c…) than when the case began (blake3 c0c0…)".into();
            view.help = "put the former checkpoint back, or submit the picture again".into();
            (view.trace, view.certify, view.gate, view.unlearn) = (None, None, None, None);
        }
        _ => {}
    }
    view
}

#[test]
fn a_page_says_whether_there_were_factors() {
    let folder = tempfile::tempdir().unwrap();
    let mut view = repaired(folder.path());
    let none = "none: the detector guard needs none";
    assert!(!page(&view).contains(none) && page(&view).contains("fitted for this case"));
    view.trace.as_mut().unwrap().factors = None;
    assert!(page(&view).contains(none) && !page(&view).contains("fitted for this case"));
}

/// Writes the pages to look at into the folder of REPORT_OUT, where that is set (`make screenshots`).
#[test]
fn the_first_screen_answers_in_each_state() {
    let folder = tempfile::tempdir().unwrap();
    for (state, answers) in [
        (State::Proposed, ["How sure: clear", "64 of 1,024 pixels", "approve it"]),
        (State::Rejected, ["How sure: clear", "The candidate still reads the picture", "What next"]),
        (
            State::Undecided,
            ["How sure: not enough to act", "act on the anomaly no more", "What next"],
        ),
        (
            State::Held,
            ["What next", "The production checkpoint is another one", "Put the former checkpoint back"],
        ),
    ] {
        let view = ended(folder.path(), state);
        let page = page(&view);
        if let Some(path) = std::env::var_os("REPORT_OUT") {
            std::fs::write(Path::new(&path).join(format!("{state}.html")), &page).unwrap();
        }
        let (first_screen, rest) = page.split_once("<main>").unwrap();
        for answer in answers {
            assert!(first_screen.contains(answer), "{state}: {answer} is not on the first screen");
        }
        assert_eq!(
            rest.contains("Histogram of"),
            !view.trace.as_ref().is_none_or(|trace| trace.flagged.is_empty()),
            "{state}"
        );
        assert_eq!(
            rest.contains("What they share"),
            matches!(state, State::Proposed | State::Rejected),
            "{state}"
        );
    }
}

#[test]
fn pictures_are_called_by_their_ids_and_the_least_sure_can_be_seen() {
    let folder = tempfile::tempdir().unwrap();
    let view = repaired(folder.path());
    let page = page(&view);
    let flagged = &view.trace.as_ref().unwrap().flagged;
    for example in flagged {
        assert_eq!(page.matches(&format!("alt=\"{}\"", example.id)).count(), 1, "{}", example.id);
    }
    let (_, least) = page.split_once("The 24 least sure").unwrap();
    let (least, between) = least.split_once("Those between (102)").unwrap();
    let place = |id: &TrainId| least.find(&format!("alt=\"{id}\""));
    assert!(place(&flagged[149].id) < place(&flagged[126].id) && place(&flagged[149].id).is_some());
    assert!(place(&flagged[125].id).is_none() && between.contains(&format!("alt=\"{}\"", flagged[24].id)));
}

#[test]
fn the_page_holds_everything_and_asks_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let page = page(&repaired(folder.path()));
    for text in [
        "150 training examples caused this error",
        "150<small> of 5,000",
        "ship-0412.png",
        "70.6 %",
        "dog/01000.png",
        "d′",
        "covariance",
        "delta-guard flagged 8f3a8f3a8f3a --csv --config /etc/guard/animals.yaml",
    ] {
        assert!(page.contains(text), "{text} not in the page");
    }
    assert_eq!(page.matches("data:image/png;base64,").count(), 152);
    let lower = page.to_lowercase();
    for forbidden in [
        "<script",
        "http://",
        "https://",
        "javascript:",
        "onload",
        "onerror",
        "url(",
        "@import",
        "<link",
        "<iframe",
        "<form",
    ] {
        assert!(!lower.contains(forbidden), "{forbidden}");
    }
    assert!(page.contains("default-src 'none'; img-src data:; style-src 'unsafe-inline'") || page.contains("default-src &#39;none&#39;"));
}

#[test]
fn what_others_wrote_is_escaped_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let evil = "<img src=x onerror=alert(1)>\"'&</style></title>";
    let mut view = repaired(folder.path());
    view.submission.name = evil.into();
    view.submission.note = Some(evil.into());
    view.submission.source = Some(evil.into());
    view.submission.true_label = Some(evil.into());
    view.instance = evil.into();
    view.owner = evil.into();
    view.reason = evil.into();
    view.help = evil.into();
    view.settings = serde_json::json!({ evil: evil });
    view.seconds.insert("fit".into(), f64::NAN);
    let gate = view.gate.as_mut().unwrap();
    (gate.pass, gate.reasons, gate.notes) = (false, vec![evil.into()], vec![evil.into()]);
    view.state = State::Rejected;
    let trace = view.trace.as_mut().unwrap();
    trace.predicted_label = evil.into();
    trace.device = evil.into();
    trace.flagged[0].id = TrainId(evil.into());
    trace.flagged[1].label = evil.into();
    let certify = view.certify.as_mut().unwrap();
    certify.anomalies_after[0].label = evil.into();
    certify.anomalies_after[0].top[0].0 = evil.into();
    for accuracy in [&mut certify.before, &mut certify.after] {
        accuracy.classes.insert(evil.into(), (10, 5));
    }
    let page = page(&view);
    assert!(!page.contains("<img src=x"), "a name became markup");
    assert_eq!(page.matches("</style>").count(), 1);
    let benign = super::page(&repaired(folder.path()));
    assert_eq!(page.matches("</title>").count(), benign.matches("</title>").count());
    assert!(page.matches("&lt;img src=x").count() >= 12, "{}", page.matches("&lt;img src=x").count());
}

#[test]
fn pictures_outside_the_folder_and_what_is_no_picture_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("in");
    std::fs::create_dir(&inside).unwrap();
    let mut view = repaired(&inside);
    std::fs::write(folder.path().join("secret.png"), png(1, false)).unwrap();
    std::fs::write(inside.join("text.png"), b"<svg onload=alert(1)>").unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret.png"), inside.join("link.png")).unwrap();
    let trace = view.trace.as_mut().unwrap();
    for (i, name) in [
        "../secret.png",
        folder.path().join("secret.png").to_str().unwrap(),
        "text.png",
        "link.png",
        "missing.png",
    ]
    .iter()
    .enumerate()
    {
        let id = trace.flagged[i].id.0.clone();
        trace.thumbnails.insert(id, (*name).to_owned());
    }
    assert_eq!(page(&view).matches("data:image/png;base64,").count(), 152 - 5);
}

#[test]
fn every_state_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    for &state in State::ALL {
        let mut view = repaired(folder.path());
        view.state = state;
        let head = headline(&view);
        assert!(!head.title.is_empty() && page(&view).contains(head.tag), "{state}");
        // A case that never got as far has a page too.
        (view.trace, view.certify, view.gate, view.unlearn, view.prediction) = (None, None, None, None, None);
        view.seconds.clear();
        assert!(page(&view).contains("ship-0412.png"));
    }
}
