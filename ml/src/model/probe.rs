//! One run of a new graph: shapes, sizes, and where in each layer's input and output the examples are.
//!
//! Three pictures go through; the second holds NaN in every pixel. What it touches is NaN in every layer, and nothing else is: a layer where NaN fills one block of a dimension keeps
//! examples apart there, one where it is everywhere mixes them, one where it is nowhere does not see the pictures at all.

use super::exec::Model;
use super::graph::{Graph, Node, Op, StateEntry};
use super::layer::LayerKind;
use super::tap::{Placement, Tap};
use super::value::{Datum, Operand};
use super::weights::Weights;
use crate::error::{Error, Result};
use delta_guard_contract::Code;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Kind, Tensor};

/// Pictures of the run, and the one that is NaN.
const EXAMPLES: i64 = 3;
const MARKED: i64 = 1;

/// Numbers that one node may yield for one picture: 4 GiB of floats.
const MOST: i64 = 1 << 30;

/// Why a weight is not tracked that no node reads: a part for training only.
pub(super) const NOT_READ: &str = "the logits do not depend on it";

/// What the run showed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Logits.
    pub classes: i64,
    /// Numbers that all nodes yield for one picture.
    pub activation_size: i64,
    /// Tracked layers.
    pub taps: Vec<Tap>,
    /// Weights that are in no tracked layer, and why.
    pub untracked: Vec<(String, String)>,
    /// Of each tap, the tensors that its weight and bias are, or are made of.
    pub sources: Vec<Vec<String>>,
}

/// A node with a tracked kind of layer, as the run found it.
struct Found {
    node: usize,
    rows: std::result::Result<Placement, &'static str>,
}

/// Run it.
///
/// # Errors
/// `Configuration`: a node that cannot be computed, by name; the last one yields no logits.
pub(super) fn look(graph: &Graph, weights: Option<&Weights>) -> Result<Survey> {
    let given = weights.map_or_else(|| zeros(&graph.state), |weights| Ok(weights.to(Device::Cpu, Kind::Float)))?;
    let model = Model::new(graph.clone(), given);
    let [channels, height, width] = graph.input;
    let images = Tensor::f_zeros([EXAMPLES, channels, height, width], (Kind::Float, Device::Cpu))?;
    let _ = images.f_narrow(0, MARKED, 1)?.f_fill_(f64::NAN)?;
    let (mut found, mut sum) = (Vec::new(), 0i64);
    let ran = model.forward_watched(&images, &mut |step| {
        let numbers = step.output.numel();
        if numbers > MOST * EXAMPLES {
            return Err(Error::internal(format!("yields {numbers} numbers for {EXAMPLES} pictures")));
        }
        sum = sum.saturating_add(numbers / EXAMPLES);
        if let (Op::Conv2d(_) | Op::Linear(_), Some(input), Datum::Tensor(output)) = (&graph.nodes[step.place].op, step.input, &*step.output) {
            let rows = rows(input).and_then(|rows| match rows {
                Ok(rows) => Ok(match self::rows(output)? {
                    Ok(out) if out == rows => Ok(rows),
                    Ok(_) => Err("its examples are elsewhere in its output"),
                    Err(why) => Err(why),
                }),
                Err(why) => Ok(Err(why)),
            })?;
            found.push(Found { node: step.place, rows });
        }
        Ok(())
    });
    let logits = ran.map_err(|e| {
        Error::new(
            Code::GraphUnusable,
            first_line(&e),
            "correct the graph file, or give pictures of the size that the network was made for",
        )
    })?;
    let classes = match logits.size()[..] {
        [EXAMPLES, classes] if classes >= 2 => classes,
        ref shape => {
            let message = format!(
                "the last node yields {:?}, not a vector of at least two logits",
                &shape[1.min(shape.len())..]
            );
            return Err(Error::new(Code::GraphUnusable, message, "correct the graph file"));
        }
    };
    let Tapped { taps, sources, untracked } = taps(graph, found);
    Ok(Survey {
        classes,
        activation_size: sum.max(1),
        taps,
        sources,
        untracked,
    })
}

/// An error's first line: libtorch's texts go on with its own call stack.
fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

fn zeros(state: &[StateEntry]) -> Result<Weights> {
    let zero = |entry: &StateEntry| Ok((entry.name.clone(), Tensor::f_zeros(&entry.shape, (entry.kind, Device::Cpu))?));
    Ok(Weights(state.iter().map(zero).collect::<Result<_>>()?))
}

