//! SCRUB: away from the production model on the flagged examples, with it on the others.

use super::Own;
use crate::Recipe;
use crate::method::{Mistake, trains, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Go away from the production model's answers on the flagged examples, and stay with it on the others (SCRUB, Kurmanji et al. 2023). What is not here comes from `recipe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Passes over the retained examples.
    #[schemars(range(min = 1, max = 10000))]
    pub epochs: u32,
    /// So many of them, the first ones, follow a pass over the flagged examples: the paper's max-steps.
    #[schemars(range(min = 1, max = 10000))]
    pub max_epochs: u32,
    /// Learning rate, the same at every step (default: a twentieth of `recipe.lr`).
    #[schemars(range(min = 0.0))]
    pub lr: Option<f64>,
    /// Weight of the divergence from the production model on the retained examples: α of the paper.
    #[schemars(range(min = 0.0))]
    pub alpha: f64,
    /// Weight of the cross-entropy there: γ of the paper.
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
    /// Temperature of both models' answers in the divergence.
    pub temperature: f64,
    /// Flagged examples of a step.
    #[schemars(range(min = 1, max = 65536))]
    pub flagged_batch: u32,
}

impl Default for Keys {
    /// Those of the authors' large-scale runs, but the rate.
    fn default() -> Self {
        Self {
            epochs: 3,
            max_epochs: 2,
            lr: None,
            alpha: 0.001,
            gamma: 0.99,
            temperature: 4.0,
            flagged_batch: 32,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let lr = self.lr.is_none_or(|lr| lr > 0.0);
        let mut found = Vec::from_iter(unless(lr, "lr", "is not above 0", "leave it out for a twentieth of recipe.lr"));
        found.extend(unless(
            self.max_epochs <= self.epochs,
            "max_epochs",
            format!("is {}, more than unlearn.epochs ({})", self.max_epochs, self.epochs),
            "every pass over the flagged examples is followed by one over the others: raise unlearn.epochs",
        ));
        found.extend(trains(self.epochs));
        found.extend(unless(self.temperature > 0.0, "temperature", "is not above 0", "the authors take 4"));
        found.extend(unless(
            self.alpha + self.gamma > 0.0,
            "gamma",
            "and unlearn.alpha are both 0",
            "the authors take 0.99, and 0.001 for alpha",
        ));
        found
    }
}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "go away from the production model on the flagged examples, and stay with it on the others"
    }

    fn effort(&self, _: &Recipe) -> String {
        format!(
            "{} epochs of fine-tuning, {} of them after one over the flagged",
            self.epochs, self.max_epochs
        )
    }
}
