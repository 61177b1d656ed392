//! Labels under which examples' gradients are taken.

use crate::data::DataSet;
use crate::error::Result;
use delta_guard_contract::detect::Fisher;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Which labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl PassLabels {
    /// Those of a Fisher matrix.
    pub fn of(fisher: Fisher, seed: u64, draw: u8) -> Self {
        match fisher {
            Fisher::True => Self::Sampled { seed, draw },
            Fisher::Empirical => Self::Training,
        }
    }

    /// Labels of a batch, whose logits are given, on their device.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn of_batch(self, data: &DataSet, batch: &[usize], logits: &Tensor) -> Result<Tensor> {
        match self {
            Self::Training => Ok(data.labels_tensor(batch)?.f_to_device(logits.device())?),
            Self::Sampled { seed, draw } => sample(data, batch, &logits.f_detach()?, seed, draw),
        }
    }
}

/// One label per example from its softmax, by inversion of the distribution function.
fn sample(data: &DataSet, batch: &[usize], logits: &Tensor, seed: u64, draw: u8) -> Result<Tensor> {
    let uniform: Vec<f64> = batch
        .iter()
        .map(|&i| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"delta-guard fisher label");
            hasher.update(&seed.to_le_bytes());
            hasher.update(&[draw]);
            hasher.update(data.ids().get(i).map_or("", |id| &id.0).as_bytes());
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
