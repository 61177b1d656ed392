//! The trace job against the same detector on loops over examples: whatever the job lays out for the detector (wrong label, members, placebos, null pictures, factors,
//! settings) must be what the case asks for.

use super::loops::by_loops;
use super::network::{Network, normalised};
use super::scene::{LIMITS, SCENE, Scene, anomaly, attempt, detect, small, with};
use delta_guard_contract::detect::{Delta, DetectConfig, Detector, Precision, Shared, feature_neighbours, gradient_cosine, paper_code, paper_text};
use delta_guard_contract::finding::{Beside, Cell, Exhibit, SharedPixels};
use delta_guard_contract::method::Method;
use delta_guard_contract::{JobResult, ModelConfig, Seed, Task, TraceReport, TraceVerdict};
use delta_influence::data::encode_png;
use delta_influence::detect::exhibits::Finding;
use delta_influence::detect::stand_out::StandOut;
use delta_influence::files;
use std::collections::BTreeSet;
use std::path::PathBuf;

fn close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-6 * expected.abs().max(1e-3),
        "{what}: {found}, the loop has {expected}"
    );
}

fn close_or_none(found: Option<f64>, expected: Option<f64>, what: &str) {
    match (found, expected) {
        (Some(f), Some(e)) => close(f, e, what),
        other => assert_eq!(other.0, other.1, "{what}"),
    }
}

pub fn trace(scene: &Scene, name: &str, detect: &DetectConfig, picture: PathBuf, wrong_label: Option<&str>) -> TraceReport {
    let task = Task::Trace {
        data: scene.data(),
        model: scene.model(),
        detect: detect.clone(),
        anomalies: vec![anomaly(picture, wrong_label)],
        limits: LIMITS,
        case_seed: Seed(77),
        factors_seed: Seed(78),
        scores: None,
    };
    let JobResult::Trace(report) = scene.run(name, task) else {
        panic!("trace answers with another result");
    };
    let written: TraceReport = serde_json::from_slice(&std::fs::read(scene.folder.join(name).join("trace.json")).unwrap()).unwrap();
    assert_eq!((written.seed, report.seed), (detect.common.seed, detect.common.seed));
    assert_eq!(written, *report);
    *report
}

pub fn stand_out(report: &TraceReport) -> Option<StandOut> {
    serde_json::from_value(report.details["stand_out"].clone()).unwrap()
}

fn shared(report: &TraceReport) -> Option<&SharedPixels> {
    report.exhibits.iter().find_map(|exhibit| match exhibit {
        Exhibit::Shared(shared) => Some(shared),
        _ => None,
    })
}

fn plain(report: &TraceReport) -> Option<&Beside> {
    report.exhibits.iter().find_map(|exhibit| match exhibit {
        Exhibit::Beside(beside) => Some(beside),
        _ => None,
    })
}

fn same(scene: &Scene, report: &TraceReport, expected: &Finding) {
    let train = scene.open(&scene.data().train);
    // To the digits that are told: the loop's figures are another's to rounding.
    let told = |verdict: &TraceVerdict| match verdict {
        TraceVerdict::Flagged => None,
        TraceVerdict::Undecided { why } => Some((why.code().to_owned(), why.sentence())),
    };
    assert_eq!(told(&report.verdict), told(&expected.verdict));
    assert_eq!((report.examples, report.examples_of_label as usize), (400, expected.members.len()));
    assert_eq!(report.flagged.len(), expected.flagged.len());
    let guard = ["guard", "gradient-cosine"].contains(&report.settings.method.name());
    let rows = report.table().map_or(&[][..], |table| &table.rows);
    assert_eq!(rows.len(), report.flagged.len(), "a row for each");
    for (found, row) in report.flagged.iter().zip(rows) {
        let position = train.position(&found.id).unwrap();
        let by_loop = expected.flagged.iter().find(|f| f.position == position).unwrap();
        let Cell::Number(mean_scaled_delta) = row[1] else { panic!("{row:?}") };
        assert_eq!(row[0], Cell::Whole(by_loop.count.into()), "{}", found.id);
        assert!(!guard || row[3] == Cell::Yes(by_loop.seed), "{}", found.id);
        assert_eq!(found.label, train.classes()[train.labels()[position] as usize]);
        let score = if guard { by_loop.kappa } else { by_loop.count.into() };
        close(found.score, score, "the score");
        close(mean_scaled_delta, by_loop.mean_scaled_delta, "mean scaled Δ");
    }
    assert!(report.flagged.iter().map(|f| f.rank).eq(1..=report.flagged.len() as u32), "ranks");
    let set = |ids: Vec<usize>| ids.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(plain(report).is_some(), expected.plain.is_some());
    if let (Some(found), Some(by_loop)) = (plain(report), &expected.plain) {
        assert_eq!(
            set(found.flagged.iter().map(|id| train.position(id).unwrap()).collect()),
            set(by_loop.flagged.clone())
        );
        let said = format!("τ = {}, n_tol = {}", by_loop.tau, by_loop.n_tol);
        assert!(found.caption.contains(&said), "{}", found.caption);
    }
    let (Some(found), Some(by_loop)) = (&stand_out(report), &expected.stand_out) else {
        assert!(stand_out(report).is_none() && expected.stand_out.is_none());
        return;
    };
    assert_eq!((found.rounds, found.null_pictures), (by_loop.rounds, by_loop.null_pictures));
    close(found.cut, by_loop.cut, "the cut");
    close_or_none(found.d_prime, by_loop.d_prime, "d′");
    close_or_none(found.z, by_loop.z, "z");
    for (f, e) in found.placebos.iter().zip(&by_loop.placebos) {
        assert_eq!((&f.id, f.flagged), (&e.id, e.flagged));
        close_or_none(f.z, e.z, "a placebo's z");
        close_or_none(f.d_prime, e.d_prime, "a placebo's d′");
    }
}

