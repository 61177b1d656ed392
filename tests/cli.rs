//! The command line as a newcomer meets it, through the program. The worker speaks the protocol and computes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "cli/advised.rs"]
mod advised;
#[path = "cli/asking.rs"]
mod asking;
#[path = "outside/daemon.rs"]
mod daemon;
#[path = "cli/demo.rs"]
mod demo;
#[path = "cli/drill.rs"]
mod drill;
#[path = "cli/evaluate.rs"]
mod evaluate;
#[path = "cli/grid.rs"]
mod grid;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/log.rs"]
mod log;
#[path = "cli/model.rs"]
mod model;
#[path = "outside/smtp.rs"]
mod smtp;
#[path = "cli/submit.rs"]
mod submit;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/work.rs"]
mod work;
