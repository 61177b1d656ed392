//! `retry`.

use super::ask::{Wish, lay_candidate};
use super::{Exit, Failure, Global};
use crate::engine::asked::Ask;
use clap::Args;
use delta_guard_contract::method::Name;
use delta_guard_contract::method::unlearn::Unlearner;
use std::path::PathBuf;

/// Try an ended or held case again, with the configuration of now
#[derive(Debug, Args, serde::Serialize)]
#[command(after_help = "\
Examples:
  delta-guard retry 8f3a                        make a new candidate by the recipe of now
  delta-guard retry 8f3a --method cf            by a method of your choice
  delta-guard retry 8f3a --candidate mine.safetensors
                                                measure and judge a checkpoint of your own
  delta-guard retry 8f3a --whole                from the prediction on

What flagged nothing is traced again; what was refused is predicted again. Restart the guard first if you changed its configuration.
Your own candidate is promoted only when you approve it: who made it knows what it was trained on.

Exit codes: 0 done, or laid down for the next start, 3 it cannot be tried again, or no such case")]
pub struct Retry {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) wish: Wish,
    /// How the new candidate is made (default: unlearn.method); with the settings that stand in the configuration, else with the method's own
    #[arg(long, value_parser = crate::story::file::method(), conflicts_with_all = ["candidate", "whole"])]
    pub(super) method: Option<Name<Unlearner>>,
    /// A checkpoint to be judged in place of a new one
    #[arg(long, value_name = "FILE", conflicts_with = "whole")]
    pub(super) candidate: Option<PathBuf>,
    /// Begin with the prediction again, whatever is known already
    #[arg(long)]
    pub(super) whole: bool,
}

impl Retry {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let method = self.method;
        self.wish.run(global, |case, state| {
            let asked = crate::engine::Retry {
                whole: self.whole,
                method,
                // Only whether there is one matters here.
                candidate: self.candidate.as_ref().map(|_| case.id.clone()),
            };
            // Before a large file is copied for nothing.
            asked
                .target(case)
                .map_err(|why| Failure::new(Exit::No, format!("case {}: {why}", case.id.short()), ""))?;
            Ok(Ask::Retry {
                case: case.id.clone(),
                whole: self.whole,
                method,
                candidate: self.candidate.as_deref().map(|file| lay_candidate(state, file)).transpose()?,
            })
        })
    }
}
