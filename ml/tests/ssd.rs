//! SSD against plain loops in float64, at its bounds, and on a real victim.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "unlearn/bench.rs"]
mod bench;

use bench::Bench;
use delta_guard_contract::job::StoryConfig;
use delta_guard_contract::method::unlearn::Unlearner as Method;
use delta_guard_contract::method::unlearn::ssd::Keys;
use delta_guard_contract::{DataConfig, DataSource, Job, JobResult, ModelConfig, PROTOCOL, Recipe, Task, WorkerSetup};
use delta_influence::data::normalise;
use delta_influence::files::tensors::read_tensors;
use delta_influence::jobs;
use delta_influence::model::{Graph, Model, Weights};
use delta_influence::progress::Silent;
use delta_influence::unlearn::Unlearner;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const FLAGGED: [usize; 3] = [4, 17, 31];

/// Production weights of a network; the first channel never sees anything: its importance is zero.
fn production(graph: &Graph) -> Weights {
    let weights = Weights::init(graph, 4).unwrap();
    let _ = weights.0["bn1.bias"].get(0).fill_(-1e3);
    weights
}

/// The weights after `keys`, the flagged being those given.
fn dampened(bench: &Bench, keys: &Keys, flagged: &[usize]) -> BTreeMap<String, Tensor> {
    let graph = bench.graph();
    let retained: Vec<usize> = (0..bench.data.len()).filter(|i| !flagged.contains(i)).collect();
    let (production, recipe, out) = (production(&graph), Recipe::default(), bench.out("ssd"));
    let case = bench.case((&graph, &production), (&retained, flagged), &recipe, &out);
    let made = keys.unlearn(&case, &mut Silent).unwrap();
    assert!(made.loss.is_finite() && made.model.weights.0.values().all(|t| !t.requires_grad()));
    made.model.weights.0
}

