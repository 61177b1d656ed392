#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use serde_json::json;

/// Every reason with its code and the sentence of the first version, word for word.
fn reasons() -> Vec<(Abstain, &'static str, &'static str)> {
    let placebo = || "val/3.png".to_owned();
    vec![
        (
            Abstain::TooFewExamples {
                found: 19,
                needed: 20,
                per_seed: 4,
                seeds: 5,
            },
            "too-few-examples",
            "only 19 training examples with the wrong label can be compared; 20 are needed (4 for each of at least 5 seeds: detect.seeds)",
        ),
        (
            Abstain::AllAlike,
            "all-alike",
            "over half of the training examples with the wrong label resemble the seeds equally, so that none can stand apart",
        ),
        (
            Abstain::NothingAboveCut {
                largest: 0.41149,
                cut: 0.4194,
            },
            "nothing-above-cut",
            "no group of training examples with the wrong label stands apart: their largest kinship κ is 0.411, fewer than two exceed the cut at 0.419",
        ),
        (
            Abstain::NoGroup,
            "no-group",
            "no group of training examples with the wrong label stands apart from the rest of them",
        ),
        (
            Abstain::NotStanding { candidates: 31 },
            "not-standing",
            "the 31 candidates are no group that stands: the round of kin before found another one",
        ),
        (
            Abstain::NotComparable { candidates: 31 },
            "not-comparable",
            "the 31 candidates cannot be compared with the other examples of their label, which are too few or do not vary",
        ),
        (
            Abstain::TooFewPlacebos {
                candidates: 31,
                found: 4,
                needed: 5,
            },
            "too-few-placebos",
            "31 candidates were found, but only 4 placebos (clean validation pictures that are rightly read as the wrong label) to hold them against; 5 are needed",
        ),
        (
            Abstain::DependsOnSeeds {
                candidates: 31,
                other: 12,
                common: 3,
            },
            "depends-on-seeds",
            "the 31 candidates depend on how their seeds are chosen: the anomaly's strongest scores alone lead to 12 examples, 3 of them among the candidates",
        ),
        (
            Abstain::NotSupporting { candidates: 31, z: -0.126 },
            "not-supporting",
            "the 31 candidates do not support the anomaly's wrong label (z -0.13)",
        ),
        (
            Abstain::LikePlaceboGroup {
                candidates: 31,
                z: 1.9,
                theirs: 2.1,
                placebo: placebo(),
            },
            "like-placebo-group",
            "the 31 candidates act on the anomaly no more (z 1.90) than the group of a clean picture acts on that (z 2.10, placebo val/3.png)",
        ),
        (
            Abstain::ActsOnPlacebo {
                candidates: 31,
                z: 1.9,
                theirs: 2.1,
                placebo: placebo(),
            },
            "acts-on-placebo",
            "the 31 candidates act on the anomaly no more (z 1.90) than on a clean picture of that class (z 2.10, placebo val/3.png)",
        ),
        (
            Abstain::WithinPlacebos {
                candidates: 31,
                z: 1.9,
                limit: 2.5,
                placebos: 20,
            },
            "within-placebos",
            "the 31 candidates act on the anomaly (z 1.90) as they may act on any clean picture of that class (up to z 2.50, from 20 placebos)",
        ),
        (
            Abstain::WithinChoice {
                candidates: 31,
                of: 650,
                z: 1.9,
                floor: 2.33,
            },
            "within-choice",
            "the 31 candidates act on the anomaly no more (z 1.90) than the strongest 31 of 650 examples would without any cause (z 2.33)",
        ),
        (
            Abstain::TooFewAlike { candidates: 4, needed: 5 },
            "too-few-alike",
            "only 4 candidates belong together: copies of a picture, or a frame that a few share, make such groups by nature; at least 5 are needed",
        ),
        (
            Abstain::LikeNaturalGroup {
                candidates: 31,
                d_prime: 3.1,
                theirs: 4.0,
                placebo: placebo(),
            },
            "like-natural-group",
            "the 31 candidates stand apart no more (d′ 3.10) than a natural group of that class (d′ 4.00, placebo val/3.png)",
        ),
        (
            Abstain::NothingInCommon,
            "nothing-in-common",
            "the groups of the anomalies have no training example in common",
        ),
        (
            Abstain::TooFewShifts { least: 9, of: 10, tau: -1.5 },
            "too-few-shifts",
            "no training example has at least 9 of 10 shifts below -1.5",
        ),
        (
            Abstain::OfAnomaly {
                anomaly: 2,
                why: Box::new(Abstain::NotStanding { candidates: 31 }),
            },
            "not-standing",
            "anomaly 2: the 31 candidates are no group that stands: the round of kin before found another one",
        ),
        (
            Abstain::other("one-cluster", "the examples form one cluster"),
            "one-cluster",
            "the examples form one cluster",
        ),
    ]
}

#[test]
fn a_reason_says_what_it_said_and_is_read_back() {
    for (why, code, sentence) in reasons() {
        assert_eq!((why.code(), why.sentence().as_str()), (code, sentence));
        let verdict = TraceVerdict::Undecided { why: why.clone() };
        let written = serde_json::to_value(&verdict).unwrap();
        assert_eq!(
            (&written["kind"], &written["code"], &written["reason"]),
            (&json!("undecided"), &json!(code), &json!(sentence))
        );
        assert_eq!(serde_json::from_value::<TraceVerdict>(written).unwrap(), verdict);
        // What is written is the code itself, wherever it is not that of an inner reason.
        let own = serde_json::to_value(&why).unwrap()["code"].clone();
        assert_eq!(own, if matches!(why, Abstain::OfAnomaly { .. }) { "of-anomaly" } else { code });
    }
    assert_eq!(serde_json::to_value(TraceVerdict::Flagged).unwrap(), json!({"kind": "flagged"}));
}

