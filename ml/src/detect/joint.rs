//! Kinship seen twice: in what examples teach (their gradients) and in what the network makes of them (their features).
//!
//! A trigger that works in part is a faint direction among gradients and a clear one among features; a poison under its true label is the opposite. So both count: κ is the sum of (1 − w) κ_gradients
//! and w κ_features, each a mean cosine to the seeds. Features are seen in units of their spread over clean pictures ([`super::whitening`]), as gradients are in those of the Hessian.

use super::whitening::{Units, Whitening};
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Kin, Question, Scores};
use tch::Tensor;

/// What the network makes of a class.
#[derive(Debug)]
pub struct ClassView {
    weight: f64,
    /// Unit rows of the examples of C that have a gradient, in their order.
    examples: Tensor,
    /// The null pictures.
    null: Units,
    /// Clean pictures that S was drawn from.
    pictures: f64,
}

impl ClassView {
    /// `weight`: share of the kinship, above 0 and at most 1. `null` are among the clean pictures that the whitening was drawn from.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(weight: f64, whitening: &Whitening, examples: &Tensor, null: &Tensor) -> Result<Self> {
        Ok(Self {
            weight,
            examples: whitening.units(examples)?.rows,
            null: whitening.units(null)?,
            pictures: whitening.pictures,
        })
    }

    /// The same over some of the examples (by place).
    ///
    /// # Errors
    /// libtorch's.
    pub fn restrict(self, places: &[usize]) -> Result<Self> {
        let places: Vec<i64> = places.iter().map(|&i| i as i64).collect();
        Ok(Self {
            examples: self.examples.f_index_select(0, &Tensor::f_from_slice(&places)?)?,
            ..self
        })
    }

    /// Σ_s weight_s · cosine(s, i) of each example i. `seeds`: places and weights.
    fn of_examples(&self, seeds: &[(usize, f64)]) -> Result<Vec<f64>> {
        let (rows, weights) = self.seeds(seeds)?;
        let sum = rows.f_tr()?.f_matmul(&weights)?;
        Ok(Vec::try_from(&self.examples.f_matmul(&sum)?.f_view([-1])?)?)
    }

    /// The same of each null picture v, as if it had had no part in S: a picture that helped to set the measure looks too ordinary in it. Without v the inverse is that of a
    /// change of rank one, and a cosine c to v becomes c / √(1 − h (1 − c²) / n), with its leverage h among the n clean pictures (Sherman and Morrison 1950).
    fn of_null(&self, seeds: &[(usize, f64)]) -> Result<Vec<f64>> {
        let (rows, weights) = self.seeds(seeds)?;
        let cosines = self.null.rows.f_matmul(&rows.f_tr()?)?;
        let rest = cosines.f_square()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(0.0)?;
        let lost = rest.f_mul(&self.null.leverage)?.f_div_scalar(self.pictures)?;
        let left_out = cosines.f_div(&lost.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(f64::EPSILON)?.f_sqrt()?)?;
        Ok(Vec::try_from(&left_out.f_clamp(-1.0, 1.0)?.f_matmul(&weights)?.f_view([-1])?)?)
    }

    /// Rows of the seeds, and their weights as a column.
    fn seeds(&self, seeds: &[(usize, f64)]) -> Result<(Tensor, Tensor)> {
        let (places, weights): (Vec<i64>, Vec<f64>) = seeds.iter().map(|&(place, weight)| (place as i64, weight)).unzip();
        let rows = self.examples.f_index_select(0, &Tensor::f_from_slice(&places)?)?;
        Ok((rows, Tensor::f_from_slice(&weights)?.f_unsqueeze(1)?))
    }
}

/// A source of influence whose kinship is seen twice.
pub struct Joint<'a> {
    /// The source.
    pub evidence: &'a mut dyn Evidence,
    /// Features; None: gradients alone.
    pub view: Option<ClassView>,
    /// The examples that kin is asked about, ascending, and their √(g_iᵀ P g_i).
    pub positions: &'a [usize],
    /// See above.
    pub root: &'a [f64],
}

impl Evidence for Joint<'_> {
    fn scores(&mut self, step: &str, questions: &[Question], examples: &[usize], self_influence: bool) -> Result<Scores> {
        self.evidence.scores(step, questions, examples, self_influence)
    }

    /// Sums of the source, in which features have their share: those over a group are Σ_s weight_s · root_s · cosine(s, i), and each row is multiplied by root_i as the source's
    /// own are, so that an example with itself still has 1.
    fn kin(&mut self, step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin> {
        let mut kin = self.evidence.kin(step, groups, examples)?;
        let Some(view) = &self.view else { return Ok(kin) };
        if examples != self.positions || kin.null.len() != groups.len() {
            return Err(Error::internal("kin was asked about other examples than features are known of"));
        }
        let share = |own: &mut f64, other: f64| *own = (1.0 - view.weight) * *own + view.weight * other;
        for ((group, row), null) in groups.iter().zip(&mut kin.rows).zip(&mut kin.null) {
            let place = |position: &usize| self.positions.binary_search(position).ok();
            let seeds = group
                .iter()
                .map(|(position, weight)| place(position).map(|at| (at, weight * self.root[at])));
            let seeds: Option<Vec<(usize, f64)>> = seeds.collect();
            let seeds = seeds.ok_or_else(|| Error::internal("a seed that is no example of the class"))?;
            let cosines = view.of_examples(&seeds)?.into_iter().zip(self.root);
            row.iter_mut().zip(cosines).for_each(|(row, (cosine, root))| share(row, cosine * root));
            null.iter_mut().zip(view.of_null(&seeds)?).for_each(|(null, cosine)| share(null, cosine));
        }
        Ok(kin)
    }
}

#[cfg(test)]
mod tests;
