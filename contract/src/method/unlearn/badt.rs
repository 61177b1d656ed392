//! Bad teaching: imitate a network that knows nothing on the flagged examples, the production model on the others.

use super::Own;
use crate::Recipe;
use crate::method::{Mistake, trains, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Imitate a network with random weights on the flagged examples, and the production model on the others (BadT, Chundawat et al. 2023). No label is looked at. What is
/// not here comes from `recipe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Passes over all examples.
    #[schemars(range(min = 1, max = 10000))]
    pub epochs: u32,
    /// Learning rate, the same at every step (default: a fifth of `recipe.lr`).
    #[schemars(range(min = 0.0))]
    pub lr: Option<f64>,
    /// Temperature of all three models' answers.
    pub temperature: f64,
}

impl Default for Keys {
    /// The authors' epochs and temperature.
    fn default() -> Self {
        Self {
            epochs: 1,
            lr: None,
            temperature: 1.0,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let lr = self.lr.is_none_or(|lr| lr > 0.0);
        let mut found = Vec::from_iter(unless(lr, "lr", "is not above 0", "leave it out for a fifth of recipe.lr"));
        found.extend(trains(self.epochs));
        found.extend(unless(self.temperature > 0.0, "temperature", "is not above 0", "the authors take 1"));
        found
    }
}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "imitate a network with random weights on the flagged examples, and the production model on the others"
    }

    fn effort(&self, _: &Recipe) -> String {
        format!("{} epochs of fine-tuning", self.epochs)
    }
}
