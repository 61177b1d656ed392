//! What detectors have in common that give each example one value: the order of the flagged, a histogram of the class and a table.

use super::histogram::histogram;
use super::{DetectCase, Suspect};
use crate::error::{Error, Result};
use crate::evidence::Lab;
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::finding::{Abstain, Cell, Column, Exhibit, Histogram, HowSure, Series, Sure, Table};
use std::collections::BTreeSet;
use tch::Tensor;

/// Features of all training examples.
pub(super) fn features(lab: &mut dyn Lab, layer: Option<&str>, case: &DetectCase) -> Result<Tensor> {
    let features = lab.features(layer)?;
    if features.size().first() != Some(&(case.labels.len() as i64)) {
        return Err(Error::internal("features of other than the training examples"));
    }
    Ok(features)
}

/// Strongest first; of equal ones the first in the training set.
pub(super) fn strongest_first(mut found: Vec<Suspect>) -> Vec<Suspect> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.position.cmp(&b.position)));
    found
}

/// The verdict of a method that abstains only where it flags nothing.
pub(super) fn verdict(flagged: &[Suspect], nothing: impl FnOnce() -> Abstain) -> TraceVerdict {
    match flagged.is_empty() {
        true => TraceVerdict::Undecided { why: nothing() },
        false => TraceVerdict::Flagged,
    }
}

/// A method that measures nothing that its finding could be held against.
pub(super) fn unmeasured(sentence: &str) -> Option<Sure> {
    Some(Sure {
        how: HowSure::NotMeasured,
        sentence: sentence.into(),
    })
}

/// Values of the examples with the wrong label, the flagged apart. None where there is none.
pub(super) fn of_class(values: &[Suspect], flagged: &[Suspect], title: &str, caption: &str, axis: &str) -> Option<Exhibit<usize>> {
    let chosen: BTreeSet<usize> = flagged.iter().map(|f| f.position).collect();
    let side = |yes: bool| -> Vec<f64> {
        let own = values.iter().filter(|v| chosen.contains(&v.position) == yes);
        own.map(|v| v.score).collect()
    };
    let bins = histogram(&side(true), &side(false));
    let series = |name: &str, counts: Vec<u64>| Series { name: name.into(), counts };
    (!values.is_empty()).then(|| {
        Exhibit::Histogram(Histogram {
            title: title.into(),
            caption: format!("{caption} Each group is drawn as shares of itself, all with the wrong label."),
            axis: axis.into(),
            edges: bins.edges,
            series: vec![series("flagged", bins.flagged), series("others", bins.others)],
        })
    })
}

/// One row for each flagged example, in their order. None where none is flagged.
pub(super) fn table(columns: Vec<Column>, rows: Vec<Vec<Cell>>) -> Option<Exhibit<usize>> {
    (!rows.is_empty()).then(|| {
        Exhibit::Table(Table {
            title: "Every figure".into(),
            caption: "What was measured of each flagged example, the strongest first.".into(),
            columns,
            rows,
        })
    })
}
