//! EK-FAC against what kronfluence computes on small CNNs: the committed fixtures, and any folders of the same make named in `EKFAC_FIXTURES` (separated
//! by colons, absolute or relative to the repository root).
//!
//! The network is written out here with libtorch's operations, independently of the crate's own executor: conv1 3×3 pad 1 bias → ReLU →
//! conv2 3×3 stride 2 pad 1 → bn2 (eval) → ReLU → conv3 1×1 bias → ReLU → average pool 3 → flatten → fc1 (no bias) → ReLU → fc2 (bias).

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use delta_influence::ekfac::{CovarianceFold, Damping, LambdaFold, Queries, Workspace, scores, scores_and_self_influence};
use delta_influence::fold::Fold;
use delta_influence::model::layer::{Conv, Layer, LayerKind, Linear, Pair};
use tch::{Device, Kind, Tensor};

type Tensors = HashMap<String, Tensor>;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folders() -> Vec<PathBuf> {
    let committed = ["ekfac-w3c2", "ekfac-w6c7"].map(|name| repository().join("tests/fixtures").join(name));
    let named = std::env::var("EKFAC_FIXTURES").unwrap_or_default();
    let more = named.split(':').filter(|f| !f.is_empty()).map(|f| repository().join(f));
    committed.into_iter().chain(more).collect()
}

fn read(folder: &Path, name: &str, kind: Kind) -> Tensors {
    let path = folder.join(format!("{name}.safetensors"));
    let tensors = Tensor::read_safetensors(&path).unwrap_or_else(|e| panic!("fixture {}: {e}", path.display()));
    tensors
        .into_iter()
        .map(|(name, t)| (name, if t.kind() == Kind::Double { t.to_kind(kind) } else { t }))
        .collect()
}

fn get<'a>(tensors: &'a Tensors, name: &str) -> &'a Tensor {
    tensors.get(name).unwrap_or_else(|| panic!("the fixture has no {name}"))
}

struct Net {
    weights: Tensors,
    layers: Vec<Layer>,
}

impl Net {
    fn new(weights: Tensors) -> Self {
        let conv = |name: &str, stride: i64, padding: i64| {
            let size = get(&weights, &format!("{name}.weight")).size();
            let kind = LayerKind::Conv2d(Conv {
                stride: [stride; 2],
                padding: [padding; 2],
                bias: weights.contains_key(&format!("{name}.bias")),
                ..Conv::new([size[1], size[0]], [size[2], size[3]])
            });
            Layer {
                name: name.into(),
                kind,
                part: None,
            }
        };
        let linear = |name: &str| {
            let size = get(&weights, &format!("{name}.weight")).size();
            let kind = LayerKind::Linear(Linear {
                in_features: size[1],
                out_features: size[0],
                bias: weights.contains_key(&format!("{name}.bias")),
            });
            Layer {
                name: name.into(),
                kind,
                part: None,
            }
        };
        let layers = vec![
            conv("conv1", 1, 1),
            conv("conv2", 2, 1),
            conv("conv3", 1, 0),
            linear("fc1"),
            linear("fc2"),
        ];
        Self { weights, layers }
    }

    /// One pair per layer for the summed objective.
    fn pairs(&self, images: &Tensor, objective: impl Fn(&Tensor) -> Tensor) -> Vec<Pair> {
        let mut inputs = Vec::new();
        let mut outputs: Vec<Tensor> = Vec::new();
        let mut tap = |layer: &Layer, x: Tensor| -> Tensor {
            let (weight, bias) = (
                get(&self.weights, &format!("{}.weight", layer.name)),
                self.weights.get(&format!("{}.bias", layer.name)),
            );
            let y = match &layer.kind {
                LayerKind::Conv2d(conv) => conv.apply(&x, weight, bias).unwrap(),
                LayerKind::Linear(_) => x.linear(weight, bias),
            };
            // Weights want no gradient: the first output is where the graph begins.
            let y = if outputs.is_empty() { y.detach().set_requires_grad(true) } else { y };
            inputs.push(x.detach());
            outputs.push(y.shallow_clone());
            y
        };
        let x = tap(&self.layers[0], images.shallow_clone()).relu();
        let x = tap(&self.layers[1], x);
        let bn = |what: &str| Some(get(&self.weights, &format!("bn2.{what}")));
        let x = x
            .batch_norm(bn("weight"), bn("bias"), bn("running_mean"), bn("running_var"), false, 0.1, 1e-5, false)
            .relu();
        let x = tap(&self.layers[2], x)
            .relu()
            .avg_pool2d([3, 3], [3, 3], [0, 0], false, true, None)
            .flatten(1, -1);
        let x = tap(&self.layers[3], x).relu();
        let logits = tap(&self.layers[4], x);
        let gradients = Tensor::run_backward(&[objective(&logits)], &outputs, false, false);
        inputs
            .into_iter()
            .zip(gradients)
            .map(|(input, output_grad)| Pair { input, output_grad })
            .collect()
    }
}

fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.cross_entropy_loss::<Tensor>(labels, None, tch::Reduction::Sum, -100, 0.0)
}

/// −(z_y − logsumexp of the other logits), summed.
fn margin(logits: &Tensor, labels: &Tensor) -> Tensor {
    let own = labels.one_hot(logits.size()[1]).to_kind(Kind::Bool);
    let others = logits.masked_fill(&own, f64::NEG_INFINITY).logsumexp([1i64].as_slice(), false);
    let kind = logits.kind();
    (others - logits.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1)).sum(kind)
}

fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    (&found - &expected).norm().double_value(&[]) / expected.norm().double_value(&[])
}

/// [n, clusters] matrix that adds up entries whose (ascending) eigenvalues are equal within `gap` of the largest: within such a cluster eigenvectors
/// are free to rotate.
fn clusters(values: &Tensor, gap: f64) -> Tensor {
    let values = Vec::<f64>::try_from(values).unwrap();
    let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let mut index = vec![0i64];
    for pair in values.windows(2) {
        index.push(index[index.len() - 1] + i64::from(pair[1] - pair[0] > gap * largest));
    }
    Tensor::from_slice(&index).one_hot(index[index.len() - 1] + 1).to_kind(Kind::Double)
}

/// Everything that a fixture expects, as (what, relative difference).
fn compare(folder: &Path, kind: Kind) -> Vec<(String, f64)> {
    let (net, data, expected) = (
        Net::new(read(folder, "weights", kind)),
        read(folder, "data", kind),
        read(folder, "expected", Kind::Double),
    );
    let (images, labels) = (get(&data, "train.images"), get(&data, "train.labels"));
    let workspace = Workspace::new(kind, Device::Cpu);
    let batches: Vec<Vec<Pair>> = images
        .split(100, 0)
        .iter()
        .zip(labels.split(100, 0))
        .map(|(x, y)| net.pairs(x, |logits| loss(logits, &y)))
        .collect();
    let mut results = Vec::new();
    let mut check = |what: String, found: &Tensor, wanted: &Tensor| results.push((what, difference(found, wanted)));

    let mut fold = CovarianceFold::new(&net.layers, workspace).unwrap();
    batches.iter().for_each(|b| fold.take(b).unwrap());
    let covariances = fold.finish().unwrap();
    let basis = covariances.eigenbasis(&workspace, |_| ()).unwrap();
    let mut fold = LambdaFold::new(&basis, workspace).unwrap();
    batches.iter().for_each(|b| fold.take(b).unwrap());
    let factors = fold.finish().unwrap();
    let gap = if kind == Kind::Double { 1e-6 } else { 1e-3 };
    for (i, layer) in net.layers.iter().enumerate() {
        let want = |what: &str| get(&expected, &format!("{}.{what}", layer.name));
        check(
            format!("{} A", layer.name),
            &covariances.blocks[i].input.squeeze_dim(0),
            want("input_covariance"),
        );
        check(
            format!("{} G", layer.name),
            &covariances.blocks[i].output_grad.squeeze_dim(0),
            want("output_grad_covariance"),
        );
        check(
            format!("{} eigenvalues of A", layer.name),
            &basis.blocks[i].input_eigenvalues.squeeze_dim(0),
            want("input_eigenvalues"),
        );
        check(
            format!("{} eigenvalues of G", layer.name),
            &basis.blocks[i].output_grad_eigenvalues.squeeze_dim(0),
            want("output_grad_eigenvalues"),
        );
        let (left, right) = (clusters(want("output_grad_eigenvalues"), gap), clusters(want("input_eigenvalues"), gap));
        let clustered = |lambda: &Tensor| left.tr().matmul(&lambda.to_kind(Kind::Double)).matmul(&right);
        check(
            format!("{} Λ", layer.name),
            &clustered(&factors.layer(i).unwrap().lambda.squeeze_dim(0)),
            &clustered(want("lambda")),
        );
    }

    let (asked, asked_labels) = (get(&data, "query.images"), get(&data, "query.labels"));
    for objective in ["loss", "margin"] {
        let pairs = net.pairs(asked, |logits| {
            if objective == "loss" {
                loss(logits, asked_labels)
            } else {
                margin(logits, asked_labels)
            }
        });
        for (name, damping) in [("1e-8", Damping::Absolute(1e-8)), ("heuristic", Damping::Heuristic(0.1))] {
            let queries = Queries::from_pairs(&factors, damping, &pairs, workspace).unwrap();
            let apart: Vec<Tensor> = batches.iter().map(|b| scores(&queries, b).unwrap()).collect();
            let joint: Vec<Tensor> = batches.iter().map(|b| scores_and_self_influence(&queries, b).unwrap().0).collect();
            let wanted = get(&expected, &format!("scores.{objective}.{name}"));
            check(format!("scores {objective} {name}"), &Tensor::cat(&apart, 1), wanted);
            check(
                format!("scores {objective} {name} beside self-influence"),
                &Tensor::cat(&joint, 1),
                wanted,
            );
        }
    }
    results
}

fn check_all(kind: Kind, tolerance: f64) {
    for folder in folders() {
        let results = compare(&folder, kind);
        let worst = results.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        println!(
            "{} in {kind:?}: {} comparisons, largest relative difference {:.1e} ({})",
            folder.display(),
            results.len(),
            worst.1,
            worst.0
        );
        for (what, d) in &results {
            assert!(
                *d <= tolerance,
                "{} in {kind:?}: {what} differs by {d:e}, more than {tolerance:e}",
                folder.display()
            );
        }
    }
}

#[test]
fn float64_agrees_with_kronfluence() {
    check_all(Kind::Double, 1e-9);
}

#[test]
fn float32_agrees_with_kronfluence() {
    check_all(Kind::Float, 1e-3);
}
