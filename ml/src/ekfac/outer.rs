//! Per-example gradients W_i = Σ_t g_t a_tᵀ, formed a block at a time: some examples, some outputs, all inputs.
//!
//! All W_i of a batch are far larger than what they are made of (a layer of 512 × 4,608 takes 9 MB for each example), and they are used once. So blocks
//! are kept to what caches hold, but with so many examples in each that the products they go into are large ones.

use tch::Tensor;

use super::geometry::Geometry;
use super::rotation::{Rotation, RotationPlan, right_rotated};
use super::unfold::{Order, once, parts, patches, wide};
use super::workspace::Workspace;
use crate::error::{Result, ResultExt};
use crate::model::layer::Pair;

/// Examples that a block should hold at least.
const EXAMPLES: i64 = 64;

/// Columns of (half-)rotated W_i of a block.
pub(super) struct Columns {
    /// First column: native order, or eigenbasis order when inputs are rotated first.
    pub start: i64,
    /// [B, b, o, columns], of the block's examples and outputs
    pub outer: Tensor,
}

/// A block of W_i.
pub(super) struct Block {
    /// First example in the batch, number of examples.
    pub examples: (i64, i64),
    /// First output and number of outputs, per group.
    pub outputs: (i64, i64),
    /// The column ranges, together all of the inputs.
    pub columns: Vec<Columns>,
}

impl Block {
    /// The part of `rows`, [n, b·o·columns], that this block's outputs have for a column range.
    pub fn of_rows(&self, rows: &Tensor, columns: &Columns) -> Result<Tensor> {
        let size = columns.outer.size(); // where there are groups, all outputs are in one block
        Ok(rows.f_narrow(1, self.outputs.0 * size[3], size[1] * size[2] * size[3])?)
    }

    /// The part of [b, o, d] of this block's outputs.
    pub fn of_outputs(&self, whole: &Tensor) -> Result<Tensor> {
        Ok(whole.f_narrow(1, self.outputs.0, self.outputs.1)?)
    }
}

/// Runs `body` on chunks of (image, output gradients, first example) of a pair that stay under the budget where each example takes `elements` of
/// intermediates, in working precision.
pub(super) fn each_chunk(
    geometry: &Geometry,
    pair: &Pair,
    elements: impl Fn([i64; 2]) -> i64,
    workspace: &Workspace,
    mut body: impl FnMut(&Tensor, &Tensor, i64) -> Result<()>,
) -> Result<()> {
    let (image, grads) = geometry.images(pair)?;
    let (batch, _, height, width) = image.size4()?;
    for (start, length) in workspace.chunks(batch, elements([height, width])) {
        let image = workspace.take(&image.f_narrow(0, start, length)?)?;
        let grads = workspace.take(&grads.f_narrow(0, start, length)?)?;
        body(&image, &grads, start).context(|| format!("layer {}", geometry.name))?;
    }
    Ok(())
}

/// Runs `body` on all blocks of a pair, rotated on the sides that the plan rotates first. Where it rotates output gradients afterwards, which mixes outputs,
/// and where there are groups, a block holds all outputs.
pub(super) fn each_block(
    geometry: &Geometry,
    pair: &Pair,
    rotation: Option<(&Rotation, RotationPlan)>,
    workspace: &Workspace,
    mut body: impl FnMut(&Block) -> Result<()>,
) -> Result<()> {
    let whole = geometry.conv.groups > 1 || rotation.is_some_and(|(_, plan)| !plan.grads_first);
    let copies = if rotation.is_some() { 2 } else { 1 };
    let fit = workspace.elements() / 2 / EXAMPLES / (copies * geometry.inputs());
    let outputs = if whole { geometry.out } else { even(geometry.out, fit) };
    let plan = rotation.map_or_else(RotationPlan::default, |(_, plan)| plan);
    let elements = |size: [i64; 2]| elements(geometry, plan, size) + geometry.conv.groups * copies * outputs * geometry.inputs();
    each_chunk(geometry, pair, elements, workspace, |image, grads, start| {
        let sides = Sides::new(geometry, (image, grads), rotation, workspace)?;
        for first in (0..geometry.out).step_by(outputs as usize) {
            let outputs = (first, outputs.min(geometry.out - first));
            body(&Block {
                examples: (start, image.size()[0]),
                outputs,
                columns: sides.products(geometry, outputs)?,
            })?;
        }
        Ok(())
    })
}

