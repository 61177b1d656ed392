//! What an unlearner may ask besides a training: gradients in evaluation mode, a loss that sees a frozen teacher.

use crate::bench::{Bench, plain};
use delta_guard_contract::Recipe;
use delta_guard_contract::detect::Objective;
use delta_influence::data::normalise;
use delta_influence::error::{Error, Result};
use delta_influence::fold::Fold;
use delta_influence::model::{Graph, Model, Weights};
use delta_influence::passes::budget::Budget;
use delta_influence::passes::gradients::{Differentiated, Squares};
use delta_influence::passes::labels::PassLabels;
use delta_influence::passes::stream::{GradientOf, Stream};
use delta_influence::progress::Silent;
use delta_influence::train::loss::{Loss, Seen};
use delta_influence::train::{Trained, Training, train};
use std::cell::Cell;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

fn double(graph: &Graph, seed: u64) -> Model {
    let weights = Weights::init(graph, seed).unwrap().to(Device::Cpu, Kind::Double);
    // Statistics that are not those of the batch at hand.
    for (name, tensor) in &weights.0 {
        if name.ends_with("running_mean") {
            let _ = tensor.shallow_clone().fill_(0.3);
        }
    }
    Model::new(graph.clone(), weights)
}

/// Gradients of one example after the other, weight by weight, averaged over each unit and squared.
fn by_hand(bench: &Bench, model: &Model, examples: &[usize], unit: usize) -> BTreeMap<String, Tensor> {
    let parameters = model.parameters();
    let handles: Vec<Tensor> = parameters.iter().map(|(_, p)| p.set_requires_grad(true)).collect();
    let units = examples.chunks(unit);
    let number = units.len() as f64;
    let mut means: Vec<Tensor> = handles.iter().map(Tensor::zeros_like).collect();
    for unit in units {
        let mut sums: Vec<Tensor> = handles.iter().map(Tensor::zeros_like).collect();
        for &example in unit {
            let images = normalise(&bench.data.batch(&[example]).unwrap(), &bench.image, Kind::Double, Device::Cpu).unwrap();
            let logits = model.forward_differentiable(&images).unwrap();
            let loss = -logits
                .log_softmax(1, Kind::Double)
                .double_value(&[0, i64::from(bench.data.labels()[example])]);
            assert!(loss.is_finite());
            let chosen = logits.log_softmax(1, Kind::Double).select(1, i64::from(bench.data.labels()[example]));
            let refs: Vec<&Tensor> = handles.iter().collect();
            for (sum, gradient) in sums
                .iter_mut()
                .zip(Tensor::run_backward(&[-chosen.sum(Kind::Double)], &refs, false, false))
            {
                *sum += gradient;
            }
        }
        for (mean, sum) in means.iter_mut().zip(sums) {
            *mean += (sum / unit.len() as f64).square() / number;
        }
    }
    for handle in &handles {
        let _ = handle.set_requires_grad(false);
    }
    parameters
        .into_iter()
        .map(|(name, _)| name)
        .zip(means.into_iter().map(|mean| mean.detach()))
        .collect()
}

fn agree(found: &BTreeMap<String, Tensor>, expected: &BTreeMap<String, Tensor>) {
    assert!(found.keys().eq(expected.keys()) && found.len() == 14, "{:?}", found.keys());
    for (name, found) in found {
        let expected = &expected[name];
        let size = expected.abs().max().double_value(&[]);
        assert!(size > 0.0, "{name} has no gradient");
        assert!((found - expected).abs().max().double_value(&[]) < 1e-10 * size, "{name}");
    }
}