/// What the flagged share, by its definition: on which pixels nine tenths of them look like their median and at most half of the other examples of the class do.
fn share(report: &TraceReport, scene: &Scene, name: &str) {
    let train = scene.open(&scene.data().train);
    let flagged: Vec<usize> = report.flagged.iter().map(|f| train.position(&f.id).unwrap()).collect();
    let label = scene.class(&report.predicted_label);
    let others: Vec<usize> = train.by_label(label).into_iter().filter(|i| !flagged.contains(i)).collect();
    let flagged: Vec<usize> = flagged.into_iter().filter(|&i| train.labels()[i] == label).collect();
    if flagged.len() < 5 || others.len() < 5 {
        assert_eq!(shared(report), None, "{name}");
        return;
    }
    let shared = shared(report).unwrap();
    let area = 32 * 32;
    let (mut places, mut drawn) = (Vec::new(), vec![144u8; 3 * area]);
    for pixel in 0..area {
        let at = |channel: usize| channel * area + pixel;
        let median: [u8; 3] = std::array::from_fn(|channel| {
            let mut values: Vec<u8> = flagged.iter().map(|&i| train.pixels(i)[at(channel)]).collect();
            values.sort_unstable();
            values[(values.len() - 1) / 2]
        });
        let alike = |of: &[usize]| {
            let like = |i: &&usize| (0..3).all(|channel| train.pixels(**i)[at(channel)].abs_diff(median[channel]) <= 16);
            of.iter().filter(like).count() as f64 / of.len() as f64
        };
        if alike(&flagged) >= 0.9 && alike(&others) <= 0.5 {
            places.push(pixel);
            (0..3).for_each(|channel| drawn[at(channel)] = median[channel]);
        }
    }
    assert_eq!(
        (shared.pixels, shared.of, shared.flagged, shared.others),
        (places.len() as u64, area as u64, flagged.len() as u64, others.len() as u64),
        "{name}"
    );
    let Some(picture) = &shared.picture else {
        assert!(places.is_empty());
        return;
    };
    let file = scene.folder.join(name).join(&picture.file);
    assert_eq!(files::digest(&file).unwrap(), picture.digest);
    assert!(picture.file.contains(picture.digest.short()));
    // Each pixel is shown three wide.
    let shown = image::open(&file).unwrap().to_rgb8();
    assert_eq!(shown.dimensions(), (96, 96));
    for pixel in 0..area {
        let color = shown.get_pixel(3 * (pixel % 32) as u32 + 1, 3 * (pixel / 32) as u32 + 1).0;
        assert_eq!(
            color,
            std::array::from_fn(|channel| drawn[channel * area + pixel]),
            "{name}: pixel {pixel}"
        );
    }
}

fn decoded(scene: &Scene, path: &std::path::Path) -> Vec<u8> {
    delta_influence::data::decode_submission(path, &LIMITS, &scene.prepared.image).unwrap()
}

