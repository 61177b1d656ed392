//! Second pass: Λ = (1/N) Σ_i (Q_Gᵀ W_i Q_A)², elementwise.

use tch::{Kind, Tensor};

use super::eigenbasis::Eigenbasis;
use super::factors::Factors;
use super::geometry::{Geometry, batch_size};
use super::outer::each_block;
use super::rotation::{Rotation, RotationPlan, complete};
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};
use crate::fold::{Batch, Fold, FoldState, Totals, number, restored, restored_number};
use crate::model::layer::{Layer, Pair};

/// Running sum of squared rotated gradients.
#[derive(Debug)]
pub struct LambdaFold {
    layers: Vec<Layer>,
    geometries: Vec<Geometry>,
    rotations: Vec<Rotation>,
    workspace: Workspace,
    /// [b, o, d], float64, one per layer.
    sums: Vec<Tensor>,
    examples: u64,
}

impl LambdaFold {
    /// An empty fold in the given basis.
    pub fn new(basis: &Eigenbasis, workspace: Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let geometries = Geometry::list(&basis.layers)?;
        let mut rotations = Vec::with_capacity(geometries.len());
        let mut sums = Vec::with_capacity(geometries.len());
        for (geometry, block) in geometries.iter().zip(&basis.blocks) {
            rotations.push(Rotation::new(geometry, &block.q_a, &block.q_g, &workspace)?);
            sums.push(workspace.accumulator(&[geometry.conv.groups, geometry.out, geometry.inputs()])?);
        }
        Ok(Self {
            layers: basis.layers.clone(),
            geometries,
            rotations,
            workspace,
            sums,
            examples: 0,
        })
    }
}

impl Fold for LambdaFold {
    type Finished = Factors;

    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        let _guard = tch::no_grad_guard();
        let count = batch_size(&self.geometries, batch.pairs)?;
        let mut totals = Totals::default();
        for ((geometry, rotation), (sum, pair)) in self.geometries.iter().zip(&self.rotations).zip(self.sums.iter_mut().zip(batch.pairs)) {
            let squares = squares(geometry, rotation, pair, &self.workspace)
                .context(|| format!("layer {}: Λ", geometry.name))?
                .f_to_kind(Kind::Double)?;
            let _ = sum.f_add_(&squares)?;
            totals.note(format!("layer {}: squared gradients", geometry.name), &squares)?;
        }
        self.examples += count as u64;
        Ok(totals)
    }

    /// Both must stand in the same basis (the same eigenbasis values, not merely the same covariances).
    fn merge(&mut self, later: Self) -> Result<()> {
        let same_basis = self.layers == later.layers
            && self
                .rotations
                .iter()
                .zip(&later.rotations)
                .try_fold(true, |same, (a, b)| -> Result<bool> {
                    Ok(same && a.q_a.f_equal(&b.q_a.f_to_device(a.q_a.device())?)? && a.q_g.f_equal(&b.q_g.f_to_device(a.q_g.device())?)?)
                })?;
        if !same_basis {
            return Err(Error::internal("Λ sums in different eigenbases cannot be merged"));
        }
        for (mine, theirs) in self.sums.iter_mut().zip(&later.sums) {
            let _ = mine.f_add_(&theirs.f_to_device(self.workspace.device)?)?;
        }
        self.examples += later.examples;
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        let named = self
            .layers
            .iter()
            .zip(&self.sums)
            .map(|(layer, sum)| (layer.name.clone(), sum.shallow_clone()));
        Ok(named.chain([("examples".to_string(), number(self.examples as f64))]).collect())
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        self.examples = restored_number(&mut state, "examples")? as u64;
        for (layer, sum) in self.layers.iter().zip(&mut self.sums) {
            *sum = restored(&mut state, &layer.name, sum)?;
        }
        Ok(())
    }

    /// Λ with its basis.
    fn finish(self) -> Result<Factors> {
        let _guard = tch::no_grad_guard();
        if self.examples == 0 {
            return Err(Error::internal("Λ of no examples"));
        }
        let lambdas = self
            .sums
            .iter()
            .map(|s| Ok(s.f_div_scalar(self.examples as f64)?.f_to_kind(self.workspace.kind)?))
            .collect::<Result<Vec<_>>>()?;
        Factors::new(self.layers, self.rotations, lambdas, self.examples)
    }
}

/// Σ_i (Q_Gᵀ W_i Q_A)² of a batch: [b, o, d].
fn squares(geometry: &Geometry, rotation: &Rotation, pair: &Pair, workspace: &Workspace) -> Result<Tensor> {
    let plan = RotationPlan::for_pair(geometry, pair);
    let total = workspace.zeros(&[geometry.conv.groups, geometry.out, geometry.inputs()])?;
    each_block(geometry, pair, Some((rotation, plan)), workspace, |block| {
        let mut rotated = complete(geometry, &block.columns, rotation, plan)?;
        let squares = rotated.f_square_()?.f_sum_dim_intlist([0i64].as_slice(), false, None)?;
        let _ = block.of_outputs(&total)?.f_add_(&squares)?;
        Ok(())
    })?;
    Ok(total)
}
