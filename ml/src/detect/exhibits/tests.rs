#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::detect::stand_out::Placebo;
use delta_guard_contract::TrainId;
use delta_guard_contract::finding::Abstain;

fn stand_out(z: Option<f64>, placebos: &[Option<f64>]) -> StandOut {
    let placebo = |z: &Option<f64>| Placebo {
        id: TrainId("dog/1.png".into()),
        flagged: 3,
        d_prime: z.map(|z| z + 1.0),
        z: *z,
        overlap: 0.0,
    };
    StandOut {
        d_prime: z.map(|z| 2.0 * z),
        z,
        cut: 0.2,
        founders: 0,
        end: None,
        null_pictures: 100,
        rounds: 2,
        placebos: placebos.iter().map(placebo).collect(),
    }
}

#[test]
fn sure_is_said_by_the_strongest_placebo() {
    let word = |z, placebos: &[Option<f64>]| against_placebos(&stand_out(Some(z), placebos)).unwrap();
    let (clear, text) = word(6.8, &[Some(2.0), None, Some(3.4), Some(-1.0)]);
    assert_eq!(clear, HowSure::Clear);
    assert!(
        text.contains("6.8 standard deviations") && text.contains("4 clean pictures") && text.contains("reached 3.4") && text.contains("2.0 times"),
        "{text}"
    );
    assert_eq!(word(6.7, &[Some(3.4)]).0, HowSure::FairlyClear);
    assert_eq!(word(4.2, &[Some(3.4)]).0, HowSure::Close);
    let below = word(3.0, &[Some(3.4)]);
    assert!(below.0 == HowSure::Close && below.1.contains("does not reach it"));
    assert!(word(3.0, &[None, None]).1.contains("none of them led to a group"));
    assert!(word(3.0, &[Some(-0.5)]).1.contains("no group acted"));
    assert_eq!(against_placebos(&stand_out(Some(3.0), &[])), None);
    assert_eq!(against_placebos(&stand_out(None, &[Some(1.0)])), None);
    assert_eq!(against_placebos(&stand_out(Some(f64::NAN), &[Some(1.0)])), None);
    // Where it abstains it is never sure, however far z is.
    assert_eq!(sure(false, Some(&stand_out(Some(9.0), &[Some(1.0)]))).how, HowSure::NotEnough);
    assert_eq!(sure(true, Some(&stand_out(Some(9.0), &[]))).how, HowSure::NotMeasured);
    assert!(sure(false, None).sentence.contains("No group"));
}

#[test]
fn the_strip_sets_each_measure_beside_its_own_placebos() {
    let Some(Exhibit::Strip(strip)) = strip(&stand_out(Some(6.0), &[Some(2.0), None, Some(3.0)])) else {
        panic!("no strip")
    };
    assert_eq!(strip.title, "Against 3 placebos");
    let [d_prime, z] = &strip.rows[..] else { panic!("{:?}", strip.rows) };
    assert_eq!(
        (d_prime.name.as_str(), d_prime.own, &d_prime.others[..]),
        ("d′", Some(12.0), &[3.0, 4.0][..])
    );
    assert_eq!((z.name.as_str(), z.own, &z.others[..]), ("z", Some(6.0), &[2.0, 3.0][..]));
    assert_eq!(z.remark, "1 of 3 placebos flagged nothing");
    assert_eq!(super::strip(&stand_out(None, &[Some(1.0)])), None);
    assert_eq!(super::strip(&stand_out(Some(1.0), &[])), None);
}

fn finding(flagged: &[(usize, u32, f64, bool)]) -> Finding {
    let measured: Vec<Measured> = (1..)
        .zip(flagged)
        .map(|(rank, &(position, count, kappa, seed))| Measured {
            position,
            count,
            mean_scaled_delta: -kappa,
            kappa,
            rank,
            seed,
        })
        .collect();
    Finding {
        verdict: TraceVerdict::Flagged,
        notes: vec!["A note.".into()],
        candidates: measured.clone(),
        flagged: measured,
        stand_out: Some(stand_out(Some(6.0), &[Some(2.0)])),
        plain: Some(Plain {
            flagged: vec![9, 4],
            tau: -0.5,
            n_tol: 1,
        }),
        members: vec![1, 4, 7],
        support: Vec::new(),
        members_mean_scaled_delta: vec![-0.9, -0.5, 0.0],
        histogram: Bins {
            edges: vec![-1.0, -0.5, 0.0],
            flagged: vec![2, 0],
            others: vec![0, 1],
        },
    }
}

fn told(detector: impl Fn(Finding, &Delta, &DetectCase) -> Detection) -> Detection {
    let case = DetectCase {
        anomalies: &[],
        wrong_label: 0,
        classes: 2,
        labels: &[],
        placebos: &[],
        seed: 1,
        image: &Default::default(),
    };
    detector(finding(&[(4, 50, 0.75, true), (1, 49, 0.5, false)]), &Delta::default(), &case)
}

