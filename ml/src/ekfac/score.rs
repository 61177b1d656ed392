//! Third pass: per-example gradients, scores ⟨P_q, W_i⟩ of all queries at once, and self-influence.

use tch::{Device, Tensor};

use super::factors::Factors;
use super::geometry::{Geometry, batch_size};
use super::outer::{Block, each_block, each_chunk, elements};
use super::precondition::{Damping, Queries};
use super::rotation::{Rotation, RotationPlan, complete};
use super::workspace::Workspace;
use crate::error::Result;
use crate::fold::Totals;
use crate::model::layer::{Layer, Pair};

/// Gradients W_i of a batch: one tensor [B, b·o, d] per layer, columns as in the flattened weight, the bias last. For queries; training examples are
/// scored without keeping theirs.
pub fn gradient(layers: &[Layer], pairs: &[Pair], workspace: &Workspace) -> Result<Vec<Tensor>> {
    let _guard = tch::no_grad_guard();
    let geometries = Geometry::list(layers)?;
    let batch = batch_size(&geometries, pairs)?;
    let mut gradients = Vec::with_capacity(pairs.len());
    for (geometry, pair) in geometries.iter().zip(pairs) {
        let order = Tensor::f_from_slice(&geometry.weight_columns())?.f_to_device(workspace.device)?;
        let all = workspace.zeros(&[batch, geometry.outputs(), geometry.inputs()])?;
        each_block(geometry, pair, None, workspace, |block| {
            let outputs = geometry.conv.groups * block.outputs.1; // where there are groups, all outputs are in one block
            let shaped: Vec<Tensor> = block
                .columns
                .iter()
                .map(|c| Ok(c.outer.f_reshape([-1, outputs, c.outer.size()[3]])?))
                .collect::<Result<_>>()?;
            let whole = Tensor::f_cat(&shaped, 2)?.f_index_select(2, &order)?;
            let part = all
                .f_narrow(0, block.examples.0, block.examples.1)?
                .f_narrow(1, block.outputs.0, outputs)?;
            Ok(part.shallow_clone().f_copy_(&whole)?)
        })?;
        gradients.push(all);
    }
    Ok(gradients)
}

/// s(q, i) = Σ_layers ⟨P_q, W_i⟩ for every query and every example of the batch: [Q, B], working precision, on the workspace's device. Not divided by
/// the number of training examples; positive means that training on i lowers the query's objective.
pub fn scores(queries: &Queries, pairs: &[Pair]) -> Result<Tensor> {
    let total = scores_as_they_come(queries, pairs)?;
    finite(&total, SCORES)?;
    Ok(total)
}

/// [`scores`], not looked at.
pub(super) fn scores_as_they_come(queries: &Queries, pairs: &[Pair]) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let workspace = &queries.workspace;
    let batch = batch_size(&queries.geometries, pairs)?;
    let total = workspace.zeros(&[queries.len() as i64, batch])?;
    for (index, (geometry, pair)) in queries.geometries.iter().zip(pairs).enumerate() {
        if few(geometry, queries, pair) {
            let kernel = Kernel::new(geometry, queries, index)?;
            let elements =
                |size| elements(geometry, RotationPlan::default(), size) + pair.output_grad.numel() as i64 / batch.max(1) * queries.len() as i64;
            each_chunk(geometry, pair, elements, workspace, |image, grads, start| {
                let part = total.f_narrow(1, start, image.size()[0])?;
                let _ = part.shallow_clone().f_add_(&kernel.scores(geometry, image, grads)?)?;
                Ok(())
            })?;
            continue;
        }
        let rows = queries.in_basis(index, RotationPlan::default())?;
        each_block(geometry, pair, None, workspace, |block| add_scores(&total, block, &rows))?;
    }
    Ok(total)
}

