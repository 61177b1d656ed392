//! One scoring pass for everything that a case asks: each anomaly's query 0 and its n_b differences, and each placebo.

use super::{DetectCase, count, queries};
use crate::error::{Error, Result, ResultExt};
use crate::evidence::{Answer, Evidence, Opening, Query, Question};
use delta_guard_contract::Code;
use delta_guard_contract::detect::Delta;

/// Rows of one anomaly.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyRows {
    /// s(q_0, i).
    pub original: Vec<f64>,
    /// Δ_ij: one row per transformed query.
    pub delta: Vec<Vec<f64>>,
}

/// What the pass found, over the examples that were asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// One per anomaly.
    pub anomalies: Vec<AnomalyRows>,
    /// s(placebo, i), one row per placebo.
    pub placebos: Vec<Vec<f64>>,
    /// √(g_iᵀ P g_i); 0 for an example without gradient, which then takes no part in anything that divides by it.
    pub root: Vec<f64>,
}

/// The questions of a case, and a name for each query in errors. All of C's evidence that does not depend on who the seeds are is asked at once.
///
/// # Errors
/// Pictures that are none.
pub fn opening(keys: &Delta, case: &DetectCase, examples: Vec<usize>, with_placebos: bool) -> Result<Opening> {
    let mut questions = Vec::new();
    for (number, picture) in case.anomalies.iter().enumerate() {
        let set = queries::draw(picture, case.wrong_label, case.classes, keys, case.seed, case.image, number as u32)
            .context(|| format!("anomaly {}", number + 1))?;
        questions.push(set.question);
    }
    for placebo in case.placebos.iter().filter(|_| with_placebos) {
        let query = queries::single(&placebo.picture, case.wrong_label, case.image).context(|| format!("placebo {}", placebo.id))?;
        questions.push(Question::Alone(query));
    }
    Ok(Opening {
        questions,
        examples,
        self_influence: true,
    })
}

/// Ask it. Errors: scores of another shape, or not numbers (named).
pub fn score(evidence: &mut dyn Evidence, case: &DetectCase, opening: &Opening) -> Result<Pass> {
    let examples = &opening.examples;
    let scores = evidence.scores("score", &opening.questions, examples, opening.self_influence)?;
    let mut pass = Pass {
        anomalies: Vec::new(),
        placebos: Vec::new(),
        root: Vec::new(),
    };
    let shape = |rows: usize| {
        Error::internal(format!(
            "scores of {rows} questions over {} examples came back in another shape",
            examples.len()
        ))
    };
    let rows = scores.answers.iter().flat_map(Answer::rows);
    if scores.answers.len() != opening.questions.len() || rows.chain([scores.self_influence.as_slice()]).any(|row| row.len() != examples.len()) {
        return Err(shape(opening.questions.len()));
    }
    for (question, answer) in opening.questions.iter().zip(scores.answers) {
        match (question, answer) {
            (Question::Family { shifted, .. }, Answer::Family { baseline, shifted: delta }) if shifted.len() == delta.len() => {
                let anomaly = pass.anomalies.len() + 1;
                let name = |j: usize, query: &Query| format!("the score of query {j} of anomaly {anomaly} (class {})", query.label);
                for (j, (row, query)) in std::iter::once(&baseline).chain(&delta).zip(question.queries()).enumerate() {
                    finite(row, examples, || name(j, query))?;
                }
                pass.anomalies.push(AnomalyRows { original: baseline, delta });
            }
            (Question::Alone(_), Answer::Alone(row)) => {
                let id = case.placebos.get(pass.placebos.len()).map_or("?", |placebo| &placebo.id.0);
                finite(&row, examples, || format!("the score of placebo {id}"))?;
                pass.placebos.push(row);
            }
            _ => return Err(shape(opening.questions.len())),
        }
    }
    pass.root = roots(&scores.self_influence, examples)?;
    Ok(pass)
}

/// An error that names the first value that is no number.
pub(super) fn finite(values: &[f64], examples: &[usize], what: impl Fn() -> String) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::new(
            Code::NotFinite,
            format!(
                "{} against training example {} (counted from 0) is {}, not a number",
                what(),
                examples[i],
                values[i]
            ),
            "look for NaN or huge weights in the checkpoint, or for too small a detect.damping; detect.precision f64 tells overflow from NaN",
        )),
    }
}

/// √self-influence. P is positive, so that only rounding can make it negative: by a millionth of the largest at most, else it is an error.
fn roots(self_influence: &[f64], examples: &[usize]) -> Result<Vec<f64>> {
    finite(self_influence, examples, || "the self-influence, taken".into())?;
    let largest = self_influence.iter().copied().fold(0.0, f64::max);
    match self_influence.iter().position(|&v| v < -1e-6 * largest) {
        Some(i) => Err(Error::internal(format!(
            "self-influence of training example {} is negative: {}",
            examples[i], self_influence[i]
        ))),
        None => Ok(self_influence.iter().map(|v| v.max(0.0).sqrt()).collect()),
    }
}

impl Pass {
    /// The same over some of the examples only (by place).
    pub fn restrict(&self, places: &[usize]) -> Pass {
        let pick = |row: &Vec<f64>| places.iter().map(|&i| row[i]).collect::<Vec<f64>>();
        let anomaly = |a: &AnomalyRows| AnomalyRows {
            original: pick(&a.original),
            delta: a.delta.iter().map(pick).collect(),
        };
        Pass {
            anomalies: self.anomalies.iter().map(anomaly).collect(),
            placebos: self.placebos.iter().map(pick).collect(),
            root: pick(&self.root),
        }
    }

    /// `values` (per example) divided by √self-influence; 0 for examples without gradient.
    pub fn scaled(&self, values: &[f64]) -> Vec<f64> {
        values
            .iter()
            .zip(&self.root)
            .map(|(v, root)| if *root > 0.0 { v / root } else { 0.0 })
            .collect()
    }

    /// mean_j Δ_ij / √self_i of one anomaly.
    pub fn mean_scaled_delta_of(&self, anomaly: usize) -> Vec<f64> {
        self.scaled(&mean(&self.anomalies[anomaly].delta))
    }

    /// The same, mean over all anomalies.
    pub fn mean_scaled_delta(&self) -> Vec<f64> {
        mean(&(0..self.anomalies.len()).map(|a| self.mean_scaled_delta_of(a)).collect::<Vec<_>>())
    }

    /// The count rule over what was scored.
    pub fn counted(&self, keys: &Delta) -> count::Combined {
        let counts: Vec<_> = self.anomalies.iter().map(|a| count::counts(&a.delta, keys.tau)).collect();
        count::combine(&counts, keys.queries, keys.n_tol, keys.combine)
    }
}

/// Mean of rows, per example.
pub(super) fn mean(rows: &[Vec<f64>]) -> Vec<f64> {
    let mut mean = vec![0.0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (m, v) in mean.iter_mut().zip(row) {
            *m += v / rows.len() as f64;
        }
    }
    mean
}
