//! The one executor of graphs: evaluation, training, and evaluation with taps on the tracked layers.

use super::graph::{Graph, INPUT, Node, Op};
use super::layer::{Conv, Pair};
use super::weights::Weights;
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use tch::{Device, Kind, Tensor};

/// Four-dimensional tensors on a CPU with their channels innermost in memory (values and shape stay): measured, ResNet-18 of width 16 then trains in
/// three quarters of the time.
fn fast_layout(tensor: &Tensor) -> Tensor {
    if tensor.dim() == 4 && tensor.device() == Device::Cpu {
        tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
    } else {
        tensor.shallow_clone()
    }
}

/// Input and stride of a convolution. A 1×1 kernel that strides reads a subset of the positions: taking that first, with stride 1 afterwards, is the same.
/// On a CPU it must be so: oneDNN's own way there writes past a buffer when it computes the weight gradient of few channels that lie innermost in memory
/// (<https://github.com/uxlfoundation/oneDNN/issues/6035>, open in the version inside libtorch 2.11); seen here as crashes and wrong weights.
fn unit_stride(x: &Tensor, conv: &Conv) -> Result<(Tensor, [i64; 2])> {
    let stride = conv.stride;
    if conv.kernel != [1, 1] || conv.padding != [0, 0] || stride == [1, 1] || x.device() != Device::Cpu {
        return Ok((x.shallow_clone(), stride));
    }
    let taken = x.f_slice(2, 0, None, stride[0])?.f_slice(3, 0, None, stride[1])?;
    Ok((fast_layout(&taken), [1, 1]))
}

/// A graph with its weights on a device.
#[derive(Debug)]
pub struct Model {
    /// The network.
    pub graph: Graph,
    /// Its state.
    pub weights: Weights,
    /// For each node, the nodes whose output nobody reads after it.
    drops: Vec<Vec<usize>>,
}

/// Evaluation or training.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Batch norm by its running statistics.
    Eval,
    /// Batch norm by the batch's statistics, which update the running ones.
    Train,
}

/// Logits with what the taps saw.
#[derive(Debug)]
pub struct Tapped {
    /// B × classes; differentiable with respect to every output.
    pub logits: Tensor,
    /// Inputs of the tracked layers, in layer order.
    pub inputs: Vec<Tensor>,
    /// Outputs of the tracked layers, as handles for the backward pass.
    pub outputs: Vec<Tensor>,
}

impl Tapped {
    /// The gradients of a summed objective with respect to the outputs of the layers at `keep` (places in layer order, ascending) only, no weight
    /// gradients, as pairs. The backward pass goes no farther than it must.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn pairs(self, objective: &Tensor, keep: &[usize]) -> Result<Vec<Pair>> {
        let outputs: Vec<&Tensor> = keep.iter().filter_map(|&l| self.outputs.get(l)).collect();
        let grads = Tensor::f_run_backward(&[objective], &outputs, false, false)?;
        let inputs = keep.iter().filter_map(|&l| self.inputs.get(l)).map(Tensor::shallow_clone);
        inputs
            .zip(&outputs)
            .zip(grads)
            .map(|((input, output), grad)| {
                let output_grad = if grad.defined() { grad } else { output.zeros_like() }; // a layer that the logits do not depend on
                Ok(Pair { input, output_grad })
            })
            .collect()
    }
}

impl Model {
    /// Put weights to a graph.
    pub fn new(graph: Graph, mut weights: Weights) -> Self {
        for tensor in weights.0.values_mut() {
            *tensor = fast_layout(tensor);
        }
        let mut last = vec![0; graph.nodes.len()];
        let place: HashMap<&str, usize> = graph.nodes.iter().enumerate().map(|(i, n)| (n.name.as_str(), i)).collect();
        for (i, node) in graph.nodes.iter().enumerate() {
            last[i] = i;
            for input in &node.inputs {
                if let Some(&j) = place.get(input.as_str()) {
                    last[j] = i;
                }
            }
        }
        let mut drops = vec![Vec::new(); graph.nodes.len()];
        for (node, &reader) in last.iter().enumerate() {
            drops[reader].push(node);
        }
        Self { graph, weights, drops }
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.weights.0.values().next().map_or(Device::Cpu, Tensor::device)
    }

    /// Kind of the weights.
    pub fn kind(&self) -> Kind {
        self.weights.0.values().find(|t| t.is_floating_point()).map_or(Kind::Float, Tensor::kind)
    }

    /// The trained tensors in state order.
    pub fn parameters(&self) -> Vec<(String, Tensor)> {
        let state = self.graph.state();
        state
            .into_iter()
            .filter(|e| e.parameter)
            .filter_map(|e| self.weights.0.get(&e.name).map(|t| (e.name, t.shallow_clone())))
            .collect()
    }

