//! A network as data: nodes, what they read, the state dict that belongs to it. It can be written to and read from a file, and importers of other formats yield it.
//!
//! Nodes that the science must know are typed (convolution, linear, batch norm, dropout); every other one names an operator of ATen with its arguments. Shapes are not derived by
//! rules: one run of a new graph shows them ([`super::probe`]).

use super::layer::{Conv, Layer, Linear};
use super::probe::{self, Survey};
use super::tap::Tap;
use super::value::{Operand, kind_name};
use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::Code;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Kind, Tensor};

/// Name under which nodes read the network's input.
pub const INPUT: &str = "input";

/// Version of the graph file.
const FORMAT: u32 = 2;

/// A network: nodes in an order in which they can be computed; the last one yields the logits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Version of this format: 2.
    pub format: u32,
    /// Input: channels, height, width.
    pub input: [i64; 3],
    /// The state dict, in PyTorch's order.
    pub state: Vec<StateEntry>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Tensors that belong to the network and to no state dict, by name.
    #[serde(skip)]
    pub constants: Constants,
    /// What a run of it showed.
    #[serde(skip)]
    pub(super) seen: Survey,
}

/// One step of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it is called with, by name.
    pub arguments: BTreeMap<String, Operand>,
    /// Where it yields several tensors, the names under which others read them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<String>,
}

/// What a node does. Typed ones read `input`, `weight` and `bias`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Op {
    /// 2-d convolution.
    Conv2d(Conv),
    /// Linear layer over the last dimension.
    Linear(Linear),
    /// Batch normalisation over dimension 1: (x − mean) / √(variance + ε) · weight + bias. Reads `running_mean`, `running_var` and, where it is counted, `num_batches_tracked`.
    BatchNorm {
        /// ε, above 0.
        #[serde(default = "bn_eps")]
        eps: f64,
        /// Share of the batch in the running statistics' next value, 0 to 1 (training only).
        #[serde(default = "bn_momentum")]
        momentum: f64,
    },
    /// In training, each number is 0 with probability `p` and the others grow by 1 / (1 − p).
    Dropout {
        /// 0 to below 1.
        p: f64,
        /// Whole channels together.
        #[serde(default)]
        channels: bool,
    },
    /// An operator of ATen.
    Aten {
        /// Its name, with its overload (`add.Tensor`).
        target: String,
        /// What it yields replaces the numbers of its first argument, which does not depend on the pictures.
        #[serde(default)]
        in_place: bool,
    },
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateEntry {
    /// PyTorch's name.
    pub name: String,
    /// Shape; empty for a scalar.
    pub shape: Vec<i64>,
    /// Kind of numbers; floats of any width count as `float32`.
    #[serde(serialize_with = "kind_name::serialize", deserialize_with = "kind_name::deserialize")]
    pub kind: Kind,
    /// Is it trained (or a running statistic)?
    pub parameter: bool,
}

/// Tensors by name, shared between copies of a graph.
#[derive(Debug, Default)]
pub struct Constants(pub BTreeMap<String, Tensor>);

impl Clone for Constants {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect())
    }
}

impl PartialEq for Constants {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self
                .0
                .iter()
                .all(|(name, tensor)| other.0.get(name).is_some_and(|o| tensor.size() == o.size() && tensor.equal(o)))
    }
}

impl Graph {
    /// A graph of these nodes, checked.
    ///
    /// # Errors
    /// See [`Graph::checked`].
    pub fn new(input: [i64; 3], state: Vec<StateEntry>, nodes: Vec<Node>) -> Result<Self> {
        Self::of(input, state, nodes, Constants::default()).checked(None)
    }

    /// A graph of these parts, not yet checked.
    pub(super) fn of(input: [i64; 3], state: Vec<StateEntry>, nodes: Vec<Node>, constants: Constants) -> Self {
        Self {
            format: FORMAT,
            input,
            state,
            nodes,
            constants,
            seen: Survey::default(),
        }
    }

