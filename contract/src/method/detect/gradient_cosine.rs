//! `gradient-cosine`: the guard's steps on gradients as they are, without any curvature (P = 1). It shows what EK-FAC is worth.

use super::delta::{self, Change, Combine, Delta, Labels, Objective, Precision, Space};
use super::guard;
use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The guard without curvature: seeds, kin, placebos and cut are the same, but gradients are compared as they are. Needs no factors. For comparison only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Number of transformed queries n_b (paper: 50).
    #[schemars(range(min = 1, max = 1000))]
    pub queries: u32,
    /// What a query's gradient is taken of.
    pub objective: Objective,
    /// Where the transforms act.
    pub space: Space,
    /// Draw rotations, too.
    pub rotation: bool,
    /// How the random labels are drawn.
    pub labels: Labels,
    /// What is changed in a query.
    pub change: Change,
    /// How several anomalies are joined.
    pub combine: Combine,
    /// Numbers: `f32`, or `f64` for checks.
    pub precision: Precision,
    /// Only layers whose name starts with one of these (empty: all).
    pub layers: Vec<String>,
    /// Number of seeds; as the guard's.
    #[schemars(range(min = 1, max = 1000))]
    pub seeds: u32,
    /// α of the comparison with placebos, and of the kin cut where there are too few null pictures.
    pub alpha: f64,
    /// Rounds of kin at most.
    #[schemars(range(min = 1, max = 1000))]
    pub rounds: u32,
    /// Number of placebos that the flagged group must stand out against.
    #[schemars(range(min = 1, max = 200))]
    pub placebos: u32,
    /// At most this many other clean validation pictures of class ŷ measure which kinship is natural.
    #[schemars(range(min = 0, max = 10000))]
    pub null_pictures: u32,
    /// Number of clean examples that may be expected above a cut that null pictures set.
    pub chance: f64,
}

impl Default for Keys {
    fn default() -> Self {
        let guard::Keys {
            delta,
            seeds,
            alpha,
            rounds,
            placebos,
            null_pictures,
            chance,
            ..
        } = guard::Keys::default();
        Self {
            queries: delta.queries,
            objective: delta.objective,
            space: delta.space,
            rotation: delta.rotation,
            labels: delta.labels,
            change: delta.change,
            combine: delta.combine,
            precision: delta.precision,
            layers: delta.layers,
            seeds,
            alpha,
            rounds,
            placebos,
            null_pictures,
            chance,
        }
    }
}

impl Keys {
    /// The guard's settings for the same steps. What they say of curvature is not looked at.
    pub fn as_guard(&self) -> guard::Keys {
        guard::Keys {
            delta: Delta {
                queries: self.queries,
                objective: self.objective,
                space: self.space,
                rotation: self.rotation,
                labels: self.labels,
                change: self.change,
                combine: self.combine,
                precision: self.precision,
                layers: self.layers.clone(),
                n_tol: Delta::default().n_tol.min(self.queries.saturating_sub(1)),
                ..Delta::default()
            },
            seeds: self.seeds,
            alpha: self.alpha,
            rounds: self.rounds,
            placebos: self.placebos,
            null_pictures: self.null_pictures,
            chance: self.chance,
            feature_weight: 0.0,
            collect: 0.0,
            plain: false,
            ..guard::Keys::default()
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        self.as_guard().check()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        let guard = self.as_guard();
        let Needs { validation, .. } = guard.needs();
        Needs {
            gradients: Some(delta::influence(&guard.delta, Objective::Margin)),
            validation,
            ..Needs::default()
        }
    }
}
