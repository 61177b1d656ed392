//! Influence on a real model: the [`Evidence`] that detectors ask, computed by passes over the training set with EK-FAC factors.

pub mod fit;
pub mod objective;
pub mod pass;

use crate::ekfac::{self, Damping, Factors, GradientSumFold, Queries};
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Query, Scores};
use crate::model::layer::Pair;
use crate::progress::Report;
use delta_guard_contract::detect::{self, DetectSettings, Objective};
use pass::{Pass, PassLabels};
use std::collections::BTreeMap;
use std::time::Instant;
use tch::{Kind, Tensor};

/// [`Evidence`] from a model, a training set and factors.
pub struct ModelEvidence<'a> {
    pass: Pass<'a>,
    factors: &'a Factors,
    damping: Damping,
    objective: Objective,
    report: &'a mut dyn Report,
    cache: PairCache,
    /// Seconds per step so far.
    pub seconds: BTreeMap<String, f64>,
}

/// Pairs of batches that later passes will ask for again, as far as the budget reaches: kin goes over the examples of one class several times.
#[derive(Default)]
struct PairCache {
    batches: Vec<(Vec<usize>, Vec<Pair>)>,
    bytes: u64,
    budget: u64,
}

impl PairCache {
    fn get(&self, batch: &[usize]) -> Option<&[Pair]> {
        self.batches.iter().find(|(examples, _)| examples == batch).map(|(_, pairs)| pairs.as_slice())
    }

    /// Keep a batch if it still fits.
    fn offer(&mut self, batch: &[usize], pairs: Vec<Pair>) {
        let size = |t: &Tensor| t.numel() as u64 * t.kind().elt_size_in_bytes() as u64;
        let bytes: u64 = pairs.iter().map(|p| size(&p.input) + size(&p.output_grad)).sum();
        if self.bytes + bytes <= self.budget {
            self.bytes += bytes;
            self.batches.push((batch.to_vec(), pairs));
        }
    }
}

impl<'a> ModelEvidence<'a> {
    /// `cache_budget`: bytes that may hold layer inputs and gradients between passes.
    pub fn new(pass: Pass<'a>, factors: &'a Factors, settings: &DetectSettings, cache_budget: u64, report: &'a mut dyn Report) -> Self {
        let cache = PairCache { budget: cache_budget, ..PairCache::default() };
        let damping = match settings.damping {
            detect::Damping::Heuristic { factor } => Damping::Heuristic(factor),
            detect::Damping::Absolute { value } => Damping::Absolute(value),
        };
        Self { pass, factors, damping, objective: settings.objective, report, cache, seconds: BTreeMap::new() }
    }

