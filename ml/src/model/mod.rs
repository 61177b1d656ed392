//! Networks as data, their weights, and the executor.

pub mod aten;
mod coverage;
pub mod exec;
pub mod graph;
mod initial;
pub mod layer;
pub mod lower;
mod probe;
pub mod tap;
pub mod value;
pub mod weights;
pub mod zoo;

pub use exec::{Model, Tapped};
pub use graph::Graph;
pub use weights::Weights;
