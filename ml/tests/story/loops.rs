//! The detector on loops over examples, over clean pictures that are chosen by the rules: what the trace job is held against.

use super::naive::{Factors, Naive};
use super::network::{Network, Of, normalised};
use super::scene::Scene;
use super::trace::stand_out;
use delta_guard_contract::detect::{Delta, Detector};
use delta_guard_contract::{Seed, TraceReport};
use delta_influence::data::DataSet;
use delta_influence::detect::exhibits::Finding;
use delta_influence::detect::guard::Guard;
use delta_influence::detect::paper::CountRule;
use delta_influence::detect::queries::picture_from_bytes;
use delta_influence::detect::{DetectCase, PlaceboPicture};
use delta_influence::evidence::KnownLab;
use delta_influence::passes::fit::FitSettings;
use delta_influence::progress::Silent;
use std::collections::BTreeSet;

/// Which clean pictures the case stands on, by the rules: placebos are read rightly, null pictures are the others of the class, what is submitted is neither.
struct Expected {
    placebos: Vec<PlaceboPicture>,
    null: Vec<usize>,
}

fn clean_pictures(scene: &Scene, report: &TraceReport, validation: &DataSet, submitted: &[u8], network: &Network) -> Expected {
    let image = &scene.prepared.image;
    let wrong = scene.class(&report.predicted_label);
    let class = validation.by_label(wrong);
    let usable: Vec<usize> = class.iter().copied().filter(|&i| validation.pixels(i) != submitted).collect();
    let right: BTreeSet<usize> = usable
        .iter()
        .copied()
        .filter(|&i| network.read(&normalised(validation.pixels(i), image)).0 == wrong)
        .collect();
    let shown = &stand_out(report).unwrap().placebos;
    let places: Vec<usize> = shown.iter().map(|p| validation.position(&p.id).unwrap()).collect();
    let distinct: BTreeSet<usize> = places.iter().copied().collect();
    assert_eq!(
        distinct.len(),
        (report.settings.needs().validation.unwrap().placebos as usize).min(right.len()),
        "as many placebos as asked for, each once"
    );
    assert!(
        distinct.is_subset(&right),
        "every placebo is a clean picture of the class that is read rightly"
    );
    assert!(right.len() < usable.len(), "the scene must have clean pictures that are misread");
    let size = |x: u32| x as usize;
    Expected {
        placebos: shown
            .iter()
            .zip(&places)
            .map(|(p, &i)| PlaceboPicture {
                id: p.id.clone(),
                picture: picture_from_bytes(validation.pixels(i), 3, size(image.height), size(image.width)).unwrap(),
            })
            .collect(),
        null: usable.into_iter().filter(|i| !distinct.contains(i)).collect(),
    }
}

/// The detector of the report's mode, on loops.
pub fn by_loops(scene: &Scene, report: &TraceReport, pixels: &[u8]) -> Finding {
    let image = &scene.prepared.image;
    let (train, validation) = (scene.open(&scene.data().train), scene.open(&scene.data().validation));
    let network = Network::load(&scene.victim);
    let needs = report.settings.needs();
    let (asked, seed) = (needs.influence().unwrap().clone(), report.seed.unwrap());
    let fit = FitSettings::new(&asked, Seed(seed));
    let (factors, damping) = match needs.factors {
        Some(_) => (
            Factors::fit(&network, &train, image, &fit.subset(train.len()), asked.fisher, fit.seed),
            0.1,
        ),
        None => (Factors::identity(&network, &normalised(pixels, image)), 0.0),
    };
    let clean = match needs.validation {
        Some(_) => clean_pictures(scene, report, &validation, pixels, &network),
        None => Expected {
            placebos: Vec::new(),
            null: Vec::new(),
        },
    };
    let of_placebos = clean.placebos.iter().map(|p| validation.pixels(validation.position(&p.id).unwrap()));
    let features = [
        network.features((0..train.len()).map(|i| train.pixels(i)), image),
        network.features(clean.null.iter().map(|&i| validation.pixels(i)).chain([pixels]), image),
        network.features(of_placebos.chain([pixels]), image),
    ];
    let mut evidence = Naive::new(network, factors, damping, asked.objective, &train, image, Of::Loss);
    if !clean.null.is_empty() {
        evidence = evidence.with_null(&validation, image, &clean.null);
    }
    let size = |x: u32| x as usize;
    let picture = picture_from_bytes(pixels, 3, size(image.height), size(image.width)).unwrap();
    let case = DetectCase {
        anomalies: &[picture],
        wrong_label: scene.class(&report.predicted_label) as usize,
        classes: train.classes().len(),
        labels: train.labels(),
        placebos: &clean.placebos,
        seed,
        image,
    };
    let mut lab = KnownLab::of(&mut evidence);
    let [of_train, of_null, of_placebos] = features;
    lab.features = Some(of_train);
    lab.null_features = (!clean.null.is_empty()).then(|| of_null.narrow(0, 0, clean.null.len() as i64));
    lab.picture_features = Some(of_placebos);
    let finding = match &report.settings.method {
        Detector::Guard(keys) => Guard(keys).find(&mut lab, &case, &mut Silent),
        Detector::GradientCosine(keys) => Guard(&keys.as_guard()).find(&mut lab, &case, &mut Silent),
        rule => {
            let delta: Delta = serde_json::from_value(serde_json::to_value(rule).unwrap()).unwrap();
            CountRule(&delta).find(&mut lab, &case, &mut Silent)
        }
    }
    .unwrap();
    if let Some(found) = stand_out(report)
        && found.null_pictures > 0
    {
        assert_eq!(found.null_pictures as usize, clean.null.len(), "null pictures");
    }
    finding
}
