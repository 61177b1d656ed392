//! The architectures that come with the program, as graphs.

use super::graph::{Graph, INPUT, Node, Op, StateEntry};
use super::layer::{Conv, Linear};
use super::lower;
use super::value::{Extent, Operand};
use crate::error::{Error, Result, ResultExt};
use crate::import::Program;
use delta_guard_contract::{Code, ModelConfig, Stem};
use std::path::Path;
use tch::Kind;

/// Builds a graph node by node; each call reads the node before unless told otherwise.
struct Builder {
    state: Vec<StateEntry>,
    nodes: Vec<Node>,
    last: String,
}

impl Builder {
    fn new() -> Self {
        Self {
            state: Vec::new(),
            nodes: Vec::new(),
            last: INPUT.into(),
        }
    }

    fn node<const N: usize>(&mut self, name: &str, op: Op, arguments: [(&str, Operand); N]) -> String {
        self.nodes.push(Node {
            name: name.into(),
            op,
            arguments: arguments.into_iter().map(|(name, argument)| (name.to_string(), argument)).collect(),
            parts: Vec::new(),
        });
        self.last = name.into();
        name.into()
    }

    /// An operator of ATen on the node before.
    fn then<const N: usize>(&mut self, name: &str, target: &str, more: [(&str, Operand); N]) -> String {
        let before = self.before();
        self.node(name, Op::aten(target), more);
        if let Some(node) = self.nodes.last_mut() {
            node.arguments.insert("self".into(), before);
        }
        name.into()
    }

    fn before(&self) -> Operand {
        Operand::Value(self.last.clone())
    }

    /// A tensor of the state dict.
    fn tensor(&mut self, module: &str, suffix: &str, shape: &[i64], parameter: bool) -> Operand {
        let name = format!("{module}.{suffix}");
        self.state.push(StateEntry {
            name: name.clone(),
            shape: shape.to_vec(),
            kind: if suffix == "num_batches_tracked" { Kind::Int64 } else { Kind::Float },
            parameter,
        });
        Operand::State(name)
    }

    /// A typed layer with a weight, and a bias if it has one.
    fn layer(&mut self, name: &str, op: Op, weight: &[i64], bias: bool) -> String {
        let arguments = [("input", self.before()), ("weight", self.tensor(name, "weight", weight, true))];
        self.node(name, op, arguments);
        if bias {
            let bias = self.tensor(name, "bias", &weight[..1], true);
            if let Some(node) = self.nodes.last_mut() {
                node.arguments.insert("bias".into(), bias);
            }
        }
        name.into()
    }

    /// A convolution with "same" padding for odd kernels.
    fn conv(&mut self, name: &str, (from, to): (i64, i64), kernel: i64, stride: i64, bias: bool) -> String {
        let conv = Conv {
            stride: [stride; 2],
            padding: [kernel / 2; 2],
            bias,
            ..Conv::new([from, to], [kernel; 2])
        };
        let weight = conv.weight_shape();
        self.layer(name, Op::Conv2d(conv), &weight, bias)
    }

    fn linear(&mut self, name: &str, (in_features, out_features): (i64, i64), bias: bool) -> String {
        let linear = Linear {
            in_features,
            out_features,
            bias,
        };
        let weight = linear.weight_shape();
        self.layer(name, Op::Linear(linear), &weight, bias)
    }

    fn norm(&mut self, name: &str, features: i64) -> String {
        let mut tensor = |suffix: &'static str, shape: &[i64], parameter| (suffix, self.tensor(name, suffix, shape, parameter));
        let state = [
            tensor("weight", &[features], true),
            tensor("bias", &[features], true),
            tensor("running_mean", &[features], false),
            tensor("running_var", &[features], false),
            tensor("num_batches_tracked", &[], false),
        ];
        let input = self.before();
        self.node(name, Op::batch_norm(), state);
        if let Some(node) = self.nodes.last_mut() {
            node.arguments.insert("input".into(), input);
        }
        name.into()
    }

    fn norm_relu(&mut self, norm: &str, relu: &str, features: i64) -> String {
        self.norm(norm, features);
        self.then(relu, "relu", [])
    }

    fn flatten(&mut self) -> String {
        self.then("flatten", "flatten.using_ints", [("start_dim", Operand::Int(1))])
    }

    /// Mean over the whole plane, flattened.
    fn mean(&mut self) -> String {
        let dims = Operand::Ints(vec![Extent::Known(2), Extent::Known(3)]);
        self.then("avgpool", "mean.dim", [("dim", dims), ("keepdim", Operand::Bool(true))]);
        self.flatten()
    }
}