#[test]
fn the_command_lines_page_names_every_code() {
    let page = include_str!("../../../docs/cli.md");
    for (why, code, _) in reasons() {
        assert!(
            matches!(why, Abstain::Other { .. }) || page.contains(&format!("`{code}`")),
            "{code} is not in docs/cli.md"
        );
    }
    assert!(page.contains("`unnamed`"));
}

#[test]
fn codes_are_different() {
    let codes: std::collections::BTreeSet<String> = reasons().iter().map(|(why, ..)| why.code().to_owned()).collect();
    assert_eq!(codes.len(), reasons().len() - 1, "an anomaly's reason has that reason's code");
}

#[test]
fn verdicts_of_other_versions_keep_their_sentence() {
    let read = |value| serde_json::from_value::<TraceVerdict>(value);
    let former = json!({"kind": "undecided", "reason": "only 3 placebos"});
    assert_eq!(
        read(former).unwrap(),
        TraceVerdict::Undecided {
            why: Abstain::other("unnamed", "only 3 placebos")
        }
    );
    let later = json!({"kind": "undecided", "code": "too-odd", "reason": "it is too odd", "why": {"code": "too-odd", "by": 3}});
    assert_eq!(
        read(later).unwrap(),
        TraceVerdict::Undecided {
            why: Abstain::other("too-odd", "it is too odd")
        }
    );
    assert!(read(json!({"kind": "perhaps"})).unwrap_err().to_string().contains("perhaps"));
}

#[test]
fn evidence_of_earlier_versions_becomes_a_score() {
    let read = |value| serde_json::from_value::<Flagged>(value).unwrap();
    let by_kin = read(json!({"id": "dog/1.png", "label": "dog", "count": 49, "mean_scaled_delta": -1.5, "kappa": 0.7, "rank": 2, "seed": true}));
    assert_eq!(
        (by_kin.id.0.as_str(), by_kin.label.as_str(), by_kin.rank, by_kin.score),
        ("dog/1.png", "dog", 2, 0.7)
    );
    let by_count = read(json!({"id": "dog/1.png", "label": "dog", "count": 49, "mean_scaled_delta": -1.5, "kappa": 0.0, "rank": 1, "seed": false}));
    assert_eq!(by_count.score, 49.0);
    let now = json!({"id": "dog/1.png", "label": "dog", "rank": 1, "score": 0.25});
    assert_eq!(serde_json::to_value(read(now.clone())).unwrap(), now);
}

#[test]
fn exhibits_are_read_back_and_named() {
    let scatter = |points: usize| Scatter {
        title: "Clusters".into(),
        caption: "Two of them.".into(),
        x: "first".into(),
        y: "second".into(),
        series: vec![
            Points {
                name: "flagged".into(),
                points: (0..points / 4)
                    .map(|i| Point {
                        x: i as f64,
                        y: 0.5,
                        id: Some(i),
                    })
                    .collect(),
            },
            Points {
                name: "others".into(),
                points: (0..3 * points / 4)
                    .map(|i| Point {
                        x: i as f64,
                        y: 0.0,
                        id: None,
                    })
                    .collect(),
            },
        ],
    };
    let beside = Beside {
        title: "another rule".into(),
        caption: "τ = 0".into(),
        flagged: vec![3usize, 1],
    };
    let cells = vec![Cell::Whole(3), Cell::Number(0.5), Cell::Yes(true), Cell::Text("a".into()), Cell::None];
    let table = Table {
        rows: vec![cells],
        ..Table::default()
    };
    let review = Review {
        title: "to look at".into(),
        caption: String::new(),
        rows: vec![Doubtful {
            id: 7usize,
            label: "cat".into(),
            probability: 0.25,
            suggested: "dog".into(),
            suggested_probability: 0.5,
        }],
    };
    let name = |i: usize| TrainId(format!("{i}.png"));
    for exhibit in [
        Exhibit::Scatter(scatter(8)),
        Exhibit::Beside(beside),
        Exhibit::Table(table),
        Exhibit::Review(review),
    ] {
        let named = exhibit.named(name);
        let text = serde_json::to_string(&named).unwrap();
        assert_eq!(serde_json::from_str::<Exhibit>(&text).unwrap(), named, "{text}");
        match named {
            Exhibit::Scatter(scatter) => assert_eq!(scatter.series[0].points[1].id, Some(name(1))),
            Exhibit::Beside(beside) => assert_eq!(beside.flagged, [name(3), name(1)]),
            Exhibit::Review(review) => assert_eq!((&review.rows[0].id, review.rows[0].label.as_str()), (&name(7), "cat")),
            _ => {}
        }
    }
    let thin = scatter(40_000).thinned();
    assert_eq!((thin.series[0].points.len(), thin.series[1].points.len()), (500, 1500));
    assert!(
        thin.series[1].points.windows(2).all(|pair| pair[1].x - pair[0].x == 20.0),
        "evenly over all points"
    );
    assert_eq!(scatter(80).thinned(), scatter(80));
}
