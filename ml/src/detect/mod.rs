//! Detectors: from one wrong prediction to the training examples that caused it.
//!
//! A detector asks an [`Evidence`] source for influence scores and knows nothing of models, files or ids: training examples are positions, classes
//! are indices. The caller maps them to names and fills the contract's `TraceReport` from a [`Detection`].
//!
//! | module | idea |
//! |---|---|
//! | [`transforms`], [`labels`], [`queries`] | the n_b + 1 queries of an anomaly |
//! | [`pass`] | one scoring pass for everything that is asked |
//! | [`count`] | the published count rule |
//! | [`cut`], [`kin`], [`stand_out`] | seeds → kin → does the group stand out? |
//! | [`guard`], [`paper`], and one file for each of the others | the detectors |
//! | [`audit`], [`directions`] | groups that stand apart without any anomaly |
//! | [`exhibits`] | what they found, as the report draws it |

pub mod activation_clustering;
pub mod audit;
pub mod count;
pub mod cut;
mod directions;
pub mod ekfac_threshold;
pub mod exhibits;
pub mod feature_neighbours;
pub mod frequency;
pub mod gradient_cosine;
pub mod guard;
pub mod histogram;
mod joint;
mod judge;
pub mod kin;
pub mod labels;
pub mod paper;
pub mod pass;
pub mod queries;
pub mod random;
mod ranked;
mod singular;
pub mod spectral_signatures;
pub mod stand_out;
pub mod transforms;
mod whitening;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod known_features;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::evidence::{Lab, Opening};
use crate::progress::Report;
use delta_guard_contract::config::ImageConfig;
use delta_guard_contract::detect;
use delta_guard_contract::finding::{Exhibit, Sure, Words};
use delta_guard_contract::{TraceVerdict, TrainId};
use tch::Tensor;

/// A clean validation picture of class ŷ that the model reads correctly: what the flagged group must stand out against.
#[derive(Debug)]
pub struct PlaceboPicture {
    /// Validation example.
    pub id: TrainId,
    /// C × H × W in [0, 1].
    pub picture: Tensor,
}

/// What a detector is asked.
#[derive(Clone, Copy, Debug)]
pub struct DetectCase<'a> {
    /// The anomalies, all of the same wrong label: C × H × W in [0, 1] (see [`queries::picture_from_bytes`]).
    pub anomalies: &'a [Tensor],
    /// ŷ, the wrong label that the model gives them (class index).
    pub wrong_label: usize,
    /// Number of classes of the model.
    pub classes: usize,
    /// Training label (class index) of every training example; its length is the number of training examples.
    pub labels: &'a [u32],
    /// `guard`: the case's placebos. The paper's rules do not look at them.
    pub placebos: &'a [PlaceboPicture],
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Mean and standard deviation that pictures are normalised with.
    pub image: &'a ImageConfig,
}

impl DetectCase<'_> {
    /// C: the positions of the training examples with label ŷ, ascending.
    pub fn members(&self) -> Vec<usize> {
        (0..self.labels.len()).filter(|&i| self.labels[i] as usize == self.wrong_label).collect()
    }

    /// Is there anything to compute?
    pub fn check(&self) -> Result<()> {
        let refuse = |message: String, help: &str| Err(Error::configuration(message, help));
        if self.anomalies.is_empty() {
            return Err(Error::internal("a detector was asked about no anomaly at all"));
        }
        if self.classes < 2 || self.wrong_label >= self.classes {
            return refuse(
                format!("wrong label {} of {} classes (counted from 0)", self.wrong_label, self.classes),
                "check that data and model belong together",
            );
        }
        if self.labels.is_empty() {
            return refuse("there is no training example".into(), "check data.train");
        }
        Ok(())
    }
}

/// A flagged training example.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// Position in the training set.
    pub position: usize,
    /// Strength of the evidence, as [`Detection::words`] names it; more is stronger.
    pub score: f64,
}

/// Answer of a detector.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// What to do with it.
    pub verdict: TraceVerdict,
    /// The flagged, strongest first. Empty when undecided.
    pub flagged: Vec<Suspect>,
    /// What it says of its finding.
    pub words: Words,
    /// How sure it is, where it says so.
    pub sure: Option<Sure>,
    /// What it shows; training examples by position.
    pub exhibits: Vec<Exhibit<usize>>,
    /// What a reader of the verdict must know besides, in whole sentences.
    pub notes: Vec<String>,
    /// Where it is undecided: how much each example of the wrong label speaks for it, for a person to look at, never for removal. Empty of methods that do not say.
    pub support: Vec<Suspect>,
    /// Figures for its own scripts and tests.
    pub details: serde_json::Value,
}

/// A way from scores to flagged examples.
pub trait Detect {
    /// The first scores that it asks for, however they are answered: what parts of a pass can be taken for. None: the case can be judged without any score.
    ///
    /// # Errors
    /// Impossible pictures that are none.
    fn opening(&self, case: &DetectCase) -> Result<Option<Opening>> {
        let _ = case;
        Ok(None)
    }

    /// Find the training examples behind the case's anomalies. Errors: impossible settings, scores that are not numbers, what `evidence` reports.
    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection>;
}

/// The code of a method: its settings, as what they do.
pub fn detector(method: &detect::Detector) -> &dyn Detect {
    match method {
        detect::Detector::Guard(keys) => keys,
        detect::Detector::PaperCode(keys) => keys,
        detect::Detector::PaperText(keys) => keys,
        detect::Detector::ActivationClustering(keys) => keys,
        detect::Detector::SpectralSignatures(keys) => keys,
        detect::Detector::FeatureNeighbours(keys) => keys,
        detect::Detector::Random(keys) => keys,
        detect::Detector::Frequency(keys) => keys,
        detect::Detector::EkfacThreshold(keys) => keys,
        detect::Detector::GradientCosine(keys) => keys,
    }
}
