//! `init`: from an exported model and its two sets to a configuration that works.

mod text;

use super::check_config::CheckConfig;
use super::verify_model::{PICTURES, agreed, facts, means, verify};
use super::work::{absolute, unexpected};
use super::{DEFAULT_CONFIG, Exit, Failure, Global, advice, say};
use crate::policy::Mode;
use anyhow::Context;
use clap::Args;
use delta_guard_contract::job::{CheckResult, VerifyResult};
use delta_guard_contract::picture::from_torchvision;
use delta_guard_contract::{DataConfig, DataFormat, DataSource, ImageConfig, JobResult, Split, Task};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Names that are shown of each list, where two lists differ.
const SHOWN: usize = 20;

/// Write a configuration for an exported model (.pt2), and check it
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard init model.pt2 --train pictures/train --validation pictures/validation
  delta-guard init model.pt2 --train train.csv --validation val.csv --out products.yaml --owner ml@example.org --mode observe

The model is verified first, as `verify-model` does: one that answers its stored pictures otherwise gets no configuration.
A file that is there is never overwritten.

Exit codes: 0 written, no mistake; 78 the model or the sets cannot be used, or check-config found mistakes in what was written; 1 failed")]
pub struct Init {
    /// The exported model
    #[arg(value_name = "FILE.pt2")]
    model: PathBuf,
    /// The training set, exactly as the model saw it: a folder with one sub-folder per class, or what else data.train.path takes
    #[arg(long, value_name = "PATH")]
    train: PathBuf,
    /// Labelled pictures that were not trained on
    #[arg(long, value_name = "PATH")]
    validation: PathBuf,
    /// Where the configuration goes
    #[arg(long, short, value_name = "FILE", default_value = "delta-guard.yaml")]
    out: PathBuf,
    /// The weights in use, where they are not those in the exported model
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Who is responsible: shown in mails and reports
    #[arg(long, value_name = "MAIL")]
    owner: Option<String>,
    /// How far the guard may act by itself: observe, propose, enforce
    #[arg(long, value_name = "MODE", default_value = "propose", value_parser = mode)]
    mode: Mode,
}

fn mode(word: &str) -> Result<Mode, String> {
    serde_json::from_value(word.into()).map_err(|_| "allowed: observe, propose, enforce".into())
}

/// What is known before anything is written.
struct Found {
    model: PathBuf,
    verified: VerifyResult,
    image: ImageConfig,
    train: DataSource,
    validation: DataSource,
    /// In the order of the logits; empty: the set's own order is taken.
    classes: Vec<String>,
    /// Training pictures, where they are counted.
    pictures: Option<u64>,
    listen: String,
}

impl Init {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let out = absolute(&self.out)?;
        if out.symlink_metadata().is_ok() {
            return Err(taken(&out));
        }
        let found = self.look(global)?;
        if !global.json {
            let told = facts(&found.verified, found.pictures.unwrap_or(PICTURES));
            let model = say::plain(&found.model.display().to_string());
            say::out(&format!("{model}\n\n{}", say::facts(&told)))?;
            if found.verified.stored.is_none() {
                say::note(
                    "warning: the file does not say how pictures are prepared: data.image is a guess (ImageNet's figures). Correct it, or export with docs/export.py",
                );
            }
        }
        write_new(&out, &text::configuration(&self, &found, &out)?)?;
        self.check(global, &out)
    }

    /// The model, the sets, and whether they go together.
    fn look(&self, global: &Global) -> anyhow::Result<Found> {
        let verified = verify(&without_config(global), &self.model)?;
        agreed(&verified)?;
        let (train, validation) = self.sources()?;
        let image = image(&verified)?;
        let seen = glance(global, &train, &validation, &image)?;
        let classes = classes(&verified, &seen)?;
        let counted: u64 = seen.train.iter().map(|(_, files)| files).sum();
        Ok(Found {
            model: absolute(&self.model)?,
            verified,
            image,
            train,
            validation,
            classes,
            pictures: (counted > 0).then_some(counted),
            listen: free_port(),
        })
    }

    /// One path may hold both sets, as CIFAR's folder does.
    fn sources(&self) -> anyhow::Result<(DataSource, DataSource)> {
        let both = self.train == self.validation;
        let source = |path: &Path, split: Split| -> anyhow::Result<DataSource> {
            Ok(DataSource {
                path: absolute(path)?,
                format: DataFormat::Auto,
                split: if both { split } else { Split::All },
                source: None,
            })
        };
        Ok((source(&self.train, Split::Train)?, source(&self.validation, Split::Test)?))
    }

    /// What was written, checked as `check-config` does.
    fn check(&self, global: &Global, out: &Path) -> anyhow::Result<Exit> {
        let there = Global {
            config: out.to_path_buf(),
            ..global.clone()
        };
        if !global.json {
            say::out(&format!("\nwritten: {}\n", say::plain(&out.display().to_string())))?;
        }
        let exit = CheckConfig::default().run(&there)?;
        if exit == Exit::Done && !global.json {
            let typed = Some(self.out.as_path());
            say::out(&format!(
                "\nNext, measure: it must print the accuracy that you know. Then guard.\n  {}\n  {}\n",
                advice::measure().line(typed),
                advice::run().line(typed)
            ))?;
        }
        Ok(exit)
    }
}

