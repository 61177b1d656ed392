//! Networks as torch exports them (tests/fixtures/models): logits and each picture's own gradients against autograd's.

#![allow(clippy::unwrap_used)]

use delta_influence::ekfac::spec;
use delta_influence::files::tensors::read_tensors;
use delta_influence::import::Program;
use delta_influence::model::layer::{Layer, Pair};
use delta_influence::model::{Model, lower};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Reduction, Tensor};

const FAMILIES: [&str; 15] = [
    "resnet_bottleneck",
    "mobilenet_v2",
    "mobilenet_v3",
    "efficientnet",
    "densenet",
    "convnext",
    "vit_torchvision",
    "vit_timm",
    "swin_v1",
    "swin_v2",
    "vgg_bn",
    "regnet",
    "depthwise_dilated",
    "shared_linear",
    "one_channel",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

struct Case {
    model: Model,
    stored: BTreeMap<String, Tensor>,
}

fn case(name: &str, kind: Kind) -> Case {
    let stored = read_tensors(&std::fs::read(fixture(&format!("{name}.safetensors"))).unwrap()).unwrap();
    let program = Program::read(&fixture(&format!("{name}.pt2"))).unwrap();
    let size = stored["input"].size();
    let (graph, weights) = lower::graph(&program, [size[1], size[2], size[3]]).unwrap_or_else(|e| panic!("{name}: {e}"));
    Case {
        model: Model::new(graph, weights.to(Device::Cpu, kind)),
        stored,
    }
}

/// Largest difference, relative to the largest number.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    (&a - &b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]).max(1e-30)
}

#[test]
fn logits_are_torchs() {
    for name in FAMILIES {
        for (kind, most) in [(Kind::Double, 1e-10), (Kind::Float, 1e-5)] {
            let case = case(name, kind);
            let logits = case.model.forward(&case.stored["input"].to_kind(kind)).unwrap();
            let off = difference(&logits, &case.stored["logits"]);
            assert!(off <= most, "{name} {kind:?}: {off:e}");
        }
    }
}

/// Σ_t g aᵀ of each picture, as the specification says it, in the shape of the weight.
fn own_gradients(layer: &Layer, pair: &Pair) -> Tensor {
    let (a, g) = spec::patches(layer, pair).unwrap();
    let w = spec::weight_gradients(&a, &g).unwrap();
    let conv = layer.kind.conv();
    let inputs = conv.in_channels / conv.groups * conv.kernel[0] * conv.kernel[1];
    w.narrow(3, 0, inputs)
}

#[test]
fn every_pictures_own_gradient_of_every_tapped_layer_is_autograds() {
    for name in FAMILIES {
        let case = case(name, Kind::Double);
        let tapped = case.model.forward_tapped(&case.stored["input"].to_kind(Kind::Double)).unwrap();
        let objective = tapped
            .logits
            .cross_entropy_loss::<Tensor>(&case.stored["labels"], None, Reduction::Sum, -100, 0.0);
        let layers = case.model.graph.layers();
        let pairs = tapped.pairs(&objective, &(0..layers.len()).collect::<Vec<_>>()).unwrap();
        let mut open: BTreeMap<&str, &Tensor> = case.stored.iter().filter_map(|(n, t)| Some((n.strip_prefix("grad.")?, t))).collect();
        for (layer, pair) in layers.iter().zip(&pairs) {
            let weight = [format!("{}.weight", layer.name), layer.name.clone()];
            let Some((known, stored)) = weight.iter().find_map(|n| open.remove_entry(n.as_str())) else {
                panic!("{name}: no gradient is stored for {}", layer.name);
            };
            let ours = own_gradients(layer, pair).reshape(stored.size());
            let off = difference(&ours, stored);
            assert!(off <= 1e-5, "{name}: {known}: {off:e}");
        }
        let untracked: Vec<&str> = case.model.graph.untracked().iter().map(|(name, _)| name.as_str()).collect();
        for left in open.keys() {
            assert!(untracked.contains(left), "{name}: {left} is neither tapped nor named as left out");
        }
        println!(
            "{name}: {} layers, {:.1} % of the weights; not tapped: {:?}",
            layers.len(),
            100.0 * case.model.graph.tracked_share(),
            open.keys()
        );
    }
}
