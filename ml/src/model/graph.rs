//! A network as data: named layers and what they read. It can be written to and read from a file, so that importers of other formats need no
//! new code in the executor.

use super::layer::{self, Conv, Layer, LayerKind, Linear};
use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::Code;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::Kind;

/// Name under which nodes read the network's input.
pub const INPUT: &str = "input";

/// Version of the graph file.
const FORMAT: u32 = 1;

/// A network: nodes in an order in which they can be computed; the last one yields the logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Version of this format: 1.
    pub format: u32,
    /// Input: channels, height, width.
    pub input: [i64; 3],
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// One step of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique; for layers with weights the prefix of their state-dict names.
    pub name: String,
    /// Names of the nodes that it reads (or `input`).
    pub inputs: Vec<String>,
    /// What it does.
    pub op: Op,
}

/// What a node does. Pairs are (height, width).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// 2-d convolution.
    Conv2d(Conv),
    /// Linear layer on B × features.
    Linear(Linear),
    /// Batch normalisation over channels: (x − mean) / √(variance + ε) · weight + bias.
    BatchNorm2d {
        /// Channels.
        features: i64,
        /// ε, above 0.
        #[serde(default = "bn_eps")]
        eps: f64,
        /// Share of the batch in the running statistics' next value, 0 to 1 (training only).
        #[serde(default = "bn_momentum")]
        momentum: f64,
    },
    /// max(x, 0).
    Relu,
    /// Maximum over windows.
    MaxPool2d {
        /// Window.
        kernel: [i64; 2],
        /// Stride.
        stride: [i64; 2],
        /// Padding.
        #[serde(default)]
        padding: [i64; 2],
    },
    /// Mean over windows, stride = window.
    AvgPool2d {
        /// Window.
        kernel: [i64; 2],
    },
    /// Mean over the whole plane; C × H × W → C × 1 × 1.
    GlobalAvgPool,
    /// C × H × W → C·H·W.
    Flatten,
    /// Sum of its inputs.
    Add,
}

/// PyTorch's default.
fn bn_eps() -> f64 {
    1e-5
}
/// PyTorch's default.
fn bn_momentum() -> f64 {
    0.1
}

/// An entry of the state dict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// PyTorch's name.
    pub name: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<i64>,
    /// Float, or Int64 for batch norm's counter.
    pub kind: Kind,
    /// Is it trained (or a running statistic)?
    pub parameter: bool,
}

impl Graph {
    /// A graph of these nodes, checked.
    ///
    /// # Errors
    /// See [`Graph::check`].
    pub fn new(input: [i64; 3], nodes: Vec<Node>) -> Result<Self> {
        let graph = Self {
            format: FORMAT,
            input,
            nodes,
        };
        graph.check()?;
        Ok(graph)
    }

