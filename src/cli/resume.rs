//! `resume`.

use super::ask::Wish;
use super::{Exit, Global};
use crate::engine::asked::Ask;
use clap::Args;

/// Go on with a held case: its cause is mended, or it may pass the cap
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard resume 8f3a
  delta-guard resume 8f3a --reason 'looked at the report, agreed'

A case that is held by a cap is promoted then, and that counts as your approval. A guard that does not run does it when it starts.

Exit codes: 0 done, or laid down for the next start, 3 it is not held, or no such case")]
pub struct Resume {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) wish: Wish,
}

impl Resume {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        self.wish.run(global, |case, _| Ok(Ask::Resume { case: case.id.clone() }))
    }
}
