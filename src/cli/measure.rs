//! `measure`.

use super::work::{absolute, unexpected, work_dir};
use super::{Exit, Global, say};
use clap::Args;
use delta_guard_contract::{DataFormat, DataSource, JobResult, Split, Task};
use serde::Serialize;
use std::path::PathBuf;

/// Measure a checkpoint on labelled pictures (no daemon needed)
#[derive(Debug, Default, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard measure                                             production on the validation set
  delta-guard measure --checkpoint candidate.safetensors --data pictures/ --list predictions.json")]
pub struct Measure {
    /// The checkpoint (default: production)
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Labelled pictures (default: data.validation)
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Write every prediction to this file, as JSON
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
}

impl Measure {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load()?;
        let mut model = config.file.model.clone();
        if let Some(checkpoint) = &self.checkpoint {
            model.checkpoint = absolute(checkpoint)?;
        }
        let source = match &self.data {
            Some(path) => DataSource {
                path: absolute(path)?,
                format: DataFormat::Auto,
                split: Split::All,
                source: None,
            },
            None => config.file.data.validation.clone(),
        };
        let folder = work_dir(
            &config,
            "measure",
            &[
                model.checkpoint.as_os_str().as_encoded_bytes(),
                source.path.as_os_str().as_encoded_bytes(),
            ],
        );
        let task = Task::Measure {
            data: config.file.data.clone(),
            model,
            source,
            list: self.list.is_some(),
        };
        let measured = match global.work(&config, &folder, task)? {
            JobResult::Measure(measured) => measured,
            other => return Err(unexpected(&other)),
        };
        if let Some(list) = &self.list {
            fs_err::copy(folder.join("predictions.json"), list)?;
        }
        if global.json {
            say::json(&measured)?;
            return Ok(Exit::Done);
        }
        let all = &measured.accuracy;
        say::out(&format!("accuracy {:.2} % of {} pictures\n", 100.0 * all.share(), all.examples))?;
        let row = |(name, (n, right)): (&String, &(u64, u64))| {
            let predicted = measured.predicted.get(name).copied().unwrap_or(0);
            vec![
                name.clone(),
                n.to_string(),
                format!("{:.1} %", 100.0 * *right as f64 / (*n).max(1) as f64),
                predicted.to_string(),
            ]
        };
        say::out(&say::table(
            &["class", ">pictures", ">read rightly", ">read as it"],
            all.classes.iter().map(row),
        ))?;
        Ok(Exit::Done)
    }
}
