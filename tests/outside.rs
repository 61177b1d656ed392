//! The guard as an operator meets it: its program, its configuration file, its mails, its metrics. The worker speaks the protocol and computes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "outside/check.rs"]
mod check;
#[path = "outside/daemon.rs"]
mod daemon;
#[path = "outside/degraded.rs"]
mod degraded;
#[path = "outside/index.rs"]
mod index;
#[path = "outside/metrics.rs"]
mod metrics;
#[path = "outside/monitoring.rs"]
mod monitoring;
#[path = "outside/secret.rs"]
mod secret;
#[path = "outside/smtp.rs"]
mod smtp;
#[path = "outside/smtps.rs"]
mod smtps;
#[path = "outside/submitters.rs"]
mod submitters;
#[path = "outside/third.rs"]
mod third;
#[path = "outside/told.rs"]
mod told;
#[path = "outside/unit.rs"]
mod unit;
