//! EK-FAC influence by the formulas of algorithm §1, from per-example gradients; and the detectors' [`Evidence`] on top of it.

use super::network::{Gradients, Network, Of, normalised};
use delta_guard_contract::ImageConfig;
use delta_guard_contract::detect::{Fisher, Objective};
use delta_influence::data::DataSet;
use delta_influence::error::Result;
use delta_influence::evidence::{Answer, Evidence, Kin, Query, Question, Scores};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Q_A, Q_G and Λ of each layer.
pub struct Factors(Vec<[Tensor; 3]>);

/// The label that the true Fisher draws for an example: from the softmax by inversion, keyed by (seed, draw, id).
fn drawn_label(probabilities: &[f64], seed: u64, draw: u8, id: &str) -> i64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"delta-guard fisher label");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&[draw]);
    hasher.update(id.as_bytes());
    let uniform = ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()).random::<f64>();
    let mut below = 0.0;
    let reached = probabilities.iter().position(|p| {
        below += p;
        below >= uniform
    });
    reached.unwrap_or(probabilities.len() - 1) as i64
}

impl Factors {
    /// Covariances, eigenbasis and Λ over `examples`.
    pub fn fit(network: &Network, data: &DataSet, image: &ImageConfig, examples: &[usize], fisher: Fisher, seed: u64) -> Self {
        let gradients = |draw: u8| -> Vec<Gradients> {
            let one = |&i: &usize| {
                let picture = normalised(data.pixels(i), image);
                let label = match fisher {
                    Fisher::True => drawn_label(&network.probabilities(&picture), seed, draw, &data.ids()[i].0),
                    Fisher::Empirical => i64::from(data.labels()[i]),
                };
                network.gradients(&picture, label, Of::Loss)
            };
            examples.iter().map(one).collect()
        };
        let (first, second) = (gradients(0), gradients(1));
        let layers = first[0].weights.len();
        let of_layer = |l: usize| {
            let covariance = |side: fn(&Gradients) -> &Vec<Tensor>| -> Tensor {
                let sums: Tensor = first.iter().map(|g| side(g)[l].matmul(&side(g)[l].tr())).sum();
                let positions: i64 = first.iter().map(|g| side(g)[l].size()[1]).sum();
                let (_, vectors) = (sums / positions as f64).linalg_eigh("L");
                vectors
            };
            let (q_a, q_g) = (covariance(|g| &g.patches), covariance(|g| &g.outputs));
            let squares: Tensor = second.iter().map(|g| q_g.tr().matmul(&g.weights[l]).matmul(&q_a).square()).sum();
            [q_a, q_g, squares / second.len() as f64]
        };
        Self((0..layers).map(of_layer).collect())
    }

    /// No curvature: with a damping factor of 0, P V = V.
    pub fn identity(network: &Network, picture: &Tensor) -> Self {
        let of = |v: &Tensor| {
            let (out, inputs) = v.size2().unwrap();
            let eye = |n| Tensor::eye(n, (Kind::Double, v.device()));
            [eye(inputs), eye(out), Tensor::ones([out, inputs], (Kind::Double, v.device()))]
        };
        Self(network.gradients(picture, 0, Of::Loss).weights.iter().map(of).collect())
    }

    /// P V of a gradient, all layers in one row. The damping is `factor` times each layer's mean Λ.
    fn preconditioned(&self, gradients: &Gradients, factor: f64) -> Tensor {
        let layers = self.0.iter().zip(&gradients.weights).map(|([q_a, q_g, lambda], v)| {
            let damped = lambda + factor * lambda.mean(Kind::Double);
            q_g.matmul(&(q_g.tr().matmul(v).matmul(q_a) / damped)).matmul(&q_a.tr()).reshape([-1])
        });
        Tensor::cat(&layers.collect::<Vec<_>>(), 0)
    }
}

/// Loops over examples, under their training labels.
pub struct Naive {
    network: Network,
    objective: Of,
    /// g_i, one row each.
    gradients: Tensor,
    /// P g_i, one row each.
    preconditioned: Tensor,
    /// Of the null pictures.
    null: Option<(Tensor, Tensor)>,
    factors: Factors,
    factor: f64,
}

