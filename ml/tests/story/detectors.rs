//! Every detector through the worker's job.

use super::scene::{SCENE, Scene, detect};
use super::trace::trace;
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::{DetectConfig, Detector};
use delta_guard_contract::method::{Method, changed};
use delta_influence::files;
use std::collections::BTreeSet;
use std::path::Path;

/// A frequency detector for pictures of 32 × 32, with weights of no meaning.
fn frequency_net(scene: &Scene) -> String {
    let narrow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/detect/frequency.safetensors");
    let mut tensors = files::tensors::read_tensors(&std::fs::read(narrow).unwrap()).unwrap();
    let last = tensors["fc1.weight"].repeat([1, 4]);
    tensors.insert("fc1.weight".into(), last);
    let path = scene.folder.join("frequency.safetensors");
    files::tensors::write_tensors(&path, tensors.iter().map(|(name, t)| (name.as_str(), t)), files::tensors::Texts::new()).unwrap();
    path.to_str().unwrap().into()
}

/// Every detector that there is, through the worker's job: it gets what it needs and nothing else, and names only training examples.
#[test]
fn every_detector_gets_what_it_needs_and_nothing_else() {
    let scene = &*SCENE;
    let train = scene.open(&scene.data().train);
    for name in Detector::NAMES {
        let method = Detector::named(name).unwrap();
        let method = changed(&method, "fit_examples", 150.into()).unwrap_or(method);
        let method = changed(&method, "weights", frequency_net(scene).into()).unwrap_or(method);
        let config = DetectConfig { method, ..detect() };
        let needs = config.needs();
        let out = format!("needs-{name}");
        let report = trace(scene, &out, &config, scene.anomaly(0), None);
        assert_eq!(report.factors.is_some(), needs.factors.is_some(), "{name}");
        assert_eq!(report.tracked.is_some(), needs.influence().is_some(), "{name}");
        assert_eq!(report.seconds.contains_key("placebo"), needs.validation.is_some(), "{name}");
        assert_eq!(report.seconds.contains_key("features"), needs.features, "{name}");
        assert_eq!(report.verdict == TraceVerdict::Flagged, !report.flagged.is_empty(), "{name}");
        assert!(report.flagged.iter().all(|f| train.position(&f.id).is_some()), "{name}");
        assert_eq!(report.table().map_or(0, |table| table.rows.len()), report.flagged.len(), "{name}");
        let poisons: BTreeSet<_> = scene.prepared.poisons.iter().collect();
        let hit = report.flagged.iter().filter(|f| poisons.contains(&f.id)).count();
        println!("{name}: {} flagged, {hit} of {} poisons", report.flagged.len(), poisons.len());
    }
}
