//! SGD with (Nesterov) momentum and weight decay, as PyTorch computes it.

use crate::error::Result;
use delta_guard_contract::Recipe;
use std::collections::BTreeMap;
use tch::Tensor;

/// Parameters with their momentum.
#[derive(Debug)]
pub struct Sgd {
    parameters: Vec<(String, Tensor)>,
    /// Momentum by parameter name; empty before the first step.
    pub momentum: BTreeMap<String, Tensor>,
    settings: (f64, bool, f64),
}

impl Sgd {
    /// Over these parameters (they must require gradients).
    pub fn new(parameters: Vec<(String, Tensor)>, recipe: &Recipe) -> Self {
        Self {
            parameters,
            momentum: BTreeMap::new(),
            settings: (recipe.momentum, recipe.nesterov, recipe.weight_decay),
        }
    }

    /// Set gradients back, run the loss backwards, and step: d = ∇ + wd·w; m = μ·m + d; w −= lr·(d + μ·m, or m without Nesterov).
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn step(&mut self, loss: &Tensor, lr: f64) -> Result<()> {
        let (mu, nesterov, decay) = self.settings;
        let handles: Vec<&Tensor> = self.parameters.iter().map(|(_, p)| p).collect();
        let grads = Tensor::f_run_backward(&[loss], &handles, false, false)?;
        tch::no_grad(|| {
            for ((name, parameter), grad) in self.parameters.iter_mut().zip(grads) {
                if !grad.defined() {
                    continue;
                }
                let d = if decay > 0.0 {
                    grad.f_add(&parameter.f_mul_scalar(decay)?)?
                } else {
                    grad
                };
                let update = if mu > 0.0 {
                    let m = match self.momentum.remove(name) {
                        Some(mut m) => m.f_mul_scalar_(mu)?.f_add_(&d)?,
                        None => d.copy(),
                    };
                    let update = if nesterov { d.f_add(&m.f_mul_scalar(mu)?)? } else { m.copy() };
                    self.momentum.insert(name.clone(), m);
                    update
                } else {
                    d
                };
                let _ = parameter.f_sub_(&update.f_mul_scalar(lr)?)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// The recursion written out by hand for f(w) = w²/2 (gradient w), against the tensor code.
    #[test]
    fn follows_the_recursion() {
        for nesterov in [false, true] {
            let recipe = Recipe {
                momentum: 0.9,
                nesterov,
                weight_decay: 0.01,
                ..Recipe::default()
            };
            let w = Tensor::from_slice(&[2.0f64]).set_requires_grad(true);
            let mut sgd = Sgd::new(vec![("w".into(), w.shallow_clone())], &recipe);
            let (mut x, mut m) = (2.0, 0.0);
            for step in 0..20 {
                let lr = 0.1 / f64::from(step + 1);
                sgd.step(&((&w * &w).sum(Kind::Double) / 2.0), lr).expect("steps");
                let d = x + 0.01 * x;
                m = 0.9 * m + d;
                x -= lr * if nesterov { d + 0.9 * m } else { m };
                assert!((w.double_value(&[0]) - x).abs() < 1e-12);
            }
            assert_eq!(w.device(), Device::Cpu);
        }
    }
}
