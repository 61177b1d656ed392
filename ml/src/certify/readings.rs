//! How production model and candidate read the flagged training pictures, and others of their classes for comparison. A repaired model that was not taught
//! the flagged examples' labels reads most of them as something else, and leaves the others alone.

use super::predictions;
use crate::data::DataSet;
use crate::error::Result;
use crate::model::Model;
use crate::progress::Report;
use delta_guard_contract::job::FlaggedReadings;
use delta_guard_contract::{ImageConfig, TrainId};
use std::collections::{BTreeMap, BTreeSet};

/// At most this many other pictures are read for comparison.
pub const OTHERS: usize = 400;
/// At most this many classes are named.
const NAMED: usize = 5;

/// Which pictures are read: positions in the training set.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The flagged ones that are there, ascending.
    pub flagged: Vec<usize>,
    /// Others with the same labels, evenly spread, ascending.
    pub others: Vec<usize>,
}

impl Chosen {
    /// Choose. Ids that are not in the set are left out.
    pub fn new(train: &DataSet, flagged: &[TrainId]) -> Self {
        let gone: BTreeSet<usize> = flagged.iter().filter_map(|id| train.position(id)).collect();
        let labels: BTreeSet<u32> = gone.iter().map(|&i| train.labels()[i]).collect();
        let rest: Vec<usize> = (0..train.len())
            .filter(|i| labels.contains(&train.labels()[*i]) && !gone.contains(i))
            .collect();
        let n = rest.len().min(OTHERS);
        Self {
            flagged: gone.into_iter().collect(),
            others: (0..n).map(|i| rest[i * rest.len() / n]).collect(),
        }
    }

    /// What a model reads: a class for each of the flagged, and for each of the others.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn read(&self, model: &Model, train: &DataSet, image: &ImageConfig, step: &str, report: &mut dyn Report) -> Result<Read> {
        let mut read = |positions: &[usize]| -> Result<Vec<u32>> {
            let predicted = predictions(model, train, image, positions, step, report)?;
            Ok(predicted.into_iter().map(|(class, _)| class).collect())
        };
        Ok(Read {
            flagged: read(&self.flagged)?,
            others: read(&self.others)?,
        })
    }
}

/// What one model reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Class of each flagged picture.
    pub flagged: Vec<u32>,
    /// Class of each of the others.
    pub others: Vec<u32>,
}

/// Compare what both models read. None where nothing was flagged.
pub fn compare(train: &DataSet, chosen: &Chosen, before: &Read, after: &Read) -> Option<FlaggedReadings> {
    if chosen.flagged.is_empty() {
        return None;
    }
    let otherwise = |read: &Read| {
        let labels = chosen.flagged.iter().map(|&i| train.labels()[i]);
        labels.zip(&read.flagged).filter(|(label, class)| label != *class).count() as u64
    };
    let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
    after.flagged.iter().for_each(|class| *counts.entry(*class).or_default() += 1);
    let mut read_as: Vec<(String, u64)> = counts
        .into_iter()
        .map(|(class, n)| (train.classes().get(class as usize).cloned().unwrap_or_default(), n))
        .collect();
    read_as.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    read_as.truncate(NAMED);
    Some(FlaggedReadings {
        examples: chosen.flagged.len() as u64,
        otherwise_before: otherwise(before),
        otherwise_after: otherwise(after),
        read_as,
        others: chosen.others.len() as u64,
        others_as_before: before.others.iter().zip(&after.others).filter(|(b, a)| b == a).count() as u64,
    })
}
