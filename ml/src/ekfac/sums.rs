//! Weighted sums of training gradients, Σ_i w_γi W_i: aggregated queries, such as the seeds of a group.

use tch::{Kind, Tensor};

use super::geometry::{Geometry, batch_size};
use super::rotation::{Plan, outer_products};
use super::score::{each_chunk, flat};
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::model::layer::{Layer, Pair};

/// Running sums for Γ groups of weights.
#[derive(Debug)]
pub struct GradientSumFold {
    layers: Vec<Layer>,
    geometries: Vec<Geometry>,
    workspace: Workspace,
    groups: i64,
    /// [Γ, b·o, d] per layer, native order, float64.
    sums: Vec<Tensor>,
}

impl GradientSumFold {
    /// An empty fold for `groups` groups.
    pub fn new(layers: &[Layer], groups: usize, workspace: Workspace) -> Result<Self> {
        let geometries = Geometry::list(layers)?;
        let groups = groups as i64;
        let sums = geometries
            .iter()
            .map(|g| workspace.accumulator(&[groups, g.outputs(), g.inputs()]))
            .collect::<Result<_>>()?;
        Ok(Self {
            layers: layers.to_vec(),
            geometries,
            workspace,
            groups,
            sums,
        })
    }

    /// Adds a batch; `weights` is [Γ, B]. Examples of weight 0 everywhere are better left out of the batch: they cost as much as the others.
    pub fn add(&mut self, weights: &Tensor, pairs: &[Pair]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let batch = batch_size(&self.geometries, pairs)?;
        if weights.size() != [self.groups, batch] {
            return Err(Error::internal(format!(
                "weights of shape {:?} for {} groups and {batch} examples",
                weights.size(),
                self.groups
            )));
        }
        let workspace = &self.workspace;
        let weights = workspace.take(weights)?;
        for ((geometry, sum), pair) in self.geometries.iter().zip(&self.sums).zip(pairs) {
            each_chunk(geometry, pair, Plan::default(), false, workspace, |image, grads, start| {
                let weights = weights.f_narrow(1, start, image.size()[0])?;
                for columns in outer_products(geometry, (image, grads), None, workspace)? {
                    let width = columns.outer.size()[3];
                    let weighted = weights
                        .f_mm(&flat(&columns.outer)?)?
                        .f_reshape([self.groups, geometry.outputs(), width])?;
                    let _ = sum.f_narrow(2, columns.start, width)?.f_add_(&weighted.f_to_kind(Kind::Double)?)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Adds another range's fold.
    pub fn merge(&mut self, other: Self) -> Result<()> {
        if self.layers != other.layers || self.groups != other.groups {
            return Err(Error::internal("gradient sums of different layers or groups cannot be merged"));
        }
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            let _ = mine.f_add_(&theirs.f_to_device(self.workspace.device)?)?;
        }
        Ok(())
    }

    /// The sums, one [Γ, b·o, d] tensor per layer in working precision, columns as in the flattened weight: gradients for [`super::Queries::new`].
    pub fn finish(self) -> Result<Vec<Tensor>> {
        let _guard = tch::no_grad_guard();
        let mut gradients = Vec::with_capacity(self.sums.len());
        for (geometry, sum) in self.geometries.iter().zip(&self.sums) {
            let order = Tensor::f_from_slice(&geometry.weight_columns())?.f_to_device(self.workspace.device)?;
            let gradient = sum.f_to_kind(self.workspace.kind)?.f_index_select(2, &order)?;
            if !gradient.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
                return Err(Error::configuration(
                    format!("layer {}: gradients that are not finite", geometry.name),
                    "check the checkpoint and the pixels",
                ));
            }
            gradients.push(gradient);
        }
        Ok(gradients)
    }
}
