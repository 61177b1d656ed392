//! POTION: shrink weights until the flagged examples are forgotten, no further.

use super::Own;
use crate::Recipe;
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shrink the weights that matter most to the flagged examples, more of them at each try, until the model no longer reads those by their labels (POTION, Schoepf et al.
/// 2024). Nothing is trained, so that poisons which nobody found are not learnt again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// How it is told what a weight matters to a set.
    pub importance: Importance,
    /// The search ends where no more than this share of the flagged examples that the production model reads by their labels are still read so: ρ of the paper.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub stop: f64,
    /// What the first try takes for the share of flagged examples, as a share of what it is.
    pub start: f64,
    /// Each further try takes this many times the share of the one before.
    pub step: f64,
    /// Most tries.
    #[schemars(range(min = 1, max = 100000))]
    pub tries: u32,
    /// Most that the accuracy on the retained examples may fall: where the search goes further, the candidate is the last try that keeps to it. Poisons among them count,
    /// so a limit below their share forbids a repair.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_drop: f64,
    /// Examples whose mean gradient is taken at once; the authors take 512, which is faster. In a mean over many classes gradients cancel each other.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
}

/// What a weight matters to a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Importance {
    /// The mean size of the gradients of the length of the answer (its logits), the authors' last choice.
    Length,
    /// The mean of the squared gradients of the loss, as in selective synaptic dampening. Where the model is sure of the flagged there is hardly one.
    Loss,
    /// The mean of the squared gradients of the margin, the label's logit against all others: the loss's direction, whose length does not vanish.
    #[default]
    Margin,
}

impl Default for Keys {
    /// The search is that of the authors' code. What a weight matters, and when to stop, was chosen on victims whose poisons were known to a tenth (docs/lab/diary.md).
    fn default() -> Self {
        Self {
            importance: Importance::Margin,
            stop: 0.05,
            start: 0.04,
            step: 1.1,
            tries: 500,
            max_drop: 0.1,
            batch_size: 1,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let mut found = Vec::from_iter(unless(
            self.start > 0.0 && self.start.is_finite(),
            "start",
            "is not a number above 0",
            "the authors take 0.04",
        ));
        found.extend(unless(
            self.step > 1.0 && self.step.is_finite(),
            "step",
            "is not a number above 1",
            "the authors take 1.1",
        ));
        found
    }
}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "shrink the weights that matter most to the flagged examples until those are forgotten, without training"
    }

    fn effort(&self, _: &Recipe) -> String {
        "one pass for gradients and a search over the flagged examples, no training".into()
    }
}
