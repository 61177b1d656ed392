//! Scores and self-influences of many batches, in the order in which the examples come.

use delta_guard_contract::Code;
use tch::{Device, Kind, Tensor};

use super::factors::Factors;
use super::precondition::{Damping, Queries};
use super::score::{SCORES, SELF_INFLUENCES, both_as_they_come, scores_as_they_come, self_influence_as_it_comes};
use super::workspace::Workspace;
use crate::error::{Error, Result};
use crate::fold::{Batch, Fold, FoldState, Totals};

/// s(q, i) of every query and example, with g_iᵀ P g_i where it is asked for.
#[derive(Debug)]
pub struct ScoreFold<'a> {
    /// None: only what is known already is put together here.
    queries: Option<&'a Queries>,
    /// Q.
    count: usize,
    self_influence: bool,
    /// [Q, B] per batch.
    scores: Vec<Tensor>,
    /// [B] per batch; empty where it is not asked for.
    own: Vec<Tensor>,
}

/// What came out: float64, examples in the order added.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// One row per query.
    pub rows: Vec<Vec<f64>>,
    /// g_iᵀ P g_i per example; empty where it was not asked for.
    pub self_influence: Vec<f64>,
}

impl Scored {
    /// From what [`ScoreFold`] saved.
    ///
    /// # Errors
    /// `Configuration`: a tensor is missing or misshapen.
    pub fn from_state(state: &mut FoldState) -> Result<Self> {
        let mut take = |name: &str, dimensions: usize| {
            let found = state.remove(name).filter(|tensor| tensor.dim() == dimensions);
            found.ok_or_else(|| Error::new(Code::KeptFileUnusable, format!("{name} is missing or misshapen"), "take it anew"))
        };
        Self::of(&take("scores", 2)?, &take("self_influence", 1)?)
    }

    /// [Q, N] and [N] (or [0]).
    fn of(scores: &Tensor, own: &Tensor) -> Result<Self> {
        let rows = (0..scores.size2()?.0).map(|q| numbers(&scores.f_get(q)?)).collect::<Result<_>>()?;
        Ok(Self {
            rows,
            self_influence: numbers(own)?,
        })
    }
}

impl<'a> ScoreFold<'a> {
    /// An empty fold for these queries.
    pub fn new(queries: &'a Queries, self_influence: bool) -> Self {
        Self {
            queries: Some(queries),
            ..ScoreFold::of_rows(queries.len(), self_influence)
        }
    }

    /// An empty fold for `count` rows that were or will be computed elsewhere.
    pub fn of_rows(count: usize, self_influence: bool) -> Self {
        Self {
            queries: None,
            count,
            self_influence,
            scores: Vec::new(),
            own: Vec::new(),
        }
    }

