//! Gradients of weights in evaluation mode: batch norm by its running statistics, so that no example's gradient depends on another's.
//!
//! A pass goes over *units* of examples: each unit gives the gradient of its mean objective with regard to some weights. Units of one example give each example's
//! own gradient; larger ones what a training step would see. A unit that does not fit into the memory budget is computed in pieces, which changes nothing but rounding.

use super::stream::{GradientOf, Stream};
use crate::error::{Error, Result};
use crate::fold::{Batch, Fold, FoldState, Totals, number, restored, restored_number};
use crate::model::Model;
use crate::progress::Report;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// Weights whose gradients are taken, while it lives.
#[derive(Debug)]
pub struct Differentiated(Vec<(String, Tensor)>);

impl Differentiated {
    /// Those of the nodes in `nodes`, in the order of the model's state.
    pub fn new(model: &Model, nodes: &BTreeSet<String>) -> Self {
        let chosen = model.parameters_of(nodes);
        Self(chosen.into_iter().map(|(name, tensor)| (name, tensor.set_requires_grad(true))).collect())
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Gradients of an objective with regard to them, in the order of their names. `again`: these can be differentiated in turn, with regard to pixels, say.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn gradients(&self, objective: &Tensor, again: bool) -> Result<Vec<Tensor>> {
        let handles: Vec<&Tensor> = self.0.iter().map(|(_, tensor)| tensor).collect();
        let found = Tensor::f_run_backward(&[objective], &handles, again, again)?;
        // Weights that the objective does not depend on.
        let whole = |(gradient, weight): (Tensor, &Tensor)| if gradient.defined() { gradient } else { weight.zeros_like().detach() };
        Ok(found.into_iter().zip(handles).map(whole).collect())
    }
}

/// Gradient of an objective with regard to the pixels that it was computed from, which must require one (`set_requires_grad`); of their shape.
///
/// # Errors
/// When libtorch fails, or the objective does not depend on them: asked first, because libtorch ends the process where nothing was recorded.
pub fn pixel_gradient(objective: &Tensor, pictures: &Tensor) -> Result<Tensor> {
    let independent = || Error::internal("an objective that does not depend on the pixels has no gradient of them");
    if !objective.requires_grad() || !pictures.requires_grad() {
        return Err(independent());
    }
    let gradient = Tensor::f_run_backward(&[objective], &[pictures], false, false)?.pop();
    gradient.filter(Tensor::defined).ok_or_else(independent)
}

impl Drop for Differentiated {
    fn drop(&mut self) {
        for (_, tensor) in &self.0 {
            let _ = tensor.set_requires_grad(false);
        }
    }
}

impl Stream<'_> {
    /// Hand a fold the gradient of the mean objective of each `unit` examples, with regard to `weights`. The last unit may be smaller.
    ///
    /// # Errors
    /// The fold's, or libtorch's.
    pub fn run_gradients<F: Fold>(
        &self,
        step: &str,
        (examples, unit): (&[usize], usize),
        ask: GradientOf,
        weights: &Differentiated,
        fold: &mut F,
        report: &mut dyn Report,
    ) -> Result<()> {
        let objective = |members: &[usize], logits: &Tensor| ask.objective_of(self.data, members, logits);
        self.run_gradients_of(step, (examples, unit), objective, weights, fold, report)
    }

    /// As [`Self::run_gradients`], of an objective that is given: the sum over some examples, from their logits.
    ///
    /// # Errors
    /// As [`Self::run_gradients`], and the objective's.
    pub fn run_gradients_of<F: Fold>(
        &self,
        step: &str,
        (examples, unit): (&[usize], usize),
        objective: impl Fn(&[usize], &Tensor) -> Result<Tensor>,
        weights: &Differentiated,
        fold: &mut F,
        report: &mut dyn Report,
    ) -> Result<()> {
        let unit = unit.max(1);
        let pieces: Vec<&[usize]> = examples.chunks(unit).flat_map(|unit| unit.chunks(self.batch)).collect();
        let (mut done, mut looks) = (0, self.looks());
        self.source().each(&pieces, self.read_ahead, |next| {
            for members in examples.chunks(unit) {
                let mut sums: Option<Vec<Tensor>> = None;
                for piece in members.chunks(self.batch) {
                    let logits = self.model.forward_differentiable(&next()?)?;
                    let mean = objective(piece, &logits)?.f_mul_scalar(1.0 / members.len() as f64)?;
                    let more = weights.gradients(&mean, false)?;
                    sums = Some(match sums {
                        None => more,
                        Some(sums) => sums.iter().zip(&more).map(|(sum, more)| Ok(sum.f_add(more)?)).collect::<Result<_>>()?,
                    });
                    done += piece.len() as u64;
                    report.progress(step, done, examples.len() as u64, "");
                }
                let batch = Batch {
                    examples: members,
                    pairs: &[],
                    gradients: &sums.unwrap_or_default(),
                };
                let totals = tch::no_grad(|| fold.add(&batch))?;
                looks.add(format!("the examples before {done} ({step})"), totals)?;
            }
            looks.settle()
        })
    }
}

