//! EK-FAC influence: covariances, eigenbasis, Λ, preconditioning, scores, and the file that keeps the factors.
//!
//! This room knows layers as (input, output gradient) pairs only ([`crate::model::layer::Pair`]); it never sees a model, a data set or a detector.
//! Every pass is a [`crate::fold::Fold`]. What is computed stands in [`spec`], formula by formula; the other files are how it is computed fast.
//!
//! Notation: for a layer, an example i and an output position t (T of them), a_it is the unfolded input patch (with a 1 appended for a bias), g_it
//! the output gradient; W_i = Σ_t g_it a_itᵀ is the example's weight gradient. A *block* is one group of a grouped convolution (every other layer has
//! one block): each group has its own A, G, Q_A, Q_G and Λ, because its W_i sees its own channels only.
//!
//! Shapes: B examples, b blocks, o outputs and d inputs *per block* (bias counted in d), Q queries. Gradients are [B, b·o, d], laid out like the
//! weight flattened after its first dimension, the bias as last column.

mod blocks;
mod covariance;
mod eigenbasis;
mod factors;
mod file;
mod geometry;
mod key;
mod lambda;
mod outer;
mod precondition;
mod rotation;
mod score;
mod score_fold;
pub mod spec;
mod sums;
mod unfold;
mod workspace;

pub use blocks::Blocks;
pub use covariance::{CovarianceFold, Covariances, LayerCovariance};
pub use eigenbasis::{Eigenbasis, LayerBasis};
pub use factors::{Factors, LayerFactors};
pub use key::{FACTOR_FORMAT, FactorKey};
pub use lambda::LambdaFold;
pub use precondition::{Damping, Queries, precondition};
pub use score::{gradient, scores, scores_and_self_influence, self_influence};
pub use score_fold::{ScoreFold, Scored, SelfInfluenceFold};
pub use sums::GradientSumFold;
pub use workspace::Workspace;

/// Weights of layers, biases counted.
///
/// # Errors
/// `Configuration` for a layer that is impossible.
pub fn weights(layers: &[crate::model::layer::Layer]) -> crate::error::Result<u64> {
    let geometries = geometry::Geometry::list(layers)?;
    Ok(geometries.iter().map(|layer| layer.outputs() as u64 * layer.inputs() as u64).sum())
}
