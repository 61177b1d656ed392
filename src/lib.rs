//! The guard: a daemon that turns wrongly predicted pictures into named training examples and a repaired, checked model, and its command line.
//!
//! It runs for years, never touches a tensor and never decodes a picture: compute happens in `delta-guard-worker`, one process per job. Truth is the
//! append-only [`journal`]; everything else on disk is derived from it or named by digests in it.
//!
//! Arrows point up this list only; `scripts/layering.py` holds it against the code. (One exception is named there: advised commands are made of the command
//! line's own types, and reports and notes advise.)

pub mod clock;
pub mod mail;
pub mod stop;
pub mod text;
pub mod vfs;

pub mod policy;

pub mod case;

pub mod settings;

pub mod journal;

pub mod publish;

pub mod rights;
pub mod seed;

pub mod config;

pub mod index;
pub mod jobs;

pub mod engine;

pub mod inbox;

pub mod progress;

pub mod report;

pub mod metrics;

pub mod alert;

pub mod degraded;

pub mod daemon;
pub mod hooks;

pub mod http;

pub mod story;

pub mod grid;

pub mod cli;