    /// Those of some nodes.
    pub fn parameters_of(&self, nodes: &BTreeSet<String>) -> Vec<(String, Tensor)> {
        let inside = |(name, _): &(String, Tensor)| name.rsplit_once('.').is_some_and(|(node, _)| nodes.contains(node));
        self.parameters().into_iter().filter(inside).collect()
    }

    /// Evaluation: B × C × H × W → B × classes. No gradient.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| self.run(images, Mode::Eval, None))
    }

    /// Training: as [`Model::forward`], by batch statistics, differentiable with respect to the parameters that require a gradient.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward_train(&self, images: &Tensor) -> Result<Tensor> {
        self.run(images, Mode::Train, None)
    }

    /// Evaluation, differentiable with respect to the parameters that require a gradient: an example's gradient does not depend on the others of its batch.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward_differentiable(&self, images: &Tensor) -> Result<Tensor> {
        self.run(images, Mode::Eval, None)
    }

    /// Evaluation with taps: the weights need no gradient; the first layer outputs are made leaves so that a backward pass stops there.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward_tapped(&self, images: &Tensor) -> Result<Tapped> {
        let mut taps = (Vec::new(), Vec::new());
        let logits = self.run(images, Mode::Eval, Some(&mut taps))?;
        Ok(Tapped {
            logits,
            inputs: taps.0,
            outputs: taps.1,
        })
    }

    fn run(&self, images: &Tensor, mode: Mode, mut taps: Option<&mut (Vec<Tensor>, Vec<Tensor>)>) -> Result<Tensor> {
        let images = fast_layout(images);
        let mut last = images.shallow_clone();
        let mut values: HashMap<&str, Tensor> = HashMap::from([(INPUT, images)]);
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let inputs = node
                .inputs
                .iter()
                .map(|name| {
                    values
                        .get(name.as_str())
                        .ok_or_else(|| Error::internal(format!("node {} reads {name} too early", node.name)))
                })
                .collect::<Result<Vec<_>>>()?;
            let mut output = self.apply(node, &inputs, mode)?;
            if let Some((tap_inputs, tap_outputs)) = taps.as_deref_mut()
                && matches!(node.op, Op::Conv2d(_) | Op::Linear(_))
            {
                if !output.requires_grad() {
                    output = output.detach().set_requires_grad(true);
                }
                tap_inputs.push(inputs[0].detach());
                tap_outputs.push(output.shallow_clone());
            }
            last = output.shallow_clone();
            values.insert(&node.name, output);
            for &dead in &self.drops[i] {
                values.remove(self.graph.nodes[dead].name.as_str());
            }
        }
        Ok(last)
    }

    fn weight(&self, node: &Node, suffix: &str) -> Option<&Tensor> {
        self.weights.0.get(&format!("{}.{suffix}", node.name))
    }

    fn apply(&self, node: &Node, inputs: &[&Tensor], mode: Mode) -> Result<Tensor> {
        let need = |suffix: &str| {
            self.weight(node, suffix)
                .ok_or_else(|| Error::internal(format!("no tensor {}.{suffix}", node.name)))
        };
        let x = *inputs
            .first()
            .ok_or_else(|| Error::internal(format!("node {} reads nothing", node.name)))?;
        Ok(match &node.op {
            Op::Conv2d(conv) => {
                let (x, stride) = unit_stride(x, conv)?;
                Conv { stride, ..conv.clone() }.apply(&x, need("weight")?, self.weight(node, "bias"))?
            }
            Op::Linear(_) => x.f_linear(need("weight")?, self.weight(node, "bias"))?,
            Op::BatchNorm2d { eps, momentum, .. } => {
                let (mean, var) = (need("running_mean")?, need("running_var")?);
                if mode == Mode::Train {
                    let _ = tch::no_grad(|| need("num_batches_tracked").map(|t| t.shallow_clone().f_add_scalar_(1)))??;
                }
                x.f_batch_norm(
                    Some(need("weight")?),
                    Some(need("bias")?),
                    Some(mean),
                    Some(var),
                    mode == Mode::Train,
                    *momentum,
                    *eps,
                    true,
                )?
            }
            Op::Relu => x.f_relu()?,
            Op::MaxPool2d { kernel, stride, padding } => x.f_max_pool2d(&kernel[..], &stride[..], &padding[..], [1, 1], false)?,
            Op::AvgPool2d { kernel } => x.f_avg_pool2d(&kernel[..], &kernel[..], [0, 0], false, true, None::<i64>)?,
            Op::GlobalAvgPool => x.f_mean_dim(&[2i64, 3][..], true, None::<Kind>)?,
            Op::Flatten => x.f_flatten(1, -1)?,
            Op::Add => {
                let mut sum = x.f_add(
                    inputs
                        .get(1)
                        .copied()
                        .ok_or_else(|| Error::internal(format!("node {} adds one thing", node.name)))?,
                )?;
                for more in &inputs[2..] {
                    sum = sum.f_add(more)?;
                }
                sum
            }
        })
    }
}
