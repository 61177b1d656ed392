//! `approve`.

use super::ask::Wish;
use super::{Exit, Global};
use crate::engine::asked::Ask;
use clap::Args;

/// Promote a proposed candidate: the guard moves the link `current` to it
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard approve 8f3a --reason 'looked at the report, agreed'
  delta-guard approve 8f3a --by-hand  I put it in use myself: leave the link current alone
  delta-guard approve 8f3a --undo     it was taken back after all

In every mode approval moves the link current in the candidates' folder, and the flagged examples
stay out of every later repair (`delta-guard excluded` lists them). It also begins the caps of mode
enforce anew (section `caps`).

Exit codes: 0 done, or laid down for the next start, 3 it cannot be approved, or no such case")]
pub struct Approve {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) wish: Wish,
    /// The candidate is in use already: record that, and leave the link `current` alone
    #[arg(long, conflicts_with = "undo")]
    pub(super) by_hand: bool,
    /// Take an approval or a promotion back: the examples take part in later repairs again
    #[arg(long)]
    pub(super) undo: bool,
}

impl Approve {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let by_hand = self.by_hand;
        self.wish.run(global, |case, _| {
            let case = case.id.clone();
            Ok(match self.undo {
                true => Ask::Withdraw { case },
                false => Ask::Approve { case, by_hand },
            })
        })
    }
}