/// g_iᵀ P g_i = Σ_layers Σ (Q_Gᵀ W_i Q_A)² / (Λ + d) for every example of the batch: [B].
pub fn self_influence(factors: &Factors, damping: Damping, pairs: &[Pair], workspace: &Workspace) -> Result<Tensor> {
    let total = self_influence_as_it_comes(factors, damping, pairs, workspace)?;
    finite(&total, SELF_INFLUENCES)?;
    Ok(total)
}

/// [`self_influence`], not looked at.
pub(super) fn self_influence_as_it_comes(factors: &Factors, damping: Damping, pairs: &[Pair], workspace: &Workspace) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let total = workspace.zeros(&[batch_size(&factors.geometries, pairs)?])?;
    for (place, ((geometry, rotation), pair)) in factors.geometries.iter().zip(&factors.rotations).zip(pairs).enumerate() {
        let inverse = damping.inverse(factors, place)?;
        let plan = RotationPlan::for_pair(geometry, pair);
        each_block(geometry, pair, Some((rotation, plan)), workspace, |block| {
            add_squares(&total, geometry, block, (rotation, plan), &inverse)
        })?;
    }
    Ok(total)
}

/// [`scores`] and, under the queries' own factors and damping, [`self_influence`] of the same batch: ([Q, B], [B]). The outer products are formed once, in
/// whichever basis is cheaper for self-influence; queries are rotated into that basis once for all batches.
pub fn scores_and_self_influence(queries: &Queries, pairs: &[Pair]) -> Result<(Tensor, Tensor)> {
    let (total, own) = both_as_they_come(queries, pairs)?;
    finite(&total, SCORES)?;
    finite(&own, SELF_INFLUENCES)?;
    Ok((total, own))
}

/// [`scores_and_self_influence`], not looked at.
pub(super) fn both_as_they_come(queries: &Queries, pairs: &[Pair]) -> Result<(Tensor, Tensor)> {
    let _guard = tch::no_grad_guard();
    let workspace = &queries.workspace;
    let batch = batch_size(&queries.geometries, pairs)?;
    let (total, own) = (workspace.zeros(&[queries.len() as i64, batch])?, workspace.zeros(&[batch])?);
    for (index, (geometry, pair)) in queries.geometries.iter().zip(pairs).enumerate() {
        let (rotation, inverse) = (&queries.rotations[index], &queries.inverses[index]);
        let plan = RotationPlan::for_pair(geometry, pair);
        let rows = queries.in_basis(index, plan)?;
        each_block(geometry, pair, Some((rotation, plan)), workspace, |block| {
            add_scores(&total, block, &rows)?;
            add_squares(&own, geometry, block, (rotation, plan), inverse)
        })?;
    }
    Ok((total, own))
}

/// [B, ...] as one row per example.
pub(super) fn flat(outer: &Tensor) -> Result<Tensor> {
    Ok(outer.f_reshape([outer.size()[0], outer.size()[1..].iter().product()])?)
}

/// part += rows · outerᵀ: [Q, B], [Q, n] and [B, n]. Few rows and columns of great length: on a CPU four products of a quarter of it are faster than
/// one (measured: by a quarter), for each core then has its own.
fn add_products(part: &mut Tensor, rows: &Tensor, outer: &Tensor) -> Result<()> {
    const PIECES: i64 = 4;
    const LONG: i64 = 8192;
    let (queries, length) = rows.size2()?;
    if length < LONG || length % PIECES != 0 || rows.device() != Device::Cpu {
        let _ = part.f_addmm_(rows, &outer.f_tr()?)?;
        return Ok(());
    }
    let pieces = |t: &Tensor, n: i64| -> Result<Tensor> { Ok(t.f_view([n, PIECES, length / PIECES])?.f_transpose(0, 1)?) };
    let products = pieces(rows, queries)?.f_bmm(&pieces(outer, outer.size()[0])?.f_transpose(1, 2)?)?;
    let _ = part.f_add_(&products.f_sum_dim_intlist([0i64].as_slice(), false, None)?)?;
    Ok(())
}

