//! The formulas of algorithm §1 in their plain form: one line each, for a few small pictures. This is what the fast code of this room computes; `ml/tests/ekfac_naive.rs` holds
//! it against these, and these against loops over single numbers and against autograd. Nothing else calls them.
//!
//! Shapes: N examples, b blocks, T output positions, o outputs and d inputs per block (bias counted in d), Q queries.

use super::geometry::Geometry;
use crate::error::Result;
use crate::model::layer::{Layer, Pair};
use tch::{Kind, Tensor};

/// Σ over the shared letters.
fn sum(rule: &str, tensors: &[&Tensor]) -> Result<Tensor> {
    Ok(Tensor::f_einsum(rule, tensors, None::<i64>)?)
}

/// a_it [N, b, T, d] and g_it [N, b, T, o]: every input patch written out, with a 1 for the bias, and the output gradient that belongs to it.
///
/// # Errors
/// A pair that does not fit the layer.
pub fn patches(layer: &Layer, pair: &Pair) -> Result<(Tensor, Tensor)> {
    let geometry = Geometry::of(layer)?;
    let (conv, (image, grads)) = (&geometry.conv, geometry.images(pair)?);
    let examples = image.size()[0];
    let columns = image.f_im2col(conv.kernel, conv.dilation, conv.padding, conv.stride)?;
    let mut a = columns
        .f_reshape([examples, conv.groups, geometry.kernel_inputs(), -1])?
        .f_transpose(2, 3)?;
    if conv.bias {
        let ones = Tensor::f_ones_like(&a.f_narrow(3, 0, 1)?)?;
        a = Tensor::f_cat(&[&a, &ones], 3)?;
    }
    let g = grads.f_reshape([examples, conv.groups, geometry.out, -1])?.f_transpose(2, 3)?;
    Ok((a, g))
}

/// (1) W_i = Σ_t g_it a_itᵀ, [N, b, o, d].
///
/// # Errors
/// When libtorch fails.
pub fn weight_gradients(a: &Tensor, g: &Tensor) -> Result<Tensor> {
    sum("nbto,nbtd->nbod", &[g, a])
}

/// (2) x = a: A = Σ_i Σ_t a_it a_itᵀ / (N·T), [b, d, d]; x = g: G, [b, o, o].
///
/// # Errors
/// When libtorch fails.
pub fn covariance(x: &Tensor) -> Result<Tensor> {
    let (examples, _, positions, _) = x.size4()?;
    Ok(sum("nbtd,nbte->bde", &[x, x])?.f_div_scalar((examples * positions) as f64)?)
}

/// (3) A = Q diag(·) Qᵀ: the eigenvectors, as columns.
///
/// # Errors
/// When libtorch fails.
pub fn eigenvectors(covariance: &Tensor) -> Result<Tensor> {
    Ok(covariance.f_linalg_eigh("L")?.1)
}

/// Q_Gᵀ V Q_A of each gradient, [N, b, o, d].
///
/// # Errors
/// When libtorch fails.
pub fn rotated(v: &Tensor, q_a: &Tensor, q_g: &Tensor) -> Result<Tensor> {
    sum("bop,nboe,bed->nbpd", &[q_g, v, q_a])
}

/// (4) Λ = (1/N) Σ_i (Q_Gᵀ W_i Q_A)², element by element, [b, o, d].
///
/// # Errors
/// When libtorch fails.
pub fn lambda(w: &Tensor, q_a: &Tensor, q_g: &Tensor) -> Result<Tensor> {
    Ok(rotated(w, q_a, q_g)?.f_square()?.f_mean_dim([0i64].as_slice(), false, None)?)
}

/// d of (5) under heuristic damping: `factor` times the mean of the layer's Λ, over all its blocks.
///
/// # Errors
/// When libtorch fails.
pub fn heuristic(lambda: &Tensor, factor: f64) -> Result<f64> {
    Ok(factor * lambda.f_mean(Kind::Double)?.f_double_value(&[])?)
}

/// (5) P V = Q_G [ (Q_Gᵀ V Q_A) / (Λ + d) ] Q_Aᵀ, [N, b, o, d].
///
/// # Errors
/// When libtorch fails.
pub fn preconditioned(v: &Tensor, q_a: &Tensor, q_g: &Tensor, lambda: &Tensor, d: f64) -> Result<Tensor> {
    let divided = rotated(v, q_a, q_g)?.f_div(&lambda.f_add_scalar(d)?)?;
    sum("bop,nbpd,bed->nboe", &[q_g, &divided, q_a])
}

/// (6) A layer's share of s(q, i) = Σ_layers ⟨P V_q, W_i⟩, [Q, N].
///
/// # Errors
/// When libtorch fails.
pub fn scores(preconditioned: &Tensor, w: &Tensor) -> Result<Tensor> {
    sum("qbod,nbod->qn", &[preconditioned, w])
}

/// A layer's share of W_iᵀ P W_i, what (9) and (10) divide by, [N].
///
/// # Errors
/// When libtorch fails.
pub fn self_influence(w: &Tensor, q_a: &Tensor, q_g: &Tensor, lambda: &Tensor, d: f64) -> Result<Tensor> {
    sum("nbod,nbod->n", &[&preconditioned(w, q_a, q_g, lambda, d)?, w])
}

/// Σ_i weight_gi W_i of weighted groups g, [groups, b, o, d].
///
/// # Errors
/// When libtorch fails.
pub fn group_sums(weights: &Tensor, w: &Tensor) -> Result<Tensor> {
    sum("gn,nbod->gbod", &[weights, w])
}
