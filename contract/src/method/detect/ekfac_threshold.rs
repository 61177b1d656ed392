//! `ekfac-threshold`: the baseline of the Δ-Influence paper. What EK-FAC says supports the wrong prediction most is flagged, by a fixed limit.
//!
//! With several points (several pictures, or transformed copies of each whose label is kept) the paper's text takes the mean score; its "boosted" form wants (nearly) every point's score
//! above the limit. No code of either was published.

use super::classes::Classes;
use super::delta::{self, Change, Damping, Delta, Fisher, Objective, Precision, Space};
use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Examples whose influence on the wrong prediction is above a fixed limit. It flags many clean examples, too, and never abstains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The limit: a score above it is flagged (the code: 10; the paper searches 0, 10, 100, 500).
    pub threshold: f64,
    /// `all`: every class, as published. `predicted`: only examples of the wrong label are scored.
    pub classes: Classes,
    /// How the scores of several points are joined.
    pub points: SeveralPoints,
    /// `each`: so many points may lie at or below the limit.
    pub tolerated: u32,
    /// Transformed copies of each picture, with the wrong label kept, that are points beside it (published: none).
    #[schemars(range(min = 0, max = 1000))]
    pub copies: u32,
    /// Where the transforms of copies act.
    pub space: Space,
    /// What a query's gradient is taken of.
    pub objective: Objective,
    /// Labels of the Fisher matrix.
    pub fisher: Fisher,
    /// Damping of the inverse.
    pub damping: Damping,
    /// Examples that the factors are fitted on, drawn at random (0: all).
    pub fit_examples: u32,
    /// Numbers: `f32`, or `f64` for checks.
    pub precision: Precision,
    /// Only layers whose name starts with one of these (empty: all).
    pub layers: Vec<String>,
}

/// How the scores of several points are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SeveralPoints {
    /// Their mean is held against the limit.
    Mean,
    /// Each is held against it, and all but the tolerated must be above: the paper's "boosted" form.
    Each,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            threshold: 10.0,
            classes: Classes::All,
            points: SeveralPoints::Mean,
            tolerated: 0,
            copies: 0,
            space: Space::Normalised,
            objective: Objective::Margin,
            fisher: Fisher::True,
            damping: Damping::Absolute { value: 1e-8 },
            fit_examples: 0,
            precision: Precision::F32,
            layers: Vec::new(),
        }
    }
}

impl Keys {
    /// The settings of the copies: pictures change, their label stays.
    pub fn as_delta(&self) -> Delta {
        Delta {
            queries: self.copies,
            change: Change::Image,
            space: self.space,
            objective: self.objective,
            fisher: self.fisher,
            damping: self.damping,
            fit_examples: self.fit_examples,
            precision: self.precision,
            layers: self.layers.clone(),
            ..Delta::default()
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let limit = unless(self.threshold.is_finite(), "threshold", "is not a number", "the authors' code takes 10");
        limit.into_iter().chain(delta::damped(self.damping)).collect()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        Needs {
            factors: Some(delta::influence(&self.as_delta(), Objective::Loss)),
            ..Needs::default()
        }
    }
}