/// The configuration that is named elsewhere (`DELTA_GUARD_CONFIG`) is about another model.
fn without_config(global: &Global) -> Global {
    Global {
        config: DEFAULT_CONFIG.into(),
        ..global.clone()
    }
}

fn taken(out: &Path) -> anyhow::Error {
    Failure::new(
        Exit::Failed,
        format!("{} is there already, and is not overwritten", out.display()),
        "name another file with --out, or move that one away",
    )
}

fn write_new(out: &Path, text: &str) -> anyhow::Result<()> {
    let folder = out.parent().unwrap_or(Path::new("/"));
    // Whoever could write it would decide what is trained.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o644).open(out);
    let mut file = match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(taken(out)),
        made => made.with_context(|| format!("cannot write into {}", folder.display()))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("{} cannot be written", out.display()))
}

/// Pictures as the file says; where it says nothing, what most networks are trained with: a guess, which is told.
fn image(verified: &VerifyResult) -> anyhow::Result<ImageConfig> {
    let [channels, height, width] = verified.input;
    let size = u32::try_from(height).ok().zip(u32::try_from(width).ok());
    let guessed = || {
        let [mean, std] = match channels {
            1 => [vec![0.5], vec![0.5]],
            _ => [vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]],
        };
        let mut steps = vec![serde_json::json!({"resize": {"size": [height, width]}})];
        if channels == 1 {
            steps.insert(0, serde_json::json!({"grayscale": {"channels": 1}}));
        }
        steps.push(serde_json::json!({"normalize": {"mean": mean, "std": std}}));
        serde_json::Value::from(steps)
    };
    let said = verified.stored.as_ref().map_or_else(guessed, |stored| stored.preprocess.clone());
    from_torchvision(&said.to_string(), size).map_err(|mistake| {
        Failure::new(
            Exit::Config,
            format!("how the file prepares pictures (preprocess): {}", mistake.sentence("")),
            mistake.help,
        )
    })
}

/// The worker's look at both sets.
fn glance(global: &Global, train: &DataSource, validation: &DataSource, image: &ImageConfig) -> anyhow::Result<CheckResult> {
    let folder = tempfile::tempdir()?;
    let (program, setup) = means(None, folder.path())?;
    let data = DataConfig {
        train: train.clone(),
        validation: validation.clone(),
        classes: None,
        image: image.clone(),
        max_unreadable_share: 0.01,
    };
    let quiet = Global {
        quiet: true,
        ..global.clone()
    };
    match quiet.work_with(&program, setup, folder.path(), Task::Check { data, model: None })? {
        JobResult::Check(seen) => Ok(seen),
        other => Err(unexpected(&other)),
    }
}

/// The order of the classes: as it is stored, where these are the set's classes.
fn classes(verified: &VerifyResult, seen: &CheckResult) -> anyhow::Result<Vec<String>> {
    let listed: Vec<String> = seen.train.iter().map(|(name, _)| name.clone()).collect();
    let stored = verified.stored.as_ref().map_or(&[][..], |stored| &stored.classes);
    let number = seen.classes.filter(|number| *number != verified.classes);
    let (missing, extra) = (without(stored, &listed), without(&listed, stored));
    let differ = !stored.is_empty() && !listed.is_empty() && (!missing.is_empty() || !extra.is_empty());
    if !differ && number.is_none() {
        return Ok(stored.to_vec());
    }
    let mut said = String::from("the model's classes are not those of the training set");
    said.push_str(&format!("\n  the model answers {}{}", verified.classes, named(stored)));
    let count = seen.classes.map_or_else(String::new, |number| number.to_string());
    said.push_str(&format!("\n  the training set has {count}{}", named(&listed)));
    if differ {
        for (names, place) in [(&missing, "model"), (&extra, "training set")] {
            if !names.is_empty() {
                said.push_str(&format!("\n  only in the {place}: {}", shown(names)));
            }
        }
    }
    Err(Failure::new(
        Exit::Config,
        said,
        "name the set that this model was trained on; if the names only are others, export again with the set's names (the folders'), in the order of the model's outputs",
    ))
}

/// Those of `names` that are not among `others`.
fn without(names: &[String], others: &[String]) -> Vec<String> {
    let others: std::collections::HashSet<&String> = others.iter().collect();
    names.iter().filter(|name| !others.contains(name)).cloned().collect()
}

fn named(names: &[String]) -> String {
    if names.is_empty() {
        String::new()
    } else {
        format!(": {}", shown(names))
    }
}

/// Names, so many that they can still be read.
fn shown(names: &[String]) -> String {
    let first = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// The usual address, or the next free port: another guard may run on this machine.
fn free_port() -> String {
    let free = (9464..9496).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.unwrap_or(0))
}
