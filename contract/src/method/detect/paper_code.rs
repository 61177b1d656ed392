//! `paper-code`: the count rule as the authors' notebooks compute it (algorithm §1–2).

use super::delta::{self, Damping, Delta, Labels, Objective, Space};
use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What produced the published numbers: the count rule over every class, with the settings of the authors' code. It flags many clean examples, too, and never abstains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    #[allow(missing_docs, reason = "its keys are documented")]
    #[serde(flatten)]
    pub delta: Delta,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            delta: Delta {
                n_tol: 2,
                damping: Damping::Absolute { value: 1e-8 },
                space: Space::Normalised,
                labels: Labels::ByClasses,
                fit_examples: 0,
                ..Delta::default()
            },
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        self.delta.check()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        Needs {
            factors: Some(delta::influence(&self.delta, Objective::Loss)),
            ..Needs::default()
        }
    }
}
