//! `frequency`: Zeng et al., "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", 2021 (arXiv 2104.03413), as the authors of Δ-Influence trained it.
//!
//! A small network that was trained once, on other pictures, reads the cosine transform of each training picture and says whether something was put on it. It knows neither the model
//! nor the prediction. In Zeng et al.'s network the activation comes before the batch norm: weights of that order are not read.

use super::classes::Classes;
use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A small trained network reads the frequencies of each training picture. Needs no factors; looks at no model. It flags clean examples in every class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// Its weights, a safetensors file (`docs/frequency.py` converts the published one). There is no default.
    pub weights: Option<PathBuf>,
    /// `all`: every class, as published. `predicted`: only examples of the wrong label are looked at.
    pub classes: Classes,
    /// A picture is flagged where the network gives it at least this probability of having something on it (published: 0.5).
    pub probability: f64,
    /// Mean of each channel that pictures were normalised with when the network was trained (the published weights': CIFAR-10's). One value for pictures of one channel.
    pub mean: Vec<f64>,
    /// Standard deviation, as `mean`.
    pub std: Vec<f64>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            weights: None,
            classes: Classes::All,
            probability: 0.5,
            mean: vec![0.49147, 0.48226, 0.44677],
            std: vec![0.24703, 0.24349, 0.26159],
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let limit = self.probability;
        let channels = [1, 3].contains(&self.mean.len()) && self.mean.iter().all(|v| v.is_finite());
        let spread = self.std.len() == self.mean.len() && self.std.iter().all(|&v| v > 0.0 && v.is_finite());
        [
            unless(
                self.weights.is_some(),
                "weights",
                "is not set",
                "name the safetensors file that docs/frequency.py makes of the published weights",
            ),
            unless(
                (0.0..=1.0).contains(&limit),
                "probability",
                format!("{limit} is not between 0 and 1"),
                "the default is 0.5",
            ),
            unless(
                channels,
                "mean",
                "is not one or three numbers",
                "one for each channel; the default is CIFAR-10's",
            ),
            unless(
                spread || !channels,
                "std",
                "is not a number above 0 for each of mean",
                "the default is CIFAR-10's",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        self.weights.iter_mut().collect()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        Needs {
            pictures: true,
            ..Needs::default()
        }
    }
}
