//! The tables: from rows alone.

use super::chance::{Mean, der};
use super::curve::{Line, tidy};
use super::row::{ControlRow, DetectionRow, GridRow, MeasuredModel, RepairRow, Shown, VictimName, VictimRow};
use crate::story::controls::Rate;
use std::collections::{BTreeMap, BTreeSet};

/// A table: texts only.
#[derive(Clone, Debug, PartialEq)]
pub struct GridTable {
    /// What it shows.
    pub title: String,
    /// How to read it, in whole sentences.
    pub about: String,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Vec<String>>,
    /// Has it a row for each seed? Such a table is for files.
    pub long: bool,
}

/// A figure over doses.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// A victim without its seed: what means are taken over.
type Cell = (String, String, String, Option<String>);

fn cell(place: &VictimName) -> Cell {
    (
        place.data.clone(),
        place.network.clone(),
        place.attack.clone(),
        place.dose.map(|dose| format!("{:08.5}", 100.0 * dose)),
    )
}

/// The cell's first columns.
fn head((data, network, attack, dose): &Cell) -> Vec<String> {
    let dose = dose.as_ref().and_then(|dose| dose.parse::<f64>().ok());
    vec![
        data.clone(),
        network.clone(),
        attack.clone(),
        dose.map_or_else(|| "own".into(), |dose| format!("{} %", tidy(dose))),
    ]
}

const HEAD: [&str; 4] = ["data", "network", "attack", "dose"];

fn columns(more: &[&str]) -> Vec<String> {
    HEAD.iter().chain(more).map(ToString::to_string).collect()
}

fn text(mean: Option<Mean>) -> String {
    mean.map_or_else(|| "–".into(), |mean| mean.percent())
}

fn mean(values: impl IntoIterator<Item = f64>) -> String {
    text(Mean::of(&Vec::from_iter(values)))
}

/// Rows of a kind, by what `of` says of them; of victims that did not take nothing is here but themselves.
struct Book<'a> {
    victims: BTreeMap<Cell, Vec<(&'a GridRow, &'a VictimRow)>>,
    detections: Vec<(&'a GridRow, &'a DetectionRow)>,
    repairs: Vec<(&'a GridRow, &'a RepairRow)>,
    controls: Vec<(&'a GridRow, &'a ControlRow)>,
}

impl<'a> Book<'a> {
    fn of(rows: &'a [GridRow]) -> Self {
        let mut book = Self {
            victims: BTreeMap::new(),
            detections: Vec::new(),
            repairs: Vec::new(),
            controls: Vec::new(),
        };
        for row in rows {
            match &row.found {
                Shown::Victim(victim) => book.victims.entry(cell(&row.place)).or_default().push((row, victim)),
                Shown::Detection(detection) => book.detections.push((row, detection)),
                Shown::Repair(repair) => book.repairs.push((row, repair)),
                Shown::Control(control) => book.controls.push((row, control)),
            }
        }
        book
    }

    fn victim(&self, place: &VictimName) -> Option<&VictimRow> {
        let all = self.victims.get(&cell(place))?;
        all.iter().find(|(row, _)| row.place.seed == place.seed).map(|(_, victim)| *victim)
    }
}

/// All tables that the rows have something for.
pub fn tables(rows: &[GridRow]) -> Vec<GridTable> {
    let book = Book::of(rows);
    [
        attacks(&book),
        detectors(&book),
        counts(&book),
        repairs(&book),
        controls(&book),
        seconds(&book),
        seeds(&book),
    ]
    .into_iter()
    .filter(|table| !table.rows.is_empty())
    .collect()
}

fn attacks(book: &Book<'_>) -> GridTable {
    let mut rows = Vec::new();
    for (cell, all) in &book.victims {
        let took: Vec<&VictimRow> = all.iter().map(|(_, victim)| *victim).filter(|victim| victim.took).collect();
        let mut row = head(cell);
        row.extend([
            format!("{} of {}", took.len(), all.len()),
            mean(all.iter().map(|(_, victim)| victim.measured.success)),
            mean(all.iter().filter_map(|(_, victim)| victim.measured.robust)),
            mean(all.iter().map(|(_, victim)| victim.measured.accuracy)),
            mean(all.iter().map(|(_, victim)| victim.poisons as f64 / victim.examples as f64)),
        ]);
        rows.push(row);
    }
    GridTable {
        title: "Attacks".into(),
        about: "Percent, mean over seeds with its 95 % interval (Student's t). Took: a picture that is to be misread is. Robust: triggered pictures that are read as their true class.".into(),
        columns: columns(&["took", "success", "robust", "accuracy", "poisons of all"]),
        rows,
        long: false,
    }
}

