//! `feature-neighbours`: the examples of the wrong label whose activations are most like the submitted picture's. The plain rival of every method that computes gradients.

use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Examples of the wrong label whose activations point where the submitted picture's does, as seen from the middle of their class. Needs no factors. It always flags something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// The layer whose input is looked at (unset: the last linear layer).
    pub layer: Option<String>,
    /// Where the nearest are cut off from the rest.
    pub nearest: Nearest,
    /// `count`: how many are flagged.
    #[schemars(range(min = 1))]
    pub neighbours: u32,
    /// `gap`: the cut is looked for among this share of the class, the nearest.
    pub max_share: f64,
}

/// Where the nearest are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nearest {
    /// At the largest gap between two neighbouring cosines.
    Gap,
    /// After a given number.
    Count,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            layer: None,
            nearest: Nearest::Gap,
            neighbours: 50,
            max_share: 0.5,
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let share = self.max_share;
        [
            unless(self.neighbours > 0, "neighbours", "is 0", "at least 1; the default is 50"),
            unless(
                share > 0.0 && share <= 1.0,
                "max_share",
                format!("{share} is not above 0 and at most 1"),
                "a share of the class; the default is 0.5",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        Needs {
            features: true,
            ..Needs::default()
        }
    }
}
