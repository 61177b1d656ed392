//! Selective synaptic dampening: shrink the weights that matter to the flagged examples far more than to all.

use super::Own;
use crate::Recipe;
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Shrink the weights that matter to the flagged examples far more than to all (selective synaptic dampening, Foster et al. 2024). Nothing is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// A weight is shrunk where its importance to the flagged examples is more than this many times its importance to all: α of the paper.
    pub alpha: f64,
    /// It is multiplied by this times importance to all by importance to the flagged, at most by 1: λ of the paper.
    pub lambda: f64,
    /// Examples whose mean gradient is squared at once; 1: each example's own (the Fisher matrix of the paper's text), which takes longer.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Only layers whose name starts with one of these (empty: all).
    pub layers: Vec<String>,
}

impl Default for Keys {
    /// The published ones.
    fn default() -> Self {
        Self {
            alpha: 10.0,
            lambda: 1.0,
            batch_size: 128,
            layers: Vec::new(),
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let above = |key: &str, value: f64, usual: &str| unless(value > 0.0, key, "is not above 0", usual);
        let mut found = Vec::from_iter(above("alpha", self.alpha, "the paper takes 10; a higher one shrinks fewer weights"));
        found.extend(above("lambda", self.lambda, "the paper takes 1; a lower one shrinks them further"));
        found
    }
}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "shrink the weights that matter to the flagged examples far more than to all, without training"
    }

    fn effort(&self, _: &Recipe) -> String {
        "one pass for gradients, no training".into()
    }
}
