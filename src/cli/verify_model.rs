//! `verify-model`.

use super::work::{absolute, unexpected};
use super::{DEFAULT_CONFIG, Exit, Failure, Global, say};
use crate::config::{self, Config};
use crate::report::words;
use anyhow::Context;
use clap::Args;
use delta_guard_contract::job::VerifyResult;
use delta_guard_contract::verify::{UNPROVED, rough};
use delta_guard_contract::{ImageConfig, JobResult, Task, WorkerSetup};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Untracked tensors, and class names, that are named.
const NAMED: usize = 5;
/// Pictures of the pass whose length is estimated.
pub(super) const PICTURES: u64 = 10_000;

/// See whether an exported model (.pt2) is read rightly: it answers the pictures that its owner stored in it (no daemon, no configuration needed)
#[derive(Debug, Args, Serialize)]
#[command(after_help = "\
Examples:
  delta-guard verify-model model.pt2
  delta-guard verify-model model.pt2 --config guard.yaml   pictures as data.image says, not as the file does
  delta-guard verify-model model.pt2 --json

The file is what torch.export.save wrote; docs/export.py also stores the pictures.

Exit codes:
  0  the pictures are answered as its owner stored
  1  they are not (the message says what is most likely the cause), or it failed
  3  no pictures are stored: nobody has proved that this is the owner's network
  78 the file cannot be read, or holds what is not read")]
pub struct VerifyModel {
    /// The exported model
    #[arg(value_name = "FILE.pt2")]
    file: PathBuf,
}

impl VerifyModel {
    pub(super) fn run(self, global: &Global) -> anyhow::Result<Exit> {
        let verified = verify(global, &self.file)?;
        if global.json {
            say::out(&format!("{}\n", serde_json::to_string(&verified)?))?;
        } else {
            let file = say::plain(&self.file.display().to_string());
            say::out(&format!("{file}\n\n{}", say::facts(&facts(&verified, PICTURES))))?;
        }
        match &verified.proof {
            None => Ok(Exit::No),
            Some(_) => agreed(&verified).map(|()| Exit::Done),
        }
    }
}

/// Let the worker look at an exported model: with program and means of the configuration that was named, without one where none was.
///
/// # Errors
/// When the file is missing, or the worker cannot read it.
pub(super) fn verify(global: &Global, file: &Path) -> anyhow::Result<VerifyResult> {
    let file = absolute(file)?;
    // A worker's words about a file that is not there would be longer.
    std::fs::File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let folder = tempfile::tempdir()?;
    let named = (global.config != Path::new(DEFAULT_CONFIG)).then(|| global.load_text()).transpose()?;
    let image = named.as_ref().map(|config| config.file.data.image.clone());
    look(global, named.as_ref(), folder.path(), &file, image)
}

/// The job itself. Its caches lie in `folder`: nothing is put where a guard keeps its own.
fn look(global: &Global, config: Option<&Config>, folder: &Path, file: &Path, image: Option<ImageConfig>) -> anyhow::Result<VerifyResult> {
    let (program, setup) = means(config, folder)?;
    let task = Task::VerifyModel {
        file: file.to_path_buf(),
        image,
    };
    match global.work_with(&program, setup, folder, task)? {
        JobResult::Verify(verified) => Ok(*verified),
        other => Err(unexpected(&other)),
    }
}

/// Worker and means of a configuration, or the usual ones; folders below `folder`.
pub(super) fn means(config: Option<&Config>, folder: &Path) -> anyhow::Result<(PathBuf, WorkerSetup)> {
    let (program, setup) = match config {
        Some(config) => (config.file.worker_path()?, config.file.worker_setup()),
        None => {
            let worker = config::file::Worker::default();
            let program = std::env::current_exe()
                .context("cannot tell where this program lies")?
                .with_file_name("delta-guard-worker");
            let setup = WorkerSetup {
                cache_dir: PathBuf::new(),
                factors_dir: PathBuf::new(),
                device: worker.device,
                threads: worker.threads,
                memory_budget: worker.memory_budget.0,
                query_budget: worker.query_budget.0,
                memory_limit: 0,
            };
            (program, setup)
        }
    };
    let setup = WorkerSetup {
        cache_dir: folder.join("cache"),
        factors_dir: folder.join("factors"),
        ..setup
    };
    Ok((program, setup))
}

/// An error where the stored pictures are answered otherwise.
pub(super) fn agreed(verified: &VerifyResult) -> anyhow::Result<()> {
    match &verified.proof {
        Some(proof) if !proof.agrees() => Err(Failure::new(Exit::Failed, proof.sentence(), proof.help())),
        _ => Ok(()),
    }
}

/// What it is, for people. `pictures`: of a training set whose pass is estimated.
pub(super) fn facts(verified: &VerifyResult, pictures: u64) -> Vec<(&'static str, String)> {
    let [channels, height, width] = verified.input;
    let named = verified
        .stored
        .as_ref()
        .map_or_else(String::new, |stored| format!(": {}", some(&stored.classes)));
    let pass = verified.seconds_per_picture * pictures as f64;
    let mut facts = vec![
        ("reads", format!("{channels} × {height} × {width} (channels, height, width)")),
        ("classes", format!("{}{named}", verified.classes)),
        ("parameters", words::thousands(verified.parameters)),
        (
            "tracked",
            format!(
                "{} layers with {} of those that the logits depend on",
                verified.tracked.layers,
                words::percent(verified.tracked.tracked_share)
            ),
        ),
    ];
    for (name, why) in verified.tracked.untracked.iter().take(NAMED) {
        facts.push(("  not tracked", format!("{name} ({why})")));
    }
    if verified.tracked.untracked_tensors > NAMED as u64 {
        let more = verified.tracked.untracked_tensors - NAMED as u64;
        facts.push(("  not tracked", format!("{} smaller tensors", words::thousands(more))));
    }
    facts.extend(
        verified
            .tracked
            .blocks
            .iter()
            .map(|wide| ("  in blocks", format!("{wide}: worker.memory_budget holds no more"))),
    );
    facts.push((
        "gradients",
        format!(
            "at most {} (relative) from finite differences, in three layers",
            rough(verified.gradient_difference)
        ),
    ));
    facts.push((
        "time",
        format!(
            "{:.3} s a picture: about {} for a pass over {} pictures",
            verified.seconds_per_picture,
            words::seconds(pass),
            words::thousands(pictures)
        ),
    ));
    facts.push(("factors", words::bytes(verified.factor_bytes)));
    facts.push(("memory", format!("{} at most", words::bytes(verified.peak_memory))));
    facts.push(("proof", proof_of(verified)));
    facts
}

fn proof_of(verified: &VerifyResult) -> String {
    verified.proof.as_ref().map_or_else(|| UNPROVED.to_owned(), |proof| proof.sentence())
}

/// The first names of a list, and how many more there are.
fn some(names: &[String]) -> String {
    let first = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
