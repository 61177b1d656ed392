//! The part of the configuration that the worker needs: data, model, recipe, the place of a job.
//!
//! Doc comments are the documentation of the keys: they become the JSON schema, and a test holds `config/delta-guard.yaml` against it.

use crate::method::{Mistake, unless};
pub use crate::picture::{ImageConfig, Orientation, Resize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the training and validation pictures are and how they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// The training set, exactly as the production model saw it (with its poisons, if it has any).
    pub train: DataSource,
    /// Clean, labelled pictures that were not trained on: the gate measures accuracy on them.
    pub validation: DataSource,
    /// The class names in the order of the model's outputs: a list, or the path of a file with one name a line, a JSON list, or a JSON object `{index: name}`
    /// or `{name: index}`. It must name just the classes that the training set has. Unset: the set's own order (folders sorted by name, numbers, or the names
    /// that it declares).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassNames>,
    /// Size and normalisation of the pictures as the model sees them.
    #[serde(default)]
    pub image: ImageConfig,
    /// Share of unreadable pictures up to which they are listed and skipped; above it, an error. 0 to 1.
    #[serde(default = "default_unreadable")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_unreadable_share: f64,
}

fn default_unreadable() -> f64 {
    0.01
}

/// Class names in label order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClassNames {
    /// The names.
    Listed(Vec<String>),
    /// A file that holds them.
    File(PathBuf),
}

/// One set of labelled pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSource {
    /// A folder with one sub-folder per class, a tar file of such a folder (or a folder of tar files), WebDataset shards, a list of pictures (`train.csv`,
    /// `train.jsonl`), parquet files of Hugging Face, a folder of CIFAR binary batches, or the official CIFAR tar.gz. A range in braces names several files:
    /// `shards/train-{000..123}.tar`.
    pub path: PathBuf,
    /// How to read it; `auto` looks.
    #[serde(default)]
    pub format: DataFormat,
    /// For CIFAR: which batches (`train`: data_batch_*.bin or train.bin, `test`: test_batch.bin or test.bin). For folders and tars: a sub-folder of this name is taken
    /// if there is one. For lists: rows whose column `split` says so, if they have one. For parquet: files whose names begin so.
    #[serde(default)]
    pub split: Split,
    /// What tells where an example comes from (a supplier, a crawl); the report then says which sources the flagged examples come from. Unset: the column or
    /// JSON key `source`, where the data have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Origin>,
}

/// What tells where an example comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Nothing.
    None,
    /// The first folder below the class: `dog/crawl-3/0017.png` comes from `crawl-3`.
    Folder,
    /// The file that holds it: tar, parquet file, CIFAR batch.
    Shard,
    /// The column `source` of a list or parquet file, the JSON key `source` of WebDataset.
    Column,
}

/// Layout of a data source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// Look at the files and decide.
    #[default]
    Auto,
    /// One folder per class.
    Folder,
    /// One folder per class inside one or more tar (or tar.gz) files.
    Tar,
    /// Tar (or tar.gz) files with `KEY.jpg` beside `KEY.cls` or `KEY.json`.
    #[serde(rename = "webdataset")]
    WebDataset,
    /// A list of pictures: CSV or JSON lines with the columns `path` and `label`, and perhaps `id`, `source` and `split`.
    Manifest,
    /// Parquet files as Hugging Face's `datasets` writes them: pictures as bytes, labels as numbers with names in the schema, or as text.
    Parquet,
    /// CIFAR-10 binary batches, loose or in the official tar.gz.
    Cifar10,
    /// CIFAR-100 binary files (fine labels), loose or in the official tar.gz.
    Cifar100,
}

/// Which part of a data source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Everything under the path.
    #[default]
    All,
    /// The training part.
    Train,
    /// The test part.
    Test,
}

/// The network and its production checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// `resnet18`, `small-cnn`, `fixture` (the network of the EK-FAC fixtures), the path of an exported model (`*.pt2`, see docs/guard-your-model.md), or of a graph file (`*.json`, see `delta-guard graph --help`).
    pub architecture: String,
    /// Channels of the first block (ResNet-18 of the paper: 64).
    #[serde(default = "default_width")]
    #[schemars(range(min = 1, max = 1024))]
    pub width: u32,
    /// First layers of `resnet18`: `cifar` (3×3, stride 1) or `imagenette` (7×7, stride 2, no max-pool).
    #[serde(default)]
    pub stem: Stem,
    /// The production checkpoint: a state dict as safetensors, the index of one in several files (`*.safetensors.index.json`), or an exported program (`.pt2`). It is only ever read.
    pub checkpoint: PathBuf,
    /// What stands before the network's names in the checkpoint, where it holds the network more than once (`ema`, `model`). Unset: `module.`, `_orig_mod.`, `model.` and `net.` are recognised.
    #[serde(default)]
    pub prefix: Option<String>,
}

fn default_width() -> u32 {
    64
}

/// First layers of ResNet-18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// 3×3 convolution, stride 1, no pooling.
    #[default]
    Cifar,
    /// 7×7 convolution, stride 2, no pooling.
    Imagenette,
}