    /// Read a graph file (JSON).
    ///
    /// # Errors
    /// `Configuration` with file, line and node.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path)?;
        let graph: Self = serde_json::from_str(&text).map_err(|e| {
            Error::new(
                Code::GraphUnusable,
                format!("{}: not a layer graph: {e}", path.display()),
                "`delta-guard graph --classes NUMBER --out FILE.json` writes one to compare with",
            )
        })?;
        graph.check().context(|| path.display().to_string())?;
        Ok(graph)
    }

    /// Names, order, geometry and shapes fit together; the last node yields a vector of logits.
    ///
    /// # Errors
    /// `Configuration` naming the node.
    pub fn check(&self) -> Result<()> {
        let wrong = |message: String| Error::new(Code::GraphUnusable, message, "correct the graph file");
        if self.format != FORMAT {
            return Err(wrong(format!("graph format {} is not known (this version reads {FORMAT})", self.format)));
        }
        if self.input.iter().any(|d| !(1..=1 << 14).contains(d)) {
            return Err(wrong(format!("input {:?} is not a picture's size", self.input)));
        }
        let shapes = self.shapes()?;
        match shapes.last().map(Vec::as_slice) {
            Some([classes]) if *classes >= 2 => Ok(()),
            Some(shape) => Err(wrong(format!("the last node yields {shape:?}, not a vector of at least two logits"))),
            None => Err(wrong("the graph has no nodes".into())),
        }
    }

    /// Output shape of every node, without the batch dimension.
    fn shapes(&self) -> Result<Vec<Vec<i64>>> {
        let mut known: BTreeMap<&str, Vec<i64>> = BTreeMap::from([(INPUT, self.input.to_vec())]);
        let mut shapes = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs = node
                .inputs
                .iter()
                .map(|i| {
                    known
                        .get(i.as_str())
                        .map(Vec::as_slice)
                        .ok_or_else(|| format!("reads `{i}`, which no node before it yields"))
                })
                .collect::<std::result::Result<Vec<_>, _>>();
            let shape = inputs
                .and_then(|inputs| node.op.shape(&inputs))
                .map_err(|why| Error::new(Code::GraphUnusable, format!("node `{}`: {why}", node.name), "correct the graph file"))?;
            if node.name.is_empty() || known.contains_key(node.name.as_str()) {
                return Err(Error::new(
                    Code::GraphUnusable,
                    format!("node name `{}` is empty or used twice", node.name),
                    "correct the graph file",
                ));
            }
            known.insert(&node.name, shape.clone());
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// Number of logits.
    pub fn classes(&self) -> i64 {
        self.shapes().ok().and_then(|s| s.last().and_then(|s| s.first().copied())).unwrap_or(0)
    }

    /// Floats that all node outputs of one example take: what a pass over it holds at most.
    pub fn activation_size(&self) -> i64 {
        self.shapes().map(|s| s.iter().map(|s| s.iter().product::<i64>()).sum()).unwrap_or(0)
    }

    /// The tracked layers (every convolution and linear layer), in order.
    pub fn layers(&self) -> Vec<Layer> {
        self.nodes
            .iter()
            .filter_map(|n| n.op.layer_kind().map(|kind| Layer { name: n.name.clone(), kind }))
            .collect()
    }

    /// The state dict that belongs to this graph, in node order.
    pub fn state(&self) -> Vec<StateEntry> {
        let mut entries = Vec::new();
        for node in &self.nodes {
            let mut push = |suffix: &str, shape: Vec<i64>, kind: Kind, parameter: bool| {
                entries.push(StateEntry {
                    name: format!("{}.{suffix}", node.name),
                    shape,
                    kind,
                    parameter,
                });
            };
            match &node.op {
                Op::Conv2d(conv) => {
                    push("weight", conv.weight_shape().to_vec(), Kind::Float, true);
                    if conv.bias {
                        push("bias", vec![conv.out_channels], Kind::Float, true);
                    }
                }
                Op::Linear(linear) => {
                    push("weight", linear.weight_shape().to_vec(), Kind::Float, true);
                    if linear.bias {
                        push("bias", vec![linear.out_features], Kind::Float, true);
                    }
                }
                Op::BatchNorm2d { features, .. } => {
                    push("weight", vec![*features], Kind::Float, true);
                    push("bias", vec![*features], Kind::Float, true);
                    push("running_mean", vec![*features], Kind::Float, false);
                    push("running_var", vec![*features], Kind::Float, false);
                    push("num_batches_tracked", vec![], Kind::Int64, false);
                }
                Op::Relu | Op::MaxPool2d { .. } | Op::AvgPool2d { .. } | Op::GlobalAvgPool | Op::Flatten | Op::Add => {}
            }
        }
        entries
    }

    /// Names of the last `k` nodes that have parameters (all if `k` is 0 or too large).
    pub fn last_layers(&self, k: usize) -> BTreeSet<String> {
        let named: Vec<&Node> = self
            .nodes
            .iter()
            .filter(|n| n.op.layer_kind().is_some() || matches!(n.op, Op::BatchNorm2d { .. }))
            .collect();
        let take = if k == 0 { named.len() } else { k.min(named.len()) };
        named[named.len() - take..].iter().map(|n| n.name.clone()).collect()
    }
}

