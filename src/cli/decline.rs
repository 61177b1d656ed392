//! `decline`.

use super::ask::Wish;
use super::{Exit, Global};
use crate::engine::asked::Ask;
use clap::Args;

/// End a proposed case without using its candidate
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard decline 8f3a --reason 'these examples are right'

Nothing is changed: neither the model nor what later repairs leave out. `delta-guard retry CASE`
makes another candidate.

Exit codes: 0 done, or laid down for the next start, 3 it is not proposed, or no such case")]
pub struct Decline {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) wish: Wish,
}

impl Decline {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        self.wish.run(global, |case, _| Ok(Ask::Decline { case: case.id.clone() }))
    }
}