    /// Read a graph file (JSON).
    ///
    /// # Errors
    /// `Configuration` with file, line and node.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs_err::read_to_string(path)?;
        Self::read(&text).context(|| path.display().to_string())
    }

    /// Read a graph from its text (JSON).
    ///
    /// # Errors
    /// `Configuration` with line and node.
    pub fn read(text: &str) -> Result<Self> {
        /// The version alone: other versions have other fields.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        match serde_json::from_str::<Version>(text) {
            Ok(Version { format }) if format != FORMAT => {
                let message = format!("graph format {format} is not known (this version reads {FORMAT})");
                return Err(Error::new(
                    Code::GraphUnusable,
                    message,
                    "`delta-guard graph --classes NUMBER --out FILE.json` writes this version's form",
                ));
            }
            _ => {}
        }
        let graph: Self = serde_json::from_str(text).map_err(|e| {
            Error::new(
                Code::GraphUnusable,
                format!("not a layer graph: {e}"),
                "`delta-guard graph --classes NUMBER --out FILE.json` writes one to compare with",
            )
        })?;
        graph.checked(None)
    }

    /// Names, order and settings fit together, and a run of it works; the last node yields a vector of logits. `weights`: those to run it with (None: zeros).
    ///
    /// # Errors
    /// `Configuration` naming the node.
    pub fn checked(mut self, weights: Option<&super::Weights>) -> Result<Self> {
        let wrong = |message: String| Error::new(Code::GraphUnusable, message, "correct the graph file");
        if self.input.iter().any(|d| !(1..=1 << 14).contains(d)) {
            return Err(wrong(format!("input {:?} is not a picture's size", self.input)));
        }
        if self.nodes.is_empty() {
            return Err(wrong("the graph has no nodes".into()));
        }
        self.names_fit().map_err(wrong)?;
        for node in &self.nodes {
            node.settings_fit(&self).map_err(|why| wrong(format!("node `{}`: {why}", node.name)))?;
        }
        self.seen = probe::look(&self, weights)?;
        Ok(self)
    }

    /// Every name is there before it is read, and once.
    fn names_fit(&self) -> std::result::Result<(), String> {
        let mut state: BTreeSet<&str> = self.constants.0.keys().map(String::as_str).collect();
        for entry in &self.state {
            if entry.shape.iter().any(|d| !(0..=1 << 31).contains(d)) {
                return Err(format!("tensor {} has shape {:?}", entry.name, entry.shape));
            }
            if !state.insert(&entry.name) {
                return Err(format!("tensor name {} is used twice", entry.name));
            }
        }
        let mut known = BTreeSet::from([INPUT]);
        for node in &self.nodes {
            for argument in node.arguments.values() {
                if let Some(missing) = argument.reads().into_iter().find(|name| !known.contains(name)) {
                    return Err(format!("node `{}`: reads `{missing}`, which no node before it yields", node.name));
                }
                if let Some(missing) = argument.state().filter(|name| !state.contains(name)) {
                    return Err(format!("node `{}`: reads tensor `{missing}`, which is not in `state`", node.name));
                }
            }
            for name in std::iter::once(&node.name).chain(&node.parts) {
                if name.is_empty() || !known.insert(name) {
                    return Err(format!("node name `{name}` is empty or used twice"));
                }
            }
        }
        Ok(())
    }

    /// The shape of a tensor of the state dict.
    pub(super) fn shape_of(&self, name: &str) -> Option<&[i64]> {
        self.state.iter().find(|entry| entry.name == name).map(|entry| entry.shape.as_slice())
    }

    /// Number of logits.
    pub fn classes(&self) -> i64 {
        self.seen.classes
    }

    /// Floats that all node outputs of one example take: what a pass over it holds at most.
    pub fn activation_size(&self) -> i64 {
        self.seen.activation_size
    }

    /// The tracked layers (every convolution and linear layer that examples reach one by one), in order.
    pub fn layers(&self) -> Vec<Layer> {
        self.seen.taps.iter().map(|tap| tap.layer.clone()).collect()
    }

    /// How they are tapped, in the same order.
    pub(super) fn taps(&self) -> &[Tap] {
        &self.seen.taps
    }

    /// Weights that no tracked layer covers, with the reason.
    pub fn untracked(&self) -> &[(String, String)] {
        &self.seen.untracked
    }

    /// The state dict that belongs to this graph.
    pub fn state(&self) -> Vec<StateEntry> {
        self.state.clone()
    }

    /// Names of the last `k` modules that have parameters which the logits depend on (all if `k` is 0 or too large), in the order in which they are first read.
    pub fn last_layers(&self, k: usize) -> BTreeSet<String> {
        let trained: BTreeSet<&str> = self.state.iter().filter(|e| e.parameter).map(|e| e.name.as_str()).collect();
        let mut order: Vec<&str> = Vec::new();
        let read = self.nodes.iter().flat_map(|node| node.arguments.values()).filter_map(Operand::state);
        for module in read.filter(|name| trained.contains(name)).map(module_of) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
        let take = if k == 0 { order.len() } else { k.min(order.len()) };
        order[order.len() - take..].iter().map(|name| (*name).to_string()).collect()
    }
}

