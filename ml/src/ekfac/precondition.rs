//! Queries: their gradients through the damped inverse, P = Q_G [ (Q_Gᵀ V Q_A) / (Λ + d) ] Q_Aᵀ.

use std::cell::RefCell;
use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::factors::Factors;
use super::geometry::Geometry;
use super::rotation::{Columns, Plan, Rotation, complete, left_rotated, right_rotated};
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};

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
    /// 1 / (Λ + d) of a layer.
    pub(super) fn inverse(self, lambda: &Tensor) -> Result<Tensor> {
        let damping = match self {
            Self::Absolute(value) => value,
            Self::Heuristic(factor) => factor * lambda.f_mean(Kind::Double)?.f_double_value(&[])?,
        };
        Ok(lambda.f_add_scalar(damping)?.f_reciprocal()?)
    }
}

/// Preconditioned queries, ready to be held against examples. Linear: rows may be subtracted.
#[derive(Debug)]
pub struct Queries {
    pub(super) geometries: Vec<Geometry>,
    pub(super) rotations: Vec<Rotation>,
    /// 1 / (Λ + d), [b, o, d]: the same inverse that the rows went through.
    pub(super) inverses: Vec<Tensor>,
    pub(super) workspace: Workspace,
    count: i64,
    /// Per layer, the columns of P by kernel row (native order), each [Q, b·o·columns].
    columns: Vec<Vec<Tensor>>,
    /// The same in a (half-)rotated basis, made when a pass first asks for it.
    rotated: RefCell<HashMap<(usize, Plan), Vec<Tensor>>>,
}

impl Queries {
    /// Preconditions query gradients: one [Q, b·o, d] tensor per layer, as [`super::gradient`] gives them.
    pub fn new(factors: &Factors, damping: Damping, gradients: &[Tensor], workspace: Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let count = check_gradients(factors, gradients)?;
        let mut columns = Vec::with_capacity(gradients.len());
        let mut inverses = Vec::with_capacity(gradients.len());
        for (index, (geometry, gradient)) in factors.geometries.iter().zip(gradients).enumerate() {
            let inverse = damping.inverse(&factors.lambdas[index])?;
            let native = native_precondition(geometry, &factors.rotations[index], &inverse, gradient, &workspace)
                .context(|| format!("layer {}: preconditioning", geometry.name))?;
            columns.push(split(geometry, &native)?);
            inverses.push(inverse);
        }
        let rotations = factors.rotations.iter().map(Rotation::share).collect();
        Ok(Self { geometries: factors.geometries.clone(), rotations, inverses, workspace, count, columns, rotated: RefCell::default() })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Row j becomes P_j − P_baseline for every j but the baseline itself, which stays: scores of the rows are Δ directly.
    pub fn difference(self, baseline: usize) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        if baseline >= self.len() {
            return Err(Error::internal(format!("baseline {baseline} of {} queries", self.count)));
        }
        let base = baseline as i64;
        for rows in self.columns.iter().flatten() {
            let kept = rows.f_narrow(0, base, 1)?.f_detach_copy()?;
            let _ = rows.shallow_clone().f_sub_(&kept)?;
            rows.f_narrow(0, base, 1)?.f_copy_(&kept)?;
        }
        self.rotated.borrow_mut().clear();
        Ok(self)
    }

    /// Preconditioned rows of layer `index` in parameter space: [Q, b·o, d], columns as in the flattened weight.
    pub fn layer(&self, index: usize) -> Result<Tensor> {
        let (Some(geometry), Some(columns)) = (self.geometries.get(index), self.columns.get(index)) else {
            return Err(Error::internal(format!("queries of layer {index} of {}", self.geometries.len())));
        };
        let shaped: Vec<Tensor> = columns.iter().map(|c| Ok(c.f_reshape([self.count, geometry.outputs(), -1])?)).collect::<Result<_>>()?;
        let order = Tensor::f_from_slice(&geometry.weight_columns())?.f_to_device(self.workspace.device)?;
        Ok(Tensor::f_cat(&shaped, 2)?.f_index_select(2, &order)?)
    }

    /// Rows of layer `index` in the basis in which `plan` forms outer products: as many tensors as there are column ranges then.
    pub(super) fn in_basis(&self, index: usize, plan: Plan) -> Result<Vec<Tensor>> {
        let share = |tensors: &[Tensor]| tensors.iter().map(Tensor::shallow_clone).collect();
        if plan == Plan::default() {
            return Ok(share(&self.columns[index]));
        }
        if let Some(known) = self.rotated.borrow().get(&(index, plan)) {
            return Ok(share(known));
        }
        let made = self.rotate(index, plan)?;
        let shared = share(&made);
        self.rotated.borrow_mut().insert((index, plan), made);
        Ok(shared)
    }

