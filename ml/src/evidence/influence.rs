//! Influence of queries on training examples. Implemented over the real model in [`crate::influence`], and over plain vectors in the detectors' tests.
//!
//! Notation (algorithm §1): V_q query gradient, g_i gradient of training example i under its training label, P the damped EK-FAC inverse. g_i is that of the loss or, where only
//! its direction counts, of the margin (`passes::objective::of_examples`): a positive multiple.
//! Examples are positions in the training set here; ids are the data set's business.

use crate::error::Result;
use tch::Tensor;

/// A query: a picture, as the model sees it, and the label that it is asked about.
#[derive(Debug)]
pub struct Query {
    /// C × H × W, float, normalised.
    pub image: Tensor,
    /// Class index.
    pub label: i64,
}

/// What is asked about the training examples.
#[derive(Debug)]
pub enum Question {
    /// s(q, i) of one query.
    Alone(Query),
    /// s(q_0, i) of a baseline, and Δ_j = (V_j − V_0)ᵀ P g_i of each query that it is shifted to: the difference is preconditioned, no two scores are subtracted.
    Family {
        /// q_0.
        baseline: Query,
        /// q_1 … q_n.
        shifted: Vec<Query>,
    },
}

/// An answer, of its question's shape: per query one value for each asked example, in the order asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Question::Alone`].
    Alone(Vec<f64>),
    /// To [`Question::Family`].
    Family {
        /// s(q_0, i).
        baseline: Vec<f64>,
        /// Δ_j, one row per shifted query.
        shifted: Vec<Vec<f64>>,
    },
}

impl Question {
    /// The queries, the baseline first.
    pub fn queries(&self) -> Vec<&Query> {
        match self {
            Self::Alone(query) => vec![query],
            Self::Family { baseline, shifted } => std::iter::once(baseline).chain(shifted).collect(),
        }
    }

    /// Its answer, from rows in the order of [`Self::queries`]. None: there are too few.
    pub fn answer(&self, rows: &mut impl Iterator<Item = Vec<f64>>) -> Option<Answer> {
        match self {
            Self::Alone(_) => rows.next().map(Answer::Alone),
            Self::Family { shifted, .. } => {
                let baseline = rows.next()?;
                let rows: Vec<Vec<f64>> = rows.take(shifted.len()).collect();
                (rows.len() == shifted.len()).then_some(Answer::Family { baseline, shifted: rows })
            }
        }
    }
}

impl Answer {
    /// All rows, the baseline's first.
    pub fn rows(&self) -> Vec<&[f64]> {
        match self {
            Self::Alone(row) => vec![row],
            Self::Family { baseline, shifted } => std::iter::once(baseline).chain(shifted).map(Vec::as_slice).collect(),
        }
    }
}

/// Scores of queries against examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// One answer per question.
    pub answers: Vec<Answer>,
    /// g_iᵀ P g_i for each asked example; empty unless asked for.
    pub self_influence: Vec<f64>,
}

/// What is kin to groups of examples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kin {
    /// One row per group Γ: Σ_{s∈Γ} weight_s · g_sᵀ P g_i for each asked example i, in the order asked.
    pub rows: Vec<Vec<f64>>,
    /// One row per group: the same sum for each *null picture* v, divided by √(g_vᵀ P g_v). Null pictures are clean, labelled validation pictures of the
    /// wrong label's class, under that label; a source may have none.
    pub null: Vec<Vec<f64>>,
}

/// What a detector asks first: all that it needs to know before it can decide what to ask next.
#[derive(Debug)]
pub struct Opening {
    /// The questions, in order.
    pub questions: Vec<Question>,
    /// Ascending positions in the training set.
    pub examples: Vec<usize>,
    /// Is g_iᵀ P g_i wanted, too?
    pub self_influence: bool,
}

/// Source of influence scores.
pub trait Evidence {
    /// Answers to all questions over `examples` (ascending positions) in one pass over them.
    fn scores(&mut self, step: &str, questions: &[Question], examples: &[usize], self_influence: bool) -> Result<Scores>;

    /// For each group, a list of (example, weight), its sums over `examples` and over the source's null pictures. All groups in one pass.
    fn kin(&mut self, step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin>;
}
