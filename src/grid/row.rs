//! What is kept of an answer. A row says by itself what it is about: no other file is needed to read it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One line of the rows' file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GridRow {
    /// Digest of all settings that it depends on: the same question has the same key.
    pub key: String,
    /// Version of the program that made it.
    pub version: String,
    /// Whose victim.
    #[serde(flatten)]
    pub place: VictimName,
    /// What was found.
    #[serde(flatten)]
    pub found: Shown,
    /// Seconds of computing: of a victim, its training; of a detection, the whole trace; of a repair, the unlearner's.
    pub seconds: f64,
    /// Where it was computed: `cpu`, `cuda:0`. None where the job does not say.
    pub device: Option<String>,
    /// Peak resident memory of the job, bytes. None where it does not say.
    pub peak_memory: Option<u64>,
}

/// Which victim, by the names of the grid file.
#[derive(Clone, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct VictimName {
    /// Data.
    pub data: String,
    /// Network.
    pub network: String,
    /// Attack.
    pub attack: String,
    /// Poisons as a share of the training set. None: as many as the attack says.
    pub dose: Option<f64>,
    /// Seed.
    pub seed: u64,
}

/// What a row says. Shares are 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "row", rename_all = "kebab-case")]
pub enum Shown {
    /// A model trained on attacked data.
    Victim(VictimRow),
    /// What a detector says of anomalies.
    Detection(DetectionRow),
    /// A repaired model.
    Repair(RepairRow),
    /// Clean pictures handed in.
    Control(ControlRow),
}

/// A model, measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasuredModel {
    /// The attack's own measure.
    pub success: f64,
    /// Pictures with the trigger that are read as their true class. None where the attack's pictures have no trigger.
    pub robust: Option<f64>,
    /// Accuracy on clean validation pictures.
    pub accuracy: f64,
    /// The same for each class.
    pub classes: BTreeMap<String, f64>,
}

/// A model trained on attacked data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VictimRow {
    /// Is a picture that the attack is to have misread read as it wants? If not, nothing else is asked of this victim.
    pub took: bool,
    /// Name of the attack's own measure.
    pub measure: String,
    /// The model.
    #[serde(flatten)]
    pub measured: MeasuredModel,
    /// Number of poisons, and of covers.
    pub poisons: u64,
    /// Covers: changed examples under their true label.
    pub covers: u64,
    /// Training examples.
    pub examples: u64,
}

/// What a detector says of anomalies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionRow {
    /// The detector, by its name in the grid file.
    pub detector: String,
    /// Anomalies that were handed in at once: fewer than asked where fewer pictures are misread.
    pub anomalies: u32,
    /// Anomalies that were asked for.
    pub asked: u32,
    /// Code of the verdict's reason where it abstained; None: it decided.
    pub abstained: Option<String>,
    /// Number flagged.
    pub flagged: u64,
    /// Of them, poisons.
    pub hits: u64,
    /// Poisons in all.
    pub poisons: u64,
    /// Clean training examples in all; covers are among them.
    pub clean: u64,
    /// Seconds per step; the fit only where this detector was the first to need the factors.
    pub steps: BTreeMap<String, f64>,
}

impl DetectionRow {
    /// Share of the poisons that are flagged. None where there are none.
    pub fn tpr(&self) -> Option<f64> {
        share(self.hits, self.poisons)
    }

    /// Share of the flagged that are poisons. None where nothing is flagged.
    pub fn precision(&self) -> Option<f64> {
        share(self.hits, self.flagged)
    }

    /// Share of the clean examples that are flagged.
    pub fn fpr(&self) -> f64 {
        share(self.flagged.saturating_sub(self.hits), self.clean).unwrap_or(0.0)
    }
}

/// `part` of `whole`; None of nothing.
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A repaired model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RepairRow {
    /// The unlearner, by its name in the grid file.
    pub unlearner: String,
    /// What was forgotten, in words: `flagged by guard`, `missed by guard`, `10 % of the poisons`.
    pub forgotten: String,
    /// Number of examples that were forgotten.
    pub removed: u64,
    /// Of them, poisons.
    pub hits: u64,
    /// The candidate.
    #[serde(flatten)]
    pub measured: MeasuredModel,
}

/// Clean pictures handed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlRow {
    /// The detector, by its name in the grid file.
    pub detector: String,
    /// `natural-error` or `placebo`.
    pub kind: String,
    /// Pictures that were handed in.
    pub tried: u64,
    /// Of them, read as the poisons' class.
    pub of_class: u64,
    /// Those with a verdict other than "undecided".
    pub decided: u64,
    /// Of these, those whose flagged examples are mostly poisons: a true finding, although nobody handed in a picture of the attack.
    pub decided_poisons: u64,
    /// Most clean examples that one of them flagged.
    pub most_clean: u64,
    /// Why the others were left alone, and how often.
    pub abstained: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::grid) fn place(attack: &str, seed: u64) -> VictimName {
        VictimName {
            data: "pictures".into(),
            network: "net".into(),
            attack: attack.into(),
            dose: Some(0.01),
            seed,
        }
    }

    #[test]
    fn shares_of_a_detection() {
        let found = |flagged, hits| DetectionRow {
            detector: "d".into(),
            anomalies: 1,
            asked: 1,
            abstained: None,
            flagged,
            hits,
            poisons: 8,
            clean: 100,
            steps: BTreeMap::new(),
        };
        let some = found(6, 4);
        assert_eq!((some.tpr(), some.precision(), some.fpr()), (Some(0.5), Some(4.0 / 6.0), 0.02));
        assert_eq!((found(0, 0).tpr(), found(0, 0).precision(), found(0, 0).fpr()), (Some(0.0), None, 0.0));
    }

    #[test]
    fn a_row_is_one_line_that_is_read_again() {
        let row = GridRow {
            key: "k".into(),
            version: "1".into(),
            place: place("badnet", 3),
            found: Shown::Victim(VictimRow {
                took: true,
                measure: "poison success".into(),
                measured: MeasuredModel {
                    success: 0.1 + 0.2,
                    robust: None,
                    accuracy: 1.0,
                    classes: [("a\nb".to_owned(), 1.0 / 3.0)].into(),
                },
                poisons: 1,
                covers: 0,
                examples: 2,
            }),
            seconds: 1e-3,
            device: None,
            peak_memory: Some(u64::MAX),
        };
        let line = serde_json::to_string(&row).unwrap();
        assert!(!line.contains('\n') && line.contains(r#""row":"victim""#), "{line}");
        assert_eq!(serde_json::from_str::<GridRow>(&line).unwrap(), row);
    }
}