/// How the production model was trained, and how `eu` trains it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Passes over the training set.
    #[schemars(range(min = 1, max = 10000))]
    pub epochs: u32,
    /// Examples per step.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Highest learning rate of the schedule.
    #[schemars(range(min = 0.0))]
    pub lr: f64,
    /// SGD momentum, 0 to below 1.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub momentum: f64,
    /// Nesterov's form of the momentum.
    pub nesterov: bool,
    /// L2 penalty on every parameter, batch norm's included.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Random changes of the training pictures.
    pub augment: Augment,
    /// Seed of initialisation, order and augmentation.
    pub seed: u64,
}

impl Default for Recipe {
    /// The paper's victims: 40 epochs of SGD with Nesterov momentum, ×0.1 at 14, 24, 35; of fewer or more epochs, at the same shares.
    fn default() -> Self {
        Self {
            epochs: 40,
            batch_size: 128,
            lr: 0.1,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            schedule: Schedule::Step {
                milestones: vec![0.35, 0.6, 0.875],
                gamma: 0.1,
            },
            augment: Augment::default(),
            seed: 0,
        }
    }
}

/// Course of the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// `lr` throughout.
    Constant,
    /// × `gamma` at each of the `milestones`.
    Step {
        /// Whole numbers: epochs, counted from 0, at whose start the rate falls. Below 1: shares of the whole training.
        milestones: Vec<f64>,
        /// Factor.
        gamma: f64,
    },
    /// Half a cosine from `lr` to 0, per step.
    Cosine,
    /// Cosine up from lr/25 to `lr` in the first `warmup` share of the steps, then cosine down to lr/250000 (PyTorch's OneCycleLR).
    OneCycle {
        /// Share of the steps, 0 to 1; PyTorch's default is 0.3.
        #[serde(default = "default_warmup")]
        warmup: f64,
    },
}

fn default_warmup() -> f64 {
    0.3
}

impl Recipe {
    /// Every rule that the schema cannot say and that does not hold.
    pub fn check(&self) -> Vec<Mistake> {
        let mut found = self.schedule.check(self.epochs);
        found.extend(unless(self.lr > 0.0, "lr", "is not above 0", "the paper trains with 0.1"));
        found
    }
}

impl Schedule {
    /// Every rule that does not hold for a training of this many epochs. The keys stand below the training's.
    pub fn check(&self, epochs: u32) -> Vec<Mistake> {
        match self {
            Self::Step { milestones, gamma } => {
                let mut found: Vec<Mistake> = (0..).zip(milestones).filter_map(|(n, at)| milestone(n, *at, epochs)).collect();
                let share = |at: f64| if at < 1.0 { at } else { at / f64::from(epochs) };
                found.extend(unless(
                    milestones.is_sorted_by(|a, b| share(*a) < share(*b)),
                    "schedule.milestones",
                    "are not in rising order",
                    "write each epoch once, the earliest first",
                ));
                found.extend(unless(
                    *gamma > 0.0,
                    "schedule.gamma",
                    "is not above 0",
                    "the learning rate is multiplied by it; 0.1 is usual",
                ));
                found
            }
            Self::OneCycle { warmup } => Vec::from_iter(unless(
                *warmup > 0.0 && *warmup < 1.0,
                "schedule.warmup",
                format!("{warmup} is not between 0 and 1"),
                "the share of the steps in which the learning rate rises; PyTorch's default is 0.3",
            )),
            Self::Constant | Self::Cosine => Vec::new(),
        }
    }
}

fn milestone(n: usize, at: f64, epochs: u32) -> Option<Mistake> {
    let key = format!("schedule.milestones.{n}");
    if !(at >= 0.0 && (at < 1.0 || at.fract() == 0.0)) {
        let help = "write an epoch, such as 14, or a share of the training, such as 0.35";
        return Some(Mistake::new(
            &key,
            format!("{at} is neither a whole number of epochs nor a share below 1"),
            help,
        ));
    }
    unless(
        at < f64::from(epochs),
        &key,
        format!("epoch {at} never comes: `epochs` is {epochs}"),
        format!(
            "epochs count from 0, so milestones go up to {}; below 1 they are shares of the training, such as [0.35, 0.6, 0.875]",
            epochs.saturating_sub(1)
        ),
    )
}

/// Random changes of the training pictures, drawn anew each time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Mirror half of the pictures.
    pub flip: bool,
    /// Shift by up to this many pixels in x and y, uniform, sub-pixel (bilinear, filled with the channel mean).
    #[schemars(range(min = 0.0, max = 64.0))]
    pub shift: f64,
    /// Shift by whole pixels only: nothing is blurred.
    pub whole_pixels: bool,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            flip: true,
            shift: 4.0,
            whole_pixels: false,
        }
    }
}

/// What every job needs to know of the place it runs in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerSetup {
    /// Folder of the pixel caches; made if missing.
    pub cache_dir: PathBuf,
    /// Folder of the EK-FAC factor files; made if missing.
    pub factors_dir: PathBuf,
    /// Where to compute.
    pub device: Device,
    /// CPU threads (0: all).
    pub threads: u32,
    /// Bytes that one pass may use for its working tensors; sets the batch size of influence passes.
    pub memory_budget: u64,
    /// Bytes that the worker may take on the CPU before its allocations fail; 0: nine tenths of what the machine, or its control group, has.
    #[serde(default)]
    pub memory_limit: u64,
}

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// The first GPU if libtorch finds one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The first GPU; an error where there is none.
    Cuda,
}
