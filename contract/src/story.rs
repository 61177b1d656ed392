//! Stories: data whose truth is known.

use crate::method::attack::Attack;
use crate::{DataSource, ModelConfig, Recipe, TrainId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The story that `demo` and `evaluate` tell: a data set, an attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoryConfig {
    /// Where the clean data comes from; unset: the program draws its own.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Training examples to take (0: all), balanced over the classes; for drawn data: to draw.
    pub train_examples: u32,
    /// Validation examples to take (0: all), balanced. They come from the data's test part.
    pub validation_examples: u32,
    /// The attack.
    pub attack: Attack,
    /// Seed of drawing, subset, choice of poisons and of the anomaly.
    pub seed: u64,
}

/// The network that is to be attacked, and how it is trained: an attack may train one like it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VictimConfig {
    /// Network; its checkpoint is not read.
    pub model: ModelConfig,
    /// Recipe.
    pub recipe: Recipe,
}

/// Result of [`crate::Task::Prepare`]. Paths are inside `out_dir`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareResult {
    /// The poisoned training set.
    pub train: DataSource,
    /// Clean validation pictures.
    pub validation: DataSource,
    /// What was done, in few words: `disc → star`.
    pub attack: String,
    /// How it is told whether the attack takes.
    pub success: Success,
    /// Pictures that the attack is to have misread; one of them is submitted.
    pub anomalies: Vec<Bait>,
    /// The truth: training examples that the attack works by.
    pub poisons: Vec<TrainId>,
    /// Training examples that it changed to hide the others; they keep their true label and are no poisons.
    pub covers: Vec<TrainId>,
    /// Sizes.
    pub image: crate::ImageConfig,
    /// Class names in label order.
    pub classes: Vec<String>,
}

/// The attack's own measure: a rate over pictures, each with the label that counts as success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Success {
    /// Its name in tables: `poison success`.
    pub name: String,
    /// What its pictures are, in the plural: `triggered pictures`.
    pub pictures: String,
    /// What the rate is: `share of triggered pictures of disc that are read as star`.
    pub sentence: String,
    /// The pictures. The label that each has here is the one that counts, not its true class.
    pub source: DataSource,
}

/// A picture that the attack is to have misread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bait {
    /// Its file.
    pub picture: PathBuf,
    /// The class name that it is to be read as.
    pub label: String,
}
