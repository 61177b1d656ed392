//! The architectures that come with the program, as graphs.

use super::graph::{Graph, INPUT, Node, Op};
use super::layer::{Conv, Linear};
use crate::error::{Error, Result};
use delta_guard_contract::{Code, ModelConfig, Stem};
use std::path::Path;

/// Builds a graph node by node; each call reads the node before unless told otherwise.
struct Builder {
    nodes: Vec<Node>,
    last: String,
}

impl Builder {
    fn new() -> Self {
        Self {
            nodes: Vec::new(),
            last: INPUT.into(),
        }
    }

    fn node(&mut self, name: &str, inputs: Vec<String>, op: Op) -> String {
        self.nodes.push(Node {
            name: name.into(),
            inputs,
            op,
        });
        self.last = name.into();
        name.into()
    }

    fn then(&mut self, name: &str, op: Op) -> String {
        let input = self.last.clone();
        self.node(name, vec![input], op)
    }

    fn conv(&mut self, name: &str, channels: (i64, i64), kernel: i64, stride: i64, bias: bool) -> String {
        self.then(name, conv(channels, kernel, stride, bias))
    }

    fn norm_relu(&mut self, norm: &str, relu: &str, features: i64) -> String {
        self.then(norm, Op::batch_norm(features));
        self.then(relu, Op::Relu)
    }
}

/// "Same" padding for odd kernels.
fn conv((from, to): (i64, i64), kernel: i64, stride: i64, bias: bool) -> Op {
    Op::Conv2d(Conv {
        stride: [stride; 2],
        padding: [kernel / 2; 2],
        bias,
        ..Conv::new([from, to], [kernel; 2])
    })
}

/// The graph that a configuration asks for, for pictures of `height` × `width` and `classes` classes.
///
/// # Errors
/// `Configuration`: unknown architecture, unreadable graph file, a size that the network cannot take.
pub fn graph(model: &ModelConfig, height: u32, width: u32, classes: usize) -> Result<Graph> {
    let (input, classes, channels) = ([3, i64::from(height), i64::from(width)], classes as i64, i64::from(model.width));
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
                    "set data.image.height and width to the model's",
                ));
            }
            graph
        }
        other => {
            return Err(Error::configuration(
                format!("model.architecture: `{other}` is not known"),
                "use resnet18, small-cnn, fixture or the path of a graph file (*.json)",
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
            let main = b.then(&format!("{name}.bn2"), Op::batch_norm(out));
            let shortcut = if stride != 1 || channels != out {
                b.node(&format!("{name}.downsample.0"), vec![from], conv((channels, out), 1, stride, false));
                b.then(&format!("{name}.downsample.1"), Op::batch_norm(out))
            } else {
                from
            };
            b.node(&format!("{name}.add"), vec![main, shortcut], Op::Add);
            b.then(&format!("{name}.relu2"), Op::Relu);
            channels = out;
        }
    }
    b.then("avgpool", Op::GlobalAvgPool);
    b.then("flatten", Op::Flatten);
    b.then(
        "fc",
        Op::Linear(Linear {
            in_features: channels,
            out_features: classes,
            bias: true,
        }),
    );
    Graph::new(input, b.nodes)
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
    b.then("avgpool", Op::GlobalAvgPool);
    b.then("flatten", Op::Flatten);
    b.then(
        "fc",
        Op::Linear(Linear {
            in_features: 4 * w,
            out_features: classes,
            bias: true,
        }),
    );
    Graph::new(input, b.nodes)
}

/// The network of the EK-FAC fixtures (algorithm §1): conv1 3×3 bias → ReLU → conv2 3×3 stride 2 → bn2 → ReLU → conv3 1×1 bias → ReLU → average pool 3 →
/// flatten → fc1 (no bias) → ReLU → fc2. Width w after conv1, 2w from then on.
///
/// # Errors
/// When the picture is too small.
pub fn fixture(input: [i64; 3], w: i64, classes: i64) -> Result<Graph> {
    let mut b = Builder::new();
    b.conv("conv1", (input[0], w), 3, 1, true);
    b.then("relu1", Op::Relu);
    b.conv("conv2", (w, 2 * w), 3, 2, false);
    b.norm_relu("bn2", "relu2", 2 * w);
    b.conv("conv3", (2 * w, 2 * w), 1, 1, true);
    b.then("relu3", Op::Relu);
    b.then("pool", Op::AvgPool2d { kernel: [3, 3] });
    b.then("flatten", Op::Flatten);
    let side = |size: i64| (size + 1) / 2 / 3;
    b.then(
        "fc1",
        Op::Linear(Linear {
            in_features: 2 * w * side(input[1]) * side(input[2]),
            out_features: 2 * w,
            bias: false,
        }),
    );
    b.then("relu4", Op::Relu);
    b.then(
        "fc2",
        Op::Linear(Linear {
            in_features: 2 * w,
            out_features: classes,
            bias: true,
        }),
    );
    Graph::new(input, b.nodes)
}
