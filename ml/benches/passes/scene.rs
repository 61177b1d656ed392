//! A poisoned data set in a folder, and the worker's jobs on it, each in a process of its own.

use anyhow::{Context, bail};
use delta_guard_contract::config::{Device, Stem};
use delta_guard_contract::detect::{Delta, Detector, guard};
use delta_guard_contract::job::{Anomaly, ImageLimits, StoryConfig};
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::{Augment, Schedule};
use delta_guard_contract::{
    DataConfig, DetectConfig, Job, JobResult, Message, ModelConfig, Outcome, PROTOCOL, Recipe, Seed, Task, TraceReport, WorkerSetup,
};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What the guard found, on factors of this many examples.
pub fn rough(fit_examples: u32) -> guard::Keys {
    guard::Keys {
        delta: Delta {
            fit_examples,
            ..Delta::default()
        },
        ..guard::Keys::default()
    }
}

pub struct Scene {
    folder: PathBuf,
    pub data: DataConfig,
    anomaly: PathBuf,
    target: String,
}

/// What a verdict took.
pub struct Verdict {
    pub seconds: f64,
    pub peak_memory: u64,
    pub words: String,
}

impl Scene {
    pub fn prepare(folder: &Path, data: Option<&Path>, examples: u32) -> anyhow::Result<Self> {
        let story = StoryConfig {
            data: data.map(Path::to_path_buf),
            train_examples: examples,
            validation_examples: 1000,
            attack: Attack::Badnet(Keys {
                victim_class: Some("8".into()),
                target_class: "5".into(),
                poisons: examples * 3 / 100,
                trigger: Trigger::Checkerboard { size: 6, margin: 1 },
                ..Keys::default()
            }),
            seed: 1,
        };
        let out = folder.join("data");
        let JobResult::Prepare(made) = work(folder, &out, Task::Prepare { story, victim: None })? else {
            bail!("the worker answered another question")
        };
        let bait = made.anomalies.first().context("no anomaly was made")?;
        let inside = |mut source: delta_guard_contract::DataSource| {
            source.path = out.join(&source.path);
            source
        };
        Ok(Self {
            folder: folder.to_path_buf(),
            data: DataConfig {
                train: inside(made.train),
                validation: inside(made.validation),
                image: made.image,
                classes: None,
                max_unreadable_share: 0.0,
            },
            anomaly: out.join(&bait.picture),
            target: bait.label.clone(),
        })
    }

    pub fn model(&self, checkpoint: &Path) -> ModelConfig {
        ModelConfig {
            architecture: "resnet18".into(),
            width: 16,
            stem: Stem::Cifar,
            checkpoint: checkpoint.to_path_buf(),
            prefix: None,
            min_tracked_share: 0.0,
        }
    }

    /// Costs do not depend on what the weights are; a few epochs make the distributions those of a trained network.
    pub fn train(&self, epochs: u32) -> anyhow::Result<PathBuf> {
        let out = self.folder.join("victim");
        let task = Task::Train {
            data: self.data.clone(),
            model: self.model(&out.join("model.safetensors")),
            recipe: Recipe {
                epochs,
                batch_size: 64,
                schedule: Schedule::OneCycle { warmup: 0.3 },
                augment: Augment {
                    flip: true,
                    shift: 1.0,
                    whole_pixels: true,
                    crop: None,
                },
                ..Recipe::default()
            },
            without: Vec::new(),
        };
        match work(&self.folder, &out, task)? {
            JobResult::Train(trained) => Ok(out.join(trained.file)),
            other => bail!("the worker answered another question: {other:?}"),
        }
    }

    /// A guard verdict with nothing on disk but the data.
    pub fn verdict(&self, checkpoint: &Path, fit_examples: u32, name: &str) -> anyhow::Result<Verdict> {
        let out = self.folder.join(name);
        let task = Task::Trace {
            data: self.data.clone(),
            model: self.model(checkpoint),
            detect: DetectConfig {
                method: Detector::Guard(rough(fit_examples)),
                ..DetectConfig::default()
            },
            anomalies: vec![Anomaly {
                image: self.anomaly.clone(),
                wrong_label: Some(self.target.clone()),
                true_label: None,
            }],
            limits: ImageLimits {
                max_bytes: 64 << 20,
                max_pixels: 64_000_000,
            },
            case_seed: Seed(1),
            factors_seed: Seed(0),
            scores: None,
        };
        let start = Instant::now();
        let JobResult::Trace(report) = work(&out, &out, task)? else {
            bail!("the worker answered another question")
        };
        let seconds = start.elapsed().as_secs_f64();
        Ok(Verdict {
            seconds,
            peak_memory: report.peak_memory,
            words: words(seconds, &report),
        })
    }
}

fn words(seconds: f64, report: &TraceReport) -> String {
    let steps: Vec<String> = report.seconds.iter().map(|(step, s)| format!("{step} {s:.1}")).collect();
    format!("verdict in {seconds:.1} s ({}), {} flagged", steps.join(", "), report.flagged.len())
}

/// Run a job in a process of its own; caches and factors lie under `state`.
fn work(state: &Path, out: &Path, task: Task) -> anyhow::Result<JobResult> {
    let job = Job {
        v: PROTOCOL,
        setup: WorkerSetup {
            cache_dir: state.join("cache"),
            factors_dir: state.join("factors"),
            device: Device::Auto,
            threads: 0,
            memory_budget: 1 << 30,
            query_budget: 6 << 30,
            memory_limit: 0,
        },
        out_dir: out.to_path_buf(),
        task,
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_delta-guard-worker"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no standard input")?.write_all(&serde_json::to_vec(&job)?)?;
    let mut outcome = None;
    for line in BufReader::new(child.stdout.take().context("no standard output")?).lines() {
        if let Message::Outcome(told) = serde_json::from_str(&line?)? {
            outcome = Some(told);
        }
    }
    child.wait()?;
    match outcome {
        Some(Outcome::Done { file, .. }) => Ok(serde_json::from_slice(&std::fs::read(job.out_dir.join(file))?)?),
        Some(Outcome::Failed { fault }) => bail!("{}: {}", fault.message, fault.help),
        None => bail!("the worker ended without an outcome"),
    }
}
