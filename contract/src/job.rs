//! Jobs: what the guard asks of a worker, and what comes back.
//!
//! Paths in a job are absolute. A worker writes only below `out_dir` and the two folders of its setup, and never to a checkpoint that it is given.

use crate::audit::AuditReport;
use crate::method::unlearn::Unlearner;
use crate::{DataConfig, DataSource, DetectConfig, Digest, ImageConfig, ModelConfig, Recipe, Seed, TraceReport, TrainId, WorkerSetup};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub use crate::fold::{FoldSum, FoldTask};
pub use crate::story::{Bait, PrepareResult, StoryConfig, Success, VictimConfig};
pub use crate::verify::{Proof, StoredByOwner, Tracked, VerifyResult};

/// Name of the submitted picture in the folder of a predict job, as the worker writes it anew: a PNG of the pixels that the model saw, enlarged where they
/// are few. What the submitter sent is never passed on.
pub const PICTURE_FILE: &str = "anomaly.png";

/// Name of the file, inside a job's folder, that holds its result.
pub const OUTCOME_FILE: &str = "outcome.json";

/// One job, given to a worker as one JSON document on standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// [`crate::PROTOCOL`].
    pub v: u32,
    /// Place and means.
    pub setup: WorkerSetup,
    /// Folder for the job's files; made if missing. A repeated job finds its own unfinished work here and goes on.
    pub out_dir: PathBuf,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, strum::IntoStaticStr)]
