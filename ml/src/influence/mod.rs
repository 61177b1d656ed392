//! Influence on a real model: the [`Evidence`] that detectors ask, computed by passes over the training set with EK-FAC factors.

mod known;
mod portions;

pub use known::{plan_of_scores, shaped};

use crate::ekfac::{Damping, Factors, GradientSumFold, Queries, ScoreFold, SelfInfluenceFold};
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Kin, Query, Question, Scores};
use crate::fold::Fold;
use crate::passes::labels::PassLabels;
use crate::passes::objective;
use crate::passes::stream::{GradientOf, Keep, Stream};
use crate::progress::Report;
use delta_guard_contract::Digest;
use delta_guard_contract::detect::{self, Influence, Objective};
use portions::{Asked, OneOf, most_queries, portions};
use std::collections::BTreeMap;
use std::time::Instant;
use tch::Tensor;

/// [`Evidence`] from a model, a training set and factors.
pub struct ModelEvidence<'a> {
    stream: Stream<'a>,
    factors: &'a Factors,
    damping: Damping,
    /// Of queries.
    objective: Objective,
    /// Of training examples and null pictures.
    examples: GradientOf,
    report: &'a mut dyn Report,
    null: Option<Null<'a>>,
    known: Option<(Digest, Scores)>,
    /// Queries that are held at once.
    most_queries: usize,
    /// Seconds per step so far.
    pub seconds: BTreeMap<String, f64>,
}

/// Null pictures (see [`Kin::null`]).
struct Null<'a> {
    /// The model over the validation set.
    stream: Stream<'a>,
    pictures: Vec<usize>,
    /// √(g_vᵀ P g_v), from the first pass on.
    roots: Vec<f64>,
}

/// The damping under which P is the identity over [`Factors::identity`].
const NO_CURVATURE: Damping = Damping::Absolute(1.0);

/// The damping that the settings ask for.
pub fn damping(asked: &Influence) -> Damping {
    match asked.damping {
        detect::Damping::Heuristic { factor } => Damping::Heuristic(factor),
        detect::Damping::Absolute { value } => Damping::Absolute(value),
    }
}

/// What scores and kin ask of training examples and null pictures.
fn of_examples(asked: &Influence) -> GradientOf {
    GradientOf {
        labels: PassLabels::Training,
        objective: asked.of_examples,
    }
}

impl<'a> ModelEvidence<'a> {
    /// From a stream over the training set. All queries are held at once.
    pub fn new(stream: Stream<'a>, factors: &'a Factors, asked: &Influence, report: &'a mut dyn Report) -> Self {
        Self {
            stream,
            most_queries: usize::MAX,
            factors,
            damping: damping(asked),
            objective: asked.objective,
            examples: of_examples(asked),
            report,
            null: None,
            known: None,
            seconds: BTreeMap::new(),
        }
    }

    /// The same without curvature, over [`Factors::identity`]: P is the identity.
    pub fn without_curvature(mut self) -> Self {
        self.damping = NO_CURVATURE;
        self
    }

    /// Hold queries within `bytes` (`worker.query_budget`): what does not fit at once is asked in further passes.
    ///
    /// # Errors
    /// `Configuration` for a layer that is impossible.
    pub fn within(mut self, bytes: u64) -> Result<Self> {
        self.most_queries = most_queries(&self.stream.tracked(), self.stream.model.kind(), bytes)?;
        Ok(self)
    }

    /// Take `pictures` (ascending positions in the stream's data, labelled as the wrong label) as null pictures.
    pub fn with_null(mut self, stream: Stream<'a>, pictures: Vec<usize>) -> Self {
        self.null = (!pictures.is_empty()).then(|| Null {
            stream,
            pictures,
            roots: Vec::new(),
        });
        self
    }

    /// Scores that are known already: the answer to the questions of this plan (see [`plan_of_scores`]).
    pub fn with_known(mut self, plan: Digest, scores: Scores) -> Self {
        self.known = Some((plan, scores));
        self
    }

