//! A small drawn story through the worker's jobs, held against plain loops: what joins the kernels to the rules.
//!
//! The other tests here hold single kernels and single rules. This one holds what lies between them: which labels, which objective, which examples, which model
//! and which pictures go where. `scripts/faults.py` plants the faults that it must find.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "story/audit.rs"]
mod audit;
#[path = "story/detectors.rs"]
mod detectors;
#[path = "story/influence.rs"]
mod influence;
#[path = "story/loops.rs"]
mod loops;
#[path = "story/measure.rs"]
mod measure;
#[path = "story/naive.rs"]
mod naive;
#[path = "story/network.rs"]
mod network;
#[path = "story/parts.rs"]
mod parts;
#[path = "story/repair.rs"]
mod repair;
#[path = "story/scene.rs"]
mod scene;
#[path = "story/trace.rs"]
mod trace;