#[serde(tag = "task", rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Task {
    /// Do data, network and checkpoint go together? Reads no picture, writes nothing but its result. → [`CheckResult`]
    Check {
        /// Data.
        data: DataConfig,
        /// Model; None: only the data are looked at.
        model: Option<ModelConfig>,
    },
    /// Is an exported model (`.pt2`) read rightly? Answers the pictures that are stored in it, and compares. → [`VerifyResult`]
    VerifyModel {
        /// The file; its own weights are used.
        file: PathBuf,
        /// Pictures as the configuration says it; None: as the file does.
        image: Option<ImageConfig>,
    },
    /// Decode an image and predict it. → [`Prediction`]
    Predict {
        /// Data (for sizes and class names).
        data: DataConfig,
        /// Model.
        model: ModelConfig,
        /// The picture.
        image: PathBuf,
        /// Limits of the decoder.
        limits: ImageLimits,
    },
    /// Compute the EK-FAC factors, or find them on disk. → [`FitResult`]
    Fit {
        /// Data.
        data: DataConfig,
        /// Model.
        model: ModelConfig,
        /// Settings.
        detect: DetectConfig,
        /// Seed of fit subset and Fisher labels where `detect.seed` is unset.
        #[serde(default)]
        factors_seed: Seed,
    },
    /// From anomalies to training examples; writes `trace.json` and thumbnails. → [`TraceReport`]
    Trace {
        /// Data.
        data: DataConfig,
        /// Model.
        model: ModelConfig,
        /// Settings.
        detect: DetectConfig,
        /// The anomalies (one or more, all of the same wrong label).
        anomalies: Vec<Anomaly>,
        /// Limits of the decoder.
        limits: ImageLimits,
        /// Seed of labels, transforms and clean pictures where `detect.seed` is unset.
        case_seed: Seed,
        /// As in [`Task::Fit`]: the same for all traces that are to share factors.
        #[serde(default)]
        factors_seed: Seed,
        /// `scores.safetensors` of a merge of [`FoldTask::Scores`]: the first scoring pass is then not computed again. Scores of another plan are refused.
        #[serde(default)]
        scores: Option<PathBuf>,
    },
    /// Groups of training examples that stand apart in their class, without any anomaly; writes `audit.json` and thumbnails. → [`AuditReport`]
    Audit {
        /// Data.
        data: DataConfig,
        /// Model.
        model: ModelConfig,
        /// Settings; the method must be the guard.
        detect: DetectConfig,
        /// Classes by name; none: all of them.
        classes: Vec<String>,
        /// Seed of clean pictures and start directions where `detect.seed` is unset.
        seed: Seed,
        /// As in [`Task::Fit`].
        factors_seed: Seed,
    },
    /// One part of a sum over training examples; writes `part.safetensors`. Parts may run in any order, on any machine that sees the same files; a part that was
    /// killed is run again. → [`PartResult`]
    FoldPart {
        /// The sum.
        sum: FoldSum,
        /// Which part, counted from 0.
        part: u32,
        /// Number of parts.
        parts: u32,
    },
    /// Put the parts of a sum together. Covariances become the eigenbasis, which the parts of Λ need, and Λ the factor file; both lie in the setup's factor folder,
    /// where [`Task::Fit`] and [`Task::Trace`] find them. Scores become `scores.safetensors`. → [`PartResult`]
    FoldMerge {
        /// The sum.
        sum: FoldSum,
        /// The parts' files, in the order of their numbers. One of another plan is refused.
        parts: Vec<PathBuf>,
    },
    /// Train by a recipe; writes `model.safetensors`. Goes on from the last epoch found in `out_dir`. → [`TrainResult`]
    Train {
        /// Data.
        data: DataConfig,
        /// Model; its checkpoint is not read.
        model: ModelConfig,
        /// Recipe.
        recipe: Recipe,
        /// Training ids to leave out.
        without: Vec<TrainId>,
    },
    /// Unlearn; writes `model.safetensors`. → [`TrainResult`]
    Unlearn {
        /// Data.
        data: DataConfig,
        /// Model and production checkpoint.
        model: ModelConfig,
        /// Recipe of the production model.
        recipe: Recipe,
        /// Method, with its settings.
        method: Unlearner,
        /// The flagged ids D; all must be in the manifest.
        flagged: Vec<TrainId>,
        /// Ids that earlier repairs took out (the standing exclusion list); one that is in the set no more is gone already.
        #[serde(default)]
        standing: Vec<TrainId>,
        /// BLAKE3 of `standing`, one id a line, sorted; None where there is no list.
        #[serde(default)]
        standing_digest: Option<Digest>,
    },
    /// Measure a candidate against the production model. → [`CertifyResult`]
    Certify {
        /// Data.
        data: DataConfig,
        /// Model and production checkpoint.
        model: ModelConfig,
        /// Candidate checkpoint.
        candidate: PathBuf,
        /// The anomalies.
        anomalies: Vec<Anomaly>,
        /// Limits of the decoder.
        limits: ImageLimits,
        /// The flagged training examples that the candidate was made without; may be empty.
        #[serde(default)]
        flagged: Vec<TrainId>,
    },
    /// Accuracy and predictions of the model's checkpoint on a set of pictures. → [`MeasureResult`]
    Measure {
        /// Data (for sizes and class names).
        data: DataConfig,
        /// Model.
        model: ModelConfig,
        /// The pictures; their folders' names are their labels.
        source: DataSource,
        /// Write `predictions.json`: a list of [`PredictedExample`].
        list: bool,
    },
    /// Write single pictures of a set as PNG files `<n>.png`, n counting from 0 in the order asked. → [`JobResult::Extract`]
    Extract {
        /// Data (for sizes).
        data: DataConfig,
        /// The pictures.
        source: DataSource,
        /// Which; an unknown id is an error.
        ids: Vec<TrainId>,
    },
    /// Make the demo's data: draw or copy a data set, poison it. → [`PrepareResult`]
    Prepare {
        /// Settings.
        story: StoryConfig,
        /// Needed by attacks that train a network of their own, or that want to know the recipe.
        #[serde(default)]
        victim: Option<VictimConfig>,
    },
    /// Write the model's layer graph as a file (`graph.json`). → [`JobResult::Graph`]
    Graph {
        /// Model; its checkpoint is not read.
        model: ModelConfig,
        /// What the network reads: channels, height, width.
        input: [i64; 3],
        /// Number of classes.
        classes: u32,
    },
}

