//! Queries: their gradients through the damped inverse, P = Q_G [ (Q_Gᵀ V Q_A) / (Λ + d) ] Q_Aᵀ.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::Tensor;

use super::factors::Factors;
use super::geometry::{Geometry, batch_size};
use super::outer::each_block;
use super::rotation::{Rotation, RotationPlan, complete, left_rotated, right_rotated};
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};
use crate::model::layer::Pair;

/// What is added to Λ before dividing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Damping {
    /// The same number everywhere (`paper-code`: 1e-8).
    Absolute(f64),
    /// This multiple of the layer's mean Λ (usual: 0.1). A grouped convolution has one mean over all its groups: the damping is the layer's, as it is for
    /// a layer without groups, so that an idle group is not divided by almost nothing.
    Heuristic(f64),
}

impl Damping {
    /// 1 / (Λ + d) of the layer at `place`. Parts of one layer have one damping, for the same reason as groups.
    pub(super) fn inverse(self, factors: &Factors, place: usize) -> Result<Tensor> {
        let damping = match self {
            Self::Absolute(value) => value,
            Self::Heuristic(factor) => factor * factors.mean_lambda(place)?,
        };
        Ok(factors.lambdas[place].f_add_scalar(damping)?.f_reciprocal()?)
    }
}

/// Preconditioned queries, ready to be held against examples. Linear: rows may be subtracted.
///
/// Rows are kept in the eigenbasis, (Q_Gᵀ V Q_A) / (Λ + d), and turned into the basis in which a pass wants them when it first asks: back into parameter
/// space for scores, only halfway or not at all beside self-influence. Each basis asked for is kept: once more the size of the queries.
#[derive(Debug)]
pub struct Queries {
    pub(super) geometries: Vec<Geometry>,
    pub(super) rotations: Vec<Rotation>,
    /// 1 / (Λ + d), [b, o, d]: the same inverse that the rows went through.
    pub(super) inverses: Vec<Tensor>,
    pub(super) workspace: Workspace,
    damping: Damping,
    count: i64,
    /// [Q, b, o, d] per layer, eigenbasis.
    rows: Vec<Tensor>,
    turned: RefCell<HashMap<(usize, RotationPlan), Vec<Tensor>>>,
}

impl Queries {
    /// Preconditions the gradients of a batch of queries: one pair per layer, under the queries' own objective. Cheaper than [`Self::new`]: few positions
    /// are rotated in place of whole gradients.
    pub fn from_pairs(factors: &Factors, damping: Damping, pairs: &[Pair], workspace: Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let count = batch_size(&factors.geometries, pairs)?;
        Self::build(factors, damping, workspace, count, |index, geometry, rotation| {
            let pair = &pairs[index];
            let rows = workspace.zeros(&[count, geometry.conv.groups, geometry.out, geometry.inputs()])?;
            let plan = RotationPlan::for_pair(geometry, pair);
            each_block(geometry, pair, Some((rotation, plan)), &workspace, |block| {
                let part = rows
                    .f_narrow(0, block.examples.0, block.examples.1)?
                    .f_narrow(2, block.outputs.0, block.outputs.1)?;
                Ok(part.shallow_clone().f_copy_(&complete(geometry, &block.columns, rotation, plan)?)?)
            })?;
            Ok(rows)
        })
    }

    /// Preconditions given gradients: one [Q, b·o, d] tensor per layer, as [`super::gradient`] and [`super::GradientSumFold`] give them.
    pub fn new(factors: &Factors, damping: Damping, gradients: &[Tensor], workspace: Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let count = check_gradients(factors, gradients)?;
        Self::build(factors, damping, workspace, count, |index, geometry, rotation| {
            let (out, inputs) = (geometry.out, geometry.inputs());
            let order = Tensor::f_from_slice(&geometry.native_columns())?.f_to_device(workspace.device)?;
            let native = workspace.take(&gradients[index])?.f_index_select(2, &order)?;
            let turned = right_rotated(&native.f_reshape([count, geometry.conv.groups, out, inputs])?, &rotation.q_a)?;
            let flat = turned.f_reshape([count * geometry.conv.groups, out, inputs])?;
            Ok(left_rotated(&rotation.q_g, &flat, count)?.f_reshape([count, geometry.conv.groups, out, inputs])?)
        })
    }

