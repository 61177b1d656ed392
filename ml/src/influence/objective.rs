//! Objectives whose gradients are taken (algorithm §1), *summed* over the batch so that the rows of layer-output gradients are each example's own.

use crate::error::Result;
use delta_guard_contract::detect::Objective;
use tch::{Kind, Tensor};

/// Cross-entropy, summed.
///
/// # Errors
/// When libtorch fails.
pub fn loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(logits.f_cross_entropy_loss(labels, None::<Tensor>, tch::Reduction::Sum, -100, 0.0)?)
}

/// −(z_y − logsumexp of the other logits), summed.
///
/// # Errors
/// When libtorch fails.
pub fn negative_margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let own = labels.f_unsqueeze(1)?;
    let label_logit = logits.f_gather(1, &own, false)?;
    let mask = logits.f_zeros_like()?.f_scatter_value(1, &own, f64::NEG_INFINITY)?;
    let others = logits.f_add(&mask)?.f_logsumexp([1i64], true)?;
    Ok(others.f_sub(&label_logit)?.f_sum(None::<Kind>)?)
}

/// A query's objective.
///
/// # Errors
/// When libtorch fails.
pub fn of_query(objective: Objective, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    match objective {
        Objective::Margin => negative_margin(logits, labels),
        Objective::Loss => loss(logits, labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the formula in plain numbers, and ∇margin = ∇loss / (1 − p_y).
    #[test]
    fn margin_and_loss_are_parallel() {
        let z = [[0.3, -1.2, 2.0, 0.1], [5.0, 1.0, -3.0, 0.0]];
        let labels = Tensor::from_slice(&[1i64, 0]);
        let logits = Tensor::from_slice2(&z).set_requires_grad(true);
        let margin = negative_margin(&logits, &labels).expect("computes");
        let by_hand: f64 = [(0, 1), (1, 0)]
            .iter()
            .map(|&(row, y): &(usize, usize)| {
                let others: f64 = z[row]
                    .iter()
                    .enumerate()
                    .filter(|(k, _)| *k != y)
                    .map(|(_, v): (usize, &f64)| v.exp())
                    .sum();
                others.ln() - z[row][y]
            })
            .sum();
        assert!((margin.double_value(&[]) - by_hand).abs() < 1e-12);
        let margin_grad: Tensor = Tensor::run_backward(&[margin], &[&logits], false, false).remove(0);
        let loss_grad: Tensor = Tensor::run_backward(&[loss(&logits, &labels).expect("computes")], &[&logits], false, false).remove(0);
        let rest: Tensor = 1.0 - logits.softmax(1, Kind::Double).gather(1, &labels.unsqueeze(1), false);
        let difference: Tensor = margin_grad - loss_grad / rest;
        assert!(difference.abs().max().double_value(&[]) < 1e-12);
    }
}
