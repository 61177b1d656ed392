//! What a detector may ask: a laboratory of sources, each opened when it is first asked. What its settings do not name as needed is not there.

mod influence;
mod known;

pub use influence::{Answer, Evidence, Kin, Opening, Query, Question, Scores};
pub use known::KnownLab;

use crate::error::Result;
use tch::Tensor;

/// The sources. Implemented over the real model in [`crate::jobs`], and over given values in the detectors' tests.
pub trait Lab {
    /// Influence scores. The factors are found or fitted when this is first called.
    ///
    /// # Errors
    /// `Internal` for a detector whose settings do not need factors; else those of the passes.
    fn influence(&mut self) -> Result<&mut dyn Evidence>;

    /// Activations of every training example, N × features in float64 on the CPU: what the named layer reads, flattened; without a name, the last linear layer.
    ///
    /// # Errors
    /// `Internal` for a detector whose settings do not need features; `Configuration` where there is no such layer, or an activation is not finite.
    fn features(&mut self, layer: Option<&str>) -> Result<Tensor>;

    /// The same of some training examples, in the order asked.
    ///
    /// # Errors
    /// As [`Self::features`].
    fn features_at(&mut self, layer: Option<&str>, positions: &[usize]) -> Result<Tensor>;

    /// The same of the null pictures, in the order of [`Kin::null`]. None: there are none.
    ///
    /// # Errors
    /// As [`Self::features`].
    fn null_features(&mut self, layer: Option<&str>) -> Result<Option<Tensor>>;

    /// The same of pictures, as the model sees them (C × H × W, normalised): one row each.
    ///
    /// # Errors
    /// As [`Self::features`].
    fn features_of(&mut self, layer: Option<&str>, images: &[Tensor]) -> Result<Tensor>;

    /// The pictures of some training examples, B × C × H × W in [0, 1].
    ///
    /// # Errors
    /// `Internal` for a detector whose settings do not need pictures.
    fn pictures(&mut self, positions: &[usize]) -> Result<Tensor>;
}