    /// Preconditioned query gradients, one row per query.
    fn queries(&mut self, queries: &[Query]) -> Result<Queries> {
        let model = self.pass.model;
        let mut layers: Vec<Vec<Tensor>> = Vec::new();
        for chunk in queries.chunks(self.pass.batch) {
            let images: Vec<&Tensor> = chunk.iter().map(|q| &q.image).collect();
            let images = Tensor::f_stack(&images, 0)?.f_to_kind(model.kind())?.f_to_device(model.device())?;
            let labels: Vec<i64> = chunk.iter().map(|q| q.label).collect();
            let labels = Tensor::f_from_slice(&labels)?.f_to_device(model.device())?;
            let tapped = model.forward_tapped(&images)?;
            let objective = objective::of_query(self.objective, &tapped.logits, &labels)?;
            let pairs = tapped.pairs(&objective, &self.pass.layers)?;
            let gradients = ekfac::gradient(&self.pass.tracked(), &pairs, &self.pass.workspace())?;
            layers.resize_with(gradients.len(), Vec::new);
            for (layer, gradient) in layers.iter_mut().zip(gradients) {
                layer.push(gradient);
            }
        }
        // Differences are taken before preconditioning: the inverse is linear, and small differences keep their digits.
        let own: Vec<i64> = (0..queries.len() as i64).collect();
        let minus: Vec<i64> = queries.iter().zip(&own).map(|(q, &i)| q.minus.map_or(i, |m| m as i64)).collect();
        let keep: Vec<f64> = queries.iter().map(|q| if q.minus.is_some() { 1.0 } else { 0.0 }).collect();
        if minus.iter().any(|&m| m >= queries.len() as i64) {
            return Err(Error::internal("a query names a baseline that is not in its list"));
        }
        let minus = Tensor::f_from_slice(&minus)?.f_to_device(model.device())?;
        let keep = Tensor::f_from_slice(&keep)?.f_to_kind(model.kind())?.f_to_device(model.device())?.f_view([-1, 1, 1])?;
        let gradients = layers
            .into_iter()
            .map(|parts| {
                let all = Tensor::f_cat(&parts, 0)?;
                drop(parts);
                let baseline = all.f_index_select(0, &minus)?.f_mul(&keep)?;
                Ok(all.f_sub(&baseline)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Queries::new(self.factors, self.damping, &gradients, self.pass.workspace())
    }

    /// A fold over training pairs of `examples`, from the cache where it has them. `keep` offers what is computed to the cache.
    fn over(&mut self, step: &str, examples: &[usize], keep: bool, mut fold: impl FnMut(&[usize], &[Pair]) -> Result<()>) -> Result<()> {
        let mut done = 0;
        for batch in examples.chunks(self.pass.batch) {
            if let Some(pairs) = self.cache.get(batch) {
                tch::no_grad(|| fold(batch, pairs))?;
            } else {
                let pairs = self.pass.pairs(batch, PassLabels::Training)?;
                tch::no_grad(|| fold(batch, &pairs))?;
                if keep {
                    self.cache.offer(batch, pairs);
                }
            }
            done += batch.len() as u64;
            self.report.progress(step, done, examples.len() as u64, "");
        }
        Ok(())
    }

    fn lap(&mut self, step: &str, start: Instant) {
        *self.seconds.entry(step.to_string()).or_default() += start.elapsed().as_secs_f64();
    }
}

impl Evidence for ModelEvidence<'_> {
    fn scores(&mut self, step: &str, queries: &[Query], examples: &[usize], self_influence: bool) -> Result<Scores> {
        let start = Instant::now();
        let prepared = self.queries(queries)?;
        self.lap("query", start);
        let start = Instant::now();
        let mut rows = vec![Vec::with_capacity(examples.len()); queries.len()];
        let mut own = Vec::new();
        let keep = examples.len() < self.pass.data.len();
        self.over(step, examples, keep, |_, pairs| {
            let scores = if self_influence {
                let (scores, norms) = ekfac::scores_and_self_influence(&prepared, pairs)?;
                own.extend(Vec::<f64>::try_from(&norms.f_to_kind(Kind::Double)?)?);
                scores
            } else {
                ekfac::scores(&prepared, pairs)?
            };
            append(&mut rows, &scores)
        })?;
        self.lap(step, start);
        Ok(Scores { rows, self_influence: own })
    }

    fn kin(&mut self, step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Vec<Vec<f64>>> {
        let start = Instant::now();
        let model = self.pass.model;
        let mut weights: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (group, members) in groups.iter().enumerate() {
            for &(example, weight) in members {
                weights.entry(example).or_insert_with(|| vec![0.0; groups.len()])[group] += weight;
            }
        }
        // Members are nearly always among the examples: go over the examples' own batches, so that the cache serves both passes.
        let inside: Vec<usize> = if weights.keys().all(|m| examples.binary_search(m).is_ok()) {
            examples.chunks(self.pass.batch).filter(|b| b.iter().any(|e| weights.contains_key(e))).flatten().copied().collect()
        } else {
            weights.keys().copied().collect()
        };
        let mut sums = GradientSumFold::new(&self.pass.tracked(), groups.len(), self.pass.workspace())?;
        self.over(step, &inside, true, |batch, pairs| {
            let zero = vec![0.0; groups.len()];
            let matrix: Vec<f64> = batch.iter().flat_map(|e| weights.get(e).unwrap_or(&zero)).copied().collect(); // B × Γ
            let matrix = Tensor::f_from_slice(&matrix)?.f_view([batch.len() as i64, groups.len() as i64])?;
            let matrix = matrix.f_tr()?.f_to_kind(model.kind())?.f_to_device(model.device())?;
            sums.add(&matrix, pairs)
        })?;
        let prepared = Queries::new(self.factors, self.damping, &sums.finish()?, self.pass.workspace())?;
        let mut rows = vec![Vec::with_capacity(examples.len()); groups.len()];
        self.over(step, examples, true, |_, pairs| append(&mut rows, &ekfac::scores(&prepared, pairs)?))?;
        self.lap(step, start);
        Ok(rows)
    }
}

/// Append the columns of a Q × B tensor to Q rows.
fn append(rows: &mut [Vec<f64>], scores: &Tensor) -> Result<()> {
    let scores = scores.f_to_kind(Kind::Double)?.f_contiguous()?;
    let columns = scores.size().get(1).copied().unwrap_or(0) as usize;
    let values = Vec::<f64>::try_from(&scores.f_view([-1])?)?;
    if columns > 0 {
        for (row, values) in rows.iter_mut().zip(values.chunks(columns)) {
            row.extend_from_slice(values);
        }
    }
    Ok(())
}
