//! delta-guard: from one wrong prediction to the training data that caused it and to a repaired, checked model.
//!
//! This package is the guard: daemon and command line. It runs for years, never touches a tensor and never decodes an image; the computing is
//! done by `delta-guard-worker`, one process per job, which knows nothing of this package.

pub mod config;
