//! SGD with (Nesterov) momentum and weight decay, as PyTorch computes it.

use super::optimizer::{Rule, StepState};
use crate::error::Result;
use delta_guard_contract::Recipe;
use tch::Tensor;

/// Its settings.
#[derive(Debug)]
pub(super) struct Sgd {
    momentum: f64,
    nesterov: bool,
}

impl Sgd {
    /// As a recipe says.
    pub fn of(recipe: &Recipe) -> Self {
        Self {
            momentum: recipe.momentum,
            nesterov: recipe.nesterov,
        }
    }
}

impl Rule for Sgd {
    /// d = ∇ + wd·w; m = μ·m + d; w −= lr·(d + μ·m, or m without Nesterov).
    fn step(&self, name: &str, tensor: &mut Tensor, grad: Tensor, lr: f64, decay: f64, state: &mut StepState) -> Result<()> {
        let d = if decay > 0.0 { grad.f_add(&tensor.f_mul_scalar(decay)?)? } else { grad };
        let update = if self.momentum > 0.0 {
            let m = match state.remove(&format!("m.{name}")) {
                Some(mut m) => m.f_mul_scalar_(self.momentum)?.f_add_(&d)?,
                None => d.copy(),
            };
            let update = if self.nesterov {
                d.f_add(&m.f_mul_scalar(self.momentum)?)?
            } else {
                m.copy()
            };
            state.insert(format!("m.{name}"), m);
            update
        } else {
            d
        };
        let _ = tensor.f_sub_(&update.f_mul_scalar(lr)?)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::optimizer::Stepper;
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
            let mut sgd = Stepper::new(vec![("w".into(), w.shallow_clone())], &recipe);
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