#[test]
fn the_guards_trace_is_the_loops() {
    let scene = &*SCENE;
    let picture = scene.anomaly(0);
    let pixels = decoded(scene, &picture);
    let network = Network::load(&scene.victim);
    let (wrong, _) = network.read(&normalised(&pixels, &scene.prepared.image));
    assert_eq!(scene.prepared.classes[wrong as usize], scene.target(), "the attack must take");
    // Factors of its own: no other test here lays them down under this seed.
    let detect = DetectConfig {
        common: Shared {
            seed: Some(12),
            ..Shared::default()
        },
        ..detect()
    };
    let fit = |name: &str| {
        let task = Task::Fit {
            data: scene.data(),
            model: scene.model(),
            detect: detect.clone(),
            factors_seed: Seed(78),
        };
        match scene.run(name, task) {
            JobResult::Fit(result) => {
                // Rows of G and of A; the linear layer's bias is one more.
                let sizes = [
                    ("conv1", 6, 27),
                    ("conv2", 12, 54),
                    ("conv3", 12, 108),
                    ("conv4", 24, 108),
                    ("fc", 10, 25),
                ];
                assert_eq!(result.layers, sizes.map(|(name, g, a)| (name.to_string(), g, a)));
                result.factors
            }
            _ => panic!("fit answers with another result"),
        }
    };
    let (first, second) = (fit("fit"), fit("fit-again"));
    assert_eq!((first.examples, first.reused, second.reused), (150, false, true));
    // The wrong label is not given: the job finds it.
    let report = trace(scene, "trace", &detect, picture, None);
    let factors = report.factors.as_ref().unwrap();
    assert_eq!((&factors.key, factors.reused), (&first.key, true));
    assert_eq!(report.predicted_label, scene.target());
    let expected = by_loops(scene, &report, &pixels);
    same(scene, &report, &expected);
    assert_eq!(report.verdict, TraceVerdict::Flagged);
    // All but the batch norms' two numbers a channel.
    let tracked = report.tracked.as_ref().unwrap();
    assert_eq!((tracked.layers, tracked.tracked_share), (5, 4948.0 / 5056.0));
    assert_eq!((tracked.untracked_tensors, tracked.untracked[0].0.as_str()), (8, "bn4.bias"));
    share(&report, scene, "trace");
    // The trigger is 8 × 8, one pixel from the lower right corner.
    let shared = shared(&report).unwrap();
    assert_eq!((shared.pixels, shared.place), (64, Some([23, 23, 8, 8])), "{shared:?}");
    let poisons: BTreeSet<_> = scene.prepared.poisons.iter().collect();
    let hits = report.flagged.iter().filter(|f| poisons.contains(&f.id)).count();
    assert!(
        hits >= 18 && report.flagged.len() - hits <= 2,
        "{hits} of {} flagged are poisons",
        report.flagged.len()
    );
    assert!(stand_out(&report).unwrap().null_pictures >= 50, "the cut is set by null pictures");
}

/// The guard's steps without curvature: nothing is fitted, and figures are those of loops over plain gradients.
#[test]
fn the_trace_without_curvature_is_the_loops() {
    let scene = &*SCENE;
    let picture = scene.anomaly(0);
    let pixels = decoded(scene, &picture);
    let config = DetectConfig {
        method: Detector::GradientCosine(gradient_cosine::Keys {
            precision: Precision::F64,
            queries: 6,
            placebos: 6,
            ..gradient_cosine::Keys::default()
        }),
        ..detect()
    };
    let report = trace(scene, "gradient-cosine", &config, picture, None);
    assert!(report.factors.is_none() && !report.seconds.contains_key("covariance"));
    let found = stand_out(&report).unwrap();
    assert!(found.d_prime.is_some() && found.null_pictures >= 50, "a group was grown: {found:?}");
    same(scene, &report, &by_loops(scene, &report, &pixels));
}

/// A training picture that is handed in is its own nearest neighbour.
#[test]
fn a_training_picture_is_its_own_neighbour() {
    let scene = &*SCENE;
    let (train, image) = (scene.open(&scene.data().train), &scene.prepared.image);
    let i = train.by_label(scene.class(scene.target()))[3];
    let path = scene.folder.join("neighbour.png");
    std::fs::write(&path, encode_png(train.pixels(i), image.height, image.width, 1).unwrap()).unwrap();
    let config = DetectConfig {
        method: Detector::FeatureNeighbours(feature_neighbours::Keys {
            nearest: feature_neighbours::Nearest::Count,
            neighbours: 2,
            ..feature_neighbours::Keys::default()
        }),
        ..detect()
    };
    let report = trace(scene, "neighbour", &config, path, Some(scene.target()));
    let [first, second] = &report.flagged[..] else {
        panic!("{:?}", report.flagged)
    };
    assert_eq!(first.id, train.ids()[i]);
    assert!(
        (first.score - 1.0).abs() < 1e-6 && second.score < 1.0 - 1e-6,
        "{} {}",
        first.score,
        second.score
    );
}