impl Op {
    /// Batch norm with PyTorch's defaults.
    pub fn batch_norm(features: i64) -> Self {
        Self::BatchNorm2d {
            features,
            eps: bn_eps(),
            momentum: bn_momentum(),
        }
    }

    fn layer_kind(&self) -> Option<LayerKind> {
        match self {
            Op::Conv2d(conv) => Some(LayerKind::Conv2d(conv.clone())),
            Op::Linear(linear) => Some(LayerKind::Linear(linear.clone())),
            _ => None,
        }
    }

    /// Output shape for these input shapes, or what does not fit.
    fn shape(&self, inputs: &[&[i64]]) -> std::result::Result<Vec<i64>, String> {
        if let Op::Add = self {
            let first = inputs.first().ok_or("adds nothing")?;
            return if inputs.iter().all(|s| s == first) {
                Ok(first.to_vec())
            } else {
                Err(format!("adds different shapes {inputs:?}"))
            };
        }
        let [input] = inputs else {
            return Err(format!("has {} inputs instead of one", inputs.len()));
        };
        let plane = || match input {
            [c, h, w] => Ok((*c, [*h, *w])),
            other => Err(format!("expects channels × height × width, gets {other:?}")),
        };
        match self {
            Op::Conv2d(conv) => {
                let (c, size) = plane()?;
                let (from, to) = (conv.in_channels, conv.out_channels);
                if c != from {
                    return Err(format!("expects {from} channels, gets {c}"));
                }
                if to < 1 || !conv.divides() {
                    return Err(format!("{from} → {to} channels do not divide into {} groups", conv.groups));
                }
                windows(to, size, conv.kernel, conv.stride, conv.padding, conv.dilation)
            }
            Op::Linear(linear) => match input {
                [n] if *n == linear.in_features && linear.out_features >= 1 => Ok(vec![linear.out_features]),
                other => Err(format!("expects [{}], gets {other:?}", linear.in_features)),
            },
            Op::BatchNorm2d { features, eps, momentum } => {
                let (c, [h, w]) = plane()?;
                if !(*eps > 0.0 && eps.is_finite()) {
                    return Err(format!("eps is {eps}, it must be above 0"));
                }
                if !(0.0..=1.0).contains(momentum) {
                    return Err(format!("momentum is {momentum}, it must lie between 0 and 1"));
                }
                if c != *features {
                    return Err(format!("expects {features} channels, gets {c}"));
                }
                Ok(vec![c, h, w])
            }
            Op::MaxPool2d { kernel, stride, padding } => {
                let (c, size) = plane()?;
                if padding[0] * 2 > kernel[0] || padding[1] * 2 > kernel[1] {
                    return Err("pads more than half its window".into());
                }
                windows(c, size, *kernel, *stride, *padding, [1, 1])
            }
            Op::AvgPool2d { kernel } => plane().and_then(|(c, size)| windows(c, size, *kernel, *kernel, [0, 0], [1, 1])),
            Op::GlobalAvgPool => plane().map(|(c, _)| vec![c, 1, 1]),
            Op::Flatten => Ok(vec![input.iter().product()]),
            Op::Relu => Ok(input.to_vec()),
            Op::Add => Err("is handled above".into()),
        }
    }
}

/// Shape of what windows over a plane give, or why they cannot.
fn windows(
    channels: i64,
    size: [i64; 2],
    kernel: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
) -> std::result::Result<Vec<i64>, String> {
    let mut shape = vec![channels];
    for i in 0..2 {
        let (size, kernel, stride, padding, dilation) = (size[i], kernel[i], stride[i], padding[i], dilation[i]);
        if kernel < 1 || stride < 1 || padding < 0 || dilation < 1 || padding > 1 << 10 || kernel > 1 << 10 || dilation > 1 << 10 {
            return Err(format!(
                "window kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation} makes no sense"
            ));
        }
        match layer::window(size, kernel, stride, padding, dilation) {
            ..1 => return Err(format!("its window is larger than its input of {size}")),
            out => shape.push(out),
        }
    }
    Ok(shape)
}