/// The module that a tensor of the state dict belongs to: its name without the last part.
pub fn module_of(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(module, _)| module)
}

impl Node {
    /// Settings and shapes of weights of typed nodes; names of operators.
    fn settings_fit(&self, graph: &Graph) -> std::result::Result<(), String> {
        let weight = |wanted: &[i64]| match self.arguments.get("weight") {
            None => Err("has no weight".to_string()),
            Some(Operand::State(name)) if graph.shape_of(name).is_some_and(|shape| shape != wanted) => Err(format!(
                "its weight `{name}` must have shape {wanted:?}, it has {:?}",
                graph.shape_of(name).unwrap_or_default()
            )),
            Some(_) => Ok(()),
        };
        let has = |name: &str| self.arguments.contains_key(name);
        if !matches!(self.op, Op::Aten { .. }) && !has("input") {
            return Err("has no input".into());
        }
        match &self.op {
            Op::Conv2d(conv) => {
                conv.fits()?;
                if conv.bias != has("bias") {
                    return Err(format!(
                        "`bias` is {}, but {} given",
                        conv.bias,
                        if has("bias") { "one is" } else { "none is" }
                    ));
                }
                weight(&conv.weight_shape())
            }
            Op::Linear(linear) => {
                if linear.in_features < 1 || linear.out_features < 1 {
                    return Err(format!(
                        "has {} inputs and {} outputs (are the pictures too small?)",
                        linear.in_features, linear.out_features
                    ));
                }
                if linear.bias != has("bias") {
                    return Err(format!(
                        "`bias` is {}, but {} given",
                        linear.bias,
                        if has("bias") { "one is" } else { "none is" }
                    ));
                }
                weight(&linear.weight_shape())
            }
            Op::BatchNorm { eps, momentum } => {
                if !(*eps > 0.0 && eps.is_finite()) {
                    return Err(format!("eps is {eps}, it must be above 0"));
                }
                if !(0.0..=1.0).contains(momentum) {
                    return Err(format!("momentum is {momentum}, it must lie between 0 and 1"));
                }
                Ok(())
            }
            Op::Dropout { p, .. } if !(0.0..1.0).contains(p) => Err(format!("p is {p}, it must be at least 0 and below 1")),
            Op::Dropout { .. } => Ok(()),
            Op::Aten { target, .. } => match super::aten::find(target) {
                Some(_) => Ok(()),
                None => Err(format!("operator `{target}` is not known")),
            },
        }
    }
}

impl Op {
    /// Batch norm with PyTorch's defaults.
    pub fn batch_norm() -> Self {
        Self::BatchNorm {
            eps: bn_eps(),
            momentum: bn_momentum(),
        }
    }

    /// An operator of ATen.
    pub fn aten(target: &str) -> Self {
        Self::Aten {
            target: target.into(),
            in_place: false,
        }
    }
}
