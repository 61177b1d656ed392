//! The one loop over examples: decode → device → forward → output gradients → fold.
//!
//! A pass runs over a list of positions in batches and hands (input, output gradient) pairs to a fold. Batch size follows from the memory budget;
//! what it is does not change the result beyond rounding.

use super::objective;
use crate::data::{DataSet, normalise};
use crate::ekfac::Workspace;
use crate::error::Result;
use crate::model::Model;
use crate::model::layer::{Layer, Pair};
use crate::progress::Report;
use delta_guard_contract::ImageConfig;
use delta_guard_contract::detect::Objective;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Labels under which examples' gradients are taken.
#[derive(Clone, Copy, Debug)]
pub enum PassLabels {
    /// The training labels.
    Training,
    /// Drawn from the model's softmax: the true Fisher. Keyed by (seed, draw, training id), so that no batching, order or split changes them.
    Sampled {
        /// Seed.
        seed: u64,
        /// Which draw (covariance and Λ take one each).
        draw: u8,
    },
}

/// A model over a data set.
pub struct Pass<'a> {
    /// The network, in evaluation mode; its weights need no gradient.
    pub model: &'a Model,
    /// Pictures.
    pub data: &'a DataSet,
    /// Normalisation.
    pub image: &'a ImageConfig,
    /// Tracked layers: places in the graph's layer order, ascending.
    pub layers: Vec<usize>,
    /// Examples per batch.
    pub batch: usize,
}

/// Examples per batch that fit into `budget` bytes: activations, their gradients and the unfolded patches.
pub fn batch_size(model: &Model, budget: u64) -> usize {
    let example = model.graph.activation_size() as u64 * model.kind().elt_size_in_bytes() as u64 * 4;
    ((budget / 2 / example.max(1)) as usize).clamp(1, 128)
}

impl Pass<'_> {
    /// The tracked layers.
    pub fn tracked(&self) -> Vec<Layer> {
        let all = self.model.graph.layers();
        self.layers.iter().filter_map(|&l| all.get(l).cloned()).collect()
    }

    /// How the folds compute.
    pub fn workspace(&self) -> Workspace {
        Workspace::new(self.model.kind(), self.model.device())
    }

    /// Pairs of one batch of examples, each with the gradient of its own objective.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn pairs(&self, batch: &[usize], labels: PassLabels, objective: Objective) -> Result<Vec<Pair>> {
        let images = normalise(&self.data.batch(batch)?, self.image, self.model.kind(), self.model.device())?;
        let tapped = self.model.forward_tapped(&images)?;
        let labels = match labels {
            PassLabels::Training => self.data.labels_tensor(batch)?.f_to_device(self.model.device())?,
            PassLabels::Sampled { seed, draw } => self.sample(&tapped.logits.detach(), batch, seed, draw)?,
        };
        let objective = objective::of(objective, &tapped.logits, &labels)?;
        tapped.pairs(&objective, &self.layers)
    }

    /// Run a fold over `examples`, with the gradients of the loss: those of the Fisher matrix, in which sizes count.
    ///
    /// # Errors
    /// The fold's, or libtorch's.
    pub fn run(
        &self,
        step: &str,
        examples: &[usize],
        labels: PassLabels,
        report: &mut dyn Report,
        mut fold: impl FnMut(&[Pair]) -> Result<()>,
    ) -> Result<()> {
        let mut done = 0;
        for batch in examples.chunks(self.batch) {
            let pairs = self.pairs(batch, labels, Objective::Loss)?;
            tch::no_grad(|| fold(&pairs))?;
            done += batch.len() as u64;
            report.progress(step, done, examples.len() as u64, "");
        }
        Ok(())
    }

    /// One label per example from its softmax, by inversion of the distribution function.
    fn sample(&self, logits: &Tensor, batch: &[usize], seed: u64, draw: u8) -> Result<Tensor> {
        let uniform: Vec<f64> = batch
            .iter()
            .map(|&i| {
                let mut hasher = blake3::Hasher::new();
                hasher.update(b"delta-guard fisher label");
                hasher.update(&seed.to_le_bytes());
                hasher.update(&[draw]);
                hasher.update(self.data.ids().get(i).map_or("", |id| &id.0).as_bytes());
                ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()).random::<f64>()
            })
            .collect();
        let uniform = Tensor::f_from_slice(&uniform)?.f_unsqueeze(1)?.f_to_device(logits.device())?;
        let cumulative = logits.f_softmax(1, Kind::Double)?.f_cumsum(1, Kind::Double)?;
        let classes = logits.size()[1];
        Ok(cumulative
            .f_lt_tensor(&uniform)?
            .f_sum_dim_intlist(&[1i64][..], false, Kind::Int64)?
            .f_clamp(0, classes - 1)?)
    }
}