/// Each example alone, units of several that do not divide the set, and units larger than what fits into memory; whole, and joined of two parts that were on disk.
#[test]
fn squared_gradients_are_those_of_a_loop_over_examples() {
    let bench = Bench::new();
    let graph = bench.graph();
    let model = double(&graph, 4);
    let examples: Vec<usize> = (0..23).map(|i| 2 * i + 1).collect();
    let (recipe, out) = (Recipe::default(), bench.out("none"));
    let production = Weights::init(&graph, 4).unwrap();
    for (unit, memory_budget) in [(1, 1 << 24), (5, 1 << 24), (23, 1 << 20), (23, 1)] {
        let mut case = bench.case((&graph, &production), (&examples, &[]), &recipe, &out);
        case.memory_budget = memory_budget;
        let expected = by_hand(&bench, &model, &examples, unit);
        let before = model.weights.copy();
        let found = case
            .squared_gradients(&model, Objective::Loss, (&examples, unit), &graph.last_layers(0), &mut Silent)
            .unwrap();
        agree(&found, &expected);
        // Nothing of the model was touched: not its statistics, not whether it is trained.
        assert!(
            model
                .weights
                .0
                .iter()
                .all(|(name, tensor)| tensor.equal(&before.0[name]) && !tensor.requires_grad())
        );
        // Some layers only.
        let last = case
            .squared_gradients(&model, Objective::Loss, (&examples, unit), &graph.last_layers(1), &mut Silent)
            .unwrap();
        assert_eq!(last.keys().collect::<Vec<_>>(), ["fc.bias", "fc.weight"]);
        assert!((&last["fc.weight"] - &found["fc.weight"]).abs().max().double_value(&[]) < 1e-12);
        // In two parts, of 15 examples and of 8: units are not torn.
        let weights = Differentiated::new(&model, &graph.last_layers(0));
        let stream = Stream::new(&model, &bench.data, &bench.image, Vec::new(), Budget::new(&model, memory_budget));
        let ask = GradientOf {
            labels: PassLabels::Training,
            objective: Objective::Loss,
        };
        let part = |range: std::ops::Range<usize>| {
            let mut fold = Squares::new(&weights);
            stream
                .run_gradients("part", (&examples[range], unit.min(5)), ask, &weights, &mut fold, &mut Silent)
                .unwrap();
            let mut loaded = Squares::new(&weights);
            loaded.load(fold.save().unwrap()).unwrap();
            loaded
        };
        let mut joined = part(0..15);
        joined.merge(part(15..23)).unwrap();
        drop(weights);
        agree(&joined.finish().unwrap(), &by_hand(&bench, &model, &examples, unit.min(5)));
    }
}

/// One linear layer over the pixels.
pub fn linear(bench: &Bench) -> Graph {
    let [channels, height, width] = bench.input();
    let (pixels, classes) = (channels * height * width, bench.data.classes().len());
    Graph::read(&format!(
        r#"{{"format": 2, "input": [{channels}, {height}, {width}], "state": [
            {{"name": "fc.weight", "shape": [{classes}, {pixels}], "kind": "float32", "parameter": true}},
            {{"name": "fc.bias", "shape": [{classes}], "kind": "float32", "parameter": true}}], "nodes": [
            {{"name": "flat", "op": {{"op": "aten", "target": "flatten.using_ints"}}, "arguments": {{"self": {{"value": "input"}}, "start_dim": {{"int": 1}}}}}},
            {{"name": "fc", "op": {{"op": "linear", "in_features": {pixels}, "out_features": {classes}}},
              "arguments": {{"input": {{"value": "flat"}}, "weight": {{"state": "fc.weight"}}, "bias": {{"state": "fc.bias"}}}}}}]}}"#
    ))
    .unwrap()
}

/// Half the squared distance to the teacher's logits. `stop_at`: it fails in that epoch, once.
struct Distance {
    teacher: Model,
    stop_at: Cell<Option<u32>>,
}

impl Loss for Distance {
    fn key(&self) -> String {
        "distance".into()
    }

    fn teacher(&self) -> Option<&Model> {
        Some(&self.teacher)
    }

    fn of(&self, seen: &Seen<'_>) -> Result<Tensor> {
        if self.stop_at.get() == Some(seen.epoch) {
            self.stop_at.set(None);
            return Err(Error::configuration("killed", ""));
        }
        let teacher = seen.teacher.expect("a teacher's logits");
        assert!(!teacher.requires_grad() && seen.examples.len() as i64 == seen.labels.size()[0]);
        Ok((seen.student - teacher).square().sum(Kind::Float) / (2.0 * seen.examples.len() as f64))
    }
}