#[test]
fn the_guards_figures_are_in_its_exhibits() {
    let told = told(of_guard);
    let scores: Vec<(usize, f64)> = told.flagged.iter().map(|f| (f.position, f.score)).collect();
    assert_eq!(scores, [(4, 0.75), (1, 0.5)]);
    let kinds: Vec<String> = told
        .exhibits
        .iter()
        .map(|e| serde_json::to_value(e).unwrap()["exhibit"].to_string())
        .collect();
    assert_eq!(kinds, ["\"histogram\"", "\"strip\"", "\"table\"", "\"beside\"", "\"note\""]);
    let Exhibit::Histogram(histogram) = &told.exhibits[0] else { panic!() };
    assert_eq!(
        (&histogram.series[0].counts[..], &histogram.series[1].counts[..]),
        (&[2, 0][..], &[0, 1][..])
    );
    let Exhibit::Table(table) = &told.exhibits[2] else { panic!() };
    let keys: Vec<&str> = table.columns.iter().map(|column| column.key.as_str()).collect();
    assert_eq!(keys, ["count", "mean_scaled_delta", "kappa", "seed"]);
    assert_eq!(table.rows[1], [Cell::Whole(49), Cell::Number(-0.5), Cell::Number(0.5), Cell::Yes(false)]);
    let Exhibit::Beside(beside) = &told.exhibits[3] else { panic!() };
    assert_eq!((&beside.flagged[..], beside.caption.as_str()), (&[9, 4][..], "τ = -0.5, n_tol = 1"));
    let Exhibit::Note(note) = &told.exhibits[4] else { panic!() };
    assert_eq!(note.caption, "κ > 0.2000 by 100 clean validation pictures of the class, 2 rounds");
    assert_eq!(
        (told.details["stand_out"]["z"].as_f64(), &told.notes[..]),
        (Some(6.0), &["A note.".to_owned()][..])
    );
}

#[test]
fn the_count_rules_score_is_its_count_and_it_warns() {
    let told = told(of_count_rule);
    let scores: Vec<f64> = told.flagged.iter().map(|f| f.score).collect();
    assert_eq!(scores, [50.0, 49.0]);
    assert!(told.words.caution.contains("clean examples") && told.sure.unwrap().how == HowSure::NotMeasured);
    assert!(!told.exhibits.iter().any(|e| matches!(e, Exhibit::Strip(_))));
}

#[test]
fn where_nothing_is_flagged_there_is_no_table() {
    let mut none = finding(&[]);
    none.verdict = TraceVerdict::Undecided { why: Abstain::NoGroup };
    let case = DetectCase {
        anomalies: &[],
        wrong_label: 0,
        classes: 2,
        labels: &[],
        placebos: &[],
        seed: 1,
        image: &Default::default(),
    };
    let told = of_guard(none, &Delta::default(), &case);
    assert!(!told.exhibits.iter().any(|e| matches!(e, Exhibit::Table(_))));
    assert_eq!(told.sure.unwrap().how, HowSure::NotEnough);
}

/// Even numbers from −1 to 1, the same each time.
fn wave(i: usize, step: f64) -> f64 {
    ((i as f64 * step).sin() * 43758.5453).fract()
}

/// A clear case: 150 flagged of 650.
fn clear() -> Finding {
    let rounded = |value: f64| (1000.0 * value).round() / 1000.0;
    let flagged: Vec<Measured> = (0..150usize)
        .map(|i| Measured {
            position: i,
            count: 50 - (i / 40) as u32,
            mean_scaled_delta: rounded(-0.9 + i as f64 * 0.004),
            kappa: rounded(0.72 - i as f64 * 0.0023),
            rank: i as u32 + 1,
            seed: i < 20,
        })
        .collect();
    let edges: Vec<f64> = (0..=40).map(|i| rounded(-1.1 + f64::from(i) * 0.04)).collect();
    let bell = |mean: f64, width: f64, n: f64| -> Vec<u64> {
        let at = |edge: &f64| (n * 0.04 / (width * 2.5066) * (-((edge + 0.02 - mean) / width).powi(2) / 2.0).exp()).round() as u64;
        edges[..40].iter().map(at).collect()
    };
    let placebo = |i: usize| Placebo {
        id: TrainId(format!("dog/val-{i}.png")),
        flagged: (i % 3) as u32,
        d_prime: (!i.is_multiple_of(4)).then(|| rounded(2.2 + 1.6 * wave(i, 1.7))),
        z: (!i.is_multiple_of(4)).then(|| rounded(0.9 + 1.2 * wave(i, 2.3))),
        overlap: 0.0,
    };
    Finding {
        candidates: flagged.clone(),
        flagged,
        notes: Vec::new(),
        plain: None,
        stand_out: Some(StandOut {
            d_prime: Some(10.4),
            z: Some(6.8),
            cut: 0.214,
            founders: 0,
            end: None,
            null_pictures: 180,
            rounds: 2,
            placebos: (0..20).map(placebo).collect(),
        }),
        histogram: Bins {
            flagged: bell(-0.62, 0.14, 150.0),
            others: bell(-0.02, 0.09, 500.0),
            edges,
        },
        ..finding(&[])
    }
}

/// The report's tests draw what lies in this file. `EXHIBITS_OUT=1` writes it anew.
#[test]
fn the_reports_tests_draw_what_the_guard_shows() {
    let case = DetectCase {
        anomalies: &[],
        wrong_label: 0,
        classes: 2,
        labels: &[],
        placebos: &[],
        seed: 1,
        image: &Default::default(),
    };
    let told = of_guard(clear(), &Delta::default(), &case);
    let id = |position: usize| TrainId(format!("dog/{:05}.png", 1000 + position * 37 % 4000));
    let exhibits: Vec<Exhibit> = told.exhibits.into_iter().map(|exhibit| exhibit.named(id)).collect();
    let shown = serde_json::json!({ "words": told.words, "sure": told.sure, "exhibits": exhibits });
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/exhibits/guard.json");
    if std::env::var_os("EXHIBITS_OUT").is_some() {
        std::fs::write(file, format!("{shown}\n")).unwrap();
    }
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(shown, kept, "write it anew with EXHIBITS_OUT=1, and look at the page");
}
