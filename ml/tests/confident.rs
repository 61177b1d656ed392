//! Confident networks: float32 names what float64 names, however sure the network is.
//!
//! A drawn story with a victim trained here; its last layer is then multiplied, which leaves every prediction as it is and takes 1 − p_y of the poisons
//! far below what float32 can hold beside 1. The same story shows which seed decides what.

use delta_guard_contract::Augment;
use delta_guard_contract::config::{Device, Stem};
use delta_guard_contract::detect::{Delta, DetectConfig, Detector, Precision, guard};
use delta_guard_contract::finding::{Exhibit, Histogram};
use delta_guard_contract::job::{Anomaly, ImageLimits, PrepareResult, StoryConfig};
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::{DataConfig, Job, JobResult, ModelConfig, PROTOCOL, Recipe, Schedule, Seed, Task, TraceReport, TrainId, WorkerSetup};
use delta_influence::detect::stand_out::StandOut;
use delta_influence::files::tensors::{read_tensors, write_tensors};
use delta_influence::jobs;
use delta_influence::progress::Silent;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tch::Tensor;

struct Story {
    folder: PathBuf,
    made: PrepareResult,
    data: DataConfig,
    victim: PathBuf,
}

fn work(folder: &Path, out: &str, task: Task) -> JobResult {
    let job = Job {
        v: PROTOCOL,
        setup: WorkerSetup {
            cache_dir: folder.join("cache"),
            factors_dir: folder.join("factors"),
            device: Device::Auto,
            threads: 1,
            memory_budget: 1 << 28,
            query_budget: 6 << 30,
            memory_limit: 0,
        },
        out_dir: folder.join(out),
        task,
    };
    jobs::run(&job, &mut Silent).expect("the job runs")
}

/// The guard on factors of few examples.
fn rough(precision: Precision) -> Detector {
    Detector::Guard(guard::Keys {
        delta: Delta {
            precision,
            fit_examples: 100,
            ..Delta::default()
        },
        ..guard::Keys::default()
    })
}

fn model(checkpoint: &Path) -> ModelConfig {
    ModelConfig {
        architecture: "small-cnn".into(),
        width: 8,
        stem: Stem::Cifar,
        checkpoint: checkpoint.to_path_buf(),
        prefix: None,
        min_tracked_share: 0.0,
    }
}

impl Story {
    fn tell(folder: &Path) -> Self {
        let story = StoryConfig {
            data: None,
            train_examples: 1200,
            validation_examples: 600,
            attack: Attack::Badnet(Keys {
                victim_class: Some("disc".into()),
                target_class: "star".into(),
                poisons: 40,
                trigger: Trigger::Checkerboard { size: 10, margin: 1 },
                ..Keys::default()
            }),
            seed: 41,
        };
        let JobResult::Prepare(made) = work(folder, "data", Task::Prepare { story, victim: None }) else {
            panic!("another answer")
        };
        let inside = |source: &delta_guard_contract::DataSource| {
            let mut source = source.clone();
            source.path = folder.join("data").join(&source.path);
            source
        };
        let data = DataConfig {
            train: inside(&made.train),
            validation: inside(&made.validation),
            image: made.image.clone(),
            max_unreadable_share: 0.0,
            classes: None,
        };
        let victim = folder.join("victim/model.safetensors");
        let task = Task::Train {
            data: data.clone(),
            model: model(&victim),
            recipe: Recipe {
                epochs: 16,
                batch_size: 32,
                lr: 0.1,
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
        let JobResult::Train(_) = work(folder, "victim", task) else {
            panic!("another answer")
        };
        Self {
            folder: folder.to_path_buf(),
            made,
            data,
            victim,
        }
    }

    /// The victim with its last layer times `factor`.
    fn times(&self, factor: f64) -> PathBuf {
        let tensors = read_tensors(&std::fs::read(&self.victim).expect("a victim")).expect("tensors");
        let scaled: BTreeMap<String, Tensor> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let tensor = if name.starts_with("fc.") { tensor * factor } else { tensor };
                (name, tensor)
            })
            .collect();
        let path = self.folder.join(format!("times-{factor}.safetensors"));
        write_tensors(&path, scaled.iter().map(|(name, tensor)| (name.as_str(), tensor)), HashMap::new()).expect("writes");
        path
    }

