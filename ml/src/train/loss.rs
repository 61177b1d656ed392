//! What a training minimises: cross-entropy, or a loss of an unlearner's own that may also look at a teacher.

use crate::error::Result;
use crate::model::Model;
use tch::{Kind, Reduction, Tensor};

/// What a loss sees of one batch.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The (augmented) pictures: B × channels × height × width.
    pub images: &'a Tensor,
    /// The trained model's logits: B × classes, differentiable.
    pub student: &'a Tensor,
    /// The teacher's logits of the same (augmented) pictures: B × classes, no gradient. None where there is no teacher.
    pub teacher: Option<&'a Tensor>,
    /// B class numbers.
    pub labels: &'a Tensor,
    /// The class numbers of the pictures that were mixed in, and the share of the pictures' own (mixup, CutMix). A loss that looks at labels must look at these, too.
    pub others: Option<(&'a Tensor, f64)>,
    /// Share of each label that is spread over all classes.
    pub smoothing: f64,
    /// B positions in the data set.
    pub examples: &'a [usize],
    /// Epochs that are done.
    pub epoch: u32,
}

/// What an epoch goes over, in an order that is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// Positions in the data set.
    pub examples: &'a [usize],
    /// Examples of a step.
    pub batch_size: usize,
}

/// A loss.
pub trait Loss {
    /// Names it with everything that it depends on, but the teacher's weights: a repeated run goes on from an epoch of the same loss only.
    fn key(&self) -> String;

    /// A second model, in evaluation mode and never changed.
    fn teacher(&self) -> Option<&Model> {
        None
    }

    /// What the epoch after `done` others goes over, where that is not all that is trained on in batches of the recipe. Belongs into [`Loss::key`].
    fn round(&self, _done: u32) -> Option<Round<'_>> {
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
        let against = |labels: &Tensor| {
            let mean = Reduction::Mean;
            seen.student.f_cross_entropy_loss(labels, None::<Tensor>, mean, -100, seen.smoothing)
        };
        let own = against(seen.labels)?;
        // Cross-entropy is linear in the target: the mean of two is that against the mixed target.
        match seen.others {
            Some((others, share)) => Ok(own.f_mul_scalar(share)?.f_add(&against(others)?.f_mul_scalar(1.0 - share)?)?),
            None => Ok(own),
        }
    }
}

/// KL(softmax(target / T) ‖ softmax(student / T)) of each example, summed over the classes: B numbers, in nats. Both: B × classes logits.
///
/// # Errors
/// When libtorch fails (memory).
pub fn divergence(student: &Tensor, target: &Tensor, temperature: f64) -> Result<Tensor> {
    let log = |logits: &Tensor| -> Result<Tensor> { Ok(logits.f_div_scalar(temperature)?.f_log_softmax(1, None::<Kind>)?) };
    let (ours, theirs) = (log(student)?, log(target)?);
    let terms = theirs.f_exp()?.f_mul(&theirs.f_sub(&ours)?)?;
    Ok(terms.f_sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)?)
}