    /// These rows and below them the `wanted` rows of `other`, over the same examples. The self-influences are of whichever has them.
    ///
    /// # Errors
    /// `Internal`: other examples, or no such rows.
    pub fn beside(self, other: ScoreFold<'_>, wanted: &[i64]) -> Result<ScoreFold<'static>> {
        let _guard = tch::no_grad_guard();
        let rows = joined(&other.scores, 1, &[other.count as i64, 0])?.f_index_select(0, &Tensor::f_from_slice(wanted)?)?;
        let scores = match self.count {
            0 => rows,
            count => {
                let mine = joined(&self.scores, 1, &[count as i64, 0])?;
                if mine.size2()?.1 != rows.size2()?.1 {
                    return Err(Error::internal("rows of scores over different examples cannot stand below each other"));
                }
                Tensor::f_cat(&[mine, rows], 0)?
            }
        };
        let own = if self.own.is_empty() { other.own } else { self.own };
        Ok(ScoreFold {
            count: self.count + wanted.len(),
            scores: vec![scores],
            own,
            ..ScoreFold::of_rows(0, self.self_influence)
        })
    }
}

impl Fold for ScoreFold<'_> {
    type Finished = Scored;

    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        let queries = self.queries.ok_or_else(|| Error::internal("a fold of known scores has no queries"))?;
        let mut totals = Totals::default();
        if self.self_influence {
            let (scores, own) = both_as_they_come(queries, batch.pairs)?;
            totals.note(SCORES.into(), &scores)?;
            totals.note(SELF_INFLUENCES.into(), &own)?;
            self.scores.push(scores);
            self.own.push(own);
        } else {
            let scores = scores_as_they_come(queries, batch.pairs)?;
            totals.note(SCORES.into(), &scores)?;
            self.scores.push(scores);
        }
        Ok(totals)
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        if later.count != self.count || later.self_influence != self.self_influence {
            return Err(Error::internal("scores of different queries cannot be merged"));
        }
        self.scores.extend(later.scores);
        self.own.extend(later.own);
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        let scores = joined(&self.scores, 1, &[self.count as i64, 0])?;
        Ok(FoldState::from([
            ("scores".to_string(), scores),
            ("self_influence".to_string(), joined(&self.own, 0, &[0])?),
        ]))
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        let damaged = |what: &str| Error::new(Code::KeptFileUnusable, format!("{what} is missing or misshapen"), "take this part anew");
        let mut take = |name: &str| state.remove(name).ok_or_else(|| damaged(name));
        let (scores, own) = (take("scores")?, take("self_influence")?);
        let (queries, examples) = scores.size2().map_err(|_| damaged("scores"))?;
        if queries != self.count as i64 {
            return Err(damaged("scores"));
        }
        if own.size() != [if self.self_influence { examples } else { 0 }] {
            return Err(damaged("self_influence"));
        }
        self.scores.push(scores);
        self.own.push(own);
        Ok(())
    }

    fn finish(self) -> Result<Scored> {
        Scored::of(&joined(&self.scores, 1, &[self.count as i64, 0])?, &joined(&self.own, 0, &[0])?)
    }
}

/// g_iᵀ P g_i of every example.
#[derive(Debug)]
pub struct SelfInfluenceFold<'a> {
    factors: &'a Factors,
    damping: Damping,
    workspace: Workspace,
    own: Vec<Tensor>,
}

impl<'a> SelfInfluenceFold<'a> {
    /// An empty fold.
    pub fn new(factors: &'a Factors, damping: Damping, workspace: Workspace) -> Self {
        Self {
            factors,
            damping,
            workspace,
            own: Vec::new(),
        }
    }
}

impl Fold for SelfInfluenceFold<'_> {
    type Finished = Vec<f64>;

    fn add(&mut self, batch: &Batch<'_>) -> Result<Totals> {
        let own = self_influence_as_it_comes(self.factors, self.damping, batch.pairs, &self.workspace)?;
        let mut totals = Totals::default();
        totals.note(SELF_INFLUENCES.into(), &own)?;
        self.own.push(own);
        Ok(totals)
    }

    fn merge(&mut self, later: Self) -> Result<()> {
        self.own.extend(later.own);
        Ok(())
    }

    fn save(&mut self) -> Result<FoldState> {
        Ok(FoldState::from([("self_influence".to_string(), joined(&self.own, 0, &[0])?)]))
    }

    fn load(&mut self, mut state: FoldState) -> Result<()> {
        let own = state.remove("self_influence").filter(|own| own.dim() == 1);
        self.own
            .push(own.ok_or_else(|| Error::new(Code::KeptFileUnusable, "self_influence is missing or misshapen", "take this part anew"))?);
        Ok(())
    }

    fn finish(self) -> Result<Vec<f64>> {
        numbers(&joined(&self.own, 0, &[0])?)
    }
}

/// One tensor of many, on the CPU; of none, an empty one of shape `none`.
fn joined(parts: &[Tensor], dimension: i64, none: &[i64]) -> Result<Tensor> {
    let parts = parts
        .iter()
        .map(|part| part.f_to_device(Device::Cpu))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    if parts.is_empty() {
        return Ok(Tensor::f_zeros(none, (Kind::Double, Device::Cpu))?);
    }
    Ok(Tensor::f_cat(&parts, dimension)?)
}

fn numbers(row: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::<f64>::try_from(&row.f_to_kind(Kind::Double)?.f_contiguous()?)?)
}
