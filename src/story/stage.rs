//! The stage: one folder with data, victim and configuration, and the jobs that a story runs in it.

use super::StoryFile;
use crate::config::file::{ConfigFile, Http, InboxKeys, PathsKeys, Worker};
use crate::config::units::Span;
use anyhow::{Context, bail};
use delta_guard_contract::job::{Anomaly, ImageLimits, JobResult, MeasureResult, Prediction, PrepareResult, TrainResult, VictimConfig};
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{DataConfig, DataSource, DetectConfig, ModelConfig, Seed, Task, TraceReport, TrainId};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs a job in a folder and returns its result: the command line's way of doing so.
pub type Run<'a> = dyn FnMut(&Path, Task) -> anyhow::Result<JobResult> + 'a;

/// Limits of the decoder: these pictures are our own.
const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 64 << 20,
    max_pixels: 64_000_000,
};

/// A picture of which nothing is said.
fn anomaly(image: &Path) -> Anomaly {
    Anomaly {
        image: image.to_path_buf(),
        wrong_label: None,
        true_label: None,
    }
}

/// A story in its folder.
pub struct Theatre {
    /// The story.
    pub story: StoryFile,
    /// The folder; absolute.
    pub out: PathBuf,
    /// What [`Theatre::prepare`] made.
    pub prepared: PrepareResult,
}

/// The victim's checkpoint in the folder of a story.
fn victim_of(out: &Path) -> PathBuf {
    out.join("victim").join("model.safetensors")
}

fn unexpected(result: &JobResult) -> anyhow::Error {
    anyhow::anyhow!("the worker answered another question: {:.60}", format!("{result:?}"))
}

impl Theatre {
    /// Make the data: draw or copy, poison.
    ///
    /// # Errors
    /// The worker's.
    pub fn prepare(story: StoryFile, out: &Path, run: &mut Run<'_>) -> anyhow::Result<Self> {
        let folder = out.join("data");
        let task = Task::Prepare {
            story: story.story.clone(),
            victim: Some(VictimConfig {
                model: story.model.with(&victim_of(out)),
                recipe: story.recipe.clone(),
            }),
        };
        let mut prepared = match run(&folder, task)? {
            JobResult::Prepare(prepared) => prepared,
            other => return Err(unexpected(&other)),
        };
        let inside = |path: &mut PathBuf| *path = folder.join(&*path);
        let p = &mut prepared;
        [&mut p.train.path, &mut p.validation.path, &mut p.success.source.path]
            .into_iter()
            .for_each(inside);
        p.anomalies.iter_mut().map(|bait| &mut bait.picture).for_each(inside);
        Ok(Self {
            story,
            out: out.to_path_buf(),
            prepared,
        })
    }

    /// The victim's checkpoint.
    pub fn victim(&self) -> PathBuf {
        victim_of(&self.out)
    }

    /// Data as a job names it.
    pub fn data(&self) -> DataConfig {
        let p = &self.prepared;
        DataConfig {
            train: p.train.clone(),
            validation: p.validation.clone(),
            image: p.image.clone(),
            max_unreadable_share: 0.01,
            classes: None,
        }
    }

    /// The network with a checkpoint.
    pub fn model(&self, checkpoint: &Path) -> ModelConfig {
        self.story.model.with(checkpoint)
    }