    /// `rotated` gives a layer's Q_Gᵀ V Q_A as a tensor of its own.
    fn build(
        factors: &Factors,
        damping: Damping,
        workspace: Workspace,
        count: i64,
        rotated: impl Fn(usize, &Geometry, &Rotation) -> Result<Tensor>,
    ) -> Result<Self> {
        let (mut rows, mut inverses) = (Vec::new(), Vec::new());
        for (index, (geometry, rotation)) in factors.geometries.iter().zip(&factors.rotations).enumerate() {
            let inverse = damping.inverse(factors, index)?;
            let mut numerator = rotated(index, geometry, rotation).context(|| format!("layer {}: preconditioning", geometry.name))?;
            let _ = numerator.f_mul_(&inverse)?;
            rows.push(numerator);
            inverses.push(inverse);
        }
        let rotations = factors.rotations.iter().map(Rotation::share).collect();
        Ok(Self {
            geometries: factors.geometries.clone(),
            rotations,
            inverses,
            workspace,
            damping,
            count,
            rows,
            turned: RefCell::default(),
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// These rows and then those of `other`, which must come from the same factors and damping.
    pub fn append(mut self, other: Self) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let same = self.damping == other.damping
            && self.rotations.len() == other.rotations.len()
            && self
                .rotations
                .iter()
                .zip(&other.rotations)
                .all(|(a, b)| a.q_a.data_ptr() == b.q_a.data_ptr());
        if !same {
            return Err(Error::internal("queries of different factors or dampings cannot be joined"));
        }
        for (mine, theirs) in self.rows.iter_mut().zip(&other.rows) {
            *mine = Tensor::f_cat(&[&*mine, theirs], 0)?;
        }
        self.count += other.count;
        self.turned.borrow_mut().clear();
        Ok(self)
    }

    /// Row j becomes P_j − P_baseline for every j but the baseline itself, which stays: scores of the rows are Δ directly.
    pub fn difference(self, baseline: usize) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        if baseline >= self.len() {
            return Err(Error::internal(format!("baseline {baseline} of {} queries", self.count)));
        }
        let base = baseline as i64;
        for rows in &self.rows {
            let kept = rows.f_narrow(0, base, 1)?.f_detach_copy()?;
            let _ = rows.shallow_clone().f_sub_(&kept)?;
            rows.f_narrow(0, base, 1)?.f_copy_(&kept)?;
        }
        self.turned.borrow_mut().clear();
        Ok(self)
    }

    /// Preconditioned rows of layer `index` in parameter space: [Q, b·o, d], columns as in the flattened weight.
    pub fn layer(&self, index: usize) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let Some(geometry) = self.geometries.get(index) else {
            return Err(Error::internal(format!("queries of layer {index} of {}", self.geometries.len())));
        };
        let columns = self.in_basis(index, RotationPlan::default())?;
        let shaped: Vec<Tensor> = columns
            .iter()
            .map(|c| Ok(c.f_reshape([self.count, geometry.outputs(), c.size()[1] / geometry.outputs()])?))
            .collect::<Result<_>>()?;
        let order = Tensor::f_from_slice(&geometry.weight_columns())?.f_to_device(self.workspace.device)?;
        Ok(Tensor::f_cat(&shaped, 2)?.f_index_select(2, &order)?)
    }

    /// Rows of layer `index` in the basis in which `plan` forms outer products: one [Q, b·o·columns] tensor per column range of
    /// [`super::outer::each_block`].
    pub(super) fn in_basis(&self, index: usize, plan: RotationPlan) -> Result<Vec<Tensor>> {
        let share = |tensors: &[Tensor]| tensors.iter().map(Tensor::shallow_clone).collect();
        if let Some(known) = self.turned.borrow().get(&(index, plan)) {
            return Ok(share(known));
        }
        let made = self.turn(index, plan)?;
        let shared = share(&made);
        self.turned.borrow_mut().insert((index, plan), made);
        Ok(shared)
    }

    /// Turns back the sides that `plan` does not rotate before the outer product.
    fn turn(&self, index: usize, plan: RotationPlan) -> Result<Vec<Tensor>> {
        let (geometry, rotation) = (&self.geometries[index], &self.rotations[index]);
        let (blocks, out, inputs) = (geometry.conv.groups, geometry.out, geometry.inputs());
        let mut rows = self.rows[index].shallow_clone();
        if !plan.grads_first {
            let flat = rows.f_reshape([self.count * blocks, out, inputs])?;
            rows = left_rotated(&rotation.q_g.f_transpose(1, 2)?, &flat, self.count)?.f_reshape([self.count, blocks, out, inputs])?;
        }
        if plan.inputs_first {
            return Ok(vec![rows.f_reshape([self.count, blocks * out * inputs])?]);
        }
        let range = |(start, width): (i64, i64)| -> Result<Tensor> {
            // Q_A's rows of these columns, as columns.
            let back = rotation.q_a.f_narrow(1, start, width)?.f_transpose(1, 2)?;
            Ok(right_rotated(&rows, &back)?.f_reshape([self.count, blocks * out * width])?)
        };
        geometry.ranges().into_iter().map(range).collect()
    }
}

/// Preconditions gradients, [Q, b·o, d] per layer → the same shapes, columns as in the flattened weight.
pub fn precondition(factors: &Factors, damping: Damping, gradients: &[Tensor], workspace: &Workspace) -> Result<Vec<Tensor>> {
    let queries = Queries::new(factors, damping, gradients, *workspace)?;
    (0..gradients.len()).map(|i| queries.layer(i)).collect()
}

fn check_gradients(factors: &Factors, gradients: &[Tensor]) -> Result<i64> {
    if gradients.len() != factors.geometries.len() {
        return Err(Error::internal(format!(
            "{} gradients for {} tracked layers",
            gradients.len(),
            factors.geometries.len()
        )));
    }
    let count = gradients.first().and_then(|g| g.size().first().copied()).unwrap_or(0);
    for (geometry, gradient) in factors.geometries.iter().zip(gradients) {
        let wanted = [count, geometry.outputs(), geometry.inputs()];
        if gradient.size() != wanted {
            return Err(Error::internal(format!(
                "layer {}: query gradient of shape {:?}, expected {wanted:?}",
                geometry.name,
                gradient.size()
            )));
        }
    }
    Ok(count)
}
