//! Catastrophic forgetting: fine-tune without the flagged examples.

use super::Own;
use crate::method::{Mistake, trains, unless};
use crate::{Recipe, Schedule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Fine-tune the production model without the flagged examples. What is not here comes from `recipe`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Passes over the retained set.
    #[schemars(range(min = 1, max = 10000))]
    pub epochs: u32,
    /// Highest learning rate (default: twice `recipe.lr`; a low one fine-tunes without forgetting, and the gate then rejects the candidate).
    #[schemars(range(min = 0.0))]
    pub lr: Option<f64>,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Train only the last k layers that have parameters (0: all).
    pub last_k: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            epochs: 8,
            lr: None,
            schedule: Schedule::OneCycle { warmup: 0.3 },
            last_k: 0,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let mut found = self.schedule.check(self.epochs);
        found.extend(trains(self.epochs));
        let lr = self.lr.is_none_or(|lr| lr > 0.0);
        found.extend(unless(lr, "lr", "is not above 0", "leave it out for twice recipe.lr"));
        found
    }
}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "fine-tune the production model without the flagged examples"
    }

    fn effort(&self, _: &Recipe) -> String {
        format!("{} epochs of fine-tuning", self.epochs)
    }
}
