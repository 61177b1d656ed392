//! Layers that are too wide, in blocks: EK-FAC against the formulas under a block-diagonal covariance, in float64; and what the jobs make of a budget.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod naive;

use delta_guard_contract::detect::{DetectConfig, Detector, Precision};
use delta_guard_contract::job::FitResult;
use delta_guard_contract::method::{Method, changed};
use delta_guard_contract::{DataConfig, DataSource, Device, ImageConfig, Job, JobResult, ModelConfig, PROTOCOL, Seed, Task, WorkerSetup};
use delta_influence::data::encode_png;
use delta_influence::ekfac::{
    Blocks, CovarianceFold, Damping, Factors, LambdaFold, Queries, gradient, scores, scores_and_self_influence, self_influence, spec,
};
use delta_influence::files::tensors::write_tensors;
use delta_influence::fold::Fold;
use delta_influence::jobs;
use delta_influence::model::layer::{Layer, LayerPart, Pair};
use delta_influence::model::{Graph, Weights};
use delta_influence::progress::Report;
use naive::{autograd_gradient, cases, naive_covariances, pairs, workspace};
use std::collections::HashMap;
use std::path::Path;
use tch::{Kind, Tensor};

fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let off = ((found - expected).norm() / expected.norm()).double_value(&[]);
    assert!(off <= 1e-9, "{what}: {off:e} apart");
}

fn fitted(blocks: &Blocks, training: &[Pair]) -> Factors {
    let workspace = workspace(1 << 24);
    let mut covariance = CovarianceFold::new(&blocks.layers, workspace).unwrap();
    covariance.take(training).unwrap();
    let basis = covariance.finish().unwrap().eigenbasis(&workspace, |_| ()).unwrap();
    let mut lambda = LambdaFold::new(&basis, workspace).unwrap();
    lambda.take(training).unwrap();
    lambda.finish().unwrap()
}

/// 1 where two channels are in one block, by the parts that the layer was divided into; `each`: columns of a channel; the bias is in the last block.
fn mask(parts: &[Layer], range: fn(&LayerPart) -> [i64; 2], (each, bias): (i64, bool), wide: i64) -> Tensor {
    let mask = Tensor::zeros([wide, wide], (Kind::Double, tch::Device::Cpu));
    for part in parts {
        let Some(part) = &part.part else { return mask.ones_like() };
        let [first, count] = range(part);
        let (from, mut to) = (first * each, (first + count) * each);
        if to + i64::from(bias) == wide {
            to = wide;
        }
        let _ = mask.narrow(0, from, to - from).narrow(1, from, to - from).fill_(1.0);
    }
    mask
}