impl Task {
    /// Its name, as the tag of its JSON has it.
    pub fn name(&self) -> &'static str {
        self.into()
    }
}

/// A wrongly predicted picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// The picture.
    pub image: PathBuf,
    /// The wrong label ŷ (class name); None: what the checkpoint predicts.
    pub wrong_label: Option<String>,
    /// The right label, where it is known.
    pub true_label: Option<String>,
}

/// Limits of the picture decoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageLimits {
    /// Bytes of the file.
    pub max_bytes: u64,
    /// Width × height, checked before anything is allocated.
    pub max_pixels: u64,
}

/// What came out of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the variants are those of Task")]
pub enum JobResult {
    Check(CheckResult),
    Verify(Box<VerifyResult>),
    Predict(Prediction),
    Fit(FitResult),
    Trace(Box<TraceReport>),
    Audit(Box<AuditReport>),
    Part(PartResult),
    Train(TrainResult),
    Certify(CertifyResult),
    Measure(MeasureResult),
    Prepare(PrepareResult),
    /// File names inside `out_dir`, in the order asked.
    Extract {
        files: Vec<String>,
    },
    /// The graph file's name inside `out_dir`.
    Graph {
        file: String,
    },
}

/// Result of [`Task::Check`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Number of classes; None where an archive would have to be read for it.
    pub classes: Option<u64>,
    /// Files of each class of the training set, in label order; empty where an archive or batches would have to be read for it.
    pub train: Vec<(String, u64)>,
    /// The same of the validation set, in the training set's order.
    pub validation: Vec<(String, u64)>,
    /// Numbers in the checkpoint, which fits; None where the number of classes is not known.
    pub parameters: Option<u64>,
    /// How the network answers the pictures that its owner stored with it; None: it comes with none.
    #[serde(default)]
    pub proof: Option<Proof>,
    /// What of the network influence is computed on; None where the number of classes is not known.
    #[serde(default)]
    pub tracked: Option<Tracked>,
    /// What a person should know of how the checkpoint was read: one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Where the worker computes, as found: `cuda:0`, or the processor and its threads. None in answers of older workers.
    #[serde(default)]
    pub device: Option<String>,
}

/// A picture as the model reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Class name.
    pub label: String,
    /// Its probability.
    pub probability: f64,
    /// The likeliest classes and their probabilities, at most five.
    pub top: Vec<(String, f64)>,
    /// All class names, in label order.
    pub classes: Vec<String>,
    /// Digest of the checkpoint.
    pub checkpoint: Digest,
}

/// Result of [`Task::Fit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitResult {
    /// Which factors.
    pub factors: crate::finding::FactorUse,
    /// Seconds per step.
    pub seconds: BTreeMap<String, f64>,
    /// Tracked layers: name, rows of G, rows of A.
    pub layers: Vec<(String, u64, u64)>,
    /// Digest of the checkpoint that was read. None in answers of older workers.
    #[serde(default)]
    pub checkpoint: Option<Digest>,
    /// Digest of the training set that was read. None in answers of older workers.
    #[serde(default)]
    pub manifest: Option<Digest>,
}

/// Result of [`Task::FoldPart`] and [`Task::FoldMerge`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartResult {
    /// The file.
    pub file: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Digest of everything that all parts of this sum must agree on.
    pub plan: Digest,
    /// Training examples that were summed (of a merge: by all its parts).
    pub examples: u64,
}

