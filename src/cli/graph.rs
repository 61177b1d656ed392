//! `graph`.

use super::work::{unexpected, work_dir};
use super::{Exit, Global, say};
use clap::Args;
use delta_guard_contract::{JobResult, Task};
use serde::Serialize;
use std::path::PathBuf;

/// Write the model's layer graph as a file (no daemon needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard graph --classes 10 --out graph.json

Edit it and name it in model.architecture to guard a network that is none of the built-in ones.")]
pub struct Graph {
    /// Number of classes
    #[arg(long)]
    classes: u32,
    /// Where it goes
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
}

impl Graph {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let config = global.load_text()?;
        let folder = work_dir(&config, "graph", &[&self.classes.to_le_bytes()]);
        let image = &config.file.data.image;
        if let Some(path) = &image.from {
            anyhow::bail!(
                "{} cannot be read: the size of the pictures stands there (data.image.from)",
                path.display()
            );
        }
        let task = Task::Graph {
            model: config.file.model.clone(),
            input: image.input(),
            classes: self.classes,
        };
        match global.work(&config, &folder, task)? {
            JobResult::Graph { file } => {
                fs_err::copy(folder.join(file), &self.out)?;
                if global.json {
                    say::json(&serde_json::json!({"graph": self.out}))?
                } else {
                    say::out(&self.out.display().to_string())?
                }
                Ok(Exit::Done)
            }
            other => Err(unexpected(&other)),
        }
    }
}