/// Only the layers that are asked for, by the beginnings of their names.
#[test]
fn only_the_layers_that_are_asked_for_are_fitted() {
    let scene = &*SCENE;
    let config = with(detect(), "layers", vec!["conv4", "fc"].into());
    let task = Task::Fit {
        data: scene.data(),
        model: scene.model(),
        detect: config,
        factors_seed: Seed(78),
    };
    let JobResult::Fit(result) = scene.run("fit-some-layers", task) else {
        panic!("fit answers with another result");
    };
    assert!(result.layers.iter().map(|l| l.0.as_str()).eq(["conv4", "fc"]), "{:?}", result.layers);
}

/// A network of which influence would see too little is refused, with the names; what `detect.layers` leaves out is the owner's choice.
#[test]
fn less_than_the_least_share_is_refused() {
    let scene = &*SCENE;
    let fit = |name: &str, least: f64| {
        let task = Task::Fit {
            data: scene.data(),
            model: ModelConfig {
                min_tracked_share: least,
                ..scene.model()
            },
            detect: with(detect(), "layers", vec!["fc"].into()),
            factors_seed: Seed(78),
        };
        attempt(&scene.folder, name, task)
    };
    let fault = fit("fit-too-little", 0.98).unwrap_err();
    for part in ["97.9 %", "asks for 98.0 %", "bn4.bias", "and 5 smaller"] {
        assert!(fault.message.contains(part), "{part}: {}", fault.message);
    }
    assert!(fault.help.contains("model.min_tracked_share to 0.97 "), "{}", fault.help);
    fit("fit-enough", 0.97).unwrap();
}

/// Somebody submits a validation picture: it is neither a placebo nor a null picture.
#[test]
fn a_validation_picture_that_is_submitted_is_no_clean_picture() {
    let scene = &*SCENE;
    let validation = scene.open(&scene.data().validation);
    let image = &scene.prepared.image;
    let network = Network::load(&scene.victim);
    let target = scene.class(scene.target());
    let (mut right, mut wrong) = (None, None);
    for i in validation.by_label(target) {
        let read = network.read(&normalised(validation.pixels(i), image)).0 == target;
        if read { &mut right } else { &mut wrong }.get_or_insert(i);
    }
    for (name, i) in [("submitted-right", right.unwrap()), ("submitted-wrong", wrong.unwrap())] {
        let path = scene.folder.join(format!("{name}.png"));
        std::fs::write(&path, encode_png(validation.pixels(i), image.height, image.width, 1).unwrap()).unwrap();
        let report = trace(scene, name, &detect(), path, Some(scene.target()));
        let expected = by_loops(scene, &report, validation.pixels(i));
        assert!(stand_out(&report).unwrap().null_pictures >= 50);
        same(scene, &report, &expected);
    }
}

/// The published rule with a τ that is not 0: counts of raw shifts over all examples.
#[test]
fn the_published_rules_trace_is_the_loops() {
    let scene = &*SCENE;
    let picture = scene.anomaly(1);
    let pixels = decoded(scene, &picture);
    let keys = |delta: Delta| Delta {
        tau: -0.5,
        n_tol: 3,
        ..small(delta)
    };
    let (code, text) = (paper_code::Keys::default().delta, paper_text::Keys::default().delta);
    for method in [
        Detector::PaperCode(paper_code::Keys { delta: keys(code) }),
        Detector::PaperText(paper_text::Keys { delta: keys(text) }),
    ] {
        let name = method.name();
        let config = DetectConfig { method, ..detect() };
        let report = trace(scene, name, &config, picture.clone(), Some(scene.target()));
        share(&report, scene, name);
        let expected = by_loops(scene, &report, &pixels);
        assert!(
            !expected.flagged.is_empty() && expected.flagged.len() < 200,
            "{} flagged",
            expected.flagged.len()
        );
        same(scene, &report, &expected);
    }
}