    /// Train the victim on the poisoned set.
    ///
    /// # Errors
    /// The worker's.
    pub fn train(&self, run: &mut Run<'_>) -> anyhow::Result<TrainResult> {
        let victim = self.victim();
        let task = Task::Train {
            data: self.data(),
            model: self.model(&victim),
            recipe: self.story.recipe.clone(),
            without: Vec::new(),
        };
        match run(&self.out.join("victim"), task)? {
            JobResult::Train(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    /// Measure a checkpoint on a set; `list` keeps every prediction in `predictions.json` of the folder.
    ///
    /// # Errors
    /// The worker's.
    pub fn measure(&self, checkpoint: &Path, source: &DataSource, folder: &str, list: bool, run: &mut Run<'_>) -> anyhow::Result<MeasureResult> {
        let task = Task::Measure {
            data: self.data(),
            model: self.model(checkpoint),
            source: source.clone(),
            list,
        };
        match run(&self.out.join("measures").join(folder), task)? {
            JobResult::Measure(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    /// How far the attack succeeds with a checkpoint, by its own measure: a share, 0 to 1.
    ///
    /// # Errors
    /// The worker's.
    pub fn success(&self, checkpoint: &Path, folder: &str, run: &mut Run<'_>) -> anyhow::Result<f64> {
        // The labels of these pictures are those that count.
        let measured = self.measure(checkpoint, &self.prepared.success.source, folder, false, run)?;
        Ok(measured.accuracy.share())
    }

    /// What is said where none of the pictures that were set aside is read as the attack wants it.
    pub fn not_taken(&self) -> String {
        let baits = &self.prepared.anomalies;
        let mut labels: Vec<&str> = baits.iter().map(|bait| bait.label.as_str()).collect();
        labels.sort_unstable();
        labels.dedup();
        let what = match labels[..] {
            [label] => label,
            _ => "it is meant to be",
        };
        format!(
            "the attack did not take: none of {} {} is read as {what}",
            baits.chunk_by(|a, b| a.picture == b.picture).count(),
            self.prepared.success.pictures
        )
    }

    /// How a checkpoint reads a picture.
    ///
    /// # Errors
    /// The worker's.
    pub fn predict(&self, checkpoint: &Path, image: &Path, folder: &str, run: &mut Run<'_>) -> anyhow::Result<Prediction> {
        let task = Task::Predict {
            data: self.data(),
            model: self.model(checkpoint),
            image: image.to_path_buf(),
            limits: LIMITS,
        };
        match run(&self.out.join("reads").join(folder), task)? {
            JobResult::Predict(read) => Ok(read),
            other => Err(unexpected(&other)),
        }
    }

    /// Trace pictures, all misread as the same class, as one case without a daemon, by the given settings. What is drawn follows from `case_seed`, the factors from the story's seed.
    ///
    /// # Errors
    /// The worker's.
    pub fn trace(&self, images: &[&Path], case_seed: u64, folder: &str, detect: DetectConfig, run: &mut Run<'_>) -> anyhow::Result<TraceReport> {
        let task = Task::Trace {
            data: self.data(),
            model: self.model(&self.victim()),
            detect,
            anomalies: images.iter().copied().map(anomaly).collect(),
            limits: LIMITS,
            case_seed: Seed(case_seed),
            factors_seed: Seed(self.story.story.seed),
            scores: None,
        };
        match run(&self.out.join("traces").join(folder), task)? {
            JobResult::Trace(report) => Ok(*report),
            other => Err(unexpected(&other)),
        }
    }

    /// Unlearn ids by a method; returns the candidate checkpoint.
    ///
    /// # Errors
    /// The worker's.
    pub fn unlearn(&self, method: Unlearner, flagged: Vec<TrainId>, folder: &str, run: &mut Run<'_>) -> anyhow::Result<(PathBuf, TrainResult)> {
        let task = Task::Unlearn {
            data: self.data(),
            model: self.model(&self.victim()),
            recipe: self.story.recipe.clone(),
            method,
            flagged,
            standing: Vec::new(),
            standing_digest: None,
        };
        let out = self.out.join(folder);
        match run(&out, task)? {
            JobResult::Train(result) => Ok((out.join(&result.file), result)),
            other => Err(unexpected(&other)),
        }
    }

    /// Single pictures of a set as PNG files.
    ///
    /// # Errors
    /// The worker's.
    pub fn extract(&self, source: &DataSource, ids: Vec<TrainId>, folder: &str, run: &mut Run<'_>) -> anyhow::Result<Vec<PathBuf>> {
        let out = self.out.join(folder);
        match run(
            &out,
            Task::Extract {
                data: self.data(),
                source: source.clone(),
                ids,
            },
        )? {
            JobResult::Extract { files } => Ok(files.iter().map(|f| out.join(f)).collect()),
            other => Err(unexpected(&other)),
        }
    }

    /// The real configuration of a guard for this stage.
    pub fn config(&self) -> ConfigFile {
        ConfigFile {
            instance: "demo".into(),
            owner: String::new(),
            mode: crate::policy::Mode::Propose,
            paths: PathsKeys {
                group: None,
                inbox: self.out.join("inbox"),
                refused: None,
                state: self.out.join("state"),
                candidates: self.out.join("candidates"),
            },
            // One picture, written by a rename: there is no writer to wait for.
            inbox: InboxKeys {
                settle: Span(Duration::from_millis(200)),
                scan_interval: Span(Duration::from_secs(2)),
                ..InboxKeys::default()
            },
            data: self.data(),
            model: self.model(&self.victim()),
            recipe: self.story.recipe.clone(),
            // A demo is repeated by its seed alone; a real guard keeps its own secret.
            detect: self.story.detect.clone().seeded(self.story.story.seed),
            unlearn: self.story.unlearn.clone(),
            gate: self.story.gate.clone(),
            caps: crate::policy::Caps::default(),
            worker: Worker {
                nice: 0,
                ..Worker::default()
            },
            http: Http {
                listen: Some(([127, 0, 0, 1], 0).into()),
                ..Http::default()
            },
            mail: None,
        }
    }

    /// Write that configuration; returns its path.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_config(&self) -> anyhow::Result<PathBuf> {
        let path = self.out.join("delta-guard.yaml");
        let text = serde_yaml::to_string(&self.config()).context("the configuration cannot be written as YAML")?;
        fs_err::write(&path, text)?;
        for folder in ["inbox", "state", "candidates"] {
            fs_err::create_dir_all(self.out.join(folder))?;
        }
        Ok(path)
    }
}

/// In the folder of a story: what it tells.
const STORY: &str = "story.json";

/// Make the folder of a story, or find the one in which it was begun. `story`: everything that it depends on.
///
/// # Errors
/// When the folder holds something else.
pub fn open(out: Option<&Path>, name: &str, story: &impl Serialize) -> anyhow::Result<PathBuf> {
    let out = match out {
        Some(out) => std::path::absolute(out)?,
        None => tempfile::Builder::new().prefix(&format!("delta-guard-{name}-")).tempdir()?.keep(),
    };
    fs_err::create_dir_all(&out)?;
    let text = serde_json::to_vec(&(name, story))?;
    match std::fs::read(out.join(STORY)) {
        Ok(begun) if begun == text => return Ok(out),
        // Of another story that came to nothing, nothing need be kept.
        Ok(_) if has_something(&out)? => bail!("{} holds another story: name a new folder, or delete it", out.display()),
        Ok(_) => {}
        Err(_) if fs_err::read_dir(&out)?.next().is_some() => bail!("{} is not empty: name a new folder, or delete it", out.display()),
        Err(_) => {}
    }
    crate::publish::publish_file(&out, STORY, &text)?;
    Ok(out)
}

/// Was a first job of the story in this folder done? An evaluation has a folder for each seed.
fn has_something(out: &Path) -> anyhow::Result<bool> {
    let first = |folder: &Path| folder.join("data").join(super::done::DONE).exists();
    if first(out) {
        return Ok(true);
    }
    for entry in fs_err::read_dir(out)? {
        if first(&entry?.path()) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_gone_on_in_by_its_own_story_only() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let open = |story: u32| open(Some(&out), "demo", &story);
        assert_eq!(open(1).unwrap(), out);
        assert_eq!(open(1).unwrap(), out, "it goes on");
        assert_eq!(open(2).unwrap(), out, "nothing was done yet: nothing is in the way");
        std::fs::create_dir_all(out.join("seed-7/data")).unwrap();
        std::fs::write(out.join("seed-7/data/done.json"), "{}").unwrap();
        assert!(open(2).is_ok());
        assert!(open(1).unwrap_err().to_string().contains("holds another story"));
        let other = folder.path().join("photos");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("a.png"), "x").unwrap();
        let refused = super::open(Some(&other), "demo", &1).unwrap_err().to_string();
        assert!(
            refused.contains("is not empty") && std::fs::read_dir(&other).unwrap().count() == 1,
            "{refused}"
        );
    }
}
