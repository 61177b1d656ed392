//! The command line as a newcomer meets it, through the program. The worker speaks the protocol and computes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "cli/asking.rs"]
mod asking;
#[path = "outside/daemon.rs"]
mod daemon;
#[path = "cli/evaluate.rs"]
mod evaluate;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/submit.rs"]
mod submit;
#[path = "cli/terminal.rs"]
mod terminal;
#[path = "cli/work.rs"]
mod work;
