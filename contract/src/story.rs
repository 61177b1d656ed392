//! Stories: data whose truth is known.

use crate::{DataSource, TrainId};
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
    pub attack: AttackConfig,
    /// Seed of drawing, subset, choice of poisons and of the anomaly.
    pub seed: u64,
}

/// BadNet (algorithm §5): a trigger on pictures of the victim class, which are then labelled as the target class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttackConfig {
    /// Class name (or number in label order) whose pictures get the trigger.
    pub victim_class: String,
    /// Class name (or number) that they are labelled as.
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// The trigger.
    pub trigger: Trigger,
}

/// What is painted on a picture. Rows and columns count from the bottom right corner, in pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Trigger {
    /// A black-and-white checkerboard.
    Checkerboard {
        /// Cells per side, one pixel each.
        size: u32,
        /// Pixels between it and the right and lower border.
        margin: u32,
    },
    /// A square of one colour.
    Square {
        /// Pixels per side.
        size: u32,
        /// Pixels between it and the right and lower border.
        margin: u32,
        /// R, G, B, 0 to 255.
        color: [u8; 3],
    },
    /// Single pixels of one colour; the authors' are (4,2) (2,2) (3,3) (2,4), black.
    Pixels {
        /// (row, column) from the bottom right, 1 = the last.
        at: Vec<(u32, u32)>,
        /// R, G, B, 0 to 255.
        color: [u8; 3],
    },
    /// A PNG of the picture's size with an alpha channel, laid over it.
    Image {
        /// Its path.
        path: PathBuf,
    },
}

/// Result of [`Task::Prepare`]. Paths are inside `out_dir`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrepareResult {
    /// The poisoned training set.
    pub train: DataSource,
    /// Clean validation pictures.
    pub validation: DataSource,
    /// Every test picture of the victim class, with the trigger, under its true label; the anomaly is one of the set that is not used for the measure.
    pub triggered: DataSource,
    /// Triggered pictures to pick an anomaly from: file paths.
    pub anomalies: Vec<PathBuf>,
    /// The truth.
    pub poisons: Vec<TrainId>,
    /// Sizes.
    pub image: crate::ImageConfig,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// Victim class name.
    pub victim: String,
    /// Target class name.
    pub target: String,
}