    fn trace(&self, checkpoint: &Path, precision: Precision, (case_seed, factors_seed): (u64, u64)) -> TraceReport {
        let task = Task::Trace {
            data: self.data.clone(),
            model: model(checkpoint),
            detect: DetectConfig {
                method: rough(precision),
                ..DetectConfig::default()
            },
            anomalies: vec![Anomaly {
                image: self.folder.join("data").join(&self.made.anomalies[0].picture),
                wrong_label: Some(self.made.anomalies[0].label.clone()),
                true_label: None,
            }],
            limits: ImageLimits {
                max_bytes: 1 << 24,
                max_pixels: 1 << 20,
            },
            case_seed: Seed(case_seed),
            factors_seed: Seed(factors_seed),
            scores: None,
        };
        match work(&self.folder, "trace", task) {
            JobResult::Trace(report) => *report,
            other => panic!("another answer: {other:?}"),
        }
    }
}

fn stand_out(report: &TraceReport) -> Option<StandOut> {
    serde_json::from_value(report.details["stand_out"].clone()).expect("the guard's details")
}

#[test]
fn float32_flags_what_float64_flags_however_confident_the_network_is() {
    let folder = tempfile::tempdir().unwrap();
    let story = Story::tell(folder.path());
    let poisons: BTreeSet<&TrainId> = story.made.poisons.iter().collect();
    for factor in [1.0, 2.0, 3.0, 6.0] {
        let checkpoint = story.times(factor);
        let [single, double] = [Precision::F32, Precision::F64].map(|precision| story.trace(&checkpoint, precision, (5, 6)));
        let set = |report: &TraceReport| report.flagged.iter().map(|f| f.id.clone()).collect::<BTreeSet<_>>();
        let found = set(&double).iter().filter(|id| poisons.contains(id)).count();
        assert!(
            found >= 36,
            "logits × {factor}: {found} of 40 in float64 ({:?}): the test would show nothing",
            double.verdict
        );
        assert_eq!(set(&single), set(&double), "logits × {factor}: {:?}", single.verdict);
        let (single, double) = (stand_out(&single).unwrap(), stand_out(&double).unwrap());
        for (name, single, double) in [("d′", single.d_prime, double.d_prime), ("z", single.z, double.z)] {
            let (single, double) = (single.unwrap(), double.unwrap());
            assert!(
                (single / double - 1.0).abs() < 0.01,
                "logits × {factor}: {name} is {single} in float32, {double} in float64"
            );
        }
    }
    // What is drawn follows from the seeds that the job carries: the fit's from one, the case's from the other.
    let told = |seeds| {
        let report = story.trace(&story.victim, Precision::F32, seeds);
        let Exhibit::Histogram(Histogram { edges, .. }) = report.exhibits[0].clone() else {
            panic!("{:?}", report.exhibits)
        };
        let placebos: Vec<TrainId> = stand_out(&report).into_iter().flat_map(|s| s.placebos).map(|p| p.id).collect();
        (report.factors.unwrap().key, placebos, edges)
    };
    let (first, again, other_fit, other_case) = (told((5, 6)), told((5, 6)), told((5, 7)), told((8, 6)));
    assert_eq!(first, again);
    assert!(first.0 != other_fit.0 && first.1 == other_fit.1 && first.2 != other_fit.2);
    assert!(first.0 == other_case.0 && first.1 != other_case.1 && first.2 != other_case.2);
    // And factors are those of the whole graph: another ε in a batch norm, same weights, other factors.
    let JobResult::Graph { file } = work(
        &story.folder,
        "graph",
        Task::Graph {
            model: model(&story.victim),
            input: story.made.image.input(),
            classes: story.made.classes.len() as u32,
        },
    ) else {
        panic!("another answer")
    };
    let written = std::fs::read_to_string(folder.path().join("graph").join(file)).unwrap();
    let key = |eps: &str| {
        let path = folder.path().join(format!("graph-{eps}.json"));
        std::fs::write(&path, written.replace(r#""eps": 0.00001"#, &format!(r#""eps": {eps}"#))).unwrap();
        let task = Task::Fit {
            data: story.data.clone(),
            model: ModelConfig {
                architecture: path.display().to_string(),
                ..model(&story.victim)
            },
            detect: DetectConfig {
                method: rough(Precision::F32),
                ..DetectConfig::default()
            },
            factors_seed: Seed(6),
        };
        match work(&story.folder, "fit", task) {
            JobResult::Fit(fitted) => fitted.factors.key,
            other => panic!("another answer: {other:?}"),
        }
    };
    assert!(written.contains(r#""eps": 0.00001"#), "{written}");
    assert_eq!(key("0.00001"), first.0, "the graph file is the built-in network");
    assert_ne!(key("0.001"), first.0);
}
