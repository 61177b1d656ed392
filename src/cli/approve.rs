//! `approve`.

use super::ask::Wish;
use super::{Exit, Global};
use crate::engine::asked::Ask;
use clap::Args;

/// Say that a proposed repair is in use: its flagged examples stay out of every later one
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard approve 8f3a
  delta-guard approve 8f3a --undo     it was taken back after all; also of a promoted case

It also begins the caps of mode `enforce` anew (section `caps`). `delta-guard excluded` lists what stays out.

Exit codes: 0 done, or laid down for the next start, 3 it cannot be approved, or no such case")]
pub struct Approve {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) wish: Wish,
    /// Take an approval or a promotion back: the examples take part in later repairs again
    #[arg(long)]
    pub(super) undo: bool,
}

impl Approve {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        self.wish.run(global, |case, _| {
            let case = case.id.clone();
            Ok(if self.undo { Ask::Withdraw { case } } else { Ask::Approve { case } })
        })
    }
}
