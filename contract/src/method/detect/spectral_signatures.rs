//! `spectral-signatures`: Tran, Li and Mądry, "Spectral Signatures in Backdoor Attacks", 2018 (arXiv 1811.00636), and what the notebooks of Δ-Influence call so.
//!
//! Published: of each class the examples that lie farthest along the direction in which its activations vary most are taken out, 1.5 times as many as are expected to be poisoned.
//! The notebooks take one singular value decomposition of all classes together, uncentred, and flag by the length of what the large singular values hold: hardly more than the
//! length of an activation.

use super::classes::Classes;
use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Examples whose activations lie far along the direction in which their class varies most. Needs no factors. It flags a fixed share of every class, poisoned or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// `published`: Tran et al. `notebook`: what the code of the authors of Δ-Influence computes under this name.
    pub form: SpectralForm,
    /// `all`: every class, as published. `predicted`: only examples of the wrong label are flagged.
    pub classes: Classes,
    /// The layer whose input is looked at (unset: the last linear layer).
    pub layer: Option<String>,
    /// `published`: ε, the share of a class that is expected to be poisoned (published: 0.05 and 0.1). 1.5 times as many are flagged.
    pub epsilon: f64,
    /// `notebook`: singular values above this are kept (the code: 7).
    pub spectral_threshold: f64,
    /// `notebook`: an example is flagged where what it has along them is longer than this (the code: 7).
    pub contribution_threshold: f64,
}

/// Whose form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SpectralForm {
    /// Class by class, centred, the first singular vector, a share of the class.
    Published,
    /// All classes together, uncentred, all large singular values, a length.
    Notebook,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            form: SpectralForm::Published,
            classes: Classes::All,
            layer: None,
            epsilon: 0.1,
            spectral_threshold: 7.0,
            contribution_threshold: 7.0,
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let share = self.epsilon;
        let length = |key: &str, value: f64| {
            let holds = value >= 0.0 && value.is_finite();
            unless(holds, key, format!("{value} is not 0 or more"), "a length; the default is 7")
        };
        [
            unless(
                share > 0.0 && 1.5 * share < 1.0,
                "epsilon",
                format!("{share} is not above 0 and below 2/3"),
                "1.5 times this share of a class is flagged; the default is 0.1",
            ),
            length("spectral_threshold", self.spectral_threshold),
            length("contribution_threshold", self.contribution_threshold),
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