/// Gradients of the loss over one list of examples after the other: their means, squared, averaged. Parameter by parameter, in float64.
fn importance(bench: &Bench, name: &str, units: &[Vec<usize>]) -> Vec<f64> {
    let graph = bench.graph();
    let model = Model::new(graph.clone(), production(&graph).to(Device::Cpu, Kind::Double));
    let parameter = model.weights.0[name].set_requires_grad(true);
    let mut mean = vec![0.0; parameter.numel()];
    for unit in units {
        let mut sum = vec![0.0; mean.len()];
        for &example in unit {
            let images = normalise(&bench.data.batch(&[example]).unwrap(), &bench.image, Kind::Double, Device::Cpu).unwrap();
            let logits = model.forward_differentiable(&images).unwrap();
            let label = i64::from(bench.data.labels()[example]);
            let loss = -logits.log_softmax(1, Kind::Double).select(1, label).sum(Kind::Double);
            let gradient = Tensor::run_backward(&[loss], &[&parameter], false, false).remove(0);
            for (sum, g) in sum.iter_mut().zip(Vec::<f64>::try_from(gradient.flatten(0, -1)).unwrap()) {
                *sum += g;
            }
        }
        for (mean, sum) in mean.iter_mut().zip(sum) {
            *mean += (sum / unit.len() as f64).powi(2) / units.len() as f64;
        }
    }
    mean
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

#[test]
fn weights_are_those_of_a_loop_over_examples() {
    let bench = Bench::new();
    let graph = bench.graph();
    let before = production(&graph).0;
    let alone = |examples: Vec<usize>| examples.into_iter().map(|e| vec![e]).collect::<Vec<_>>();
    let all: Vec<usize> = (0..bench.data.len()).collect();
    // Each example alone, and all at once: no order of the examples is in either.
    for batch_size in [1, 1000] {
        let units = |examples: Vec<usize>| if batch_size == 1 { alone(examples) } else { vec![examples] };
        let keys = Keys {
            alpha: 2.0,
            lambda: 0.7,
            batch_size,
            layers: Vec::new(),
        };
        let after = dampened(&bench, &keys, &FLAGGED);
        let mut shrunk = 0;
        for entry in graph.state() {
            let (was, is) = (numbers(&before[&entry.name]), numbers(&after[&entry.name]));
            if !entry.parameter {
                assert_eq!(was, is, "{}: the statistics of batch norm are left alone", entry.name);
                continue;
            }
            let (to_all, to_flagged) = (
                importance(&bench, &entry.name, &units(all.clone())),
                importance(&bench, &entry.name, &units(FLAGGED.to_vec())),
            );
            for (i, (d, f)) in to_all.into_iter().zip(to_flagged).enumerate() {
                // Where float32 may choose otherwise.
                if (f - 2.0 * d).abs() <= 1e-3 * f {
                    continue;
                }
                let factor = if f > 2.0 * d { (0.7 * d / f).min(1.0) } else { 1.0 };
                shrunk += usize::from(factor < 1.0);
                let expected = was[i] * factor;
                assert!(
                    (is[i] - expected).abs() <= 1e-3 * expected.abs() + 1e-9,
                    "{}[{i}]: {} for {expected}",
                    entry.name,
                    is[i]
                );
            }
        }
        assert!(shrunk > 20, "only {shrunk} weights are shrunk with batches of {batch_size}");
    }
}

#[test]
fn the_bounds_hold() {
    let bench = Bench::new();
    let before = production(&bench.graph()).0;
    let same = |after: &BTreeMap<String, Tensor>| before.iter().all(|(name, tensor)| tensor.equal(&after[name]));
    let keys = |alpha, lambda| Keys {
        alpha,
        lambda,
        batch_size: 1,
        layers: Vec::new(),
    };
    assert!(same(&dampened(&bench, &keys(f64::INFINITY, 1.0), &FLAGGED)));
    // All examples are 60, so that no importance to three of them is more than 20 times that to all.
    assert!(same(&dampened(&bench, &keys(20.001, 1.0), &FLAGGED)) && !same(&dampened(&bench, &keys(5.0, 1.0), &FLAGGED)));
    // A factor above 1 is none: nothing grows.
    assert!(same(&dampened(&bench, &keys(1.0, 1e9), &FLAGGED)));
    for (alpha, lambda, flagged) in [(0.1, 0.5, &FLAGGED[..]), (1.0, 1.0, &FLAGGED[..1]), (0.01, 3.0, &FLAGGED[..])] {
        let after = dampened(&bench, &keys(alpha, lambda), flagged);
        assert!(!same(&after));
        for (name, tensor) in &after {
            let (was, is) = (numbers(&before[name]), numbers(tensor));
            assert!(
                was.iter()
                    .zip(&is)
                    .all(|(was, is)| is.is_finite() && is.abs() <= was.abs() && was * is >= 0.0),
                "{name}"
            );
        }
        // What nobody's loss depends on is as it was, not 0 / 0.
        assert!(after["conv1.weight"].get(0).equal(&before["conv1.weight"].get(0)));
    }
    // Some layers only; none that there is.
    let last = Keys {
        layers: vec!["fc".into()],
        ..keys(1.0, 1.0)
    };
    let changed: Vec<String> = dampened(&bench, &last, &FLAGGED)
        .into_iter()
        .filter(|(name, t)| !t.equal(&before[name]))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(changed, ["fc.bias", "fc.weight"]);
}

#[test]
fn what_cannot_be_done_is_told() {
    let bench = Bench::new();
    let graph = bench.graph();
    let (production, recipe, out) = (production(&graph), Recipe::default(), bench.out("ssd"));
    let told = |keys: Keys, flagged: &[usize]| {
        let case = bench.case((&graph, &production), (&[0, 1], flagged), &recipe, &out);
        let error = keys.unlearn(&case, &mut Silent).unwrap_err();
        format!("{error} {}", error.fault().help)
    };
    let none = Keys {
        layers: vec!["layer4".into()],
        ..Keys::default()
    };
    let said = told(none, &[2]);
    assert!(said.contains("layer4") && said.contains("conv1"), "{said}");
    assert!(told(Keys::default(), &[]).contains("nothing to forget"));
}

/// The demo's victim as it is kept in the golden set, its 120 poisons flagged: what comes out is printed. Whether it is a repair is
/// the gate's to say (docs/lab/diary.md: with the published settings it is none, the poisons of a confident victim have hardly a gradient).
#[test]
fn a_real_victim() {
    let folder = tempfile::tempdir().unwrap();
    let job = |name: &str, task: Task| {
        let setup = WorkerSetup {
            cache_dir: folder.path().join("cache"),
            factors_dir: folder.path().join("factors"),
            device: delta_guard_contract::Device::Auto,
            threads: 1,
            memory_budget: 1 << 28,
            query_budget: 6 << 30,
            memory_limit: 0,
        };
        let out_dir = folder.path().join(name);
        let job = Job {
            v: PROTOCOL,
            setup,
            out_dir,
            task,
        };
        jobs::run(&job, &mut Silent).unwrap()
    };
    let story: StoryConfig = serde_json::from_value(json!({
        "train_examples": 4000, "validation_examples": 2000, "seed": 1,
        "attack": {"method": "badnet", "victim_class": "disc", "target_class": "star", "poisons": 120, "trigger": {"kind": "checkerboard", "size": 8, "margin": 1}},
    }))
    .unwrap();
    let JobResult::Prepare(made) = job("data", Task::Prepare { story, victim: None }) else {
        panic!()
    };
    let inside = |source: &DataSource| DataSource {
        path: folder.path().join("data").join(&source.path),
        ..source.clone()
    };
    let data = DataConfig {
        train: inside(&made.train),
        validation: inside(&made.validation),
        image: made.image.clone(),
        max_unreadable_share: 0.0,
        classes: None,
    };
    let model = |checkpoint: &Path| -> ModelConfig {
        serde_json::from_value(json!({"architecture": "small-cnn", "width": 24, "checkpoint": checkpoint})).unwrap()
    };
    let victim = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/demo-1.safetensors");
    // (poison success, accuracy)
    let measured = |name: &str, checkpoint: &Path| {
        let share = |part: &str, source: &DataSource| {
            let task = Task::Measure {
                data: data.clone(),
                model: model(checkpoint),
                source: source.clone(),
                list: false,
            };
            match job(&format!("{name}-{part}"), task) {
                JobResult::Measure(result) => result.accuracy.share(),
                _ => panic!(),
            }
        };
        (share("success", &inside(&made.success.source)), share("accuracy", &data.validation))
    };
    let before = measured("victim", &victim);
    println!("the victim: poison success {:.3}, accuracy {:.3}", before.0, before.1);
    assert!(before.0 > 0.9, "the attack took: {before:?}");
    // What was shrunk, with the published settings and with a lower α: those of the first are among those of the second, and nothing grew.
    let was = victim_weights(&victim);
    let shrunk = [10.0, 0.1].map(|alpha| {
        let name = format!("ssd-{alpha}");
        let method = Method::Ssd(Keys { alpha, ..Keys::default() });
        let task = Task::Unlearn {
            data: data.clone(),
            model: model(&victim),
            recipe: Recipe::default(),
            method,
            flagged: made.poisons.clone(),
            standing: Vec::new(),
            standing_digest: None,
        };
        let JobResult::Train(result) = job(&name, task) else { panic!() };
        assert_eq!((result.resumed_epochs, result.made.unwrap().method.as_str()), (0, "ssd"));
        let candidate = folder.path().join(&name).join(&result.file);
        let is = victim_weights(&candidate);
        let smaller: Vec<bool> = was.iter().zip(&is).map(|(was, is)| is.abs() < was.abs()).collect();
        assert!(was.iter().zip(&is).zip(&smaller).all(|((was, is), smaller)| *smaller || was == is));
        let after = measured(&name, &candidate);
        let number = smaller.iter().filter(|smaller| **smaller).count();
        println!(
            "{name}: {number} weights shrunk, poison success {:.3}, accuracy {:.3}, {:.1} s",
            after.0, after.1, result.seconds
        );
        smaller
    });
    assert!(shrunk[0].iter().zip(&shrunk[1]).all(|(high, low)| !high || *low));
    assert!(shrunk[1].contains(&true));
}

/// Every number of a checkpoint.
fn victim_weights(checkpoint: &Path) -> Vec<f64> {
    let tensors = read_tensors(&std::fs::read(checkpoint).unwrap()).unwrap();
    let sorted: BTreeMap<_, _> = tensors.into_iter().collect();
    sorted.values().flat_map(numbers).collect()
}