    fn rotate(&self, index: usize, plan: Plan) -> Result<Vec<Tensor>> {
        let (geometry, rotation) = (&self.geometries[index], &self.rotations[index]);
        let (blocks, out) = (geometry.groups, geometry.out);
        if plan.inputs_first {
            let mut start = 0;
            let mut columns = Vec::new();
            for rows in &self.columns[index] {
                let outer = rows.f_reshape([self.count, blocks, out, -1])?;
                let width = outer.size()[3];
                columns.push(Columns { start, outer });
                start += width;
            }
            // `complete` rotates what its plan leaves for afterwards.
            let after = Plan { inputs_first: false, grads_first: !plan.grads_first };
            let whole = complete(geometry, &columns, rotation, after)?;
            return Ok(vec![whole.f_reshape([self.count, -1])?]);
        }
        let rotate = |rows: &Tensor| -> Result<Tensor> {
            let flat = rows.f_reshape([self.count * blocks, out, -1])?;
            Ok(left_rotated(&rotation.q_g, &flat, self.count)?.f_reshape([self.count, -1])?)
        };
        self.columns[index].iter().map(rotate).collect()
    }
}

/// Preconditions gradients, [Q, b·o, d] per layer → the same shapes, columns as in the flattened weight.
pub fn precondition(factors: &Factors, damping: Damping, gradients: &[Tensor], workspace: &Workspace) -> Result<Vec<Tensor>> {
    let queries = Queries::new(factors, damping, gradients, *workspace)?;
    (0..gradients.len()).map(|i| queries.layer(i)).collect()
}

fn check_gradients(factors: &Factors, gradients: &[Tensor]) -> Result<i64> {
    if gradients.len() != factors.geometries.len() {
        return Err(Error::internal(format!("{} gradients for {} tracked layers", gradients.len(), factors.geometries.len())));
    }
    let count = gradients.first().and_then(|g| g.size().first().copied()).unwrap_or(0);
    for (geometry, gradient) in factors.geometries.iter().zip(gradients) {
        let wanted = [count, geometry.outputs(), geometry.inputs()];
        if gradient.size() != wanted {
            return Err(Error::internal(format!("layer {}: query gradient of shape {:?}, expected {wanted:?}", geometry.name, gradient.size())));
        }
    }
    Ok(count)
}

/// P in native order: [Q, b, o, d].
fn native_precondition(geometry: &Geometry, rotation: &Rotation, inverse: &Tensor, gradient: &Tensor, workspace: &Workspace) -> Result<Tensor> {
    let (count, blocks, out, inputs) = (gradient.size()[0], geometry.groups, geometry.out, geometry.inputs());
    let order = Tensor::f_from_slice(&geometry.native_columns())?.f_to_device(workspace.device)?;
    let native = workspace.take(gradient)?.f_index_select(2, &order)?.f_reshape([count, blocks, out, inputs])?;
    let flat = |x: &Tensor| x.f_reshape([count * blocks, out, inputs]);
    let rotated = left_rotated(&rotation.q_g, &flat(&right_rotated(&native, &rotation.q_a)?)?, count)?.f_reshape([count, blocks, out, inputs])?;
    let divided = rotated.f_mul(inverse)?;
    let back = left_rotated(&rotation.q_g.f_transpose(1, 2)?, &flat(&divided)?, count)?.f_reshape([count, blocks, out, inputs])?;
    right_rotated(&back, &rotation.q_a.f_transpose(1, 2)?)
}

/// Cuts [Q, b, o, d] in native order into the column ranges of [`super::rotation::outer_products`], each [Q, b·o·columns].
fn split(geometry: &Geometry, native: &Tensor) -> Result<Vec<Tensor>> {
    let (count, row) = (native.size()[0], geometry.row());
    let mut ranges: Vec<(i64, i64)> = (0..geometry.kernel[0]).map(|y| (y * row, row)).collect();
    if geometry.bias {
        ranges.push((geometry.kernel_inputs(), 1));
    }
    ranges.into_iter().map(|(start, width)| Ok(native.f_narrow(3, start, width)?.f_contiguous()?.f_reshape([count, geometry.outputs() * width])?)).collect()
}
