//! Per-example gradients W_i and their rotation Q_Gᵀ W_i Q_A, each side rotated before or after the outer product, whichever is cheaper.
//!
//! Q_Gᵀ (Σ_t g_t a_tᵀ) Q_A = Σ_t (Q_Gᵀ g_t)(Q_Aᵀ a_t)ᵀ: rotating activations costs T·d² per example, rotating the outer product o·d²; the same for the
//! gradients with T·o² against o²·d. The two sides are chosen independently.

use tch::Tensor;

use super::geometry::Geometry;
use super::unfold::{Order, parts, patches, wide};
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
pub(super) struct Plan {
    /// Rotate activations (else the product, by Q_A).
    pub inputs_first: bool,
    /// Rotate output gradients (else the product, by Q_G).
    pub grads_first: bool,
}

impl Plan {
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

    /// Elements of intermediates per example: unfolded inputs, rotated copies, outer product and its rotation.
    pub fn elements(&self, geometry: &Geometry, [height, width]: [i64; 2], rotated: bool) -> i64 {
        let [output_height, output_width] = geometry.output_size([height, width]);
        let wide = height * output_width * geometry.row();
        let patches = if self.inputs_first {
            2 * output_height * output_width * geometry.inputs()
        } else {
            0
        };
        let outer = geometry.out * geometry.inputs() * if rotated { 2 } else { 1 };
        geometry.groups * (wide + patches + outer)
    }
}

/// Columns of (half-)rotated W_i of a chunk.
pub(super) struct Columns {
    /// First column: native order, or eigenbasis order when inputs are rotated first.
    pub start: i64,
    /// [B, b, o, columns]
    pub outer: Tensor,
}

/// The outer products of a chunk, by column ranges; rotated on the sides that `plan` rotates first (`rotation` must be there for that).
pub(super) fn outer_products(
    geometry: &Geometry,
    (image, grads): (&Tensor, &Tensor),
    rotation: Option<(&Rotation, Plan)>,
    workspace: &Workspace,
) -> Result<Vec<Columns>> {
    let (batch, _, output_height, output_width) = grads.size4()?;
    let (groups, out, positions) = (geometry.groups, geometry.out, output_height * output_width);
    let mut grads = by_position(grads, groups)?;
    if let Some((rotation, Plan { grads_first: true, .. })) = rotation {
        grads = right_rotated(&grads, &rotation.q_g)?;
    }
    let grads = grads.f_reshape([batch * groups, output_height, output_width, out])?;
    let wide = wide(geometry, image, Order::Examples, workspace)?;
    if let Some((rotation, Plan { inputs_first: true, .. })) = rotation {
        let patches = patches(geometry, &wide, output_height, workspace)?;
        let rotated = right_rotated(&patches, &rotation.q_a)?.f_reshape([batch * groups, positions, geometry.inputs()])?;
        let grads = grads.f_reshape([batch * groups, positions, out])?;
        let outer = grads
            .f_transpose(1, 2)?
            .f_bmm(&rotated)?
            .f_reshape([batch, groups, out, geometry.inputs()])?;
        return Ok(vec![Columns { start: 0, outer }]);
    }
    let mut columns = Vec::with_capacity(geometry.kernel[0] as usize + 1);
    for part in parts(geometry, &wide, &grads)? {
        let outer = part
            .grads
            .f_transpose(1, 2)?
            .f_bmm(&part.inputs)?
            .f_reshape([batch, groups, out, geometry.row()])?;
        columns.push(Columns { start: part.start, outer });
    }
    if geometry.bias {
        let outer = grads
            .f_sum_dim_intlist([1i64, 2].as_slice(), false, None)?
            .f_reshape([batch, groups, out, 1])?;
        columns.push(Columns {
            start: geometry.kernel_inputs(),
            outer,
        });
    }
    Ok(columns)
}

/// B × (b·o) × H × W as [B, b, T, o]: without a copy where channels lie innermost already, as they do in networks on a CPU.
fn by_position(grads: &Tensor, groups: i64) -> Result<Tensor> {
    let (batch, outputs, height, width) = grads.size4()?;
    let last = grads.f_permute([0, 2, 3, 1])?.f_contiguous()?;
    let (positions, out) = (height * width, outputs / groups);
    Ok(if groups == 1 {
        last.f_reshape([batch, 1, positions, out])?
    } else {
        last.f_reshape([batch, positions, groups, out])?.f_transpose(1, 2)?.f_contiguous()?
    })
}

/// Completes Q_Gᵀ W_i Q_A from what [`outer_products`] gave under the same plan: [B, b, o, d].
pub(super) fn complete(geometry: &Geometry, columns: &[Columns], rotation: &Rotation, plan: Plan) -> Result<Tensor> {
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
