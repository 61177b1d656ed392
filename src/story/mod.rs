//! The story that `demo` and `evaluate` tell: a clean data set, an attack, a victim, an anomaly, and the guard that repairs it. Everything in it
//! is done by the worker's ordinary jobs and the ordinary daemon; the story only sets the stage and knows the truth.

pub mod controls;
pub mod done;
pub mod file;
pub mod stage;
pub mod telling;

pub use file::{Changes, StoryFile};
pub use stage::Theatre;

use delta_guard_contract::finding::Exhibit;
use delta_guard_contract::{TraceReport, TrainId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Flagged ids against the truth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Hits {
    /// Number flagged.
    pub flagged: usize,
    /// Number of poisons there are.
    pub poisons: usize,
    /// Share of the poisons that were flagged, 0 to 1; 0 where there are none.
    pub tpr: f64,
    /// Share of the flagged that are poisons, 0 to 1. None where nothing was flagged.
    pub precision: Option<f64>,
}

impl Hits {
    /// Compare.
    pub fn of<'a>(flagged: impl Iterator<Item = &'a TrainId>, truth: &BTreeSet<&TrainId>) -> Self {
        let (mut all, mut right) = (0, 0);
        for id in flagged {
            all += 1;
            right += usize::from(truth.contains(id));
        }
        let share = |part: usize, whole: usize| if whole == 0 { None } else { Some(part as f64 / whole as f64) };
        Self {
            flagged: all,
            poisons: truth.len(),
            tpr: share(right, truth.len()).unwrap_or(0.0),
            precision: share(right, all),
        }
    }
}

/// Of a trace: the verdict's own set, and that of another rule where one was computed beside it.
pub fn hits(report: &TraceReport, poisons: &[TrainId]) -> (Hits, Option<Hits>) {
    let truth: BTreeSet<&TrainId> = poisons.iter().collect();
    let beside = report.exhibits.iter().find_map(|exhibit| match exhibit {
        Exhibit::Beside(beside) => Some(Hits::of(beside.flagged.iter(), &truth)),
        _ => None,
    });
    (Hits::of(report.flagged.iter().map(|f| &f.id), &truth), beside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted() {
        let ids: Vec<TrainId> = (0..6).map(|i| TrainId(format!("a#{i}"))).collect();
        let truth: BTreeSet<&TrainId> = ids[..4].iter().collect();
        let hits = Hits::of(ids[2..6].iter(), &truth);
        assert_eq!((hits.flagged, hits.poisons, hits.tpr, hits.precision), (4, 4, 0.5, Some(0.5)));
        assert_eq!(Hits::of([].iter(), &truth).precision, None);
        assert_eq!(Hits::of(ids.iter(), &BTreeSet::new()).tpr, 0.0);
    }
}
