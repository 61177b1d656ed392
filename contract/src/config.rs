//! The part of the configuration that the worker needs: data, model, recipe, the place of a job.
//!
//! Doc comments are the documentation of the keys: they become the JSON schema, and a test holds `config/delta-guard.yaml` against it.

pub use crate::picture::{ImageConfig, Orientation, Resize};
use crate::verify::LEAST_TRACKED;
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
    /// Share of the parameters that influence must be computed on at least, of those that the logits depend on. Below it the model is not guarded: what caused a
    /// prediction could lie where nobody looks. 0 to 1; 0: whatever there is.
    #[serde(default = "default_tracked")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_tracked_share: f64,
}

fn default_width() -> u32 {
    64
}

fn default_tracked() -> f64 {
    LEAST_TRACKED
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
    /// Bytes that one pass may use for its working tensors; sets the batch size of influence passes, and how wide a layer's covariance may be before it is taken in blocks.
    pub memory_budget: u64,
    /// Bytes that the gradients of queries may take; what does not fit at once is asked in further passes.
    #[serde(default = "default_query_budget")]
    pub query_budget: u64,
    /// Bytes that the worker may take on the CPU before its allocations fail; 0: nine tenths of what the machine, or its control group, has.
    #[serde(default)]
    pub memory_limit: u64,
}

/// The usual `worker.query_budget`: all of a case's queries at once for a network of 11 million weights.
pub const QUERY_BUDGET: u64 = 6 << 30;

fn default_query_budget() -> u64 {
    QUERY_BUDGET
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