/// Gradient rows, plain and preconditioned.
fn rows(network: &Network, factors: &Factors, factor: f64, data: &DataSet, image: &ImageConfig, of: Of, examples: &[usize]) -> (Tensor, Tensor) {
    let one = |&i: &usize| {
        let gradients = network.gradients(&normalised(data.pixels(i), image), i64::from(data.labels()[i]), of);
        (gradients.flat(), factors.preconditioned(&gradients, factor))
    };
    let (plain, preconditioned): (Vec<Tensor>, Vec<Tensor>) = examples.iter().map(one).unzip();
    (Tensor::stack(&plain, 0), Tensor::stack(&preconditioned, 0))
}

impl Naive {
    /// `of`: what the training examples' gradients are taken of.
    pub fn new(network: Network, factors: Factors, factor: f64, objective: Objective, data: &DataSet, image: &ImageConfig, of: Of) -> Self {
        let all: Vec<usize> = (0..data.len()).collect();
        let (gradients, preconditioned) = rows(&network, &factors, factor, data, image, of, &all);
        Self {
            objective: match objective {
                Objective::Loss => Of::Loss,
                Objective::Margin => Of::Margin,
            },
            network,
            gradients,
            preconditioned,
            null: None,
            factors,
            factor,
        }
    }

    pub fn with_null(mut self, data: &DataSet, image: &ImageConfig, pictures: &[usize]) -> Self {
        self.null = Some(rows(&self.network, &self.factors, self.factor, data, image, Of::Loss, pictures));
        self
    }

    /// g_iᵀ P g_i of all examples.
    pub fn self_influence(&self) -> Vec<f64> {
        own(&self.gradients, &self.preconditioned)
    }
}

fn own(plain: &Tensor, preconditioned: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from((plain * preconditioned).sum_dim_intlist(&[1i64][..], false, Kind::Double)).unwrap()
}

fn matrix(tensor: &Tensor) -> Vec<Vec<f64>> {
    (0..tensor.size()[0]).map(|i| Vec::<f64>::try_from(tensor.get(i)).unwrap()).collect()
}

fn at(examples: &[usize]) -> Tensor {
    Tensor::from_slice(&examples.iter().map(|&i| i as i64).collect::<Vec<_>>())
}

impl Evidence for Naive {
    fn scores(&mut self, _step: &str, questions: &[Question], examples: &[usize], self_influence: bool) -> Result<Scores> {
        let of_query = |q: &Query| {
            self.factors
                .preconditioned(&self.network.gradients(&q.image, q.label, self.objective), self.factor)
        };
        let gradients = self.gradients.index_select(0, &at(examples));
        let own = own(&gradients, &self.preconditioned.index_select(0, &at(examples)));
        let row = |v: Tensor| Vec::<f64>::try_from(gradients.mv(&v)).unwrap();
        let answer = |question: &Question| match question {
            Question::Alone(query) => Answer::Alone(row(of_query(query))),
            Question::Family { baseline, shifted } => {
                let base = of_query(baseline);
                let shifted = shifted.iter().map(|q| row(of_query(q) - &base)).collect();
                Answer::Family {
                    baseline: row(base),
                    shifted,
                }
            }
        };
        Ok(Scores {
            answers: questions.iter().map(answer).collect(),
            self_influence: if self_influence { own } else { Vec::new() },
        })
    }

    fn kin(&mut self, _step: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin> {
        let sum = |group: &Vec<(usize, f64)>| -> Tensor { group.iter().map(|&(s, weight)| weight * self.preconditioned.get(s as i64)).sum() };
        let sums = Tensor::stack(&groups.iter().map(sum).collect::<Vec<_>>(), 0);
        let null = self.null.as_ref().map(|(plain, preconditioned)| {
            let roots: Vec<f64> = own(plain, preconditioned).iter().map(|v| v.sqrt()).collect();
            matrix(&(sums.matmul(&plain.tr()) / Tensor::from_slice(&roots)))
        });
        Ok(Kin {
            rows: matrix(&sums.matmul(&self.gradients.index_select(0, &at(examples)).tr())),
            null: null.unwrap_or_default(),
        })
    }
}