/// Where the examples are.
fn rows(tensor: &Tensor) -> Result<std::result::Result<Placement, &'static str>> {
    let marked = tensor.f_isnan()?;
    if !marked.f_any()?.f_double_value(&[]).map(|any| any != 0.0)? {
        return Ok(Err("the pictures do not reach it"));
    }
    for dim in 0..tensor.dim() {
        let size = tensor.size()[dim];
        let others: Vec<i64> = (0..tensor.dim() as i64).filter(|&d| d != dim as i64).collect();
        let entries = if others.is_empty() {
            marked.shallow_clone()
        } else {
            marked.f_any_dims(others.as_slice(), false)?
        };
        let entries = Vec::<bool>::try_from(&entries)?;
        let each = size / EXAMPLES;
        if size % EXAMPLES != 0 || entries.iter().all(|&m| m) {
            continue;
        }
        let block = |together: bool| {
            (0..size).all(|i| {
                let example = if together { i / each } else { i % EXAMPLES };
                entries[i as usize] == (example == MARKED)
            })
        };
        for together in [true, false] {
            if block(together) {
                return Ok(Ok(Placement { dim, each, together }));
            }
        }
    }
    Ok(Err("it mixes the examples of a batch"))
}

/// The tracked layers, what each is made of, and the weights that are in none.
#[derive(Default)]
struct Tapped {
    taps: Vec<Tap>,
    sources: Vec<Vec<String>>,
    untracked: Vec<(String, String)>,
}

fn taps(graph: &Graph, found: Vec<Found>) -> Tapped {
    // One layer a weight, in the order of first use.
    let mut order: Vec<(String, Vec<Found>)> = Vec::new();
    for one in found {
        let name = layer_name(&graph.nodes[one.node]);
        match order.iter_mut().find(|(known, _)| *known == name) {
            Some((_, uses)) => uses.push(one),
            None => order.push((name, vec![one])),
        }
    }
    let (mut all, mut reasons) = (Tapped::default(), BTreeMap::<String, String>::new());
    for (name, found) in order {
        let weights: Vec<String> = found.iter().flat_map(|one| sources(graph, one.node)).collect();
        let uses: std::result::Result<Vec<_>, &str> = found
            .iter()
            .filter_map(|one| layer_kind(&graph.nodes[one.node]).map(|kind| one.rows.map(|rows| (one.node, rows, kind))))
            .collect();
        let tap =
            uses.and_then(|uses| Tap::of(&name, uses).ok_or("a convolution with groups that is used twice, or with pictures folded into the batch"));
        match tap {
            Ok(tap) => {
                all.sources.push(weights);
                all.taps.push(tap);
            }
            Err(why) => reasons.extend(weights.into_iter().map(|w| (w, why.to_string()))),
        }
    }
    let read: BTreeSet<&str> = graph.nodes.iter().flat_map(|n| n.arguments.values()).filter_map(Operand::state).collect();
    let covered: BTreeSet<&String> = all.sources.iter().flatten().collect();
    let untracked = graph.state.iter().filter(|e| e.parameter && !covered.contains(&e.name)).map(|e| {
        let why = match reasons.get(&e.name) {
            Some(why) => why.as_str(),
            None if read.contains(e.name.as_str()) => "not the weight of a convolution or a linear layer",
            None => NOT_READ,
        };
        (e.name.clone(), why.to_string())
    });
    all.untracked = untracked.collect();
    all
}

/// Weight and bias of a layer's node; of a weight that other nodes make, the tensors that it is made of.
fn sources(graph: &Graph, place: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<&Operand> = ["weight", "bias"]
        .iter()
        .filter_map(|name| graph.nodes[place].arguments.get(*name))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some(argument) = open.pop() {
        found.extend(argument.state().map(str::to_string));
        for name in argument.reads() {
            let maker = graph.nodes[..place].iter().find(|n| n.name == name || n.parts.iter().any(|p| p == name));
            if let Some(maker) = maker.filter(|maker| seen.insert(maker.name.as_str())) {
                open.extend(maker.arguments.values());
            }
        }
    }
    found
}

/// The state-dict name of its weight, without `.weight`; where other nodes make the weight, the node's.
fn layer_name(node: &Node) -> String {
    match node.arguments.get("weight").and_then(Operand::state) {
        Some(weight) => weight.strip_suffix(".weight").unwrap_or(weight).to_string(),
        None => node.name.clone(),
    }
}

fn layer_kind(node: &Node) -> Option<LayerKind> {
    match &node.op {
        Op::Conv2d(conv) => Some(LayerKind::Conv2d(conv.clone())),
        Op::Linear(linear) => Some(LayerKind::Linear(linear.clone())),
        _ => None,
    }
}
