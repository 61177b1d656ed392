//! `activation-clustering`: Chen et al., "Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering", 2018 (arXiv 1811.03728).
//!
//! The activations of each class are reduced to a few dimensions and split in two; a small part that stands apart is what the attack brought in. As in the authors' library (ART) the
//! reduction is PCA: the paper's ICA gives the same subspace, but its axes depend on where its search begins. Of the paper's decisions these are here: by size, and by size and silhouette.
//! Not here: retraining without each cluster (exclusionary reclassification), which would train a model for every case.

use super::classes::Classes;
use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Activations of each class, split in two: a small part that stands apart is flagged. Needs no factors. It flags clean examples, too, where a class has a small natural group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// `all`: every class, as published. `predicted`: only the class of the wrong label.
    pub classes: Classes,
    /// The layer whose input is looked at (unset: the last linear layer).
    pub layer: Option<String>,
    /// Principal components that are kept (published: 10).
    #[schemars(range(min = 1, max = 1000))]
    pub dimensions: u32,
    /// When the smaller part is flagged.
    pub decision: SplitRule,
    /// It must be less than this share of its class (ART: 0.35).
    pub max_share: f64,
    /// The class's mean silhouette must be above this (published: 0.1 to 0.15; ART: 0.1).
    pub min_silhouette: f64,
    /// Random starts of 2-means; the tightest split counts.
    #[schemars(range(min = 1, max = 1000))]
    pub starts: u32,
}

/// When the smaller part of a class is flagged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SplitRule {
    /// Where it is small.
    Size,
    /// Where it is small and the split has a high silhouette.
    Silhouette,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            classes: Classes::All,
            layer: None,
            dimensions: 10,
            decision: SplitRule::Silhouette,
            max_share: 0.35,
            min_silhouette: 0.1,
            starts: 10,
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let (share, silhouette) = (self.max_share, self.min_silhouette);
        [
            unless(self.dimensions > 0, "dimensions", "is 0", "at least 1; the default is 10"),
            unless(self.starts > 0, "starts", "is 0", "at least 1; the default is 10"),
            unless(
                share > 0.0 && share <= 0.5,
                "max_share",
                format!("{share} is not above 0 and at most 0.5"),
                "the smaller of two parts is never more than half; the default is 0.35",
            ),
            unless(
                (-1.0..1.0).contains(&silhouette),
                "min_silhouette",
                format!("{silhouette} is not between -1 and 1"),
                "silhouettes lie there; the default is 0.1",
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