/// Detections for one anomaly, by cell and detector.
fn detections<'a>(book: &Book<'a>, asked: u32) -> BTreeMap<(Cell, String), Vec<&'a DetectionRow>> {
    let mut all: BTreeMap<(Cell, String), Vec<&DetectionRow>> = BTreeMap::new();
    for (row, detection) in book.detections.iter().filter(|(_, d)| d.asked == asked) {
        all.entry((cell(&row.place), detection.detector.clone())).or_default().push(detection);
    }
    all
}

fn detector_row(cell: &Cell, first: &str, all: &[&DetectionRow]) -> Vec<String> {
    let worst = |values: Vec<f64>| Mean::of(&values).map_or_else(|| "–".into(), |mean| format!("{:.1}", 100.0 * mean.low));
    let abstained = all.iter().filter(|d| d.abstained.is_some()).count();
    let mut row = head(cell);
    row.extend([
        first.to_string(),
        mean(all.iter().filter_map(|d| d.tpr())),
        worst(all.iter().filter_map(|d| d.tpr()).collect()),
        mean(all.iter().filter_map(|d| d.precision())),
        worst(all.iter().filter_map(|d| d.precision()).collect()),
        Mean::of(&all.iter().map(|d| d.fpr()).collect::<Vec<_>>()).map_or_else(|| "–".into(), |mean| format!("{:.2}", 100.0 * mean.mean)),
        format!("{abstained} of {}", all.len()),
    ]);
    row
}

const DETECTED: [&str; 6] = ["TPR", "worst TPR", "precision", "worst precision", "FPR", "abstained"];

fn detectors(book: &Book<'_>) -> GridTable {
    let all = detections(book, 1);
    let rows = all.iter().map(|((cell, detector), all)| detector_row(cell, detector, all)).collect();
    GridTable {
        title: "Detectors (the paper's Table 1)".into(),
        about: "From one anomaly. Percent; mean over the seeds whose attack took, and the worst seed. An abstention counts as TPR 0 and has no precision.".into(),
        columns: columns(&[&["detector"], &DETECTED[..]].concat()),
        rows,
        long: false,
    }
}

fn counts(book: &Book<'_>) -> GridTable {
    let asked: BTreeSet<u32> = book.detections.iter().map(|(_, d)| d.asked).collect();
    let mut rows = Vec::new();
    if asked.len() > 1 {
        for asked in asked {
            for ((cell, detector), all) in detections(book, asked) {
                rows.push(detector_row(&cell, &format!("{detector}, {asked}"), &all));
            }
        }
    }
    rows.sort();
    GridTable {
        title: "Number of anomalies (the paper's Tables 4 and 5)".into(),
        about: "Several anomalies of one attack, handed in as one case.".into(),
        columns: columns(&[&["detector, anomalies"], &DETECTED[..]].concat()),
        rows,
        long: false,
    }
}

/// A victim before and after.
struct Pair<'a> {
    before: &'a MeasuredModel,
    repair: &'a RepairRow,
    seconds: f64,
}

