//! Unlearning: what is removed is removed, and what stays is what the new model has learnt from.

use super::scene::{LIMITS, SCENE, Scene, anomaly, short};
use delta_guard_contract::method::unlearn::{Unlearner, cf, eu};
use delta_guard_contract::method::{Method, Name};
use delta_guard_contract::{DataConfig, DataSource, JobResult, Recipe, Schedule, Task, TrainId};
use delta_influence::files::tensors::read_tensors;
use delta_influence::model::Weights;
use delta_influence::progress::Silent;
use delta_influence::train::loss::CrossEntropy;
use delta_influence::train::{Training, train};
use delta_influence::unlearn::split;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Twenty pictures to remove, of several classes.
fn twenty(scene: &Scene) -> Vec<TrainId> {
    scene.open(&scene.data().train).ids().iter().step_by(20).cloned().collect()
}

fn tensors(path: &Path) -> BTreeMap<String, Tensor> {
    read_tensors(&std::fs::read(path).unwrap()).unwrap()
}

fn same(a: &Path, b: &Path) -> bool {
    let (a, b) = (tensors(a), tensors(b));
    assert!(a.keys().eq(b.keys()) && !a.is_empty());
    a.iter().all(|(name, t)| t.equal(&b[name]))
}

/// A copy of the training folder in which the files of `gone` do not exist.
fn folder_without(scene: &Scene, name: &str, gone: &[TrainId]) -> DataConfig {
    let (from, to) = (scene.data().train.path, scene.folder.join(name));
    let data = scene.open(&scene.data().train);
    for id in data.ids().iter().filter(|id| !gone.contains(id)) {
        let path = to.join(&id.0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(from.join(&id.0), path).unwrap();
    }
    DataConfig {
        train: DataSource {
            path: to,
            ..scene.data().train
        },
        ..scene.data()
    }
}

fn trained(scene: &Scene, name: &str, data: DataConfig, recipe: Recipe, without: &[TrainId]) -> std::path::PathBuf {
    let task = Task::Train {
        data,
        model: scene.model(),
        recipe,
        without: without.to_vec(),
    };
    let JobResult::Train(result) = scene.run(name, task) else {
        panic!("train answers with another result");
    };
    assert_eq!(result.examples, 380);
    scene.folder.join(name).join(result.file)
}

#[test]
fn split_parts_the_set_in_two() {
    let scene = &*SCENE;
    let data = scene.open(&scene.data().train);
    let ids = [19, 3, 399, 0, 3].map(|i| data.ids()[i].clone());
    let (retained, flagged) = split(&data, &ids).unwrap();
    assert_eq!(flagged, [0, 3, 19, 399], "ascending, each once");
    assert_eq!(retained, (0..400).filter(|i| !flagged.contains(i)).collect::<Vec<_>>());
    assert_eq!(split(&data, &[]).unwrap(), ((0..400).collect(), vec![]));
    let error = split(&data, &[data.ids()[1].clone(), TrainId("star/none.png".into())]).unwrap_err();
    assert!(error.to_string().contains("star/none.png"), "{error}");
    assert!(split(&data, data.ids()).unwrap_err().to_string().contains("every training example"));
}

/// Exact unlearning, by its definition: the model that would have been trained had the examples never been there, from another initialisation than production's.
#[test]
fn eu_is_training_where_the_pictures_never_were() {
    let scene = &*SCENE;
    let gone = twenty(scene);
    let unlearned = scene.unlearn("eu", Unlearner::Eu(eu::Keys::default()), &gone);
    let never = folder_without(scene, "train-without", &gone);
    let another = |seed| Recipe { seed, ..short() };
    let expected = trained(scene, "eu-expected", never, another(short().seed + 1), &[]);
    assert!(same(&unlearned, &expected), "EU is not training on the retained pictures");
    assert!(!same(&unlearned, &scene.victim));
    // The train job leaves out what it is told to, too.
    let left_out = trained(scene, "left-out", scene.data(), another(short().seed + 1), &gone);
    assert!(same(&left_out, &expected));
}

/// Fine-tuning starts at production's weights, on the retained pictures, at its own rate.
#[test]
fn cf_goes_on_from_production_without_the_pictures() {
    let scene = &*SCENE;
    let gone = twenty(scene);
    let settings = |lr, last_k| {
        Unlearner::Cf(cf::Keys {
            epochs: 1,
            lr: Some(lr),
            schedule: Schedule::Constant,
            last_k,
        })
    };
    let distance = |a: &Path, name: &str| -> f64 {
        let difference: Tensor = &tensors(a)[name] - &tensors(&scene.victim)[name];
        difference.abs().max().to_kind(Kind::Double).double_value(&[])
    };
    let still = scene.unlearn("cf-still", settings(1e-9, 0), &gone);
    assert!(distance(&still, "conv1.weight") < 1e-6 && distance(&still, "fc.weight") < 1e-6);
    let moved = scene.unlearn("cf", settings(0.01, 0), &gone);
    assert!(distance(&moved, "conv1.weight") > 1e-4 && distance(&moved, "fc.weight") > 1e-4);
    // By its definition: production's weights, trained on where the pictures never were, in an order that is not production's.
    let never = folder_without(scene, "cf-train-without", &gone);
    let (graph, image, data) = (scene.graph(), &scene.prepared.image, scene.open(&never.train));
    let training = Training {
        graph: &graph,
        data: &data,
        image,
        examples: &(0..data.len()).collect::<Vec<_>>(),
        recipe: &Recipe {
            epochs: 1,
            lr: 0.01,
            schedule: Schedule::Constant,
            seed: short().seed + 2,
            ..short()
        },
        start: Some(Weights::load(&scene.victim, &graph, Kind::Float).unwrap()),
        loss: &CrossEntropy,
        trainable: graph.last_layers(0),
        // Where the job computes, which has told a GPU there to compute the same twice.
        device: Device::cuda_if_available(),
        out_dir: &scene.folder.join("cf-train-without"),
        key: "by hand".into(),
    };
    let expected = train(training, &mut Silent).unwrap().model.weights.0;
    assert!(
        tensors(&moved).iter().all(|(name, t)| t.equal(&expected[name].to_device(Device::Cpu))),
        "CF is not fine-tuning on the retained pictures"
    );
    let last = scene.unlearn("cf-last", settings(0.01, 1), &gone);
    assert!(distance(&last, "conv1.weight") == 0.0 && distance(&last, "fc.weight") > 1e-4);
    // The removed pictures leave no trace: other pixels in their files change nothing.
    let other = scene.folder.join("other-pixels");
    let data = folder_without(scene, "other-pixels", &[]);
    for id in &gone {
        std::fs::copy(
            scene.data().train.path.join(&scene.open(&scene.data().train).ids()[7].0),
            other.join(&id.0),
        )
        .unwrap();
    }
    let task = |flagged: &[TrainId]| Task::Unlearn {
        data: data.clone(),
        model: scene.model(),
        recipe: short(),
        method: settings(0.01, 0),
        flagged: flagged.to_vec(),
        standing: Vec::new(),
        standing_digest: None,
    };
    scene.run("cf-other", task(&gone));
    assert!(same(&moved, &scene.folder.join("cf-other/model.safetensors")));
    // Had they not been removed, they would: this comparison can tell.
    scene.run("cf-other-kept", task(&gone[1..]));
    let kept = scene.unlearn("cf-kept", settings(0.01, 0), &gone[1..]);
    assert!(!same(&kept, &scene.folder.join("cf-other-kept/model.safetensors")));
}

/// Whatever the method: its candidate fits in production's place, says how it was made, and can be measured. What each makes of the anomaly is printed.
#[test]
fn every_unlearner_makes_a_candidate_that_the_gate_can_judge() {
    let scene = &*SCENE;
    for name in Name::<Unlearner>::all() {
        // `command` runs a program that nobody but its owner can name: ml/tests/command.rs hands its candidates on.
        if !name.method().check().is_empty() {
            println!("SKIPPED {name}: it does nothing without settings of its own");
            continue;
        }
        let folder = format!("every-{name}");
        let told = scene.unlearned(&folder, name.method(), &scene.prepared.poisons);
        let checkpoint = scene.folder.join(&folder).join(&told.file);
        let made = told.made.unwrap();
        assert_eq!((made.method.as_str(), made.about.as_str()), (name.as_str(), name.method().own().about()));
        assert!(told.train_loss.is_finite() && (0.0..=1.0).contains(&told.train_accuracy), "{name}");
        let task = Task::Certify {
            data: scene.data(),
            model: scene.model(),
            candidate: checkpoint,
            anomalies: vec![anomaly(scene.anomaly(0), None)],
            limits: LIMITS,
            flagged: scene.prepared.poisons.clone(),
        };
        let JobResult::Certify(judged) = scene.run(&format!("certify-{name}"), task) else {
            panic!("certify answers with another result");
        };
        println!(
            "{name}: the anomaly is read as {} (was {}), accuracy {:.3} (was {:.3}), loss on what stays {:.3}",
            judged.anomalies_after[0].label,
            judged.anomalies_before[0].label,
            judged.after.share(),
            judged.before.share(),
            told.train_loss
        );
    }
}
