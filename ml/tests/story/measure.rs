//! Predict, measure and certify against the network written out by hand, on a few pictures.

use super::network::{Network, normalised};
use super::scene::{LIMITS, SCENE, anomaly, recipe};
use delta_guard_contract::job::{Accuracy, Paired, Prediction};
use delta_guard_contract::{DataConfig, DataSource, JobResult, Recipe, Task};
use delta_influence::data::DataSet;
use delta_influence::files;
use std::path::Path;

/// Accuracy counted by hand.
fn counted(network: &Network, data: &DataSet, image: &delta_guard_contract::ImageConfig) -> Accuracy {
    let mut accuracy = Accuracy::default();
    for (i, &label) in data.labels().iter().enumerate() {
        let right = network.read(&normalised(data.pixels(i), image)).0 == label;
        accuracy.examples += 1;
        accuracy.correct += u64::from(right);
        let class = accuracy.classes.entry(data.classes()[label as usize].clone()).or_default();
        *class = (class.0 + 1, class.1 + u64::from(right));
    }
    accuracy
}

fn same(found: &Prediction, network: &Network, picture: &Path, checkpoint: &Path) {
    let scene = &*SCENE;
    let pixels = delta_influence::data::decode_submission(picture, &LIMITS, &scene.prepared.image).unwrap();
    let probabilities = network.probabilities(&normalised(&pixels, &scene.prepared.image));
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    assert_eq!(found.label, scene.prepared.classes[order[0]]);
    assert!(
        (found.probability - probabilities[order[0]]).abs() < 1e-4,
        "{} {}",
        found.probability,
        probabilities[order[0]]
    );
    assert_eq!(found.classes, scene.prepared.classes);
    assert_eq!(found.top.len(), 5);
    for ((name, p), &class) in found.top.iter().zip(&order) {
        assert!((p - probabilities[class]).abs() < 1e-4, "{name} {p}, by hand {}", probabilities[class]);
    }
    assert_eq!(found.checkpoint, files::digest(checkpoint).unwrap());
}

/// Twenty validation pictures, some of which each model misreads.
fn few(name: &str) -> DataConfig {
    let scene = &*SCENE;
    let to = scene.folder.join(name);
    let data = scene.open(&scene.data().validation);
    for class in 0..10 {
        for id in data.by_label(class).into_iter().take(2).map(|i| &data.ids()[i]) {
            std::fs::create_dir_all(to.join(&id.0).parent().unwrap()).unwrap();
            std::fs::copy(scene.data().validation.path.join(&id.0), to.join(&id.0)).unwrap();
        }
    }
    DataConfig {
        validation: DataSource {
            path: to,
            ..scene.data().validation
        },
        ..scene.data()
    }
}

#[test]
fn certify_measures_both_models() {
    let scene = &*SCENE;
    let data = few("certified");
    // A candidate that is plainly another model: one epoch.
    let task = Task::Train {
        data: scene.data(),
        model: scene.model(),
        recipe: Recipe { epochs: 1, ..recipe() },
        without: scene.prepared.poisons.clone(),
    };
    scene.run("candidate", task);
    let candidate = scene.folder.join("candidate/model.safetensors");
    let production = files::digest(&scene.victim).unwrap();
    let pictures = [scene.anomaly(0), scene.anomaly(1)];
    let task = Task::Certify {
        data: data.clone(),
        model: scene.model(),
        candidate: candidate.clone(),
        anomalies: pictures.iter().map(|p| anomaly(p.clone(), None)).collect(),
        limits: LIMITS,
        flagged: Vec::new(),
    };
    let JobResult::Certify(found) = scene.run("certify", task) else {
        panic!("certify answers with another result");
    };
    let (before, after) = (Network::load(&scene.victim), Network::load(&candidate));
    let validation = scene.open(&data.validation);
    let image = &scene.prepared.image;
    let (expected_before, expected_after) = (counted(&before, &validation, image), counted(&after, &validation, image));
    assert_eq!(expected_before.examples, 20);
    assert!(expected_before.correct != expected_after.correct, "the scene must tell the models apart");
    assert!(expected_before.correct < 20 && expected_after.correct < 20, "some must be misread");
    assert_eq!((&found.before, &found.after), (&expected_before, &expected_after));
    let mut paired = Paired::default();
    for (i, &label) in validation.labels().iter().enumerate() {
        let right = |network: &Network| network.read(&normalised(validation.pixels(i), image)).0 == label;
        let (was, is) = (right(&before), right(&after));
        paired.lost += u64::from(was && !is);
        paired.won += u64::from(is && !was);
        let class = paired.classes.entry(validation.classes()[label as usize].clone()).or_default();
        *class = (class.0 + u64::from(was && !is), class.1 + u64::from(is && !was));
    }
    assert!(
        paired.lost > 0 && paired.lost != paired.won,
        "the scene must tell lost from won: {paired:?}"
    );
    assert_eq!(found.paired, Some(paired));
    assert_eq!((found.anomalies_before.len(), found.anomalies_after.len()), (2, 2));
    for (i, picture) in pictures.iter().enumerate() {
        same(&found.anomalies_before[i], &before, picture, &scene.victim);
        same(&found.anomalies_after[i], &after, picture, &candidate);
    }
    assert_eq!(found.candidate, files::digest(&candidate).unwrap());
    assert_eq!(files::digest(&scene.victim).unwrap(), production, "production is only read");
}

#[test]
fn measure_and_predict_are_counted_by_hand() {
    let scene = &*SCENE;
    let data = few("measured");
    let task = Task::Measure {
        data: scene.data(),
        model: scene.model(),
        source: data.validation.clone(),
        list: true,
    };
    let JobResult::Measure(found) = scene.run("measure", task) else {
        panic!("measure answers with another result");
    };
    let network = Network::load(&scene.victim);
    let set = scene.open(&data.validation);
    let image = &scene.prepared.image;
    assert_eq!(found.accuracy, counted(&network, &set, image));
    assert_eq!(found.checkpoint, files::digest(&scene.victim).unwrap());
    let lines: Vec<delta_guard_contract::job::PredictedExample> =
        serde_json::from_slice(&std::fs::read(scene.folder.join("measure/predictions.json")).unwrap()).unwrap();
    assert_eq!(lines.len(), set.len());
    let mut predicted = std::collections::BTreeMap::<String, u64>::new();
    for line in &lines {
        let i = set.position(&line.id).unwrap();
        let (class, probability) = network.read(&normalised(set.pixels(i), image));
        assert_eq!(line.label, set.classes()[set.labels()[i] as usize]);
        assert_eq!(line.predicted, set.classes()[class as usize]);
        assert!((line.probability - probability).abs() < 1e-4);
        *predicted.entry(line.predicted.clone()).or_default() += 1;
    }
    assert_eq!(found.predicted, predicted);
    let task = Task::Predict {
        data: scene.data(),
        model: scene.model(),
        image: scene.anomaly(2),
        limits: LIMITS,
    };
    let JobResult::Predict(read) = scene.run("predict", task) else {
        panic!("predict answers with another result");
    };
    same(&read, &network, &scene.anomaly(2), &scene.victim);
}
