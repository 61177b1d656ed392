//! The certify job: how both models read the flagged pictures and others of their classes, held against reading them one by one.

use delta_guard_contract::job::{JobResult, StoryConfig};
use delta_guard_contract::method::attack::Attack;
use delta_guard_contract::method::attack::badnet::{Keys, Trigger};
use delta_guard_contract::{DataConfig, Device, Job, ModelConfig, PROTOCOL, Stem, Task, TrainId, WorkerSetup};
use delta_influence::attack::{Workshop, prepare};
use delta_influence::certify::predict;
use delta_influence::data::DataSet;
use delta_influence::jobs;
use delta_influence::model::{Model, Weights, zoo};
use delta_influence::progress::Silent;
use std::collections::{BTreeMap, BTreeSet};
use tch::Kind;

#[test]
fn the_flagged_are_read_by_both_models() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let story = StoryConfig {
        data: None,
        train_examples: 300,
        validation_examples: 20,
        attack: Attack::Badnet(Keys {
            victim_class: Some("3".into()),
            target_class: "8".into(),
            poisons: 9,
            trigger: Trigger::Checkerboard { size: 8, margin: 1 },
            ..Keys::default()
        }),
        seed: 4,
    };
    let made = prepare(&story, &Workshop::at(&at("data")), &mut Silent).unwrap();
    let mut data = DataConfig {
        train: made.train.clone(),
        validation: made.validation.clone(),
        image: made.image.clone(),
        max_unreadable_share: 0.0,
        classes: None,
    };
    data.train.path = at("data").join(&data.train.path);
    data.validation.path = at("data").join(&data.validation.path);
    let train = DataSet::open(&data.train, &data.image, 0.0, &at("cache"), None, &mut Silent).unwrap();
    let model = ModelConfig {
        architecture: "small-cnn".into(),
        width: 2,
        stem: Stem::Cifar,
        checkpoint: at("production.safetensors"),
        prefix: None,
        min_tracked_share: 0.0,
    };
    let graph = zoo::graph(&model, data.image.input(), train.classes().len()).unwrap();
    // Two models that read differently: what one reads says nothing of the other.
    for (seed, name) in [(1, "production.safetensors"), (5, "candidate.safetensors")] {
        Weights::init(&graph, seed).unwrap().save(&at(name), &[]).unwrap();
    }
    let anomaly = delta_guard_contract::job::Anomaly {
        image: at("data").join(&made.anomalies[0].picture),
        wrong_label: Some(made.anomalies[0].label.clone()),
        true_label: None,
    };
    // The poisons, and clean pictures of two other classes.
    let clean = |class: &str, n: usize| {
        let label = train.classes().iter().position(|c| c == class).unwrap() as u32;
        train.by_label(label)[..n]
            .iter()
            .map(|&i| train.ids()[i].clone())
            .collect::<Vec<TrainId>>()
    };
    let flagged: Vec<TrainId> = made.poisons.iter().cloned().chain(clean("bars", 5)).chain(clean("ring", 1)).collect();
    let run = |flagged: Vec<TrainId>, out: &str| {
        let job = Job {
            v: PROTOCOL,
            setup: WorkerSetup {
                cache_dir: at("cache"),
                factors_dir: at("factors"),
                device: Device::Auto,
                threads: 1,
                memory_budget: 256 << 20,
                query_budget: 6 << 30,
                memory_limit: 0,
            },
            out_dir: at(out),
            task: Task::Certify {
                data: data.clone(),
                model: model.clone(),
                candidate: at("candidate.safetensors"),
                anomalies: vec![anomaly.clone()],
                limits: delta_guard_contract::job::ImageLimits {
                    max_bytes: 1 << 20,
                    max_pixels: 1 << 20,
                },
                flagged,
            },
        };
        match jobs::run(&job, &mut Silent).unwrap() {
            JobResult::Certify(result) => result,
            other => panic!("{other:?}"),
        }
    };
    let result = run(flagged.clone(), "certify");
    let found = result.flagged.unwrap();

    // One by one.
    let load = |name: &str| Model::new(graph.clone(), Weights::load(&at(name), &graph, Kind::Float).unwrap());
    let (production, candidate) = (load("production.safetensors"), load("candidate.safetensors"));
    let digest = delta_guard_contract::Digest(String::new());
    let read = |model: &Model, i: usize| predict(model, train.pixels(i), &data.image, train.classes(), &digest).unwrap().label;
    let label = |i: usize| train.classes()[train.labels()[i] as usize].clone();
    let gone: BTreeSet<usize> = flagged.iter().map(|id| train.position(id).unwrap()).collect();
    let otherwise = |model: &Model| gone.iter().filter(|&&i| read(model, i) != label(i)).count() as u64;
    assert_eq!(
        (found.examples, found.otherwise_before, found.otherwise_after),
        (15, otherwise(&production), otherwise(&candidate))
    );
    assert_ne!(
        found.otherwise_before, found.otherwise_after,
        "the two models must differ for this to be a test"
    );
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    gone.iter().for_each(|&i| *counts.entry(read(&candidate, i)).or_default() += 1);
    let told: BTreeMap<String, u64> = found.read_as.iter().cloned().collect();
    assert!(counts.len() <= 5 && told == counts, "{told:?} {counts:?}");
    assert!(found.read_as.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{:?}", found.read_as);
    // Fewer than 400 others: all of them.
    let labels: BTreeSet<String> = gone.iter().map(|&i| label(i)).collect();
    let others: Vec<usize> = (0..train.len()).filter(|i| labels.contains(&label(*i)) && !gone.contains(i)).collect();
    let as_before = others.iter().filter(|&&i| read(&production, i) == read(&candidate, i)).count() as u64;
    assert_eq!((found.others, found.others_as_before), (others.len() as u64, as_before));
    assert!(
        labels.len() == 3 && as_before < others.len() as u64,
        "the two models must differ for this to be a test"
    );

    assert_eq!(run(Vec::new(), "none").flagged, None);
    // An id that is gone is left out, not counted as read.
    let unknown = run(vec![flagged[0].clone(), TrainId("gone/1.png".into())], "gone").flagged.unwrap();
    assert_eq!(unknown.examples, 1);
}