    /// The part of the training set in `examples`, scored: a row for each query of the questions, in order.
    ///
    /// # Errors
    /// As [`Evidence::scores`].
    pub fn part(&mut self, step: &str, questions: &[Question], examples: &[usize], self_influence: bool) -> Result<ScoreFold<'static>> {
        let portions = portions(questions, self.most_queries);
        let keep = if examples.len() < self.stream.data.len() {
            Keep::Pairs
        } else {
            Keep::Nothing
        };
        let mut rows = ScoreFold::of_rows(0, self_influence);
        for (before, portion) in portions.iter().enumerate() {
            let start = Instant::now();
            let prepared = self.prepare(&portion.asked)?;
            self.lap("query", start);
            let start = Instant::now();
            let mut fold = ScoreFold::new(&prepared, self_influence && before == 0);
            let mut report = OneOf {
                report: &mut *self.report,
                before,
                passes: portions.len(),
            };
            self.stream.run(step, examples, self.examples, keep, &mut fold, &mut report)?;
            rows = rows.beside(fold, &portion.wanted())?;
            self.lap(step, start);
        }
        Ok(rows)
    }

    /// Preconditioned gradients of what is asked, one row per query, differences within families.
    fn prepare(&self, asked: &[Asked<'_>]) -> Result<Queries> {
        let alone = |asked: &Asked<'_>| matches!(asked, Asked::Alone(_));
        let mut all: Option<Queries> = None;
        // Neighbours that stand alone share batches; a family has its own.
        for run in asked.chunk_by(|a, b| alone(a) && alone(b)) {
            let queries: Vec<&Query> = run.iter().flat_map(Asked::queries).collect();
            let mut prepared: Option<Queries> = None;
            for chunk in queries.chunks(self.stream.batch) {
                prepared = joined(prepared, self.gradients(chunk)?)?;
            }
            let prepared = prepared.ok_or_else(|| Error::internal("a family of no queries"))?;
            all = joined(all, if run.iter().all(alone) { prepared } else { prepared.difference(0)? })?;
        }
        all.ok_or_else(|| Error::internal("scores of no queries were asked for"))
    }

    /// Preconditioned gradients of queries as they stand.
    fn gradients(&self, queries: &[&Query]) -> Result<Queries> {
        let model = self.stream.model;
        let images: Vec<&Tensor> = queries.iter().map(|q| &q.image).collect();
        let images = Tensor::f_stack(&images, 0)?.f_to_kind(model.kind())?.f_to_device(model.device())?;
        let labels: Vec<i64> = queries.iter().map(|q| q.label).collect();
        let labels = Tensor::f_from_slice(&labels)?.f_to_device(model.device())?;
        let tapped = model.forward_tapped(&images)?;
        let objective = objective::of(self.objective, &tapped.logits, &labels)?;
        let pairs = self.stream.blocks().split(&tapped.pairs(&objective, &self.stream.layers)?)?;
        Queries::from_pairs(self.factors, self.damping, &pairs, self.stream.workspace())
    }

    /// Rows of the null pictures for prepared group sums, each divided by √(g_vᵀ P g_v).
    fn null_rows(&mut self, prepared: &Queries) -> Result<Vec<Vec<f64>>> {
        let Some(null) = &mut self.null else {
            return Ok(Vec::new());
        };
        if null.roots.is_empty() {
            let mut own = SelfInfluenceFold::new(self.factors, self.damping, null.stream.workspace());
            null.stream
                .run("null", &null.pictures, self.examples, Keep::Pairs, &mut own, self.report)?;
            null.roots = own.finish()?.into_iter().map(|v| v.max(0.0).sqrt()).collect();
        }
        let mut fold = ScoreFold::new(prepared, false);
        null.stream
            .run("null", &null.pictures, self.examples, Keep::Pairs, &mut fold, self.report)?;
        // A picture without gradient resembles nothing.
        let scaled = |row: Vec<f64>| {
            row.into_iter()
                .zip(&null.roots)
                .map(|(v, &root)| if root > 0.0 { v / root } else { 0.0 })
                .collect()
        };
        Ok(fold.finish()?.rows.into_iter().map(scaled).collect())
    }

    fn lap(&mut self, step: &str, start: Instant) {
        *self.seconds.entry(step.to_string()).or_default() += start.elapsed().as_secs_f64();
    }
}

fn joined(before: Option<Queries>, more: Queries) -> Result<Option<Queries>> {
    Ok(Some(match before {
        Some(before) => before.append(more)?,
        None => more,
    }))
}

impl Evidence for ModelEvidence<'_> {
    fn scores(&mut self, step: &str, questions: &[Question], examples: &[usize], self_influence: bool) -> Result<Scores> {
        if let Some((plan, scores)) = &self.known
            && *plan == plan_of_scores(questions, examples, self_influence)?
        {
            return Ok(scores.clone());
        }
        shaped(questions, self.part(step, questions, examples, self_influence)?.finish()?)
    }

    fn kin(&mut self, step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin> {
        let mut all = Kin::default();
        let passes = groups.chunks(self.most_queries);
        let count = passes.len();
        for (before, groups) in passes.enumerate() {
            let start = Instant::now();
            let mut report = OneOf {
                report: &mut *self.report,
                before,
                passes: count,
            };
            let mut sums = GradientSumFold::of_groups(&self.stream.tracked(), groups, self.stream.workspace())?;
            let members = sums.members();
            self.stream.run_members(step, examples, &members, self.examples, &mut sums, &mut report)?;
            let prepared = Queries::new(self.factors, self.damping, &sums.finish()?, self.stream.workspace())?;
            let mut fold = ScoreFold::new(&prepared, false);
            self.stream.run(step, examples, self.examples, Keep::Pairs, &mut fold, &mut report)?;
            all.rows.extend(fold.finish()?.rows);
            self.lap(step, start);
            let start = Instant::now();
            all.null.extend(self.null_rows(&prepared)?);
            self.lap("null", start);
        }
        Ok(all)
    }
}
