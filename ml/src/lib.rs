//! The science of delta-guard: data, models, EK-FAC influence, Δ-Influence and kin, unlearning and its measures, on libtorch.
//!
//! Arrows point up this list only; a test holds it against the `use` lines.

pub mod error;
pub mod progress;

pub mod memory;
/// One computation at a time draws from libtorch.
mod random;

pub mod files;

pub mod device;

pub mod import;

pub mod data;
pub mod model;

pub mod fold;

pub mod train;

pub mod ekfac;

pub mod verify;

pub mod passes;

pub mod evidence;

pub mod influence;

pub mod detect;

pub mod unlearn;

pub mod attack;

pub mod certify;

pub mod jobs;
