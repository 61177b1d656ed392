//! What the methods that rest on Δ-Influence share: queries, and the influence of training examples on them.

use super::needs::Influence;
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keys that all of them have. Their defaults are each method's own; [`Delta::default`] has those of `guard`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delta {
    /// Number of transformed queries n_b (paper: 50).
    #[schemars(range(min = 1, max = 1000))]
    pub queries: u32,
    /// τ: a shift counts when Δ < τ (paper searches 0, −1, −5, −10, −100).
    pub tau: f64,
    /// n_tol: an example is flagged by the count rule when at least `queries` − n_tol shifts count.
    pub n_tol: u32,
    /// What a query's gradient is taken of.
    pub objective: Objective,
    /// Labels of the Fisher matrix.
    pub fisher: Fisher,
    /// Damping of the inverse.
    pub damping: Damping,
    /// Where the transforms act.
    pub space: Space,
    /// Draw rotations, too: the paper's text has them as a transform of their own, the authors' code has not.
    pub rotation: bool,
    /// How the random labels are drawn.
    pub labels: Labels,
    /// What is changed in a query (the paper's ablations are `image` and `label`).
    pub change: Change,
    /// How several anomalies are joined.
    pub combine: Combine,
    /// Examples that the factors are fitted on, drawn at random (0: all).
    pub fit_examples: u32,
    /// Numbers: `f32`, or `f64` for checks.
    pub precision: Precision,
    /// Only layers whose name starts with one of these (empty: all).
    pub layers: Vec<String>,
}

impl Default for Delta {
    fn default() -> Self {
        Self {
            queries: 50,
            tau: 0.0,
            n_tol: 1,
            objective: Objective::Margin,
            fisher: Fisher::True,
            damping: Damping::Heuristic { factor: 0.1 },
            space: Space::Pixels,
            rotation: false,
            labels: Labels::Independent,
            change: Change::Both,
            combine: Combine::Intersect,
            fit_examples: 1000,
            precision: Precision::F32,
            layers: Vec::new(),
        }
    }
}

impl Delta {
    /// The rules of these keys.
    pub fn check(&self) -> Vec<Mistake> {
        let (n_tol, queries) = (self.n_tol, self.queries);
        [
            unless(queries > 0, "queries", "is 0", "at least 1; the default is 50"),
            unless(
                n_tol < queries || queries == 0,
                "n_tol",
                format!("{n_tol} is not below detect.queries ({queries})"),
                "n_tol is how many of the queries may disagree; the paper takes 1 or 2 of 50",
            ),
            unless(self.tau.is_finite(), "tau", "is not a number", "set it to 0 or below"),
            damped(self.damping),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// The rule of a damping.
pub(super) fn damped(damping: Damping) -> Option<Mistake> {
    let (key, damping) = match damping {
        Damping::Heuristic { factor } => ("damping.factor", factor),
        Damping::Absolute { value } => ("damping.value", value),
    };
    unless(
        damping > 0.0 && damping.is_finite(),
        key,
        format!("{damping} is not above 0"),
        "without damping the inverse does not exist; heuristic 0.1 is usual",
    )
}

/// How influence is computed by these keys. `of_examples`: what a training example's gradient is taken of.
pub(super) fn influence(keys: &Delta, of_examples: Objective) -> Influence {
    Influence {
        objective: keys.objective,
        of_examples,
        fisher: keys.fisher,
        damping: keys.damping,
        fit_examples: keys.fit_examples,
        layers: keys.layers.clone(),
        precision: keys.precision,
    }
}

/// What a query's gradient is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// −(z_y − logsumexp of the other logits).
    Margin,
    /// Cross-entropy.
    Loss,
}

/// Labels of the Fisher matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fisher {
    /// Drawn from the model's own softmax, seeded per example.
    True,
    /// The training labels.
    Empirical,
}

/// Damping d of 1/(Λ + d).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Damping {
    /// d = factor · mean(Λ) of the layer.
    Heuristic {
        /// 0.1 in the literature.
        factor: f64,
    },
    /// d = value.
    Absolute {
        /// 1e-8 in kronfluence.
        value: f64,
    },
}

/// Where the transforms act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// On the picture in [0, 1], normalised afterwards.
    Pixels,
    /// On the normalised tensor (the authors' code).
    Normalised,
}

/// How the random labels are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// Uniform over all classes but ŷ, with replacement.
    Independent,
    /// Distinct while there are enough classes (the code's 100-class runs), with replacement otherwise.
    Distinct,
    /// As the authors' code: `distinct` on more than 10 classes, `independent` on fewer.
    ByClasses,
}

/// What is changed in a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Image and label.
    Both,
    /// Image only; the label stays ŷ.
    Image,
    /// Label only; the image stays.
    Label,
}

/// How several anomalies are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// Intersect the flagged sets.
    Intersect,
    /// Pool all m · n_b counts.
    Pool,
}

/// Kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bit.
    F32,
    /// 64 bit.
    F64,
}
