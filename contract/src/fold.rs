//! Sums over training examples that may be taken in parts, by several workers.

use crate::job::{Anomaly, ImageLimits};
use crate::{DataConfig, DetectConfig, ModelConfig, Seed};
use serde::{Deserialize, Serialize};

/// A sum, and all that its parts must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoldSum {
    /// Data.
    pub data: DataConfig,
    /// Model.
    pub model: ModelConfig,
    /// Settings.
    pub detect: DetectConfig,
    /// As in [`crate::Task::Fit`].
    pub factors_seed: Seed,
    /// Which sum.
    pub fold: FoldTask,
}

/// A sum over training examples that may be taken in parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fold", rename_all = "kebab-case")]
pub enum FoldTask {
    /// Covariances of layer inputs and output gradients.
    Covariance,
    /// Λ in the eigenbasis; the covariances' parts must have been merged.
    Lambda,
    /// The first scoring pass of a case; the factors must be there.
    Scores {
        /// As in [`crate::Task::Trace`].
        anomalies: Vec<Anomaly>,
        /// As in [`crate::Task::Trace`].
        limits: ImageLimits,
        /// As in [`crate::Task::Trace`].
        case_seed: Seed,
    },
}
