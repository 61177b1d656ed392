//! Pictures of one channel from files to verdict: drawn in colour, read as grey through `data.image.transforms`, by the worker's jobs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use delta_guard_contract::detect::{Delta, DetectConfig, Detector, Shared, guard};
use delta_guard_contract::job::{Anomaly, ImageLimits, PICTURE_FILE, StoryConfig};
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::{
    Augment, DataConfig, DataSource, Device, ImageConfig, Job, JobResult, ModelConfig, PROTOCOL, Recipe, Schedule, Stem, Task, TraceReport, TrainId,
    WorkerSetup,
};
use delta_influence::attack::{Workshop, prepare, synth};
use delta_influence::data::{DataSet, encode_png};
use delta_influence::jobs;
use delta_influence::progress::Silent;
use std::collections::BTreeSet;
use std::path::Path;

const LIMITS: ImageLimits = ImageLimits {
    max_bytes: 1 << 20,
    max_pixels: 1 << 20,
};

fn run(folder: &Path, name: &str, task: Task) -> JobResult {
    let job = Job {
        v: PROTOCOL,
        setup: WorkerSetup {
            cache_dir: folder.join("cache"),
            factors_dir: folder.join("factors"),
            device: Device::Auto,
            threads: 1,
            memory_budget: 1 << 26,
            query_budget: 6 << 30,
            memory_limit: 0,
        },
        out_dir: folder.join(name),
        task,
    };
    jobs::run(&job, &mut Silent).unwrap()
}

fn recipe() -> Recipe {
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

/// 30 × 30, grey, by a list that leaves the trigger's pixels whole.
fn image() -> ImageConfig {
    serde_json::from_value(serde_json::json!({"transforms": [
        {"resize": {"size": 32, "interpolation": "bicubic"}}, {"grayscale": {"channels": 1}}, {"center_crop": 30}, {"normalize": {"mean": [0.45], "std": [0.25]}}
    ]}))
    .unwrap()
}

#[test]
fn grey_pictures_are_trained_read_traced_and_certified() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let story = StoryConfig {
        data: None,
        train_examples: 400,
        validation_examples: 120,
        attack: Attack::Badnet(Keys {
            victim_class: Some("disc".into()),
            target_class: "star".into(),
            poisons: 20,
            trigger: Trigger::Checkerboard { size: 8, margin: 1 },
            ..Keys::default()
        }),
        seed: 5,
    };
    let made = prepare(&story, &Workshop::at(&folder.join("data")), &mut Silent).unwrap();
    // What is natural in the target class is measured on clean pictures; a cut by them needs 50.
    for index in 0..80 {
        let class = made.classes.iter().position(|c| c == "star").unwrap() as u32;
        let png = encode_png(&synth::draw(99, 7, index, class), synth::SIDE, synth::SIDE, 1).unwrap();
        fs_err::write(
            folder.join("data").join(&made.validation.path).join(format!("star/more-{index:02}.png")),
            png,
        )
        .unwrap();
    }
    let absolute = |source: &DataSource| DataSource {
        path: folder.join("data").join(&source.path),
        ..source.clone()
    };
    let data = DataConfig {
        train: absolute(&made.train),
        validation: absolute(&made.validation),
        image: image(),
        classes: None,
        max_unreadable_share: 0.0,
    };
    let train = DataSet::open(&data.train, &data.image, 0.0, &folder.join("cache"), None, &mut Silent).unwrap();
    assert_eq!((train.channels(), train.size(), train.pixels(0).len()), (1, (30, 30), 900));
    assert_eq!(train.batch(&[0, 5]).unwrap().size(), [2, 1, 30, 30]);
    // Another list is another cache, though size and channels are the same.
    let mut blurred = data.image.clone();
    let smaller = serde_json::json!({"transforms": [{"resize": {"size": 31}}, {"grayscale": {}}, {"center_crop": 30}]});
    blurred.steps = serde_json::from_value::<ImageConfig>(smaller).unwrap().steps;
    let other = DataSet::open(&data.train, &blurred, 0.0, &folder.join("cache"), None, &mut Silent).unwrap();
    assert_ne!(other.pixels(0), train.pixels(0));

    let model = |checkpoint| ModelConfig {
        architecture: "small-cnn".into(),
        width: 6,
        stem: Stem::Cifar,
        prefix: None,
        min_tracked_share: 0.0,
        checkpoint,
    };
    let task = Task::Train {
        data: data.clone(),
        model: model(folder.join("none")),
        recipe: recipe(),
        without: Vec::new(),
    };
    let JobResult::Train(trained) = run(folder, "victim", task) else {
        panic!()
    };
    let model = model(folder.join("victim").join(trained.file));

    let bait = |n: usize| Anomaly {
        image: folder.join("data").join(&made.anomalies[n].picture),
        wrong_label: None,
        true_label: None,
    };
    let read_as_target = |n: &usize| {
        let task = Task::Predict {
            data: data.clone(),
            model: model.clone(),
            image: bait(*n).image,
            limits: LIMITS,
        };
        let JobResult::Predict(prediction) = run(folder, "predict", task) else {
            panic!()
        };
        prediction.label == made.anomalies[*n].label
    };
    let wrong = (0..made.anomalies.len())
        .find(read_as_target)
        .expect("the attack takes on grey pictures, too");
    let shown = image::open(folder.join("predict").join(PICTURE_FILE)).unwrap();
    assert_eq!((shown.color(), shown.width() % 30), (image::ColorType::L8, 0));

    let detect = DetectConfig {
        common: Shared {
            seed: Some(11),
            ..Shared::default()
        },
        method: Detector::Guard(guard::Keys {
            delta: Delta {
                queries: 8,
                n_tol: 1,
                fit_examples: 200,
                ..Delta::default()
            },
            seeds: 8,
            placebos: 10,
            ..guard::Keys::default()
        }),
    };
    let task = Task::Trace {
        data: data.clone(),
        model: model.clone(),
        detect,
        anomalies: vec![bait(wrong)],
        limits: LIMITS,
        case_seed: Default::default(),
        factors_seed: Default::default(),
        scores: None,
    };
    run(folder, "trace", task);
    let report: TraceReport = serde_json::from_slice(&fs_err::read(folder.join("trace").join("trace.json")).unwrap()).unwrap();
    let flagged: BTreeSet<&TrainId> = report.flagged.iter().map(|f| &f.id).collect();
    let poisons: BTreeSet<&TrainId> = made.poisons.iter().collect();
    let hit = flagged.intersection(&poisons).count();
    assert!(
        hit * 10 >= flagged.len() * 8 && hit >= 10,
        "{hit} of {} flagged are among the 20 poisons: {:?}",
        flagged.len(),
        report.verdict
    );
    // What is shown of them is what the model saw: grey, of its size.
    let thumb = image::open(folder.join("trace/thumbs/0001.png")).unwrap();
    assert_eq!((thumb.color(), thumb.width() % 30), (image::ColorType::L8, 0));
}
