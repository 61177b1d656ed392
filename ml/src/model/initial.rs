//! Random initialisation.

use super::graph::{Graph, Node, Op};
use super::value::Operand;
use crate::error::{Error, Result};
use crate::random;
use delta_guard_contract::Code;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Tensors by name, in node order from one stream of random numbers.
pub(super) fn weights(graph: &Graph, seed: u64) -> Result<BTreeMap<String, Tensor>> {
    let _alone = random::seeded(seed);
    let mut tensors = BTreeMap::new();
    for node in &graph.nodes {
        for (argument, tensor) in of_node(graph, node) {
            if let Some(name) = node.arguments.get(argument).and_then(Operand::state) {
                tensors.entry(name.to_string()).or_insert(tensor);
            }
        }
    }
    let unknown: Vec<&str> = graph
        .state
        .iter()
        .map(|e| e.name.as_str())
        .filter(|name| !tensors.contains_key(*name))
        .collect();
    if let Some(first) = unknown.first() {
        let more = if unknown.len() > 1 {
            format!(" and {} more", unknown.len() - 1)
        } else {
            String::new()
        };
        return Err(Error::new(
            Code::GraphUnusable,
            format!("how {first}{more} began is not known: this network cannot be trained from random weights"),
            "name the weights that your training began with in recipe.init, or unlearn by cf or by your own command",
        ));
    }
    Ok(tensors)
}

/// Initial tensors of what a node reads, by argument.
fn of_node(graph: &Graph, node: &Node) -> Vec<(&'static str, Tensor)> {
    let uniform = |shape: &[i64], bound: f64| Tensor::rand(shape, CPU) * (2.0 * bound) - bound;
    let shape = |argument: &str| {
        node.arguments
            .get(argument)
            .and_then(Operand::state)
            .and_then(|name| graph.shape_of(name))
    };
    let norm = || {
        let ones = shape("weight").map(|shape| ("weight", Tensor::ones(shape, CPU)));
        let zeros = shape("bias").map(|shape| ("bias", Tensor::zeros(shape, CPU)));
        ones.into_iter().chain(zeros)
    };
    match &node.op {
        Op::Conv2d(conv) => {
            let [out, inner, height, width] = conv.weight_shape();
            let taps = height * width;
            let std = (2.0 / (out * taps) as f64).sqrt();
            let mut made = vec![("weight", Tensor::randn(conv.weight_shape(), CPU) * std)];
            if conv.bias {
                made.push(("bias", uniform(&[out], 1.0 / ((inner * taps) as f64).sqrt())));
            }
            made
        }
        Op::Linear(linear) => {
            let bound = 1.0 / (linear.in_features as f64).sqrt();
            let mut made = vec![("weight", uniform(&linear.weight_shape(), bound))];
            if linear.bias {
                made.push(("bias", uniform(&[linear.out_features], bound)));
            }
            made
        }
        Op::BatchNorm { .. } => {
            let mean = shape("running_mean").map(|shape| ("running_mean", Tensor::zeros(shape, CPU)));
            let var = shape("running_var").map(|shape| ("running_var", Tensor::ones(shape, CPU)));
            let count = ("num_batches_tracked", Tensor::zeros([] as [i64; 0], (Kind::Int64, Device::Cpu)));
            norm().chain(mean).chain(var).chain([count]).collect()
        }
        Op::Aten { target, .. } if matches!(target.as_str(), "layer_norm" | "group_norm" | "rms_norm") => norm().collect(),
        Op::Aten { .. } | Op::Dropout { .. } => Vec::new(),
    }
}