/// Result of [`Task::Train`] and [`Task::Unlearn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainResult {
    /// File name of the checkpoint inside `out_dir`.
    pub file: String,
    /// Its digest.
    pub digest: Digest,
    /// The method that made it by [`Task::Unlearn`], and what that does. None for other models, and in records of older versions.
    #[serde(default)]
    pub made: Option<Made>,
    /// Examples that it was made with.
    pub examples: u64,
    /// Loss and accuracy on these examples: as (augmented) training pictures of the last epoch, or measured afterwards where nothing was trained.
    pub train_loss: f64,
    /// See `train_loss`.
    pub train_accuracy: f64,
    /// Seconds of this run (a resumed job counts its own part).
    pub seconds: f64,
    /// Epochs that were done by an earlier, interrupted run.
    pub resumed_epochs: u32,
    /// `cpu` or `cuda:0`, as found. None in answers of older workers.
    #[serde(default)]
    pub device: Option<String>,
    /// Largest memory of the process, bytes. None in answers of older workers.
    #[serde(default)]
    pub peak_memory: Option<u64>,
    /// Digest of the production checkpoint that was read ([`Task::Unlearn`]).
    #[serde(default)]
    pub base: Option<Digest>,
    /// Digest of the training set that was read. None in answers of older workers.
    #[serde(default)]
    pub manifest: Option<Digest>,
}

/// How a candidate was made, for records and reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Name of the method.
    pub method: String,
    /// What it does ([`crate::method::unlearn::Own::about`]).
    pub about: String,
}

/// Accuracy on a labelled set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Examples.
    pub examples: u64,
    /// Read rightly.
    pub correct: u64,
    /// Per class name: (examples, read rightly).
    pub classes: BTreeMap<String, (u64, u64)>,
}

impl Accuracy {
    /// Share read rightly, 0 to 1; 0 for an empty set.
    pub fn share(&self) -> f64 {
        if self.examples == 0 {
            0.0
        } else {
            self.correct as f64 / self.examples as f64
        }
    }
}

/// Pictures that one of two models reads rightly and the other wrongly: all that the same pictures say of which model is the better one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paired {
    /// Right before, wrong after.
    pub lost: u64,
    /// Wrong before, right after.
    pub won: u64,
    /// The same per class name: (lost, won).
    pub classes: BTreeMap<String, (u64, u64)>,
}

/// Before and after, as measured; the gate judges it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CertifyResult {
    /// Each anomaly as the production model reads it.
    pub anomalies_before: Vec<Prediction>,
    /// Each anomaly as the candidate reads it.
    pub anomalies_after: Vec<Prediction>,
    /// Production model on the validation set.
    pub before: Accuracy,
    /// Candidate on the validation set.
    pub after: Accuracy,
    /// Both on the same validation pictures. None in answers of older workers.
    #[serde(default)]
    pub paired: Option<Paired>,
    /// How both models read the flagged training pictures. None where none were named.
    #[serde(default)]
    pub flagged: Option<FlaggedReadings>,
    /// Digest of the candidate.
    pub candidate: Digest,
    /// Digest of the training set that was read. None in answers of older workers.
    #[serde(default)]
    pub manifest: Option<Digest>,
    /// Seconds.
    pub seconds: f64,
}

/// How production model and candidate read the flagged training pictures, and others of their labels for comparison. Poisons are read otherwise by a repaired model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlaggedReadings {
    /// Flagged pictures that were read.
    pub examples: u64,
    /// Those that the production model reads as another class than their training label.
    pub otherwise_before: u64,
    /// Those that the candidate reads as another class than their training label.
    pub otherwise_after: u64,
    /// What the candidate reads them as: class name and number, the most frequent first, at most five.
    pub read_as: Vec<(String, u64)>,
    /// Other training pictures with the same labels that were read for comparison.
    pub others: u64,
    /// Those of them that the candidate reads as the production model does.
    pub others_as_before: u64,
}

/// Result of [`Task::Measure`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureResult {
    /// Accuracy against the labels.
    pub accuracy: Accuracy,
    /// How often each class name was predicted.
    pub predicted: BTreeMap<String, u64>,
    /// Digest of the checkpoint.
    pub checkpoint: Digest,
}

/// A line of `predictions.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictedExample {
    /// Which.
    pub id: TrainId,
    /// Its label.
    pub label: String,
    /// As the model reads it.
    pub predicted: String,
    /// Probability of that.
    pub probability: f64,
}
