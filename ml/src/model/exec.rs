//! The one executor of graphs: evaluation, training, and evaluation with taps on the tracked layers.

use super::aten;
use super::graph::{Graph, INPUT, Node, Op, module_of};
use super::layer::{Conv, Pair};
use super::tap::Handles;
use super::value::{Args, Datum, Extent, Operand};
use super::weights::Weights;
use crate::error::{Error, Result, ResultExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
    /// For each node, the names that nobody reads after it.
    drops: Vec<Vec<String>>,
}

/// Evaluation or training.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Batch norm by its running statistics.
    Eval,
    /// Batch norm by the batch's statistics, which update the running ones; dropout drops.
    Train,
}

/// A node that was just computed, for whoever looks on.
pub(super) struct Computed<'a> {
    /// Its place in the graph.
    pub place: usize,
    /// What it read as `input`, if it is a typed one.
    pub input: Option<&'a Tensor>,
    /// What it yields; may be replaced.
    pub output: &'a mut Datum,
}

/// Logits with what the taps saw.
#[derive(Debug)]
pub struct Tapped {
    /// B × classes; differentiable with respect to every output.
    pub logits: Tensor,
    handles: Vec<Handles>,
}

impl Tapped {
    /// The gradients of a summed objective with respect to the outputs of the layers at `keep` (places in layer order, ascending) only, no weight
    /// gradients, as pairs. The backward pass goes no farther than it must.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn pairs(self, objective: &Tensor, keep: &[usize]) -> Result<Vec<Pair>> {
        let kept: Vec<&Handles> = keep.iter().filter_map(|&place| self.handles.get(place)).collect();
        let outputs: Vec<&Tensor> = kept.iter().flat_map(|handles| handles.outputs()).collect();
        let mut grads = Tensor::f_run_backward(&[objective], &outputs, false, false)?.into_iter();
        let examples = self.logits.size().first().copied().unwrap_or(0);
        kept.into_iter().map(|handles| handles.pair(examples, &mut grads)).collect()
    }
}

impl Model {
    /// Put weights to a graph.
    pub fn new(graph: Graph, mut weights: Weights) -> Self {
        for tensor in weights.0.values_mut() {
            *tensor = fast_layout(tensor);
        }
        let device = weights.0.values().next().map_or(Device::Cpu, Tensor::device);
        let mut graph = graph;
        for tensor in graph.constants.0.values_mut() {
            *tensor = tensor.to_device(device);
        }
        let drops = drops(&graph);
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
        let trained = self.graph.state.iter().filter(|e| e.parameter);
        trained
            .filter_map(|e| self.weights.0.get(&e.name).map(|t| (e.name.clone(), t.shallow_clone())))
            .collect()
    }

    /// Those of some modules.
    pub fn parameters_of(&self, modules: &BTreeSet<String>) -> Vec<(String, Tensor)> {
        self.parameters()
            .into_iter()
            .filter(|(name, _)| modules.contains(module_of(name)))
            .collect()
    }

