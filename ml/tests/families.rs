//! Networks as torch exports them (tests/fixtures/models): logits and each picture's own gradients against autograd's.

#![allow(clippy::unwrap_used)]

use delta_influence::ekfac::{CovarianceFold, Damping, LambdaFold, Queries, Workspace, scores, spec};
use delta_influence::files::tensors::read_tensors;
use delta_influence::fold::Fold;
use delta_influence::import::Program;
use delta_influence::model::layer::{Layer, Pair};
use delta_influence::model::{Model, lower};
use delta_influence::passes::gradients::Differentiated;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Reduction, Tensor};

const FAMILIES: [&str; 18] = [
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
    "hf_vit",
    "hf_beit",
    "hf_dinov2",
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
            // DINOv2 of transformers interpolates its positions in float32, whatever the network's precision; we in the network's.
            let most = if name == "hf_dinov2" { f64::max(most, 1e-6) } else { most };
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
        // Swin-V2's networks of positions do not see the pictures; all else must have been compared above.
        let left: Vec<&&str> = open.keys().filter(|left| !left.contains("cpb_mlp")).collect();
        assert!(left.is_empty(), "{name}: {left:?} are not tapped");
        let untracked: Vec<&str> = case.model.graph.untracked().iter().map(|(name, _)| name.as_str()).collect();
        assert!(open.keys().all(|left| untracked.contains(left)), "{name}: what is left out is not named");
        println!(
            "{name}: {} layers, {:.1} % of the weights; not tapped: {:?}",
            layers.len(),
            100.0 * case.model.graph.tracked().tracked_share,
            open.keys()
        );
    }
}

/// Of each picture alone, by autograd in evaluation mode: all parameters' gradients by name.
fn autograd(model: &Model, image: &Tensor, label: &Tensor) -> BTreeMap<String, Tensor> {
    let weights = Differentiated::new(model, &model.graph.last_layers(0));
    let loss = model
        .forward_differentiable(image)
        .unwrap()
        .cross_entropy_loss::<Tensor>(label, None, Reduction::Sum, -100, 0.0);
    weights.names().into_iter().zip(weights.gradients(&loss, false).unwrap()).collect()
}

/// A layer's weight and bias among them, as [1, b, o, d].
fn of_layer(layer: &Layer, found: &BTreeMap<String, Tensor>) -> Tensor {
    let conv = layer.kind.conv();
    let named = |suffix: &str| {
        let packed = format!("{}{suffix}", layer.name.strip_suffix("weight").unwrap_or("\0"));
        found.get(&format!("{}.{suffix}", layer.name)).or_else(|| found.get(&packed))
    };
    let weight = named("weight").or_else(|| found.get(&layer.name)).unwrap();
    let whole = weight.reshape([1, conv.groups, conv.out_channels / conv.groups, -1]);
    if !conv.bias {
        return whole;
    }
    Tensor::cat(&[whole, named("bias").unwrap().reshape([1, conv.groups, -1, 1])], 3)
}

/// Scores of the fast code on a whole network against the formulas, whose gradients are autograd's own: where verified parts are joined.
#[test]
fn scores_on_whole_networks_are_those_of_the_formulas() {
    let workspace = Workspace {
        kind: Kind::Double,
        device: Device::Cpu,
        budget_bytes: 1 << 20,
    };
    for name in [
        "vit_timm",
        "vit_torchvision",
        "swin_v1",
        "depthwise_dilated",
        "shared_linear",
        "one_channel",
    ] {
        let case = case(name, Kind::Double);
        let (model, images, labels) = (&case.model, case.stored["input"].to_kind(Kind::Double), &case.stored["labels"]);
        tch::manual_seed(5);
        let images = Tensor::cat(&[&images, &(images.flip([3i64]) * 0.7 + images.randn_like() * 0.3)], 0);
        let labels = Tensor::cat(&[labels, &labels.flip([0i64])], 0);
        let tapped = model.forward_tapped(&images).unwrap();
        let objective = tapped.logits.cross_entropy_loss::<Tensor>(&labels, None, Reduction::Sum, -100, 0.0);
        let layers = model.graph.layers();
        let pairs = tapped.pairs(&objective, &(0..layers.len()).collect::<Vec<_>>()).unwrap();

        let mut covariances = CovarianceFold::new(&layers, workspace).unwrap();
        covariances.take(&pairs).unwrap();
        let basis = covariances.finish().unwrap().eigenbasis(&workspace, |_| ()).unwrap();
        let mut lambda = LambdaFold::new(&basis, workspace).unwrap();
        lambda.take(&pairs).unwrap();
        let factors = lambda.finish().unwrap();
        let queries = Queries::from_pairs(&factors, Damping::Heuristic(0.1), &pairs, workspace).unwrap();
        let ours = scores(&queries, &pairs).unwrap();

        let own: Vec<_> = (0..8)
            .map(|i| autograd(model, &images.narrow(0, i, 1), &labels.narrow(0, i, 1)))
            .collect();
        let mut plain = Tensor::zeros([8, 8], (Kind::Double, Device::Cpu));
        for (layer, pair) in layers.iter().zip(&pairs) {
            let w: Vec<Tensor> = own.iter().map(|found| of_layer(layer, found)).collect();
            let w = Tensor::cat(&w, 0);
            let (a, g) = spec::patches(layer, pair).unwrap();
            let (q_a, q_g) = (spec::covariance(&a).unwrap(), spec::covariance(&g).unwrap());
            let (q_a, q_g) = (spec::eigenvectors(&q_a).unwrap(), spec::eigenvectors(&q_g).unwrap());
            let lambda = spec::lambda(&w, &q_a, &q_g).unwrap();
            let damping = spec::heuristic(&lambda, 0.1).unwrap();
            plain += spec::scores(&spec::preconditioned(&w, &q_a, &q_g, &lambda, damping).unwrap(), &w).unwrap();
        }
        let off = difference(&ours, &plain);
        println!("{name}: {off:e}");
        assert!(off <= 1e-9, "{name}: {off:e}");
    }
}
