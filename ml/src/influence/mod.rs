//! Influence on a real model: the [`Evidence`] that detectors ask, computed by passes over the training set with EK-FAC factors.

pub mod fit;
pub mod objective;
pub mod pass;

use crate::ekfac::{self, Damping, Factors, GradientSumFold, Queries};
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Kin, Query, Scores};
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
    /// Of queries.
    objective: Objective,
    /// Of training examples and null pictures.
    examples: Objective,
    report: &'a mut dyn Report,
    cache: PairCache,
    null: Option<Null<'a>>,
    /// Seconds per step so far.
    pub seconds: BTreeMap<String, f64>,
}

/// Null pictures (see [`Kin::null`]).
struct Null<'a> {
    /// The model over the validation set.
    pass: Pass<'a>,
    pictures: Vec<usize>,
    cache: PairCache,
    /// √(g_vᵀ P g_v), from the first pass on.
    roots: Vec<f64>,
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
        self.batches
            .iter()
            .find(|(examples, _)| examples == batch)
            .map(|(_, pairs)| pairs.as_slice())
    }

    /// Keep a batch if it still fits.
    fn offer(&mut self, batch: &[usize], pairs: Vec<Pair>) {
        // Layers that read the same activation share its memory.
        let size = |t: &Tensor| (t.data_ptr() as usize, t.numel() as u64 * t.kind().elt_size_in_bytes() as u64);
        let blocks: BTreeMap<usize, u64> = pairs.iter().flat_map(|p| [size(&p.input), size(&p.output_grad)]).collect();
        let bytes: u64 = blocks.values().sum();
        if self.bytes + bytes <= self.budget {
            self.bytes += bytes;
            self.batches.push((batch.to_vec(), pairs));
        }
    }
}

impl<'a> ModelEvidence<'a> {
    /// `cache_budget`: bytes that may hold layer inputs and gradients between passes.
    pub fn new(pass: Pass<'a>, factors: &'a Factors, settings: &DetectSettings, cache_budget: u64, report: &'a mut dyn Report) -> Self {
        let cache = PairCache {
            budget: cache_budget,
            ..PairCache::default()
        };
        let damping = match settings.damping {
            detect::Damping::Heuristic { factor } => Damping::Heuristic(factor),
            detect::Damping::Absolute { value } => Damping::Absolute(value),
        };
        Self {
            pass,
            factors,
            damping,
            objective: settings.objective,
            examples: objective::of_examples(settings),
            report,
            cache,
            null: None,
            seconds: BTreeMap::new(),
        }
    }

    /// Take `pictures` (ascending positions in the pass's data, labelled as the wrong label) as null pictures. They get a quarter of the cache.
    pub fn with_null(mut self, pass: Pass<'a>, pictures: Vec<usize>) -> Self {
        let budget = self.cache.budget / 4;
        self.cache.budget -= budget;
        self.null = (!pictures.is_empty()).then(|| Null {
            pass,
            pictures,
            cache: PairCache {
                budget,
                ..PairCache::default()
            },
            roots: Vec::new(),
        });
        self
    }

    /// Preconditioned query gradients, one row per query, differences taken where a query asks for one.
    fn queries(&mut self, queries: &[Query]) -> Result<Queries> {
        let mut all: Option<Queries> = None;
        let mut start = 0;
        while start < queries.len() {
            // A baseline and the queries after it that are differences to it; or a single query that stands for itself.
            let differences = queries[start + 1..].iter().take_while(|q| q.minus == Some(start)).count();
            if queries[start].minus.is_some() {
                return Err(Error::internal("a query that is a difference must follow its baseline"));
            }
            let (end, baseline) = if differences > 0 {
                (start + 1 + differences, Some(0))
            } else {
                (start + queries[start..].iter().take_while(|q| q.minus.is_none()).count(), None)
            };
            // Where singles are followed by a family, the family's baseline is the last single: leave it to the family.
            let end = if baseline.is_none() && queries.get(end).is_some_and(|q| q.minus.is_some()) {
                end - 1
            } else {
                end
            };
            let mut family: Option<Queries> = None;
            for chunk in queries[start..end].chunks(self.pass.batch) {
                let part = self.gradients(chunk)?;
                family = Some(match family {
                    Some(before) => before.append(part)?,
                    None => part,
                });
            }
            let family = match (family, baseline) {
                (Some(family), Some(baseline)) => family.difference(baseline)?,
                (Some(family), None) => family,
                (None, _) => return Err(Error::internal("a family of no queries")),
            };
            all = Some(match all {
                Some(before) => before.append(family)?,
                None => family,
            });
            start = end;
        }
        all.ok_or_else(|| Error::internal("scores of no queries were asked for"))
    }

    /// Preconditioned gradients of queries as they stand.
    fn gradients(&self, queries: &[Query]) -> Result<Queries> {
        let model = self.pass.model;
        let images: Vec<&Tensor> = queries.iter().map(|q| &q.image).collect();
        let images = Tensor::f_stack(&images, 0)?.f_to_kind(model.kind())?.f_to_device(model.device())?;
        let labels: Vec<i64> = queries.iter().map(|q| q.label).collect();
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(model.device())?;
        let tapped = model.forward_tapped(&images)?;
        let objective = objective::of(self.objective, &tapped.logits, &labels)?;
        let pairs = tapped.pairs(&objective, &self.pass.layers)?;
        Queries::from_pairs(self.factors, self.damping, &pairs, self.pass.workspace())
    }

