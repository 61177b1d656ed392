//! What a detector may ask: influence of queries on training examples. Implemented over the real model in `influence`, and over
//! plain vectors in the detectors' tests.
//!
//! Notation (algorithm §1): V_q query gradient, g_i gradient of training example i under its training label, P the damped EK-FAC inverse. g_i is that of the loss or, where only
//! its direction counts, of the margin (`influence::objective::of_examples`): a positive multiple.
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
    /// Where it names a query (by place in the same list), this query's row is that of the difference V_q − V_minus, preconditioned as such:
    /// Δ directly. None: the row of V_q itself. The named query must itself be absolute (no chains).
    pub minus: Option<usize>,
}

/// Scores of queries against examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// One row per query: s(q, i) = V_qᵀ P g_i, or Δ = (V_q − V_minus)ᵀ P g_i, for each asked example, in the order asked.
    pub rows: Vec<Vec<f64>>,
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

/// Source of influence scores.
pub trait Evidence {
    /// Scores of all queries against `examples` (ascending positions) in one pass over them.
    fn scores(&mut self, step: &str, queries: &[Query], examples: &[usize], self_influence: bool) -> Result<Scores>;

    /// For each group, a list of (example, weight), its sums over `examples` and over the source's null pictures. All groups in one pass.
    fn kin(&mut self, step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin>;
}
