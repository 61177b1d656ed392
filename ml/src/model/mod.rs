//! Networks.

pub mod layer;