/// The graph that a configuration asks for, for pictures of `input` (channels, height, width) and `classes` classes.
///
/// # Errors
/// `Configuration`: unknown architecture, unreadable graph file, a size that the network cannot take.
pub fn graph(model: &ModelConfig, input: [i64; 3], classes: usize) -> Result<Graph> {
    let (classes, channels) = (classes as i64, i64::from(model.width));
    let graph = match model.architecture.as_str() {
        "resnet18" => resnet18(input, channels, model.stem, classes)?,
        "small-cnn" => small_cnn(input, channels, classes)?,
        "fixture" => fixture(input, channels, classes)?,
        path if Path::new(path).extension().is_some_and(|e| e == "json") => {
            let graph = Graph::load(Path::new(path))?;
            if graph.input != input {
                return Err(Error::new(
                    Code::GraphUnusable,
                    format!(
                        "{path}: the graph takes pictures of {:?} (channels, height, width), data.image says {input:?}",
                        graph.input
                    ),
                    "set data.image to what the model reads: height and width, or the crop that ends data.image.transforms; one figure per channel in mean and std",
                ));
            }
            graph
        }
        path if Path::new(path).extension().is_some_and(|e| e == "pt2") => {
            lower::graph(&Program::read(Path::new(path))?, input).context(|| path.to_string())?.0
        }
        other => {
            return Err(Error::configuration(
                format!("model.architecture: `{other}` is not known"),
                "use resnet18, small-cnn, fixture, or the path of an exported model (*.pt2) or of a graph file (*.json)",
            ));
        }
    };
    if graph.classes() != classes {
        return Err(Error::new(
            Code::GraphUnusable,
            format!("the model has {} classes, the training set {classes}", graph.classes()),
            "check data.train.path and model.architecture",
        ));
    }
    Ok(graph)
}

/// The paper's ResNet-18: BasicBlock [2, 2, 2, 2], widths w, 2w, 4w, 8w, no max-pool, names as torchvision's.
///
/// # Errors
/// When the picture is too small.
pub fn resnet18(input: [i64; 3], w: i64, stem: Stem, classes: i64) -> Result<Graph> {
    let mut b = Builder::new();
    match stem {
        Stem::Cifar => b.conv("conv1", (input[0], w), 3, 1, false),
        Stem::Imagenette => b.conv("conv1", (input[0], w), 7, 2, false),
    };
    b.norm_relu("bn1", "relu", w);
    let mut channels = w;
    for (stage, out) in [w, 2 * w, 4 * w, 8 * w].into_iter().enumerate() {
        for block in 0..2 {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let from = b.last.clone();
            b.conv(&format!("{name}.conv1"), (channels, out), 3, stride, false);
            b.norm_relu(&format!("{name}.bn1"), &format!("{name}.relu1"), out);
            b.conv(&format!("{name}.conv2"), (out, out), 3, 1, false);
            let main = b.norm(&format!("{name}.bn2"), out);
            let shortcut = if stride != 1 || channels != out {
                b.last = from;
                b.conv(&format!("{name}.downsample.0"), (channels, out), 1, stride, false);
                b.norm(&format!("{name}.downsample.1"), out)
            } else {
                from
            };
            b.last = main;
            b.then(&format!("{name}.add"), "add.Tensor", [("other", Operand::Value(shortcut))]);
            b.then(&format!("{name}.relu2"), "relu", []);
            channels = out;
        }
    }
    b.mean();
    b.linear("fc", (channels, classes), true);
    Graph::new(input, b.state, b.nodes)
}

/// A small CNN: four 3×3 convolutions of widths w, 2w, 2w, 4w with batch norm, two of them of stride 2, global average pool, one linear layer.
///
/// # Errors
/// When the picture is too small.
pub fn small_cnn(input: [i64; 3], w: i64, classes: i64) -> Result<Graph> {
    let mut b = Builder::new();
    for (i, (channels, stride)) in [((input[0], w), 1), ((w, 2 * w), 2), ((2 * w, 2 * w), 1), ((2 * w, 4 * w), 2)]
        .into_iter()
        .enumerate()
    {
        let n = i + 1;
        b.conv(&format!("conv{n}"), channels, 3, stride, false);
        b.norm_relu(&format!("bn{n}"), &format!("relu{n}"), channels.1);
    }
    b.mean();
    b.linear("fc", (4 * w, classes), true);
    Graph::new(input, b.state, b.nodes)
}

/// The network of the EK-FAC fixtures (algorithm §1): conv1 3×3 bias → ReLU → conv2 3×3 stride 2 → bn2 → ReLU → conv3 1×1 bias → ReLU → average pool 3 →
/// flatten → fc1 (no bias) → ReLU → fc2. Width w after conv1, 2w from then on.
///
/// # Errors
/// When the picture is too small.
pub fn fixture(input: [i64; 3], w: i64, classes: i64) -> Result<Graph> {
    let mut b = Builder::new();
    b.conv("conv1", (input[0], w), 3, 1, true);
    b.then("relu1", "relu", []);
    b.conv("conv2", (w, 2 * w), 3, 2, false);
    b.norm_relu("bn2", "relu2", 2 * w);
    b.conv("conv3", (2 * w, 2 * w), 1, 1, true);
    b.then("relu3", "relu", []);
    let three = Operand::Ints(vec![Extent::Known(3), Extent::Known(3)]);
    b.then("pool", "avg_pool2d", [("kernel_size", three)]);
    b.flatten();
    let side = |size: i64| (size + 1) / 2 / 3;
    b.linear("fc1", (2 * w * side(input[1]) * side(input[2]), 2 * w), false);
    b.then("relu4", "relu", []);
    b.linear("fc2", (2 * w, classes), true);
    Graph::new(input, b.state, b.nodes)
}
