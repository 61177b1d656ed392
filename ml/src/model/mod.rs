//! Networks as data, their weights, and the executor.

pub mod exec;
pub mod graph;
pub mod layer;
pub mod weights;
pub mod zoo;

pub use exec::{Model, Tapped};
pub use graph::Graph;
pub use weights::Weights;