/// The whole layer by loops and formulas, its covariances without what lies between blocks: eigenvectors, Λ, damping, scores and self-influence are those of the parts together. For every geometry, and
/// for blocks from whole down to single channels.
#[test]
fn parts_are_the_layer_under_a_block_diagonal_covariance() {
    let mut divided = 0;
    for case in cases() {
        let case = [case];
        let (training, asked) = (pairs(&case, 3), pairs(&case, 4));
        let layer = &case[0].layer;
        let conv = layer.kind.conv();
        // By autograd of the weight: [N, groups, outputs, inputs].
        let of = |pair: &Pair| {
            let flat = autograd_gradient(layer, pair);
            let [n, o, d] = [0, 1, 2].map(|dim| flat.size()[dim]);
            flat.reshape([n, conv.groups, o / conv.groups, d])
        };
        let (w, v) = (of(&training[0]), of(&asked[0]));
        for most in [1, 250, 1300, 1 << 20] {
            let blocks = Blocks::of(std::slice::from_ref(layer), most);
            divided += usize::from(!blocks.none());
            let what = format!("{} within {most}: {} parts", layer.name, blocks.layers.len());
            let (a, g) = naive_covariances(layer, &training[0]);
            let window = conv.kernel[0] * conv.kernel[1];
            let a = &a * mask(&blocks.layers, |part| part.inputs, (window, conv.bias), a.size()[1]);
            let g = &g * mask(&blocks.layers, |part| part.outputs, (1, false), g.size()[1]);
            let (q_a, q_g) = (spec::eigenvectors(&a).unwrap(), spec::eigenvectors(&g).unwrap());
            let lambda = spec::lambda(&w, &q_a, &q_g).unwrap();
            let (in_parts, asked_in_parts) = (blocks.split(&training).unwrap(), blocks.split(&asked).unwrap());
            let factors = fitted(&blocks, &in_parts);
            for (damping, d) in [
                (Damping::Absolute(1e-3), 1e-3),
                (Damping::Heuristic(0.1), spec::heuristic(&lambda, 0.1).unwrap()),
            ] {
                let p = spec::preconditioned(&v, &q_a, &q_g, &lambda, d).unwrap();
                let wanted = spec::scores(&p, &w).unwrap();
                let wanted_own = spec::self_influence(&w, &q_a, &q_g, &lambda, d).unwrap();
                let queries = Queries::from_pairs(&factors, damping, &asked_in_parts, workspace(1 << 24)).unwrap();
                assert_close(&scores(&queries, &in_parts).unwrap(), &wanted, &what);
                let (joint, own) = scores_and_self_influence(&queries, &in_parts).unwrap();
                assert_close(&joint, &wanted, &what);
                assert_close(&own, &wanted_own, &what);
                assert_close(&self_influence(&factors, damping, &in_parts, &workspace(1)).unwrap(), &wanted_own, &what);
                let gradients = gradient(&blocks.layers, &asked_in_parts, &workspace(1 << 24)).unwrap();
                let queries = Queries::new(&factors, damping, &gradients, workspace(1 << 24)).unwrap();
                assert_close(&scores(&queries, &in_parts).unwrap(), &wanted, &what);
            }
        }
    }
    assert!(divided > 40, "{divided}");
}

/// Covariances of parts in parts of the examples: saved, loaded and merged they are those of one pass, and the ones that are shared are held once.
#[test]
fn shared_covariances_are_merged_once() {
    let case = [naive::linear("wide", [12, 9], true, &[3])];
    let blocks = Blocks::of(&[case[0].layer.clone()], 300);
    assert!(blocks.layers.len() > 4, "{:?}", blocks.told());
    let all = blocks.split(&pairs(&case, 5)).unwrap();
    let fold = || CovarianceFold::new(&blocks.layers, workspace(1 << 24)).unwrap();
    let over = |rows: &[i64]| {
        let mut fold = fold();
        fold.take(&naive::rows(&all, rows)).unwrap();
        fold
    };
    let whole = over(&[0, 1, 2, 3, 4, 5, 6]).finish().unwrap();
    let saved = |mut own: CovarianceFold| {
        let mut again = fold();
        again.load(own.save().unwrap()).unwrap();
        again
    };
    let mut first = saved(over(&[0, 1, 2]));
    let state = first.save().unwrap();
    let held: usize = state.values().filter(|t| t.dim() == 3).count();
    let parts = blocks.layers.iter().filter_map(|layer| layer.part.clone());
    let (inputs, outputs): (std::collections::BTreeSet<_>, std::collections::BTreeSet<_>) = parts.map(|part| (part.inputs, part.outputs)).unzip();
    assert_eq!(held, inputs.len() + outputs.len());
    first.merge(saved(over(&[3, 4, 5, 6]))).unwrap();
    for (found, wanted) in first.finish().unwrap().blocks.iter().zip(&whole.blocks) {
        assert_close(&found.input, &wanted.input, "A");
        assert_close(&found.output_grad, &wanted.output_grad, "G");
    }
}

#[derive(Default)]
struct Heard(String);

impl Report for Heard {
    fn progress(&mut self, _: &str, _: u64, _: u64, _: &str) {}
    fn log(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }
}

