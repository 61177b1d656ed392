//! Trace reports of earlier versions: evidence of the Δ detectors stood in fields of its own, where there are exhibits now. Their charts are in the pages that were
//! written then; what a case's further work and a new page need is read here.

use delta_guard_contract::TraceReport;
use delta_guard_contract::finding::{Cell, Column, Exhibit, SharedPixels, Table, Words};
use serde::Deserialize;

/// What was measured of each flagged example.
#[derive(Deserialize)]
struct Measured {
    count: i64,
    mean_scaled_delta: f64,
    kappa: f64,
    seed: bool,
}

#[derive(Deserialize)]
struct Former {
    flagged: Vec<Measured>,
    #[serde(default)]
    shared: Option<SharedPixels>,
}

/// A trace report of this or an earlier version.
pub(super) fn read(bytes: &[u8]) -> anyhow::Result<TraceReport> {
    let mut report: TraceReport = serde_json::from_slice(bytes)?;
    if report.words == Words::default()
        && let Ok(former) = serde_json::from_slice::<Former>(bytes)
    {
        let kin = former.flagged.iter().any(|f| f.kappa != 0.0);
        report.words = words(kin);
        report
            .exhibits
            .extend((!former.flagged.is_empty()).then(|| Exhibit::Table(table(&former.flagged))));
        report.exhibits.extend(former.shared.map(Exhibit::Shared));
    }
    Ok(report)
}

/// `kin`: by the guard; otherwise by the paper's rule.
fn words(kin: bool) -> Words {
    let word = |guard: &str, rule: &str| if kin { guard.to_owned() } else { rule.to_owned() };
    Words {
        called: word("the guard", "the paper’s count rule"),
        score: word("κ", "count"),
        score_meaning: word(
            "how much an example’s effect on the model is like that of the seeds",
            "in how many of the changes of picture and label an example’s influence falls",
        ),
        score_decimals: if kin { 2 } else { 0 },
        flagged: "lost influence when the picture and its label were changed".into(),
        caution: word(
            "",
            "The rule flags clean examples, too, and never abstains: take the list as a place to look, not as one to remove.",
        ),
    }
}

fn table(flagged: &[Measured]) -> Table {
    let column = |key: &str, name: &str, meaning: &str, decimals: u8| Column {
        key: key.into(),
        name: name.into(),
        meaning: meaning.into(),
        decimals,
    };
    let row = |f: &Measured| {
        vec![
            Cell::Whole(f.count),
            Cell::Number(f.mean_scaled_delta),
            Cell::Number(f.kappa),
            Cell::Yes(f.seed),
        ]
    };
    Table {
        title: "Every figure".into(),
        caption: "What was measured of each flagged example, the strongest first.".into(),
        columns: vec![
            column("count", "fell in", "how many changes of picture and label lower its influence", 0),
            column("mean_scaled_delta", "Δ", "mean change of its influence, scaled by its own influence", 3),
            column("kappa", "κ", "how much its effect on the model is like that of the seeds", 3),
            column("seed", "seed", "was it one of the seeds of the last round", 0),
        ],
        rows: flagged.iter().map(row).collect(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use delta_guard_contract::TraceVerdict;
    use delta_guard_contract::finding::Abstain;

    /// As the first version wrote it.
    fn former(kappa: f64, verdict: &str) -> String {
        let settings = r#"{"mode": "guard", "queries": 50, "tau": 0.0, "labels": "independent", "seeds": 20, "plain": false, "allow_unlearn": true}"#;
        format!(
            r#"{{"verdict": {verdict}, "predicted_label": "dog", "flagged": [
            {{"id": "dog/1.png", "label": "dog", "count": 50, "mean_scaled_delta": -1.5, "kappa": {kappa}, "rank": 1, "seed": true}},
            {{"id": "dog/2.png", "label": "dog", "count": 49, "mean_scaled_delta": -1.25, "kappa": {kappa}, "rank": 2, "seed": false}}],
            "notes": [], "examples": 5000, "examples_of_label": 650, "stand_out": {{"d_prime": 10.0, "z": 6.0, "cut": 0.2, "rounds": 2, "placebos": []}},
            "plain": null, "histogram": {{"edges": [-1.0, 0.0], "flagged": [2], "others": [3]}}, "settings": {settings},
            "factors": {{"key": "f", "reused": true, "examples": 1000}}, "checkpoint": "c", "manifest": "m", "seconds": {{}}, "thumbnails": {{}},
            "shared": {{"pixels": 64, "of": 1024, "place": [1, 2, 8, 8], "flagged": 2, "others": 3, "flagged_alike": 1.0, "others_alike": 0.0, "picture": null}},
            "peak_memory": 1, "device": "cpu"}}"#
        )
    }

    #[test]
    fn a_report_of_the_first_version_keeps_its_figures() {
        let report = read(former(0.75, r#"{"kind": "flagged"}"#).as_bytes()).unwrap();
        let scores: Vec<(&str, u32, f64)> = report.flagged.iter().map(|f| (f.id.0.as_str(), f.rank, f.score)).collect();
        assert_eq!(scores, [("dog/1.png", 1, 0.75), ("dog/2.png", 2, 0.75)]);
        assert_eq!((report.words.score.as_str(), report.words.caution.as_str()), ("κ", ""));
        let table = report.table().unwrap();
        assert_eq!(
            table.rows[1],
            [Cell::Whole(49), Cell::Number(-1.25), Cell::Number(0.75), Cell::Yes(false)]
        );
        assert!(matches!(&report.exhibits[1], Exhibit::Shared(shared) if shared.pixels == 64));
        let by_rule = read(former(0.0, r#"{"kind": "flagged"}"#).as_bytes()).unwrap();
        assert_eq!((by_rule.flagged[1].score, by_rule.words.score.as_str()), (49.0, "count"));
        assert!(by_rule.words.caution.contains("clean examples"));
        let undecided = read(former(0.5, r#"{"kind": "undecided", "reason": "nothing stands out"}"#).as_bytes()).unwrap();
        let why = Abstain::other("unnamed", "nothing stands out");
        assert_eq!(undecided.verdict, TraceVerdict::Undecided { why });
    }

    #[test]
    fn a_report_of_now_is_read_as_it_is() {
        let mut report = read(former(0.75, r#"{"kind": "flagged"}"#).as_bytes()).unwrap();
        report.exhibits.truncate(1);
        report.words.score = "another".into();
        assert_eq!(read(&serde_json::to_vec(&report).unwrap()).unwrap(), report);
    }
}
