//! The rotation Q_Gᵀ W_i Q_A of per-example gradients, each side rotated before or after the outer product, whichever is cheaper.
//!
//! Q_Gᵀ (Σ_t g_t a_tᵀ) Q_A = Σ_t (Q_Gᵀ g_t)(Q_Aᵀ a_t)ᵀ: rotating activations costs T·d² per example, rotating the outer product o·d²; the same for the
//! gradients with T·o² against o²·d. The two sides are chosen independently.

use tch::Tensor;

use super::geometry::Geometry;
use super::outer::Columns;
use super::workspace::Workspace;
use crate::error::Result;
use crate::model::layer::Pair;

/// A layer's eigenbases, Q_A's rows in native order.
#[derive(Debug)]
pub(super) struct Rotation {
    /// [b, d, d]
    pub q_a: Tensor,
    /// [b, o, o]
    pub q_g: Tensor,
}

impl Rotation {
    /// From Q_A with rows in weight order.
    pub fn new(geometry: &Geometry, q_a: &Tensor, q_g: &Tensor, workspace: &Workspace) -> Result<Self> {
        let order = Tensor::f_from_slice(&geometry.native_columns())?.f_to_device(q_a.device())?;
        Ok(Self {
            q_a: workspace.take(&q_a.f_index_select(1, &order)?)?,
            q_g: workspace.take(q_g)?,
        })
    }

    /// Another handle on the same tensors.
    pub fn share(&self) -> Self {
        Self {
            q_a: self.q_a.shallow_clone(),
            q_g: self.q_g.shallow_clone(),
        }
    }
}

/// Which sides are rotated before the outer product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RotationPlan {
    /// Rotate activations (else the product, by Q_A).
    pub inputs_first: bool,
    /// Rotate output gradients (else the product, by Q_G).
    pub grads_first: bool,
}

impl RotationPlan {
    /// The cheaper order for T positions.
    pub fn cheapest(geometry: &Geometry, positions: i64) -> Self {
        Self {
            inputs_first: positions <= geometry.out, // where equal, one product in place of one per kernel row
            grads_first: positions < geometry.inputs(),
        }
    }

    /// The cheaper order for a pair.
    pub fn for_pair(geometry: &Geometry, pair: &Pair) -> Self {
        Self::cheapest(geometry, geometry.positions(pair))
    }
}

/// Completes Q_Gᵀ W_i Q_A, [B, b, o, d], from what [`super::outer::each_block`] gave under the same plan; of some outputs only where the block has no more.
pub(super) fn complete(geometry: &Geometry, columns: &[Columns], rotation: &Rotation, plan: RotationPlan) -> Result<Tensor> {
    let mut whole: Option<Tensor> = None;
    if plan.inputs_first {
        whole = columns.first().map(|c| c.outer.shallow_clone());
    } else {
        for part in columns {
            let width = part.outer.size()[3];
            let q_a = rotation.q_a.f_narrow(1, part.start, width)?;
            whole = Some(match whole {
                None => right_rotated(&part.outer, &q_a)?,
                Some(sum) => add_right_rotated(sum, &part.outer, &q_a)?,
            });
        }
    }
    let whole = whole.ok_or_else(|| crate::error::Error::internal(format!("layer {}: no columns", geometry.name)))?;
    if plan.grads_first {
        return Ok(whole);
    }
    let size = whole.size();
    let flat = whole.f_reshape([size[0] * size[1], size[2], size[3]])?;
    Ok(left_rotated(&rotation.q_g, &flat, size[0])?.f_reshape(size)?)
}

/// x q per block: [B, b, n, p] and [b, p, d] → [B, b, n, d].
pub(super) fn right_rotated(x: &Tensor, q: &Tensor) -> Result<Tensor> {
    let size = x.size();
    if size[1] == 1 {
        let flat = x.f_reshape([size[0] * size[2], size[3]])?;
        return Ok(flat.f_mm(&q.f_select(0, 0)?)?.f_reshape([size[0], 1, size[2], q.size()[2]])?);
    }
    Ok(x.f_matmul(q)?)
}

/// sum + x q.
fn add_right_rotated(mut sum: Tensor, x: &Tensor, q: &Tensor) -> Result<Tensor> {
    let size = x.size();
    if size[1] == 1 {
        let flat = x.f_reshape([size[0] * size[2], size[3]])?;
        let _ = sum.f_view([size[0] * size[2], q.size()[2]])?.f_addmm_(&flat, &q.f_select(0, 0)?)?;
        return Ok(sum);
    }
    let _ = sum.f_add_(&x.f_matmul(q)?)?;
    Ok(sum)
}

/// q_gᵀ x for each example: [b, o, o] and [B·b, o, n].
pub(super) fn left_rotated(q_g: &Tensor, x: &Tensor, batch: i64) -> Result<Tensor> {
    let (blocks, out, _) = q_g.size3()?;
    let q = q_g.f_transpose(1, 2)?.f_unsqueeze(0)?.f_expand([batch, blocks, out, out], false)?;
    Ok(if blocks == 1 {
        q.f_select(1, 0)?.f_bmm(x)?
    } else {
        q.f_reshape([batch * blocks, out, out])?.f_bmm(x)?
    })
}
