//! Weighted sums of training gradients, Σ_i w_γi W_i: aggregated queries, such as the seeds of a group.

use tch::{Kind, Tensor};

use super::geometry::{Geometry, batch_size};
use super::outer::each_block;
use super::score::flat;
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
    /// What is not in `sums` yet: one [Γ, b·o·columns] tensor per layer and column range, working precision. With many groups the sums are larger than
    /// the gradients that go in: in float64 for every batch, they would cost more than all the rest.
    pending: Vec<Vec<Tensor>>,
    pending_examples: i64,
}

/// So many examples at most are summed in working precision.
const PENDING: i64 = 1024;

impl GradientSumFold {
    /// An empty fold for `groups` groups.
    pub fn new(layers: &[Layer], groups: usize, workspace: Workspace) -> Result<Self> {
        let geometries = Geometry::list(layers)?;
        let groups = groups as i64;
        let sums = geometries
            .iter()
            .map(|g| workspace.accumulator(&[groups, g.outputs(), g.inputs()]))
            .collect::<Result<_>>()?;
        let ranges = |g: &Geometry| -> Result<Vec<Tensor>> {
            let columns = g.ranges().into_iter().map(|(_, width)| g.outputs() * width);
            columns.map(|columns| workspace.zeros(&[groups, columns])).collect()
        };
        let pending = geometries.iter().map(ranges).collect::<Result<_>>()?;
        Ok(Self {
            layers: layers.to_vec(),
            geometries,
            workspace,
            groups,
            sums,
            pending,
            pending_examples: 0,
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
        if self.pending_examples + batch > PENDING {
            self.settle()?;
        }
        self.pending_examples += batch;
        let workspace = &self.workspace;
        let weights = workspace.take(weights)?;
        for ((geometry, pending), pair) in self.geometries.iter().zip(&self.pending).zip(pairs) {
            each_block(geometry, pair, None, workspace, |block| {
                let weights = weights.f_narrow(1, block.examples.0, block.examples.1)?;
                for (columns, sum) in block.columns.iter().zip(pending) {
                    let _ = block.of_rows(sum, columns)?.f_addmm_(&weights, &flat(&columns.outer)?)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// What is pending goes into the sums.
    fn settle(&mut self) -> Result<()> {
        for ((geometry, sum), pending) in self.geometries.iter().zip(&self.sums).zip(&mut self.pending) {
            for ((start, width), pending) in geometry.ranges().into_iter().zip(pending) {
                let shaped = pending.f_reshape([self.groups, geometry.outputs(), width])?;
                let _ = sum.f_narrow(2, start, width)?.f_add_(&shaped)?;
                let _ = pending.f_zero_()?;
            }
        }
        self.pending_examples = 0;
        Ok(())
    }

    /// Adds another range's fold.
    pub fn merge(&mut self, mut other: Self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        other.settle()?;
        if self.layers != other.layers || self.groups != other.groups {
            return Err(Error::internal("gradient sums of different layers or groups cannot be merged"));
        }
        for (mine, theirs) in self.sums.iter_mut().zip(&other.sums) {
            let _ = mine.f_add_(&theirs.f_to_device(self.workspace.device)?)?;
        }
        Ok(())
    }

    /// The sums, one [Γ, b·o, d] tensor per layer in working precision, columns as in the flattened weight: gradients for [`super::Queries::new`].
    pub fn finish(mut self) -> Result<Vec<Tensor>> {
        let _guard = tch::no_grad_guard();
        self.settle()?;
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
