//! The story: 400 drawn pictures, some of them poisoned, and a victim trained on them, both by the worker's jobs. Made once for all tests here.

use delta_guard_contract::detect::{Damping, Delta, DetectConfig, Detector, Precision, Shared, guard};
use delta_guard_contract::job::{Anomaly, ImageLimits, PrepareResult, StoryConfig, TrainResult};
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::method::changed;
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::{
    Augment, DataConfig, DataSource, Device, Fault, Job, JobResult, ModelConfig, PROTOCOL, Recipe, Schedule, Stem, Task, TrainId, WorkerSetup,
};
use delta_influence::attack::synth;
use delta_influence::data::{DataSet, encode_png};
use delta_influence::jobs;
use delta_influence::model::{Graph, Model, Weights, zoo};
use delta_influence::progress::Silent;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tch::Kind;

/// Clean pictures of the target class that are added to the validation set: a cut by null pictures needs 50 of them.
const MORE_OF_TARGET: u32 = 70;

/// Where everything lies.
pub struct Scene {
    pub folder: PathBuf,
    pub prepared: PrepareResult,
    pub victim: PathBuf,
}

/// The story, told once.
pub static SCENE: LazyLock<Scene> = LazyLock::new(Scene::tell);

impl Scene {
    fn tell() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("story");
        let _ = std::fs::remove_dir_all(&folder); // of an earlier run
        let story = StoryConfig {
            data: None,
            train_examples: 400,
            validation_examples: 60,
            attack: Attack::Badnet(Keys {
                victim_class: Some("disc".into()),
                target_class: "star".into(),
                poisons: 20,
                trigger: Trigger::Checkerboard { size: 8, margin: 1 },
                ..Keys::default()
            }),
            seed: 5,
        };
        let JobResult::Prepare(prepared) = run(&folder, "data", Task::Prepare { story, victim: None }) else {
            panic!("prepare answers with another result");
        };
        for index in 0..MORE_OF_TARGET {
            let class = prepared.classes.iter().position(|c| *c == prepared.anomalies[0].label).unwrap() as u32;
            let png = encode_png(&synth::draw(99, 7, index, class), synth::SIDE, synth::SIDE, 1).unwrap();
            let path = absolute(&folder, &prepared.validation)
                .path
                .join(&prepared.anomalies[0].label)
                .join(format!("more-{index:02}.png"));
            std::fs::write(path, png).unwrap();
        }
        let mut scene = Self {
            victim: folder.join("victim/model.safetensors"),
            folder,
            prepared,
        };
        let task = Task::Train {
            data: scene.data(),
            model: scene.model(),
            recipe: recipe(),
            without: Vec::new(),
        };
        scene.run("victim", task);
        scene.prepared.anomalies.sort_by(|a, b| a.picture.cmp(&b.picture));
        scene
    }

    /// Run a job of this story in a folder of its own.
    pub fn run(&self, name: &str, task: Task) -> JobResult {
        run(&self.folder, name, task)
    }

    pub fn data(&self) -> DataConfig {
        DataConfig {
            train: absolute(&self.folder, &self.prepared.train),
            validation: absolute(&self.folder, &self.prepared.validation),
            image: self.prepared.image.clone(),
            max_unreadable_share: 0.0,
            classes: None,
        }
    }

    pub fn model(&self) -> ModelConfig {
        ModelConfig {
            architecture: "small-cnn".into(),
            width: 6,
            stem: Stem::Cifar,
            checkpoint: self.victim.clone(),
            prefix: None,
            min_tracked_share: 0.0,
        }
    }

    pub fn graph(&self) -> Graph {
        zoo::graph(&self.model(), [3, 32, 32], synth::CLASSES.len()).unwrap()
    }

    /// The victim in float64.
    pub fn double(&self) -> Model {
        let graph = self.graph();
        let weights = Weights::load(&self.victim, &graph, Kind::Double).unwrap();
        Model::new(graph, weights)
    }

    pub fn open(&self, source: &DataSource) -> DataSet {
        let classes = self.prepared.classes.clone();
        DataSet::open(source, &self.prepared.image, 0.0, &self.folder.join("cache"), Some(&classes), &mut Silent).unwrap()
    }

    /// Position of a class name.
    pub fn class(&self, name: &str) -> u32 {
        self.prepared.classes.iter().position(|c| c == name).unwrap() as u32
    }

    /// The class that the attack's pictures are to be read as, which is the poisons'.
    pub fn target(&self) -> &str {
        &self.prepared.anomalies[0].label
    }

    pub fn anomaly(&self, number: usize) -> PathBuf {
        self.folder.join("data").join(&self.prepared.anomalies[number].picture)
    }

    /// The unlearn job.
    pub fn unlearn(&self, name: &str, method: Unlearner, flagged: &[TrainId]) -> PathBuf {
        let result = self.unlearned(name, method, flagged);
        self.folder.join(name).join(result.file)
    }

    /// The unlearn job's result.
    pub fn unlearned(&self, name: &str, method: Unlearner, flagged: &[TrainId]) -> TrainResult {
        let task = Task::Unlearn {
            data: self.data(),
            model: self.model(),
            recipe: short(),
            method,
            flagged: flagged.to_vec(),
            standing: Vec::new(),
            standing_digest: None,
        };
        let JobResult::Train(result) = self.run(name, task) else {
            panic!("unlearn answers with another result");
        };
        let gone = flagged.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!(result.examples as usize, 400 - gone, "examples trained on");
        result
    }
}

