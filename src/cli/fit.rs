//! `fit`.

use super::work::{factors_seed, unexpected, work_dir};
use super::{Exit, Global, say};
use clap::Args;
use delta_guard_contract::{JobResult, Task};
use serde::Serialize;

/// Compute the EK-FAC factors of the production model, or find them on disk (no daemon needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard fit          so that the first case does not have to

Factors lie in the state folder under the digest of everything that they depend on; every trace finds them there.")]
pub struct Fit {}

impl Fit {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        let task = Task::Fit {
            data: config.file.data.clone(),
            model: config.file.model.clone(),
            detect: config.file.detect.clone(),
            factors_seed: factors_seed(&config)?,
        };
        let result = match global.work(&config, &work_dir(&config, "fit", &[]), task)? {
            JobResult::Fit(result) => result,
            other => return Err(unexpected(&other)),
        };
        if global.json {
            say::json(&result)?;
            return Ok(Exit::Done);
        }
        let seconds: Vec<String> = result.seconds.iter().map(|(step, s)| format!("{step} {s:.1}")).collect();
        say::out(&say::facts(&[
            ("factors", result.factors.key.0.clone()),
            ("found on disk", if result.factors.reused { "yes" } else { "no" }.into()),
            ("fitted on", format!("{} examples", result.factors.examples)),
            (
                "seed",
                config
                    .file
                    .detect
                    .common
                    .seed
                    .map_or_else(|| "the secret of this installation".into(), |seed| format!("{seed} (detect.seed)")),
            ),
            ("layers", result.layers.len().to_string()),
            ("seconds", seconds.join(", ")),
        ]))?;
        Ok(Exit::Done)
    }
}