/// A linear layer on all pixels, 1,728 inputs: a covariance of 24 MB. Two classes, a few pictures.
fn lay_out(folder: &Path) {
    let graph = serde_json::json!({"format": 2, "input": [3, 24, 24],
        "state": [{"name": "fc.weight", "shape": [2, 1728], "kind": "float32", "parameter": true}, {"name": "fc.bias", "shape": [2], "kind": "float32", "parameter": true}],
        "nodes": [
            {"name": "flat", "op": {"op": "aten", "target": "flatten.using_ints"}, "arguments": {"self": {"value": "input"}, "start_dim": {"int": 1}}},
            {"name": "fc", "op": {"op": "linear", "in_features": 1728, "out_features": 2, "bias": true},
             "arguments": {"input": {"value": "flat"}, "weight": {"state": "fc.weight"}, "bias": {"state": "fc.bias"}}}]});
    std::fs::write(folder.join("graph.json"), graph.to_string()).unwrap();
    let graph = Graph::load(&folder.join("graph.json")).unwrap();
    let weights = Weights::init(&graph, 1).unwrap().0;
    write_tensors(
        &folder.join("model.safetensors"),
        weights.iter().map(|(name, t)| (name.as_str(), t)),
        HashMap::new(),
    )
    .unwrap();
    for (class, shift) in [("ant", 0u32), ("bee", 90)] {
        std::fs::create_dir_all(folder.join("set").join(class)).unwrap();
        for n in 0..5u32 {
            let pixels: Vec<u8> = (0..1728u32).map(|i| ((i * (7 + n) + shift * n) % 251) as u8).collect();
            let name = folder.join("set").join(class).join(format!("{n}.png"));
            std::fs::write(name, encode_png(&pixels, 24, 24, 1).unwrap()).unwrap();
        }
    }
}

fn fit(folder: &Path, memory_budget: u64) -> (FitResult, String) {
    let set = || DataSource {
        path: folder.join("set"),
        format: Default::default(),
        split: Default::default(),
        source: None,
    };
    let method = changed(&Detector::named("guard").unwrap(), "fit_examples", 0.into()).unwrap();
    let job = Job {
        v: PROTOCOL,
        setup: WorkerSetup {
            cache_dir: folder.join("cache"),
            factors_dir: folder.join("factors"),
            device: Device::Auto,
            threads: 1,
            memory_budget,
            query_budget: 6 << 30,
            memory_limit: 0,
        },
        out_dir: folder.join("out"),
        task: Task::Fit {
            data: DataConfig {
                train: set(),
                validation: set(),
                classes: None,
                image: ImageConfig {
                    height: 24,
                    width: 24,
                    ..ImageConfig::default()
                },
                max_unreadable_share: 0.0,
            },
            model: ModelConfig {
                architecture: folder.join("graph.json").to_str().unwrap().into(),
                width: 1,
                stem: Default::default(),
                checkpoint: folder.join("model.safetensors"),
                prefix: None,
                min_tracked_share: 1.0,
            },
            detect: DetectConfig {
                method: changed(&method, "precision", serde_json::to_value(Precision::F32).unwrap()).unwrap(),
                ..DetectConfig::default()
            },
            factors_seed: Seed(5),
        },
    };
    let mut heard = Heard::default();
    match jobs::run(&job, &mut heard).unwrap() {
        JobResult::Fit(result) => (result, heard.0),
        _ => panic!("fit answers with another result"),
    }
}

/// The budget decides, and nothing else: the same one finds the factors again, one that holds the layer whole has other factors, which do not depend on how much it holds.
#[test]
fn the_budget_bounds_the_fit_and_stands_in_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    lay_out(folder);
    let ((small, said), (again, _)) = (fit(folder, 16 << 20), fit(folder, 16 << 20));
    let rows = |result: &FitResult| result.layers.clone();
    assert_eq!(
        rows(&small),
        [("fc[0..2, 0..864]".into(), 2, 864), ("fc[0..2, 864..1728]".into(), 2, 865)]
    );
    assert!(
        said.contains("in blocks, to stay within worker.memory_budget: fc (inputs in 2 blocks of at most 864)"),
        "{said}"
    );
    assert_eq!((again.factors.reused, again.factors.key == small.factors.key), (true, true));
    let ((whole, said), (more, _)) = (fit(folder, 32 << 20), fit(folder, 1 << 30));
    assert_eq!(rows(&whole), [("fc".into(), 2, 1729)]);
    assert!(!said.contains("in blocks") && whole.factors.key != small.factors.key, "{said}");
    assert_eq!((more.factors.reused, more.factors.key == whole.factors.key), (true, true));
}