/// total, [Q, B], += what a block has of every ⟨P_q, W_i⟩; `rows` are the queries' in the basis of the block, one tensor per column range.
fn add_scores(total: &Tensor, block: &Block, rows: &[Tensor]) -> Result<()> {
    let mut part = total.f_narrow(1, block.examples.0, block.examples.1)?;
    for (columns, rows) in block.columns.iter().zip(rows) {
        add_products(&mut part, &block.of_rows(rows, columns)?, &flat(&columns.outer)?)?;
    }
    Ok(())
}

/// total, [B], += what a block has of every Σ (Q_Gᵀ W_i Q_A)² / (Λ + d). The block is used up.
fn add_squares(total: &Tensor, geometry: &Geometry, block: &Block, (rotation, plan): (&Rotation, RotationPlan), inverse: &Tensor) -> Result<()> {
    let mut rotated = complete(geometry, &block.columns, rotation, plan)?;
    let weighted = flat(&rotated.f_square_()?)?.f_mv(&block.of_outputs(inverse)?.f_reshape([-1])?)?;
    let _ = total.f_narrow(0, block.examples.0, block.examples.1)?.f_add_(&weighted)?;
    Ok(())
}

pub(super) const SCORES: &str = "scores";
pub(super) const SELF_INFLUENCES: &str = "self-influences";

fn finite(values: &Tensor, what: &str) -> Result<()> {
    let mut totals = Totals::default();
    totals.note(what.into(), values)?;
    totals.check("a batch")
}

/// Whether to contract few queries without forming W_i: ⟨P, Σ_t g aᵀ⟩ = Σ_t ⟨g_t, (x ∗ P)_t⟩, one convolution per query with P as its kernel. Per o·d
/// multiply-adds: Q·T against 2·T (forming, at half the rate of a convolution) + Q (contracting) + writing and reading W_i, which costs as much as some
/// sixteen positions.
fn few(geometry: &Geometry, queries: &Queries, pair: &Pair) -> bool {
    const WRITE_AND_READ: i64 = 16;
    let (count, positions) = (queries.len() as i64, geometry.positions(pair));
    count * positions < 2 * positions + count + WRITE_AND_READ
}

/// Queries as the kernel of a convolution.
struct Kernel {
    /// [b·Q·o, c, kh, kw]
    weight: Tensor,
    /// [b·o, Q]
    bias: Option<Tensor>,
    count: i64,
}

impl Kernel {
    fn new(geometry: &Geometry, queries: &Queries, index: usize) -> Result<Self> {
        let count = queries.len() as i64;
        let matrix = queries.layer(index)?;
        let weight = matrix
            .f_narrow(2, 0, geometry.kernel_inputs())?
            .f_reshape([count, geometry.conv.groups, geometry.out, geometry.kernel_inputs()])?
            .f_transpose(0, 1)?
            .f_reshape([
                count * geometry.outputs(),
                geometry.channels,
                geometry.conv.kernel[0],
                geometry.conv.kernel[1],
            ])?;
        let bias = if geometry.conv.bias {
            Some(matrix.f_select(2, geometry.kernel_inputs())?.f_tr()?)
        } else {
            None
        };
        Ok(Self { weight, bias, count })
    }

    /// [Q, B]
    fn scores(&self, geometry: &Geometry, image: &Tensor, grads: &Tensor) -> Result<Tensor> {
        let (batch, blocks) = (image.size()[0], geometry.conv.groups);
        let output = geometry.conv.apply(image, &self.weight, None)?;
        let output = output.f_reshape([batch * blocks, self.count, -1])?;
        let grads = grads.f_contiguous()?;
        let products = output
            .f_bmm(&grads.f_reshape([batch * blocks, -1, 1])?)?
            .f_reshape([batch, blocks, self.count])?;
        let mut scores = products.f_sum_dim_intlist([1i64].as_slice(), false, None)?;
        if let Some(bias) = &self.bias {
            let sums = grads.f_sum_dim_intlist([2i64, 3].as_slice(), false, None)?;
            let _ = scores.f_addmm_(&sums, bias)?;
        }
        Ok(scores.f_tr()?)
    }
}
