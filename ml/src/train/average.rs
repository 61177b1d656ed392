//! The moving average of the weights (PyTorch's `AveragedModel` with `get_ema_multi_avg_fn` and buffers, as torchvision's reference script has it).

use crate::error::Result;
use crate::model::Weights;

/// The average so far.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    /// None before the first step, whose weights it begins with.
    weights: Option<Weights>,
}

impl Average {
    /// One that keeps `decay` of itself in each step; `weights`: from an earlier run.
    pub fn new(decay: f64, weights: Option<Weights>) -> Self {
        Self { decay, weights }
    }

    /// After a step: average = decay · average + (1 − decay) · weights. Counters are taken as they are.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn update(&mut self, now: &Weights) -> Result<()> {
        let Some(average) = &mut self.weights else {
            self.weights = Some(now.copy());
            return Ok(());
        };
        tch::no_grad(|| {
            for (name, tensor) in &now.0 {
                if let Some(kept) = average.0.get_mut(name) {
                    match tensor.is_floating_point() {
                        true => _ = kept.f_lerp_(tensor, 1.0 - self.decay)?,
                        false => kept.f_copy_(tensor)?,
                    }
                }
            }
            Ok(())
        })
    }

    /// The average; None before the first step.
    pub fn weights(&self) -> Option<&Weights> {
        self.weights.as_ref()
    }
}
