//! The science of delta-guard: data, models, EK-FAC influence, Δ-Influence and kin, unlearning and its measures, on libtorch.
//!
//! Arrows point up this list only.

pub mod error;
pub mod files;
pub mod progress;

pub mod data;
pub mod model;

pub mod evidence;

pub mod detect;
pub mod ekfac;

pub mod attack;
