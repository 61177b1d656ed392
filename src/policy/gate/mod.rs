//! The gate: what a candidate must fulfil before it may be called a repair.

mod accuracy;
mod paired;

pub use paired::{how_often, mcnemar, needed};

use delta_guard_contract::job::CertifyResult;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a candidate must fulfil. Shares are 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GateLimits {
    /// Accuracy on the validation set may drop by at most this (0.02: two percentage points).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_accuracy_drop: f64,
    /// The accuracy of no single class may drop by more than this.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_class_drop: f64,
    /// A fall beyond these limits rejects a candidate only where chance alone makes it at most this often (exact McNemar test of the pictures that are lost and won; the classes corrected by Holm). A fall that may be chance passes with a note; one of more than twice the limit, with a doubt that a person must decide. 1: every fall beyond a limit rejects.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub alpha: f64,
    /// Classes with fewer validation pictures than this are judged together, too: one of ten pictures says little.
    #[schemars(range(min = 1, max = 100_000))]
    pub min_class_examples: u64,
    /// Where it is known what the picture shows (`true_label` of the sidecar), the candidate must read it so. `false`: it is enough that it no longer reads it as the wrong label, and a third wrong class passes with a note.
    pub true_label: bool,
    /// Trace the anomaly on the candidate again, and so often at most remove what stands out there, too, and make another candidate. What stands out after that is a doubt that a person must decide. 0: the candidate is not traced. Each round costs a fit and a trace, and where something is found another training.
    #[schemars(range(max = 5))]
    pub regrowth: u32,
    /// At most this share of all training examples may be removed by one case.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_flagged_share: f64,
    /// At most this share of the training examples of one class may be removed by one case.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_class_flagged_share: f64,
}

impl Default for GateLimits {
    /// 2 and 10 percentage points where they are no chance at 5 %, classes from 20 pictures, the true label, 10 % of the set and half of a class.
    fn default() -> Self {
        Self {
            max_accuracy_drop: 0.02,
            max_class_drop: 0.1,
            alpha: 0.05,
            min_class_examples: 20,
            true_label: true,
            regrowth: 0,
            max_flagged_share: 0.1,
            max_class_flagged_share: 0.5,
        }
    }
}

/// What the gate says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateVerdict {
    /// Did the candidate pass?
    pub pass: bool,
    /// Why not, a sentence each; empty when it passed.
    pub reasons: Vec<String>,
    /// What was judged otherwise than one would think, a sentence each.
    pub notes: Vec<String>,
    /// What nobody but a person should let pass, a sentence each: with a doubt the guard promotes nothing by itself, in no mode. None in records of older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<String>,
}

/// What is known of an anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The wrong label ŷ.
    pub wrong: String,
    /// What it shows, where somebody said so.
    pub truth: Option<String>,
}

/// How a candidate reads an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Still as the wrong label.
    Still,
    /// As what it shows.
    Right,
    /// As something else than the wrong label; nobody said what it shows.
    Otherwise,
    /// As a third class, which is wrong too.
    Third,
}

impl Known {
    /// How `label` is to be taken.
    pub fn reading(&self, label: &str) -> Reading {
        match &self.truth {
            _ if label == self.wrong => Reading::Still,
            Some(truth) if label == truth => Reading::Right,
            Some(_) => Reading::Third,
            None => Reading::Otherwise,
        }
    }
}

/// Judge a candidate. `known` tells of the anomalies in the order of `result.anomalies_after`; `over_caps` are the caps that the
/// flagged set exceeds ([`super::Decision::over_caps`]).
pub fn judge(result: &CertifyResult, known: &[Known], over_caps: &[String], limits: &GateLimits) -> GateVerdict {
    let mut verdict = GateVerdict::default();
    anomalies(result, known, limits, &mut verdict);
    accuracy::judge(result, limits, &mut verdict);
    verdict.reasons.extend(over_caps.iter().cloned());
    verdict.pass = verdict.reasons.is_empty();
    verdict
}

/// Slack for the division: far below one picture of any set.
const EPSILON: f64 = 1e-12;

fn anomalies(result: &CertifyResult, known: &[Known], limits: &GateLimits, verdict: &mut GateVerdict) {
    let GateVerdict { reasons, notes, .. } = verdict;
    if known.is_empty() || result.anomalies_after.len() != known.len() {
        reasons.push(format!(
            "{} anomalies were measured, {} were asked for",
            result.anomalies_after.len(),
            known.len()
        ));
        return;
    }
    for (number, (after, known)) in (1..).zip(result.anomalies_after.iter().zip(known)) {
        let (label, probability, wrong) = (&after.label, after.probability, &known.wrong);
        match known.reading(label) {
            Reading::Right => {}
            Reading::Still => reasons.push(format!("the candidate still reads anomaly {number} as {wrong:?} (probability {probability:.3})")),
            Reading::Otherwise => notes.push(format!(
                "the candidate no longer reads anomaly {number} as {wrong:?} but as {label:?} (probability {probability:.3}); nobody said what it shows"
            )),
            Reading::Third => {
                let told = format!(
                    "the candidate reads anomaly {number} as {label:?} (probability {probability:.3}), which is wrong too: it shows {:?}",
                    known.truth.as_deref().unwrap_or_default()
                );
                match limits.true_label {
                    true => reasons.push(format!("{told} (gate.true_label)")),
                    false => notes.push(told),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