    /// Evaluation: B × C × H × W → B × classes. No gradient.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        tch::no_grad(|| self.run(images, Mode::Eval, &mut |_| Ok(())))
    }

    /// Training: as [`Model::forward`], by batch statistics, differentiable with respect to the parameters that require a gradient.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward_train(&self, images: &Tensor) -> Result<Tensor> {
        self.run(images, Mode::Train, &mut |_| Ok(()))
    }

    /// Evaluation, differentiable with respect to the parameters that require a gradient: an example's gradient does not depend on the others of its batch.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward_differentiable(&self, images: &Tensor) -> Result<Tensor> {
        self.run(images, Mode::Eval, &mut |_| Ok(()))
    }

    /// Evaluation, without a gradient, with somebody who looks at each node.
    ///
    /// # Errors
    /// The looker's; when libtorch fails.
    pub(super) fn forward_watched(&self, images: &Tensor, look: &mut dyn FnMut(Computed<'_>) -> Result<()>) -> Result<Tensor> {
        tch::no_grad(|| self.run(images, Mode::Eval, look))
    }

    /// Evaluation with taps: the weights need no gradient; the first layer outputs are made leaves so that a backward pass stops there.
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn forward_tapped(&self, images: &Tensor) -> Result<Tapped> {
        let taps = self.graph.taps();
        let mut handles: Vec<Handles> = taps.iter().map(Handles::new).collect();
        let of_node: HashMap<usize, usize> = taps
            .iter()
            .enumerate()
            .flat_map(|(layer, tap)| tap.uses.iter().map(move |u| (u.node, layer)))
            .collect();
        let logits = self.run(images, Mode::Eval, &mut |step| {
            if let (Some(&layer), Some(input), Datum::Tensor(output)) = (of_node.get(&step.place), step.input, step.output) {
                if !output.requires_grad() {
                    *output = output.detach().set_requires_grad(true);
                }
                handles[layer].push(step.place, input.detach(), output.shallow_clone());
            }
            Ok(())
        })?;
        Ok(Tapped { logits, handles })
    }

    fn run(&self, images: &Tensor, mode: Mode, look: &mut dyn FnMut(Computed<'_>) -> Result<()>) -> Result<Tensor> {
        let images = fast_layout(images);
        let mut last = None;
        let mut values: HashMap<&str, Datum> = HashMap::from([(INPUT, Datum::Tensor(images))]);
        for (place, node) in self.graph.nodes.iter().enumerate() {
            let args = self.arguments(node, &values).context(|| format!("node `{}`", node.name))?;
            let mut output = self.apply(node, &args, mode).context(|| format!("node `{}`", node.name))?;
            let input = match node.op {
                Op::Aten { .. } => None,
                _ => args.maybe_tensor("input")?,
            };
            look(Computed {
                place,
                input,
                output: &mut output,
            })?;
            drop(args);
            if node.parts.is_empty() {
                last = Some(output.share());
                values.insert(&node.name, output);
            } else if let Datum::Tensors(all) = output {
                if all.len() != node.parts.len() {
                    let message = format!("node `{}` yields {} tensors, its file names {}", node.name, all.len(), node.parts.len());
                    return Err(Error::internal(message));
                }
                values.extend(
                    node.parts
                        .iter()
                        .zip(all)
                        .filter_map(|(part, tensor)| Some((part.as_str(), Datum::Tensor(tensor?)))),
                );
            }
            for dead in &self.drops[place] {
                values.remove(dead.as_str());
            }
        }
        match last {
            Some(Datum::Tensor(logits)) => Ok(logits),
            _ => Err(Error::internal("the last node of the graph yields no tensor")),
        }
    }

    fn state(&self, name: &str) -> Result<Tensor> {
        let found = self.weights.0.get(name).or_else(|| self.graph.constants.0.get(name));
        let found = found.ok_or_else(|| Error::internal(format!("there is no tensor {name}")))?;
        // Constants are kept as they came; floats among them are computed with in the network's precision.
        Ok(if found.is_floating_point() && found.kind() != self.kind() {
            found.f_to_kind(self.kind())?
        } else {
            found.shallow_clone()
        })
    }

    fn arguments<'n>(&self, node: &'n Node, values: &HashMap<&str, Datum>) -> Result<Args<'n>> {
        let value = |name: &str| values.get(name).ok_or_else(|| Error::internal(format!("reads `{name}` too early")));
        let mut given = BTreeMap::new();
        for (name, argument) in &node.arguments {
            let found = match argument {
                Operand::Value(of) => value(of)?.share(),
                Operand::Values(of) => Datum::Tensors(
                    of.iter()
                        .map(|of| match of.as_deref().map(value).transpose()? {
                            Some(Datum::Tensor(tensor)) => Ok(Some(tensor.shallow_clone())),
                            Some(_) => Err(Error::internal(format!("`{name}` must be tensors"))),
                            None => Ok(None),
                        })
                        .collect::<Result<_>>()?,
                ),
                Operand::State(of) => Datum::Tensor(self.state(of)?),
                Operand::Int(n) => Datum::Int(*n),
                Operand::Ints(all) => Datum::Ints(all.iter().map(|size| whole(size, &value)).collect::<Result<_>>()?),
                Operand::Float(x) => Datum::Float(*x),
                Operand::Floats(all) => Datum::Floats(all.clone()),
                Operand::Bool(yes) => Datum::Bool(*yes),
                Operand::Text(word) => Datum::Text(word.clone()),
                Operand::Kind(kind) => Datum::Kind(*kind),
            };
            given.insert(name.as_str(), found);
        }
        Ok(Args::new(self.device(), self.kind(), given))
    }

    fn apply(&self, node: &Node, args: &Args<'_>, mode: Mode) -> Result<Datum> {
        Ok(match &node.op {
            Op::Conv2d(conv) => {
                let (x, stride) = unit_stride(args.tensor("input")?, conv)?;
                Conv { stride, ..conv.clone() }
                    .apply(&x, args.tensor("weight")?, args.maybe_tensor("bias")?)?
                    .into()
            }
            Op::Linear(_) => args.tensor("input")?.f_linear(args.tensor("weight")?, args.maybe_tensor("bias")?)?.into(),
            Op::BatchNorm { eps, momentum } => {
                if let (Mode::Train, Some(count)) = (mode, args.maybe_tensor("num_batches_tracked")?) {
                    let _ = tch::no_grad(|| count.shallow_clone().f_add_scalar_(1))?;
                }
                let (weight, bias) = (args.maybe_tensor("weight")?, args.maybe_tensor("bias")?);
                let (mean, var) = (args.maybe_tensor("running_mean")?, args.maybe_tensor("running_var")?);
                let by_batch = mode == Mode::Train || mean.is_none();
                args.tensor("input")?
                    .f_batch_norm(weight, bias, mean, var, by_batch, *momentum, *eps, true)?
                    .into()
            }
            Op::Dropout { p, channels } => match (mode, channels) {
                (Mode::Eval, _) => args.tensor("input")?.shallow_clone().into(),
                (Mode::Train, false) => args.tensor("input")?.f_dropout(*p, true)?.into(),
                (Mode::Train, true) => args.tensor("input")?.f_feature_dropout(*p, true)?.into(),
            },
            Op::Aten { target, in_place } => {
                let run = aten::find(target).ok_or_else(|| Error::internal(format!("operator `{target}` is not known")))?;
                let output = run(args)?;
                match (in_place, output) {
                    (true, Datum::Tensor(output)) => {
                        let mut place = args.tensor("self")?.shallow_clone();
                        place.f_copy_(&output)?;
                        place.into()
                    }
                    (_, output) => output,
                }
            }
        })
    }
}

fn whole<'v>(size: &Extent, value: &impl Fn(&str) -> Result<&'v Datum>) -> Result<i64> {
    match size {
        Extent::Known(n) => Ok(*n),
        Extent::Of(name) => match value(name)? {
            Datum::Int(n) => Ok(*n),
            _ => Err(Error::internal(format!("`{name}` is not a whole number"))),
        },
    }
}

/// For each node, the names that nobody reads after it.
fn drops(graph: &Graph) -> Vec<Vec<String>> {
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (place, node) in graph.nodes.iter().enumerate() {
        for name in std::iter::once(&node.name).chain(&node.parts) {
            last.insert(name, place);
        }
        for name in node.arguments.values().flat_map(Operand::reads) {
            last.insert(name, place);
        }
    }
    let mut drops = vec![Vec::new(); graph.nodes.len()];
    for (name, place) in last {
        drops[place].push(name.to_string());
    }
    drops
}
