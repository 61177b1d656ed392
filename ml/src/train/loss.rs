//! What a training minimises: cross-entropy, or a loss of an unlearner's own that may also look at a teacher.

use crate::error::Result;
use crate::model::Model;
use tch::{Reduction, Tensor};

/// What a loss sees of one batch.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The trained model's logits: B × classes, differentiable.
    pub student: &'a Tensor,
    /// The teacher's logits of the same (augmented) pictures: B × classes, no gradient. None where there is no teacher.
    pub teacher: Option<&'a Tensor>,
    /// B class numbers.
    pub labels: &'a Tensor,
    /// B positions in the data set.
    pub examples: &'a [usize],
    /// Epochs that are done.
    pub epoch: u32,
}

/// A loss.
pub trait Loss {
    /// Names it with everything that it depends on, but the teacher's weights: a repeated run goes on from an epoch of the same loss only.
    fn key(&self) -> String;

    /// A second model, in evaluation mode and never changed.
    fn teacher(&self) -> Option<&Model> {
        None
    }

    /// The mean loss of a batch: one number, differentiable.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    fn of(&self, seen: &Seen<'_>) -> Result<Tensor>;
}

/// The usual one.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy;

impl Loss for CrossEntropy {
    fn key(&self) -> String {
        String::new()
    }

    fn of(&self, seen: &Seen<'_>) -> Result<Tensor> {
        let mean = Reduction::Mean;
        Ok(seen.student.f_cross_entropy_loss(seen.labels, None::<Tensor>, mean, -100, 0.0)?)
    }
}
