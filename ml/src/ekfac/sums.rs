//! Weighted sums of training gradients, Σ_i w_γi W_i: aggregated queries, such as the seeds of a group.

use delta_guard_contract::Code;
use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::geometry::{Geometry, batch_size};
use super::outer::each_block;
use super::score::flat;
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::fold::{Batch, Fold, FoldState, Totals, restored};
use crate::model::layer::{Layer, Pair};

/// Running sums for Γ groups of weights.
#[derive(Debug)]
pub struct GradientSumFold {
    /// Weights by position, Γ of each; examples that are not named weigh nothing.
    weights: BTreeMap<usize, Vec<f64>>,
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

/// At most this many examples are summed in working precision.
const PENDING: i64 = 1024;

impl GradientSumFold {
    /// An empty fold for these groups: (example, weight) of each member, by position.
    pub fn of_groups(layers: &[Layer], groups: &[Vec<(usize, f64)>], workspace: Workspace) -> Result<Self> {
        let mut fold = Self::new(layers, groups.len(), workspace)?;
        for (group, members) in groups.iter().enumerate() {
            for &(example, weight) in members {
                fold.weights.entry(example).or_insert_with(|| vec![0.0; groups.len()])[group] += weight;
            }
        }
        Ok(fold)
    }

    /// Whose gradients are wanted, ascending: the members of the groups.
    pub fn members(&self) -> Vec<usize> {
        self.weights.keys().copied().collect()
    }

    /// An empty fold for `groups` groups, whose weights come with the batches ([`Self::add_weighted`]).
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
            weights: BTreeMap::new(),
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
    pub fn add_weighted(&mut self, weights: &Tensor, pairs: &[Pair]) -> Result<()> {
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
}

impl Fold for GradientSumFold {
    type Finished = Vec<Tensor>;

    /// Sums are looked at when they are finished: there are few of them, and they show all that went in.
    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        let none = vec![0.0; self.groups as usize];
        let matrix: Vec<f64> = batch
            .examples
            .iter()
            .flat_map(|e| self.weights.get(e).unwrap_or(&none))
            .copied()
            .collect(); // B × Γ
        let matrix = Tensor::f_from_slice(&matrix)?
            .f_view([batch.examples.len() as i64, self.groups])?
            .f_tr()?;
        self.add_weighted(&matrix, batch.pairs)?;
        Ok(Totals::default())
    }

    fn merge(&mut self, mut later: Self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        later.settle()?;
        if self.layers != later.layers || self.groups != later.groups {
            return Err(Error::internal("gradient sums of different layers or groups cannot be merged"));
        }
        for (mine, theirs) in self.sums.iter_mut().zip(&later.sums) {
            let _ = mine.f_add_(&theirs.f_to_device(self.workspace.device)?)?;
        }
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        let _guard = tch::no_grad_guard();
        self.settle()?;
        Ok(self
            .layers
            .iter()
            .zip(&self.sums)
            .map(|(layer, sum)| (layer.name.clone(), sum.shallow_clone()))
            .collect())
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        for (layer, sum) in self.layers.iter().zip(&mut self.sums) {
            *sum = restored(&mut state, &layer.name, sum)?;
        }
        Ok(())
    }

    /// The sums, one [Γ, b·o, d] tensor per layer in working precision, columns as in the flattened weight: gradients for [`super::Queries::new`].
    fn finish(mut self) -> Result<Vec<Tensor>> {
        let _guard = tch::no_grad_guard();
        self.settle()?;
        let mut gradients = Vec::with_capacity(self.sums.len());
        for (geometry, sum) in self.geometries.iter().zip(&self.sums) {
            let order = Tensor::f_from_slice(&geometry.weight_columns())?.f_to_device(self.workspace.device)?;
            let gradient = sum.f_to_kind(self.workspace.kind)?.f_index_select(2, &order)?;
            if !gradient.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
                return Err(Error::new(
                    Code::NotFinite,
                    format!("layer {}: gradients that are not finite", geometry.name),
                    "check the checkpoint and the pixels",
                ));
            }
            gradients.push(gradient);
        }
        Ok(gradients)
    }
}