fn repairs(book: &Book<'_>) -> GridTable {
    let mut all: BTreeMap<(Cell, String, String), Vec<Pair<'_>>> = BTreeMap::new();
    for (row, repair) in &book.repairs {
        if let Some(victim) = book.victim(&row.place) {
            let key = (cell(&row.place), repair.forgotten.clone(), repair.unlearner.clone());
            all.entry(key).or_default().push(Pair {
                before: &victim.measured,
                repair,
                seconds: row.seconds,
            });
        }
    }
    let mut rows = Vec::new();
    for ((cell, forgotten, unlearner), pairs) in &all {
        let healed = pairs.iter().filter(|p| p.repair.measured.success <= 0.05).count();
        let mut row = head(cell);
        row.extend([
            forgotten.clone(),
            unlearner.clone(),
            mean(pairs.iter().map(|p| p.repair.measured.success)),
            format!("{healed} of {}", pairs.len()),
            mean(pairs.iter().map(|p| p.before.accuracy - p.repair.measured.accuracy)),
            mean(pairs.iter().map(|p| worst_class(p.before, &p.repair.measured))),
            mean(pairs.iter().filter_map(|p| p.repair.measured.robust)),
            mean(pairs.iter().map(|p| {
                let after = &p.repair.measured;
                der((p.before.success, after.success), (p.before.accuracy, after.accuracy))
            })),
            Mean::of(&pairs.iter().map(|p| p.seconds).collect::<Vec<_>>()).map_or_else(String::new, |mean| format!("{:.0}", mean.mean)),
        ]);
        rows.push(row);
    }
    GridTable {
        title: "Repairs (the paper's Tables 2 and 3, Figure 7; the share of poisons that is known)".into(),
        about: "Percent, mean over seeds. Healed: success at most 5 %. Lost: accuracy before less after, in points. Robust: triggered pictures that are read as their true class. DER: defence effectiveness rating.".into(),
        columns: columns(&["forgotten", "unlearner", "success", "healed", "lost", "worst class lost", "robust", "DER", "seconds"]),
        rows,
        long: false,
    }
}

/// Points that the class that lost most has lost.
fn worst_class(before: &MeasuredModel, after: &MeasuredModel) -> f64 {
    let lost = before.classes.iter().filter_map(|(name, share)| Some(share - after.classes.get(name)?));
    lost.fold(f64::NEG_INFINITY, f64::max).max(-1.0)
}

fn controls(book: &Book<'_>) -> GridTable {
    let mut all: BTreeMap<(String, String, String), ControlRow> = BTreeMap::new();
    for (row, control) in &book.controls {
        for attack in [row.place.attack.as_str(), "all"] {
            let key = (control.detector.clone(), control.kind.clone(), attack.to_string());
            all.entry(key).and_modify(|sum| add(sum, control)).or_insert_with(|| (*control).clone());
        }
    }
    let rows = all.into_iter().map(|((detector, kind, attack), sum)| {
        let interval = |hits: u64| {
            Rate::of(hits as usize, sum.tried as usize).map_or_else(|| "–".into(), |r| format!("{:.1} – {:.1}", 1000.0 * r.low, 1000.0 * r.high))
        };
        let wrong = sum.decided.saturating_sub(sum.decided_poisons);
        vec![
            detector,
            kind,
            attack,
            sum.tried.to_string(),
            sum.of_class.to_string(),
            sum.decided_poisons.to_string(),
            wrong.to_string(),
            interval(wrong),
            sum.most_clean.to_string(),
        ]
    });
    GridTable {
        title: "False verdicts".into(),
        about: "Clean pictures handed in as if they were anomalies. Poisons found: the flagged are mostly poisons, which is true although nobody handed in a picture of the attack. Per 1,000: Wilson's 95 % interval of the false ones.".into(),
        columns: ["detector", "pictures", "attack", "tried", "read as the poisons' class", "poisons found", "false", "false per 1,000", "most clean flagged"].map(String::from).to_vec(),
        rows: rows.collect(),
        long: false,
    }
}

fn add(sum: &mut ControlRow, one: &ControlRow) {
    sum.tried += one.tried;
    sum.of_class += one.of_class;
    sum.decided += one.decided;
    sum.decided_poisons += one.decided_poisons;
    sum.most_clean = sum.most_clean.max(one.most_clean);
    for (code, n) in &one.abstained {
        *sum.abstained.entry(code.clone()).or_default() += n;
    }
}

/// Seconds and the victim's own, by network, kind and name.
type Costs = BTreeMap<(String, String, String), Vec<(f64, f64)>>;

