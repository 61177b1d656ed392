//! `train`.

use super::work::{keep, may_keep, unexpected, work_dir};
use super::{Exit, Global, ids, say};
use clap::Args;
use delta_guard_contract::job::TrainResult;
use delta_guard_contract::{JobResult, Task, TrainId};
use serde::Serialize;
use std::path::PathBuf;

/// Train a model by the recipe (no daemon needed). Interrupted, the same command goes on after the last epoch
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard train --out victim.safetensors
  delta-guard train --without flagged.csv --out clean.safetensors

The recipe, the network and the training set are those of the configuration; its model.checkpoint is not touched.")]
pub struct Train {
    /// Where the checkpoint goes
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// Leave out the training ids that this file lists
    #[arg(long, value_name = "FILE")]
    without: Option<PathBuf>,
}

impl Train {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_to_train()?;
        may_keep(&config, &self.out)?;
        let without = self.without.as_deref().map(ids::read).transpose()?.unwrap_or_default();
        let folder = work_dir(&config, "train", &parts(&without));
        let task = Task::Train {
            data: config.file.data.clone(),
            model: config.file.model.clone(),
            recipe: config.file.recipe.clone(),
            without,
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

/// What names a work folder besides the configuration.
pub(super) fn parts(ids: &[TrainId]) -> Vec<&[u8]> {
    ids.iter().map(|id| id.0.as_bytes()).collect()
}

/// Print what came out.
pub(super) fn told(global: &Global, result: &TrainResult, out: &std::path::Path) -> anyhow::Result<Exit> {
    if global.json {
        say::json(result)?;
    } else {
        say::out(&say::facts(&[
            ("checkpoint", out.display().to_string()),
            ("digest", result.digest.0.clone()),
            ("examples", result.examples.to_string()),
            (
                "last epoch",
                format!(
                    "loss {:.4}, accuracy {:.1} % (augmented training pictures)",
                    result.train_loss,
                    100.0 * result.train_accuracy
                ),
            ),
            ("seconds", format!("{:.1}", result.seconds)),
        ]))?;
    }
    Ok(Exit::Done)
}
