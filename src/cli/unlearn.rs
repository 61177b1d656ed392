//! `unlearn`.

use super::train::{parts, told};
use super::work::{keep, may_keep, unexpected, work_dir};
use super::{Exit, Global, ids, lookup, say};
use crate::engine::{Standing, query};
use crate::story::file::method;
use clap::Args;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::method::{Method, Name};
use delta_guard_contract::{JobResult, Task};
use serde::Serialize;
use std::path::PathBuf;

/// Make a model without the flagged examples (no daemon needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard unlearn --flagged trace.json --out candidate.safetensors
  delta-guard unlearn --flagged flagged.csv --method cf --out candidate.safetensors

Then `delta-guard certify candidate.safetensors --image wrong.png` judges it. Production is only read.")]
pub struct Unlearn {
    /// The ids: what `trace --json` or `flagged --json|--csv` wrote, or one id a line
    #[arg(long, value_name = "FILE")]
    pub(super) flagged: PathBuf,
    /// How (default: unlearn.method); with the settings that stand in the configuration, else with the method's own
    #[arg(long, value_parser = method())]
    pub(super) method: Option<Name<Unlearner>>,
    /// Leave the standing exclusion list out of account: train on what earlier repairs took out (see `delta-guard excluded`)
    #[arg(long)]
    pub(super) with_excluded: bool,
    /// Where the candidate goes
    #[arg(long, short, value_name = "FILE")]
    pub(super) out: PathBuf,
}

impl Unlearn {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        may_keep(&config, &self.out)?;
        let flagged = ids::read(&self.flagged)?;
        let method = config.file.unlearn.by(self.method);
        let standing = match self.with_excluded || !lookup::journal(&config.file.paths.state)? {
            true => Standing::default(),
            false => query::standing(&config.file.paths.state)?.1,
        };
        if !standing.ids.is_empty() {
            say::note(&format!(
                "{} examples of promoted and approved repairs are left out, too (--with-excluded keeps them in)",
                standing.ids.len()
            ));
        }
        let folder = work_dir(&config, method.name(), &parts(&[flagged.as_slice(), standing.ids.as_slice()].concat()));
        let task = Task::Unlearn {
            data: config.file.data.clone(),
            model: config.file.model.clone(),
            recipe: config.file.recipe.clone(),
            method,
            flagged,
            standing_digest: standing.digest(),
            standing: standing.ids,
        };
        match global.work(&config, &folder, task)? {
            JobResult::Train(result) => {
                keep(&config, &folder.join(&result.file), &self.out)?;
                told(global, &result, &self.out)
            }
            other => Err(unexpected(&other)),
        }
    }
}