/// The prepare job's paths are inside its folder.
fn absolute(folder: &Path, source: &DataSource) -> DataSource {
    DataSource {
        path: folder.join("data").join(&source.path),
        ..source.clone()
    }
}

fn run(folder: &Path, name: &str, task: Task) -> JobResult {
    attempt(folder, name, task).unwrap()
}

/// A job that may fail.
pub fn attempt(folder: &Path, name: &str, task: Task) -> Result<JobResult, Fault> {
    let job = Job {
        v: PROTOCOL,
        setup: WorkerSetup {
            cache_dir: folder.join("cache"),
            factors_dir: folder.join("factors"),
            device: Device::Auto,
            threads: 1, // the same sums in the same order, whatever the machine
            memory_budget: 1 << 24,
            query_budget: 0, // two at once: every trace of these tests is put together of many passes
            memory_limit: 0,
        },
        out_dir: folder.join(name),
        task,
    };
    jobs::run(&job, &mut Silent).map_err(|error| error.fault().clone())
}

/// How the victim is trained: long enough that the attack takes, short enough that much is misread.
pub fn recipe() -> Recipe {
    Recipe {
        epochs: 12,
        batch_size: 32,
        lr: 0.1,
        schedule: Schedule::OneCycle { warmup: 0.3 },
        augment: Augment {
            flip: false,
            shift: 0.0,
            whole_pixels: false,
            crop: None,
        },
        seed: 3,
        ..Recipe::default()
    }
}

/// For models of which only the identity counts.
pub fn short() -> Recipe {
    Recipe { epochs: 3, ..recipe() }
}

/// The detector in float64 on a quarter of the examples, small enough for loops.
pub fn detect() -> DetectConfig {
    DetectConfig {
        common: Shared {
            seed: Some(11),
            ..Shared::default()
        },
        method: Detector::Guard(guard::Keys {
            delta: small(Delta::default()),
            seeds: 8,
            placebos: 10,
            null_pictures: 10_000,
            plain: true,
            ..guard::Keys::default()
        }),
    }
}

/// The Δ keys of that.
pub fn small(delta: Delta) -> Delta {
    Delta {
        queries: 8,
        n_tol: 1,
        fit_examples: 150,
        precision: Precision::F64,
        damping: Damping::Heuristic { factor: 0.1 },
        ..delta
    }
}

/// With one key set to another value.
pub fn with(detect: DetectConfig, key: &str, value: serde_json::Value) -> DetectConfig {
    let method = changed(&detect.method, key, value).unwrap();
    DetectConfig { method, ..detect }
}

pub const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
};

pub fn anomaly(image: PathBuf, wrong_label: Option<&str>) -> Anomaly {
    Anomaly {
        image,
        wrong_label: wrong_label.map(String::from),
        true_label: None,
    }
}
