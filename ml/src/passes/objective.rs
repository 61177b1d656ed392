//! Objectives whose gradients are taken (algorithm §1), *summed* over the batch so that the rows of layer-output gradients are each example's own.

use crate::error::Result;
use delta_guard_contract::detect::Objective;
use tch::{Kind, Tensor};

/// Cross-entropy, summed.
///
/// As −log σ(margin), whose gradient is (1 − p_y)·∇(−margin) with 1 − p_y = σ(−margin): every factor keeps its digits. The usual way, p − onehot, loses
/// all of them in float32 once 1 − p_y nears 6e-8, where the most confident examples are.
///
/// # Errors
/// When libtorch fails.
pub fn loss(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let margin = negative_margins(logits, labels)?.f_neg()?;
    Ok(margin.f_log_sigmoid()?.f_sum(None::<Kind>)?.f_neg()?)
}

/// −(z_y − logsumexp of the other logits), summed.
///
/// # Errors
/// When libtorch fails.
pub fn negative_margin(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    Ok(negative_margins(logits, labels)?.f_sum(None::<Kind>)?)
}

/// −(z_y − logsumexp of the other logits) of each example: B × 1.
fn negative_margins(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let own = labels.f_unsqueeze(1)?;
    let label_logit = logits.f_gather(1, &own, false)?;
    let mask = logits.f_zeros_like()?.f_scatter_value(1, &own, f64::NEG_INFINITY)?;
    let others = logits.f_add(&mask)?.f_logsumexp([1i64], true)?;
    Ok(others.f_sub(&label_logit)?)
}

/// An objective by name.
///
/// # Errors
/// When libtorch fails.
pub fn of(objective: Objective, logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
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

    /// Cross-entropy as libtorch has it: value and gradient, for margins of either sign and two classes too.
    #[test]
    fn loss_is_cross_entropy() {
        for logits in [
            Tensor::from_slice2(&[[0.3, -1.2, 2.0, 0.1], [5.0, 1.0, -3.0, 0.0], [-9.0, 30.0, 45.0, 1.0]]),
            Tensor::from_slice2(&[[0.3, -1.2], [50.0, -3.0], [-30.0, 45.0]]),
        ] {
            let logits = logits.set_requires_grad(true);
            let labels = Tensor::from_slice(&[1i64, 0, 0]);
            let (ours, theirs) = (loss(&logits, &labels).expect("computes"), {
                logits.cross_entropy_loss::<Tensor>(&labels, None, tch::Reduction::Sum, -100, 0.0)
            });
            assert!((ours.double_value(&[]) - theirs.double_value(&[])).abs() < 1e-12);
            let grad = |of: Tensor| Tensor::run_backward(&[of], &[&logits], false, false).remove(0);
            assert!((grad(ours) - grad(theirs)).abs().max().double_value(&[]) < 1e-13);
        }
    }

    /// At 1 − p_y = 2e-9 … 5e-18 float32 has both gradients to its last digits; p − onehot has none left.
    #[test]
    fn float32_keeps_the_gradient_of_confident_examples() {
        let exact = Tensor::from_slice2(&[[21.0, 0.0, 1.0, -2.0], [41.0, 0.0, 1.0, -2.0]]);
        let labels = Tensor::from_slice(&[0i64, 0]);
        for objective in [Objective::Loss, Objective::Margin] {
            let grad = |kind| {
                let logits = exact.to_kind(kind).set_requires_grad(true);
                let value = of(objective, &logits, &labels).expect("computes");
                let grad: Tensor = Tensor::run_backward(&[value], &[&logits], false, false).remove(0);
                grad.to_kind(Kind::Double)
            };
            let (single, double) = (grad(Kind::Float), grad(Kind::Double));
            assert!(((single - &double) / &double).abs().max().double_value(&[]) < 1e-5, "{objective:?}");
        }
    }
}
