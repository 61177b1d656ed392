//! Sixty drawn pictures of ten classes, for everything that unlearners ask.

#![allow(dead_code, reason = "each test takes what it needs")]

use delta_guard_contract::job::StoryConfig;
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::{DataSource, ImageConfig, Recipe, Schedule};
use delta_influence::attack::{Workshop, prepare};
use delta_influence::data::DataSet;
use delta_influence::model::{Graph, Weights, zoo};
use delta_influence::progress::Silent;
use delta_influence::unlearn::Unlearning;
use std::path::Path;
use tch::Device;

/// Where it lies, and what is in it.
pub struct Bench {
    pub folder: tempfile::TempDir,
    pub data: DataSet,
    pub source: DataSource,
    pub image: ImageConfig,
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let story = StoryConfig {
            data: None,
            train_examples: 60,
            validation_examples: 20,
            attack: Attack::Badnet(Keys {
                victim_class: Some("0".into()),
                target_class: "1".into(),
                poisons: 2,
                trigger: Trigger::Checkerboard { size: 4, margin: 1 },
                ..Keys::default()
            }),
            seed: 3,
        };
        let made = prepare(&story, &Workshop::at(&folder.path().join("data")), &mut Silent).unwrap();
        let data = DataSet::open(&made.train, &made.image, 0.0, &folder.path().join("cache"), None, &mut Silent).unwrap();
        Self {
            folder,
            data,
            source: made.train,
            image: made.image,
        }
    }

    /// Channels, height and width.
    pub fn input(&self) -> [i64; 3] {
        [3, i64::from(self.image.height), i64::from(self.image.width)]
    }

    /// A network with batch norm.
    pub fn graph(&self) -> Graph {
        zoo::small_cnn(self.input(), 2, self.data.classes().len() as i64).unwrap()
    }

    /// An empty folder.
    pub fn out(&self, name: &str) -> std::path::PathBuf {
        let out = self.folder.path().join(name);
        std::fs::create_dir_all(&out).unwrap();
        out
    }

    /// What an unlearner is given. `parts`: what stays, what goes.
    pub fn case<'a>(
        &'a self,
        (graph, production): (&'a Graph, &'a Weights),
        (retained, flagged): (&'a [usize], &'a [usize]),
        recipe: &'a Recipe,
        out_dir: &'a Path,
    ) -> Unlearning<'a> {
        Unlearning {
            graph,
            production,
            production_file: Path::new("production.safetensors").into(),
            checkpoint: "c",
            data: &self.data,
            source: &self.source,
            image: &self.image,
            retained,
            flagged,
            recipe,
            device: Device::Cpu,
            memory_budget: 1 << 24,
            out_dir,
        }
    }
}

/// Whole steps of plain gradient descent over all examples.
pub fn plain(epochs: u32, lr: f64) -> Recipe {
    Recipe {
        epochs,
        batch_size: 1000,
        lr,
        momentum: 0.0,
        nesterov: false,
        weight_decay: 0.0,
        schedule: Schedule::Constant,
        augment: delta_guard_contract::Augment {
            flip: false,
            shift: 0.0,
            whole_pixels: false,
            crop: None,
        },
        seed: 1,
        ..Recipe::default()
    }
}
