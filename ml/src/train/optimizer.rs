//! Steps of an optimiser. What it keeps are tensors with names, so that a training can go on after an epoch.

use super::adamw::AdamW;
use super::sgd::Sgd;
use crate::error::Result;
use delta_guard_contract::{Optimizer, Recipe};
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// What is kept, by `KIND.PARAMETER`: `m.` momentum or first moment, `v.` second moment, `t.` number of steps (an integer on the CPU).
pub type StepState = BTreeMap<String, Tensor>;

/// A parameter, and what it is decayed by.
#[derive(Debug)]
struct Decayed {
    name: String,
    tensor: Tensor,
    decay: f64,
}

/// How a parameter is moved along a gradient.
pub(super) trait Rule: std::fmt::Debug {
    /// Move `tensor` in place.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    fn step(&self, name: &str, tensor: &mut Tensor, grad: Tensor, lr: f64, decay: f64, state: &mut StepState) -> Result<()>;
}

/// Parameters with what their optimiser keeps of them.
#[derive(Debug)]
pub struct Stepper {
    parameters: Vec<Decayed>,
    rule: Box<dyn Rule>,
    clip: Option<f64>,
    state: StepState,
}

impl Stepper {
    /// Over these parameters (they must require gradients), by a recipe.
    pub fn new(parameters: Vec<(String, Tensor)>, recipe: &Recipe) -> Self {
        let spared = |name: &str, tensor: &Tensor| recipe.no_decay_norm_bias && (tensor.dim() <= 1 || name.ends_with(".bias"));
        let parameters = parameters.into_iter().map(|(name, tensor)| Decayed {
            decay: if spared(&name, &tensor) { 0.0 } else { recipe.weight_decay },
            name,
            tensor,
        });
        Self {
            parameters: parameters.collect(),
            rule: match recipe.optimizer {
                Optimizer::Sgd => Box::new(Sgd::of(recipe)),
                Optimizer::Adamw { betas, eps } => Box::new(AdamW { betas, eps }),
            },
            clip: recipe.clip_norm,
            state: StepState::new(),
        }
    }

    /// What was kept by an earlier run, brought to where the parameters are.
    pub fn restore(&mut self, state: StepState, device: Device) {
        let there = |(name, tensor): (String, Tensor)| match name.starts_with("t.") {
            true => (name, tensor),
            false => (name, tensor.to_device(device)),
        };
        self.state = state.into_iter().map(there).collect();
    }

    /// What is to be kept; empty before the first step.
    pub fn state(&self) -> &StepState {
        &self.state
    }

    /// Set gradients back, run the loss backwards, shorten the gradient where it is too long, and step.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn step(&mut self, loss: &Tensor, lr: f64) -> Result<()> {
        let handles: Vec<&Tensor> = self.parameters.iter().map(|parameter| &parameter.tensor).collect();
        let mut grads = Tensor::f_run_backward(&[loss], &handles, false, false)?;
        tch::no_grad(|| {
            if let Some(most) = self.clip {
                clip(&mut grads, most)?;
            }
            for (parameter, grad) in self.parameters.iter_mut().zip(grads) {
                if grad.defined() {
                    let Decayed { name, tensor, decay } = parameter;
                    self.rule.step(name, tensor, grad, lr, *decay, &mut self.state)?;
                }
            }
            Ok(())
        })
    }
}

/// Shorten all gradients together to a norm of `most` at most (PyTorch's `clip_grad_norm_`).
fn clip(grads: &mut [Tensor], most: f64) -> Result<()> {
    let mut squares = Vec::new();
    for grad in grads.iter().filter(|grad| grad.defined()) {
        squares.push(grad.f_square()?.f_sum(Kind::Double)?);
    }
    if squares.is_empty() {
        return Ok(());
    }
    let norm = Tensor::f_stack(&squares, 0)?.f_sum(Kind::Double)?.f_sqrt()?;
    // Stays on the device: reading it would wait for it.
    let factor = (norm.f_add_scalar(1e-6)?).f_reciprocal()?.f_mul_scalar(most)?.f_clamp_max(1.0)?;
    for grad in grads.iter_mut().filter(|grad| grad.defined()) {
        *grad = grad.f_mul(&factor.f_to_kind(grad.kind())?)?;
    }
    Ok(())
}