fn seconds(book: &Book<'_>) -> GridTable {
    let mut all = Costs::new();
    for (row, _) in &book.detections {
        push(&mut all, book, row, "detector", &detector_of(row));
    }
    for (row, repair) in &book.repairs {
        push(&mut all, book, row, "unlearner", &repair.unlearner);
    }
    let rows = all.into_iter().map(|((network, kind, name), all)| {
        let mean = |of: fn(&(f64, f64)) -> f64| Mean::of(&all.iter().map(of).collect::<Vec<_>>()).map_or(f64::NAN, |mean| mean.mean);
        vec![
            network,
            kind,
            name,
            all.len().to_string(),
            format!("{:.1}", mean(|(own, _)| *own)),
            format!("{:.0} %", 100.0 * mean(|(own, trained)| own / trained)),
        ]
    });
    GridTable {
        title: "Seconds".into(),
        about: "Of computing, and as a share of the victim's own training. Factors are fitted once for each victim: by the detector that needs them first.".into(),
        columns: ["network", "kind", "name", "rows", "seconds", "of one training"].map(String::from).to_vec(),
        rows: rows.collect(),
        long: false,
    }
}

fn detector_of(row: &GridRow) -> String {
    match &row.found {
        Shown::Detection(d) => d.detector.clone(),
        _ => String::new(),
    }
}

fn push(all: &mut Costs, book: &Book<'_>, row: &GridRow, kind: &str, name: &str) {
    let trained = book
        .victims
        .get(&cell(&row.place))
        .and_then(|all| all.iter().find(|(victim, _)| victim.place.seed == row.place.seed));
    if let Some((victim, _)) = trained.filter(|(victim, _)| victim.seconds > 0.0 && row.seconds > 0.0) {
        let key = (row.place.network.clone(), kind.to_string(), name.to_string());
        all.entry(key).or_default().push((row.seconds, victim.seconds));
    }
}

fn seeds(book: &Book<'_>) -> GridTable {
    let mut rows: Vec<(Cell, u64, Vec<String>)> = Vec::new();
    for (row, d) in book.detections.iter().filter(|(_, d)| d.asked == 1) {
        let mut texts = head(&cell(&row.place));
        texts.extend([
            row.place.seed.to_string(),
            d.detector.clone(),
            format!("{} of {}", d.hits, d.poisons),
            d.flagged.saturating_sub(d.hits).to_string(),
            d.abstained.clone().unwrap_or_default(),
        ]);
        rows.push((cell(&row.place), row.place.seed, texts));
    }
    rows.sort();
    GridTable {
        title: "Seed by seed".into(),
        about: "Poisons found, clean examples flagged, and why a detector abstained.".into(),
        columns: columns(&["seed", "detector", "poisons found", "clean flagged", "abstained"]),
        rows: rows.into_iter().map(|(_, _, texts)| texts).collect(),
        long: true,
    }
}

/// TPR and precision of each detector over the dose, for each attack that has several doses.
pub fn figures(rows: &[GridRow]) -> Vec<Figure> {
    type Values = BTreeMap<String, Vec<f64>>;
    let mut all: BTreeMap<(String, &str), BTreeMap<String, Values>> = BTreeMap::new();
    for row in rows {
        let (Shown::Detection(d), Some(dose)) = (&row.found, row.place.dose) else {
            continue;
        };
        if d.asked != 1 {
            continue;
        }
        let place = format!("{}, {}, {}", row.place.attack, row.place.network, row.place.data);
        for (measure, value) in [("TPR", d.tpr()), ("precision", d.precision())] {
            let lines = all.entry((place.clone(), measure)).or_default();
            let values = lines.entry(d.detector.clone()).or_default().entry(format!("{dose:.6}")).or_default();
            values.extend(value);
        }
    }
    let line = |(name, values): (String, Values)| Line {
        name,
        points: values
            .iter()
            .filter_map(|(dose, values)| {
                let mean = Mean::of(values)?;
                Some((dose.parse().ok()?, mean.mean, mean.half.unwrap_or(0.0)))
            })
            .collect(),
    };
    all.into_iter()
        .map(|((place, measure), lines)| Figure {
            title: format!("{measure} over the dose: {place}"),
            lines: lines.into_iter().map(line).filter(|line| line.points.len() > 1).collect(),
        })
        .filter(|figure| !figure.lines.is_empty())
        .collect()
}

#[cfg(test)]
mod tests;
