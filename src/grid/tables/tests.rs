use super::*;

fn row(attack: &str, dose: f64, seed: u64, seconds: f64, found: Shown) -> GridRow {
    GridRow {
        key: format!("{attack}{dose}{seed}{found:?}"),
        version: "1".into(),
        place: VictimName {
            data: "pictures".into(),
            network: "net".into(),
            attack: attack.into(),
            dose: Some(dose),
            seed,
        },
        found,
        seconds,
        device: None,
        peak_memory: None,
    }
}

fn measured(success: f64, accuracy: f64) -> MeasuredModel {
    MeasuredModel {
        success,
        robust: Some(1.0 - success),
        accuracy,
        classes: [("a".to_owned(), accuracy), ("b".to_owned(), accuracy - 0.1 * (1.0 - success))].into(),
    }
}

fn victim(took: bool, success: f64) -> Shown {
    Shown::Victim(VictimRow {
        took,
        measure: "poison success".into(),
        measured: measured(success, 0.8),
        poisons: 10,
        covers: 0,
        examples: 1000,
    })
}

fn detection(detector: &str, asked: u32, flagged: u64, hits: u64) -> Shown {
    Shown::Detection(DetectionRow {
        detector: detector.into(),
        anomalies: asked,
        asked,
        abstained: (flagged == 0).then(|| "no-group".into()),
        flagged,
        hits,
        poisons: 10,
        clean: 990,
        steps: BTreeMap::new(),
    })
}

fn rows() -> Vec<GridRow> {
    vec![
        row("board", 0.01, 1, 100.0, victim(true, 1.0)),
        row("board", 0.01, 1, 5.0, detection("guard", 1, 10, 10)),
        row("board", 0.01, 1, 5.0, detection("guard", 5, 9, 9)),
        row("board", 0.01, 2, 100.0, victim(true, 0.9)),
        row("board", 0.01, 2, 15.0, detection("guard", 1, 10, 8)),
        row("board", 0.01, 3, 100.0, victim(true, 0.9)),
        row("board", 0.01, 3, 10.0, detection("guard", 1, 0, 0)),
        row("board", 0.01, 4, 100.0, victim(false, 0.2)),
        row("board", 0.03, 1, 100.0, victim(true, 1.0)),
        row("board", 0.03, 1, 5.0, detection("guard", 1, 10, 10)),
        row(
            "board",
            0.01,
            1,
            40.0,
            Shown::Repair(RepairRow {
                unlearner: "eu".into(),
                forgotten: "flagged by guard".into(),
                removed: 10,
                hits: 10,
                measured: measured(0.0, 0.78),
            }),
        ),
        row(
            "board",
            0.01,
            1,
            1.0,
            Shown::Control(ControlRow {
                detector: "guard".into(),
                kind: "natural-error".into(),
                tried: 20,
                of_class: 20,
                decided: 3,
                decided_poisons: 2,
                most_clean: 6,
                abstained: BTreeMap::new(),
            }),
        ),
    ]
}

fn table(title: &str) -> GridTable {
    let all = tables(&rows());
    all.into_iter().find(|table| table.title.starts_with(title)).unwrap()
}

#[test]
fn seeds_whose_attack_did_not_take_are_told_and_an_abstention_is_no_precision() {
    let attacks = table("Attacks");
    assert_eq!(attacks.rows[0][3..5], ["1 %", "3 of 4"]);
    assert!(attacks.rows[0][5].starts_with("75.0 ±"), "all seeds: {:?}", attacks.rows[0]);
    let detectors = table("Detectors");
    let first = &detectors.rows[0];
    // TPR: 1, 0.8 and 0; precision: 1 and 0.8; false: 0, 2 of 990, 0.
    assert!(first[5].starts_with("60.0 ±") && first[7].starts_with("90.0 ±"), "{first:?}");
    assert_eq!([&first[6], &first[8], &first[9], &first[10]], ["0.0", "80.0", "0.07", "1 of 3"]);
    let counts = table("Number");
    assert_eq!(counts.rows.len(), 3, "one and five anomalies");
    let seeds = table("Seed");
    assert!(seeds.long && seeds.rows.len() == 4);
    for table in tables(&rows()) {
        assert!(table.rows.iter().all(|row| row.len() == table.columns.len()), "{}", table.title);
    }
}

#[test]
fn a_repair_is_held_against_its_own_victim() {
    let repair = &table("Repairs").rows[0];
    // Success 1 → 0, accuracy 0.8 → 0.78; class b had 0.8 − 0 and has 0.68.
    assert_eq!(
        repair[4..],
        ["flagged by guard", "eu", "0.0", "1 of 1", "2.0", "12.0", "100.0", "0.99", "40"]
            .map(String::from)
            .map(|text| if text == "0.99" { "99.0".into() } else { text })
    );
    let seconds = table("Seconds");
    let guard = seconds.rows.iter().find(|row| row[2] == "guard").unwrap();
    assert_eq!(guard[3..], ["5", "8.0", "8 %"].map(String::from), "{guard:?}");
}

#[test]
fn false_verdicts_are_those_that_are_not_mostly_poisons() {
    let controls = table("False");
    let all = controls.rows.iter().find(|row| row[2] == "all").unwrap();
    assert_eq!(all[3..7], ["20", "20", "2", "1"].map(String::from));
    // Wilson's interval of 1 of 20: 0.9 % to 23.6 %.
    assert_eq!(all[7], "8.9 – 236.1");
}

#[test]
fn a_figure_is_over_doses() {
    let figures = figures(&rows());
    assert_eq!(figures.len(), 2, "TPR and precision");
    let tpr = figures.iter().find(|figure| figure.title.starts_with("TPR")).unwrap();
    let xs: Vec<f64> = tpr.lines[0].points.iter().map(|point| point.0).collect();
    assert_eq!(xs, [0.01, 0.03]);
    assert!((tpr.lines[0].points[0].1 - 0.6).abs() < 1e-12 && tpr.lines[0].points[0].2 > 0.1);
}
