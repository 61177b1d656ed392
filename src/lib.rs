//! The guard: a daemon that turns wrongly predicted pictures into named training examples and a repaired, checked model, and its command line.
//!
//! It runs for years, never touches a tensor and never decodes a picture: compute happens in `delta-guard-worker`, one process per job. Truth is the
//! append-only [`journal`]; everything else on disk is derived from it or named by digests in it.

pub mod alert;
pub mod case;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod degraded;
pub mod engine;
pub mod hooks;
pub mod http;
pub mod inbox;
pub mod jobs;
pub mod journal;
pub mod metrics;
pub mod policy;
pub mod progress;
pub mod publish;
pub mod report;
pub mod rights;
pub mod seed;
pub mod settings;
pub mod stop;
pub mod story;
pub mod vfs;