/// The mean of the squared gradients of the units of a pass, for each weight: the diagonal of the empirical Fisher matrix where a unit is one example. Or of their sizes.
#[derive(Debug)]
pub struct Squares {
    squared: bool,
    names: Vec<String>,
    /// In float64: many small squares.
    sums: Vec<Tensor>,
    units: f64,
}

impl Squares {
    /// Nothing yet, of these weights.
    pub fn new(weights: &Differentiated) -> Self {
        let zeros = |(_, tensor): &(String, Tensor)| tensor.detach().zeros_like().to_kind(Kind::Double);
        Self {
            squared: true,
            names: weights.names(),
            sums: weights.0.iter().map(zeros).collect(),
            units: 0.0,
        }
    }

    /// The same without squaring: means of absolute gradients.
    pub fn sizes(weights: &Differentiated) -> Self {
        Self {
            squared: false,
            ..Self::new(weights)
        }
    }
}

impl Fold for Squares {
    /// By the weight's name; float64, on the model's device.
    type Finished = BTreeMap<String, Tensor>;

    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        if batch.gradients.len() != self.sums.len() {
            return Err(Error::internal("gradients of other weights than the fold was made for"));
        }
        let mut totals = Totals::default();
        for ((sum, gradient), name) in self.sums.iter_mut().zip(batch.gradients).zip(&self.names) {
            let gradient = gradient.f_to_kind(Kind::Double)?;
            let size = if self.squared { gradient.f_square()? } else { gradient.f_abs()? };
            totals.note(format!("gradients of {name}"), &size)?;
            let _ = sum.f_add_(&size)?;
        }
        self.units += 1.0;
        Ok(totals)
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        if (self.squared, &self.names) != (later.squared, &later.names) {
            return Err(Error::internal("squares of other weights"));
        }
        for (sum, more) in self.sums.iter_mut().zip(&later.sums) {
            let _ = sum.f_add_(more)?;
        }
        self.units += later.units;
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        let sums = self.names.iter().cloned().zip(self.sums.iter().map(Tensor::shallow_clone));
        Ok(sums.chain([("units".to_string(), number(self.units))]).collect())
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        for (name, sum) in self.names.iter().zip(&mut self.sums) {
            *sum = restored(&mut state, name, sum)?;
        }
        self.units = restored_number(&mut state, "units")?;
        Ok(())
    }

    fn finish(self) -> Result<Self::Finished> {
        if self.units == 0.0 {
            return Err(Error::internal("no gradients were added"));
        }
        let means = self.names.into_iter().zip(self.sums);
        means.map(|(name, sum)| Ok((name, sum.f_div_scalar(self.units)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_without_pixels_is_an_error() {
        let ones = || Tensor::ones([2, 3], (Kind::Double, tch::Device::Cpu));
        let (pictures, weights) = (ones().set_requires_grad(true), ones().set_requires_grad(true));
        let of =
            |objective: &Tensor, pictures: &Tensor| pixel_gradient(objective, pictures).map(|found| f64::try_from(found.sum(Kind::Double)).unwrap());
        // d/dx of Σ x² at 1, over six numbers.
        assert_eq!(of(&pictures.square().sum(Kind::Double), &pictures).unwrap(), 12.0);
        for (objective, pictures) in [
            (ones().sum(Kind::Double), &pictures),
            (weights.square().sum(Kind::Double), &pictures),
            (weights.square().sum(Kind::Double), &ones()),
        ] {
            let said = of(&objective, pictures).unwrap_err().to_string();
            assert!(said.contains("does not depend on the pixels"), "{said}");
        }
    }
}