    /// A fold over training pairs of `examples`, from the cache where it has them. `keep` offers what is computed to the cache.
    fn over(&mut self, step: &str, examples: &[usize], keep: bool, fold: impl FnMut(&[usize], &[Pair]) -> Result<()>) -> Result<()> {
        over((&self.pass, self.examples), &mut self.cache, self.report, step, examples, keep, fold)
    }

    /// A fold over the training pairs of the keys of `members`, few of `examples`. What the cache holds of the examples' batches is taken from there; of
    /// other batches only the members are computed.
    fn over_members<V>(
        &mut self,
        step: &str,
        examples: &[usize],
        members: &BTreeMap<usize, V>,
        mut fold: impl FnMut(&[usize], &[Pair]) -> Result<()>,
    ) -> Result<()> {
        let mut alone: Vec<usize> = members.keys().filter(|m| examples.binary_search(m).is_err()).copied().collect();
        let mut done = 0;
        for batch in examples.chunks(self.pass.batch) {
            let places: Vec<i64> = (0..)
                .zip(batch)
                .filter(|(_, e)| members.contains_key(e))
                .map(|(place, _)| place)
                .collect();
            let chosen: Vec<usize> = places.iter().map(|&place| batch[place as usize]).collect();
            match self.cache.get(batch) {
                Some(_) if places.is_empty() => {}
                Some(pairs) => {
                    let pairs = pairs.iter().map(|p| p.select(&places)).collect::<Result<Vec<_>>>()?;
                    tch::no_grad(|| fold(&chosen, &pairs))?;
                    done += chosen.len() as u64;
                    self.report.progress(step, done, members.len() as u64, "");
                }
                None => alone.extend(chosen),
            }
        }
        over(
            (&self.pass, self.examples),
            &mut PairCache::default(),
            self.report,
            step,
            &alone,
            false,
            fold,
        )
    }

    /// Rows of the null pictures for prepared group sums, each divided by √(g_vᵀ P g_v).
    fn null_rows(&mut self, prepared: &Queries) -> Result<Vec<Vec<f64>>> {
        let Some(null) = &mut self.null else {
            return Ok(Vec::new());
        };
        if null.roots.is_empty() {
            let (mut own, workspace) = (Vec::new(), null.pass.workspace());
            over(
                (&null.pass, self.examples),
                &mut null.cache,
                self.report,
                "null",
                &null.pictures,
                true,
                |_, pairs| {
                    let norms = ekfac::self_influence(self.factors, self.damping, pairs, &workspace)?;
                    own.extend(Vec::<f64>::try_from(&norms.f_to_kind(Kind::Double)?)?);
                    Ok(())
                },
            )?;
            null.roots = own.into_iter().map(|v| v.max(0.0).sqrt()).collect();
        }
        let mut rows = vec![Vec::with_capacity(null.pictures.len()); prepared.len()];
        over(
            (&null.pass, self.examples),
            &mut null.cache,
            self.report,
            "null",
            &null.pictures,
            true,
            |_, pairs| append(&mut rows, &ekfac::scores(prepared, pairs)?),
        )?;
        // A picture without gradient resembles nothing.
        let scaled = |row: Vec<f64>| {
            row.into_iter()
                .zip(&null.roots)
                .map(|(v, &root)| if root > 0.0 { v / root } else { 0.0 })
                .collect()
        };
        Ok(rows.into_iter().map(scaled).collect())
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

    fn kin(&mut self, step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin> {
        let start = Instant::now();
        let model = self.pass.model;
        let mut weights: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        for (group, members) in groups.iter().enumerate() {
            for &(example, weight) in members {
                weights.entry(example).or_insert_with(|| vec![0.0; groups.len()])[group] += weight;
            }
        }
        let mut sums = GradientSumFold::new(&self.pass.tracked(), groups.len(), self.pass.workspace())?;
        self.over_members(step, examples, &weights, |members, pairs| {
            let matrix: Vec<f64> = members.iter().filter_map(|m| weights.get(m)).flatten().copied().collect(); // B × Γ
            let matrix = Tensor::f_from_slice(&matrix)?.f_view([members.len() as i64, groups.len() as i64])?;
            let matrix = matrix.f_tr()?.f_to_kind(model.kind())?.f_to_device(model.device())?;
            sums.add(&matrix, pairs)
        })?;
        let prepared = Queries::new(self.factors, self.damping, &sums.finish()?, self.pass.workspace())?;
        let mut rows = vec![Vec::with_capacity(examples.len()); groups.len()];
        self.over(step, examples, true, |_, pairs| append(&mut rows, &ekfac::scores(&prepared, pairs)?))?;
        self.lap(step, start);
        let start = Instant::now();
        let null = self.null_rows(&prepared)?;
        self.lap("null", start);
        Ok(Kin { rows, null })
    }
}

/// A fold over pairs of `examples` under their own labels, from `cache` where it has them. `keep` offers what is computed to it.
fn over(
    (pass, objective): (&Pass<'_>, Objective),
    cache: &mut PairCache,
    report: &mut dyn Report,
    step: &str,
    examples: &[usize],
    keep: bool,
    mut fold: impl FnMut(&[usize], &[Pair]) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    for batch in examples.chunks(pass.batch) {
        if let Some(pairs) = cache.get(batch) {
            tch::no_grad(|| fold(batch, pairs))?;
        } else {
            let pairs = pass.pairs(batch, PassLabels::Training, objective)?;
            tch::no_grad(|| fold(batch, &pairs))?;
            if keep {
                cache.offer(batch, pairs);
            }
        }
        done += batch.len() as u64;
        report.progress(step, done, examples.len() as u64, "");
    }
    Ok(())
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
