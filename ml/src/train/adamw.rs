//! AdamW (Loshchilov, Hutter: Decoupled weight decay regularization, ICLR 2019), as PyTorch computes it.

use super::optimizer::{Rule, StepState};
use crate::error::Result;
use tch::{Device, Kind, Tensor};

/// Its two settings.
#[derive(Debug)]
pub(super) struct AdamW {
    /// How much of the first and the second moment is kept in a step.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Rule for AdamW {
    /// w −= lr·wd·w; m = β₁·m + (1 − β₁)·∇; v = β₂·v + (1 − β₂)·∇²; w −= lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε).
    fn step(&self, name: &str, tensor: &mut Tensor, grad: Tensor, lr: f64, decay: f64, state: &mut StepState) -> Result<()> {
        let [first, second] = self.betas;
        let steps = match state.get(&format!("t.{name}")) {
            Some(steps) => steps.f_int64_value(&[])? + 1,
            None => 1,
        };
        state.insert(format!("t.{name}"), Tensor::f_full([] as [i64; 0], steps, (Kind::Int64, Device::Cpu))?);
        let mut moment = |kind: &str| match state.remove(&format!("{kind}.{name}")) {
            Some(kept) => Ok(kept),
            None => grad.f_zeros_like(),
        };
        let (mut m, mut v) = (moment("m")?, moment("v")?);
        let _ = m.f_mul_scalar_(first)?.f_add_(&grad.f_mul_scalar(1.0 - first)?)?;
        let _ = v.f_mul_scalar_(second)?.f_add_(&grad.f_square()?.f_mul_scalar(1.0 - second)?)?;
        let corrected = |beta: f64| 1.0 - beta.powi(steps.min(i64::from(i32::MAX)) as i32);
        let root = v.f_sqrt()?.f_div_scalar(corrected(second).sqrt())?.f_add_scalar(self.eps)?;
        let _ = tensor.f_mul_scalar_(1.0 - lr * decay)?;
        let _ = tensor.f_sub_(&m.f_div(&root)?.f_mul_scalar(lr / corrected(first))?)?;
        state.insert(format!("m.{name}"), m);
        state.insert(format!("v.{name}"), v);
        Ok(())
    }
}