/// A linear student of a teacher with batch norm: one step of gradient descent goes from W to W − η/n Σ (s − t) xᵀ, two steps twice so.
#[test]
fn a_student_goes_where_its_frozen_teacher_pulls_it() {
    let bench = Bench::new();
    let (graph, other) = (linear(&bench), bench.graph());
    let examples: Vec<usize> = (0..bench.data.len()).collect();
    let teacher = || Model::new(other.clone(), Weights::init(&other, 9).unwrap());
    let (lr, epochs) = (1e-4, 3);
    let recipe = plain(epochs, lr);
    let run = |loss: &Distance, out: &str| -> Result<Trained> {
        let out = bench.out(out);
        let run = Training {
            graph: &graph,
            data: &bench.data,
            image: &bench.image,
            examples: &examples,
            recipe: &recipe,
            start: Some(Weights::init(&graph, 2).unwrap()),
            loss,
            trainable: graph.last_layers(0),
            device: Device::Cpu,
            out_dir: &out,
            key: "test".into(),
        };
        train(run, &mut Silent)
    };
    let whole = Distance {
        teacher: teacher(),
        stop_at: Cell::new(None),
    };
    let trained = run(&whole, "whole").unwrap();
    // The formula, in float64.
    let start = Weights::init(&graph, 2).unwrap().to(Device::Cpu, Kind::Double);
    let (mut w, mut b) = (start.0["fc.weight"].copy(), start.0["fc.bias"].copy());
    let images = normalise(&bench.data.batch(&examples).unwrap(), &bench.image, Kind::Float, Device::Cpu).unwrap();
    let target = teacher().forward(&images).unwrap().to_kind(Kind::Double);
    let x = images.flatten(1, -1).to_kind(Kind::Double);
    for _ in 0..epochs {
        let error = x.matmul(&w.transpose(0, 1)) + &b - &target;
        w -= error.transpose(0, 1).matmul(&x) * (lr / examples.len() as f64);
        b -= error.sum_dim_intlist([0i64].as_slice(), false, Kind::Double) * (lr / examples.len() as f64);
    }
    let moved = (&w - &start.0["fc.weight"]).abs().max().double_value(&[]);
    let apart = |name: &str, expected: &Tensor| {
        (trained.model.weights.0[name].to_kind(Kind::Double) - expected)
            .abs()
            .max()
            .double_value(&[])
    };
    let apart = [apart("fc.weight", &w), apart("fc.bias", &b)];
    assert!(apart.iter().all(|apart| *apart < 1e-3 * moved), "{apart:?} beside a way of {moved}");
    // The teacher is where it was: its weights, its statistics, its count of batches.
    assert!(
        whole
            .teacher
            .weights
            .0
            .iter()
            .all(|(name, tensor)| tensor.equal(&teacher().weights.0[name]))
    );

    // Killed in the third epoch and repeated, it goes on there and ends at the same weights …
    let killed = Distance {
        teacher: teacher(),
        stop_at: Cell::new(Some(2)),
    };
    assert!(run(&killed, "killed").unwrap_err().to_string().contains("killed"));
    let went_on = run(&killed, "killed").unwrap();
    assert_eq!(went_on.resumed_epochs, 2);
    assert!(went_on.model.weights.0["fc.weight"].equal(&trained.model.weights.0["fc.weight"]));
    // … but never from the epoch of another teacher.
    let another = Distance {
        teacher: Model::new(other.clone(), Weights::init(&other, 10).unwrap()),
        stop_at: Cell::new(None),
    };
    let from_another = run(&another, "killed").unwrap();
    assert_eq!(from_another.resumed_epochs, 0);
    assert!(!from_another.model.weights.0["fc.weight"].equal(&trained.model.weights.0["fc.weight"]));
}

/// A candidate that was not trained is measured on what stays, in evaluation mode.
#[test]
fn what_was_made_without_training_is_measured_on_the_retained() {
    let bench = Bench::new();
    let (graph, recipe, out) = (bench.graph(), Recipe::default(), bench.out("none"));
    let production = Weights::init(&graph, 4).unwrap();
    let retained: Vec<usize> = (5..47).collect();
    let mut case = bench.case((&graph, &production), (&retained, &[]), &recipe, &out);
    case.memory_budget = 1; // one example at a time
    let measured = case.measured(case.model(), &mut Silent).unwrap();
    let (mut loss, mut correct) = (0.0, 0.0);
    for &example in &retained {
        let images = normalise(&bench.data.batch(&[example]).unwrap(), &bench.image, Kind::Float, Device::Cpu).unwrap();
        let p = case.model().forward(&images).unwrap().to_kind(Kind::Double).softmax(1, Kind::Double);
        let label = i64::from(bench.data.labels()[example]);
        loss -= p.double_value(&[0, label]).ln() / 42.0;
        correct += f64::from(u8::from(p.argmax(1, false).int64_value(&[0]) == label)) / 42.0;
    }
    assert!(
        (measured.loss - loss).abs() < 1e-6 && (measured.accuracy - correct).abs() < 1e-9,
        "{measured:?}"
    );
    assert_eq!(measured.resumed_epochs, 0);
}
