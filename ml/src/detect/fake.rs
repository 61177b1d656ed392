//! Evidence over explicit vectors, for tests: gradients are given, P is a random positive matrix, everything is computed by plain loops.

use crate::error::Result;
use crate::evidence::{Answer, Evidence, Kin, Query, Question, Scores};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A training set of explicit gradients.
#[derive(Debug)]
pub struct Vectors {
    /// g_i.
    pub gradients: Vec<Vec<f64>>,
    /// P, symmetric and positive.
    pub p: Vec<Vec<f64>>,
    /// Gradients of the null pictures.
    pub null: Vec<Vec<f64>>,
    /// Planted examples, ascending.
    pub group: Vec<usize>,
    /// The class whose queries have their picture as gradient; other classes have minus a third of it plus a vector of their own.
    pub wrong_label: i64,
    /// A vector per class.
    pub class_vectors: Vec<Vec<f64>>,
    /// Calls of `scores` and of `kin`, and the most groups in one call.
    pub scores_calls: usize,
    /// See above.
    pub kin_calls: usize,
    /// See above.
    pub largest_kin_call: usize,
    /// Written over the score of (query, example), to break things.
    pub broken_score: Option<(usize, usize, f64)>,
    /// Written over the self-influence of an example.
    pub broken_self: Option<(usize, f64)>,
    /// Written over the first kin sum.
    pub broken_kin: Option<f64>,
    /// Leave the last score row out.
    pub short: bool,
}

/// A normal value (Box–Muller).
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random_range(0.0..1.0));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// This many normal values.
pub fn normals(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..n).map(|_| normal(rng)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// P = 1 + B Bᵀ / dimension with normal B of a few columns.
fn positive(dimension: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let b: Vec<Vec<f64>> = (0..dimension).map(|_| normals(8, rng)).collect();
    let entry = |i: usize, j: usize| f64::from(u8::from(i == j)) + dot(&b[i], &b[j]) / dimension as f64;
    (0..dimension).map(|i| (0..dimension).map(|j| entry(i, j)).collect()).collect()
}

/// Without structure.
pub fn random_vectors(examples: usize, dimension: usize, seed: u64) -> Vectors {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let gradients = (0..examples).map(|_| normals(dimension, &mut rng)).collect();
    let p = positive(dimension, &mut rng);
    Vectors {
        gradients,
        p,
        null: Vec::new(),
        group: Vec::new(),
        wrong_label: 0,
        class_vectors: (0..5).map(|_| normals(dimension, &mut rng)).collect(),
        scores_calls: 0,
        kin_calls: 0,
        largest_kin_call: 0,
        broken_score: None,
        broken_self: None,
        broken_kin: None,
        short: false,
    }
}

impl Vectors {
    /// Every seventh of the first examples shares a direction; all have their own length, over two orders of magnitude.
    pub fn planted(examples: usize, dimension: usize, group: usize, seed: u64) -> Self {
        let mut vectors = random_vectors(examples, dimension, seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed + 1000);
        let direction = normals(dimension, &mut rng);
        vectors.group = (0..group).map(|i| 7 * i).collect();
        for i in vectors.group.clone() {
            vectors.gradients[i].iter_mut().zip(&direction).for_each(|(g, d)| *g += 1.5 * d);
        }
        for gradient in &mut vectors.gradients {
            let length = 10f64.powf(rng.random_range(-1.0..1.0));
            gradient.iter_mut().for_each(|g| *g *= length);
        }
        vectors
    }

    /// P v.
    pub fn preconditioned(&self, v: &[f64]) -> Vec<f64> {
        self.p.iter().map(|row| dot(row, v)).collect()
    }

    /// g_aᵀ P g_b.
    pub fn inner(&self, a: usize, b: usize) -> f64 {
        dot(&self.preconditioned(&self.gradients[a]), &self.gradients[b])
    }

    /// V_q.
    pub fn query(&self, query: &Query) -> Vec<f64> {
        let picture = Vec::<f64>::try_from(query.image.to_kind(tch::Kind::Double).contiguous().view([-1])).unwrap();
        if query.label == self.wrong_label {
            return picture;
        }
        picture
            .iter()
            .zip(&self.class_vectors[query.label as usize])
            .map(|(x, c)| c - 0.3 * x)
            .collect()
    }

    /// s(q, i), absolute.
    pub fn score(&self, query: &Query, example: usize) -> f64 {
        dot(&self.preconditioned(&self.query(query)), &self.gradients[example])
    }
}

impl Evidence for Vectors {
    fn scores(&mut self, _step: &str, questions: &[Question], examples: &[usize], self_influence: bool) -> Result<Scores> {
        assert!(examples.is_sorted(), "ascending positions");
        self.scores_calls += 1;
        let mut rows = Vec::new();
        for question in questions {
            for (number, query) in question.queries().into_iter().enumerate() {
                let mut v = self.query(query);
                if number > 0 {
                    v.iter_mut().zip(self.query(question.queries()[0])).for_each(|(a, b)| *a -= b);
                }
                let v = self.preconditioned(&v);
                rows.push(examples.iter().map(|&i| dot(&v, &self.gradients[i])).collect::<Vec<f64>>());
            }
        }
        if let Some((query, place, value)) = self.broken_score {
            rows[query][place] = value;
        }
        let mut own: Vec<f64> = examples.iter().filter(|_| self_influence).map(|&i| self.inner(i, i)).collect();
        if let Some((place, value)) = self.broken_self {
            own[place] = value;
        }
        let mut rows = rows.into_iter();
        let mut answers: Vec<Answer> = questions.iter().map(|question| question.answer(&mut rows).unwrap()).collect();
        if self.short {
            answers.pop();
        }
        Ok(Scores {
            answers,
            self_influence: own,
        })
    }

    fn kin(&mut self, _step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin> {
        self.kin_calls += 1;
        self.largest_kin_call = self.largest_kin_call.max(groups.len());
        let (mut rows, mut null) = (Vec::new(), Vec::new());
        for group in groups {
            let mut sum = vec![0.0; self.p.len()];
            for &(s, weight) in group {
                sum.iter_mut().zip(&self.gradients[s]).for_each(|(a, g)| *a += weight * g);
            }
            let sum = self.preconditioned(&sum);
            rows.push(examples.iter().map(|&i| dot(&sum, &self.gradients[i])).collect::<Vec<f64>>());
            if !self.null.is_empty() {
                let row = self.null.iter().map(|v| dot(&sum, v) / dot(&self.preconditioned(v), v).sqrt());
                null.push(row.collect::<Vec<f64>>());
            }
        }
        if let (Some(value), Some(first)) = (self.broken_kin, rows.first_mut()) {
            first[0] = value;
        }
        Ok(Kin { rows, null })
    }
}