/// The size of a few even pieces of `all`, about `most` each: a multiple of eight where it is larger than that, which products like.
fn even(all: i64, most: i64) -> i64 {
    let pieces = |size: i64| all.div_euclid(size) + i64::from(all.rem_euclid(size) != 0);
    let size = pieces(pieces(most.clamp(1, all)));
    if size > 8 { ((size + 7) / 8 * 8).min(all) } else { size }
}

/// Elements per example of what blocks are made of: unfolded inputs, and where inputs are rotated first all patches and their rotation.
pub(super) fn elements(geometry: &Geometry, plan: RotationPlan, [height, width]: [i64; 2]) -> i64 {
    let [output_height, output_width] = geometry.conv.output_size([height, width]);
    let wide = height * output_width * geometry.row();
    let patches = if plan.inputs_first {
        2 * output_height * output_width * geometry.inputs()
    } else {
        0
    };
    geometry.conv.groups * (wide + patches)
}

/// The two sides of a chunk's outer products.
struct Sides {
    inputs: Inputs,
    /// [B·b, H', W', o]
    grads: Tensor,
    groups: i64,
}

enum Inputs {
    /// Unfolded along the width.
    Wide(Tensor),
    /// All patches, rotated: [B·b, T, d].
    Rotated(Tensor),
}

impl Sides {
    fn new(
        geometry: &Geometry,
        (image, grads): (&Tensor, &Tensor),
        rotation: Option<(&Rotation, RotationPlan)>,
        workspace: &Workspace,
    ) -> Result<Self> {
        let (batch, _, height, width) = grads.size4()?;
        let groups = geometry.conv.groups;
        let mut by_position = by_position(grads, groups)?;
        if let Some((rotation, RotationPlan { grads_first: true, .. })) = rotation {
            by_position = right_rotated(&by_position, &rotation.q_g)?;
        }
        let wide = wide(geometry, image, Order::Examples, workspace)?;
        let inputs = match rotation {
            Some((rotation, RotationPlan { inputs_first: true, .. })) => {
                let patches = patches(geometry, &wide, height, workspace)?;
                Inputs::Rotated(right_rotated(&patches, &rotation.q_a)?.f_reshape([batch * groups, height * width, geometry.inputs()])?)
            }
            _ => Inputs::Wide(once(geometry, &wide)?),
        };
        Ok(Self {
            inputs,
            grads: by_position.f_reshape([batch * groups, height, width, geometry.out])?,
            groups,
        })
    }

    /// Outer products of some outputs, by column ranges.
    fn products(&self, geometry: &Geometry, (first, outputs): (i64, i64)) -> Result<Vec<Columns>> {
        let grads = self.grads.f_narrow(3, first, outputs)?;
        let product = |grads: &Tensor, inputs: &Tensor| -> Result<Tensor> {
            let size = inputs.size();
            let outer = grads.f_transpose(1, 2)?.f_bmm(inputs)?;
            Ok(outer.f_reshape([size[0] / self.groups, self.groups, outputs, size[2]])?)
        };
        let wide = match &self.inputs {
            Inputs::Rotated(inputs) => {
                let outer = product(&grads.f_reshape([inputs.size()[0], inputs.size()[1], outputs])?, inputs)?;
                return Ok(vec![Columns { start: 0, outer }]);
            }
            Inputs::Wide(wide) => wide,
        };
        let mut columns = Vec::with_capacity(geometry.conv.kernel[0] as usize + 1);
        for part in parts(geometry, wide, &grads)? {
            let outer = product(&part.grads, &part.inputs)?;
            columns.push(Columns { start: part.start, outer });
        }
        if geometry.conv.bias {
            let outer = grads
                .f_sum_dim_intlist([1i64, 2].as_slice(), false, None)?
                .f_reshape([-1, self.groups, outputs, 1])?;
            columns.push(Columns {
                start: geometry.kernel_inputs(),
                outer,
            });
        }
        Ok(columns)
    }
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

#[cfg(test)]
mod tests {
    use super::even;

    #[test]
    fn pieces_are_even_and_about_as_large_as_asked() {
        for (all, most, expected) in [
            (128, 56, 48),
            (128, 64, 64),
            (128, 500, 128),
            (10, 0, 1),
            (1, 1, 1),
            (512, 14, 16),
            (7, 3, 3),
            (9, 20, 9),
        ] {
            let size = even(all, most);
            assert_eq!(size, expected, "{all} {most}");
            assert!(size < most.max(1) + 8 && (1..=all).contains(&size));
        }
    }
}
