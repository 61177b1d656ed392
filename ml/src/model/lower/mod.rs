//! An exported program as a graph: convolutions, linear layers, batch norms and dropouts become typed nodes, every other call an operator by name.
//!
//! Operators that change what they are given (`relu_`, `add_`) become their twins that do not, and later readers read the twin's outcome: run in place they would change what a tap has
//! seen, without an error. Where the pictures do not reach (masks, tables of positions) they stay as they are, so that a change of a view changes what it is a view of.

mod memory;
mod typed;

use super::aten;
use super::graph::{Constants, Graph, INPUT, Node, Op, StateEntry};
use super::value::{Extent, Operand};
use super::weights::Weights;
use crate::error::{Error, Result, ResultExt};
use crate::import::{self, Call, Dim, Output, Program, StateKind};
use delta_guard_contract::Code;
use memory::Memory;
use std::collections::{BTreeMap, BTreeSet};

/// Calls that only assert something that torch saw when it traced.
const ASSERTIONS: [&str; 3] = ["_assert_tensor_metadata", "_assert_async.msg", "_assert_scalar"];

/// The graph of a program for pictures of `input` (channels, height, width), and the weights that are in its file.
///
/// # Errors
/// `GraphUnusable`: an operator that is not known, a batch size that is fixed, pictures of another size, by call.
pub fn graph(program: &Program, input: [i64; 3]) -> Result<(Graph, Weights)> {
    takes(program, input)?;
    let mut lowering = Lowering::new(program);
    for (place, call) in program.calls.iter().enumerate() {
        lowering.call(place, call).context(|| {
            format!(
                "call {place}, {} in {}",
                call.target,
                call.module.as_deref().unwrap_or("the model itself")
            )
        })?;
    }
    let nodes = needed(lowering.nodes, &lowering.memory.now(&program.output));
    let (state, constants) = state(program)?;
    let mut weights = BTreeMap::new();
    for entry in &state {
        if let Some(stored) = program.tensors.get(&entry.name) {
            let tensor = stored.tensor()?;
            weights.insert(
                entry.name.clone(),
                if tensor.is_floating_point() {
                    tensor.f_to_kind(tch::Kind::Float)?
                } else {
                    tensor
                },
            );
        }
    }
    let weights = Weights(weights);
    let graph = Graph::of(input, state, nodes, constants).checked(Some(&weights))?;
    Ok((graph, weights))
}

fn unusable(message: String, help: &str) -> Error {
    Error::new(Code::GraphUnusable, message, help)
}

/// Does the program take such pictures, as many at a time as one likes?
fn takes(program: &Program, input: [i64; 3]) -> Result<()> {
    let [batch, own @ ..] = &program.input_shape[..] else {
        return Err(unusable(
            "it takes a single number".into(),
            "export a model that takes a batch of pictures",
        ));
    };
    if let Some(batch) = batch {
        return Err(unusable(
            format!("its batch size is fixed to {batch}"),
            "export it with dynamic_shapes=({0: torch.export.Dim(\"batch\")},)",
        ));
    }
    let fits = own.len() == 3 && own.iter().zip(input).all(|(own, input)| own.is_none_or(|own| own == input));
    if !fits {
        let own: Vec<String> = own.iter().map(|n| n.map_or("any".into(), |n| n.to_string())).collect();
        let message = format!(
            "it takes pictures of {} (channels, height, width), data.image gives {input:?}",
            own.join(" × ")
        );
        return Err(unusable(message, "set data.image to what the model was exported for"));
    }
    Ok(())
}

/// State dict and constants.
fn state(program: &Program) -> Result<(Vec<StateEntry>, Constants)> {
    let mut constants = BTreeMap::new();
    let mut kinds: BTreeMap<&str, bool> = BTreeMap::new();
    for reference in program.state.values() {
        if reference.persistent {
            kinds.insert(&reference.name, reference.kind == StateKind::Parameter);
        } else if let Some(stored) = program.tensors.get(&reference.name) {
            constants.insert(reference.name.clone(), stored.tensor()?);
        }
    }
    let entries = program
        .tensors
        .iter()
        .filter(|(name, _)| !constants.contains_key(*name))
        .map(|(name, stored)| StateEntry {
            name: name.clone(),
            shape: stored.shape.clone(),
            kind: if aten::is_float(stored.kind) { tch::Kind::Float } else { stored.kind },
            parameter: kinds.get(name.as_str()).copied().unwrap_or(false),
        });
    Ok((entries.collect(), Constants(constants)))
}

/// The nodes that `output` is made of, which comes last.
fn needed(nodes: Vec<Node>, output: &str) -> Vec<Node> {
    let mut wanted: BTreeSet<String> = BTreeSet::from([output.to_string()]);
    let mut kept: Vec<Node> = Vec::new();
    for node in nodes.into_iter().rev() {
        let yields = std::iter::once(&node.name).chain(&node.parts).any(|name| wanted.contains(name));
        // A change in place is seen by who reads what was changed.
        let changes = matches!(node.op, Op::Aten { in_place: true, .. });
        if yields || (changes && !kept.is_empty()) {
            wanted.extend(node.arguments.values().flat_map(Operand::reads).map(str::to_string));
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

struct Lowering<'a> {
    program: &'a Program,
    memory: Memory,
    nodes: Vec<Node>,
    /// Parts of the state that have a node of their own.
    read_as_value: BTreeSet<String>,
}

impl<'a> Lowering<'a> {
    fn new(program: &'a Program) -> Self {
        Self {
            program,
            memory: Memory::new(program),
            nodes: Vec::new(),
            read_as_value: BTreeSet::new(),
        }
    }

    fn call(&mut self, place: usize, call: &Call) -> Result<()> {
        let target = name(&call.target).ok_or_else(|| not_known(&call.target))?;
        if ASSERTIONS.contains(&target) {
            return Ok(());
        }
        let mut arguments = BTreeMap::new();
        for (number, (name, argument)) in call.inputs.iter().enumerate() {
            let name = if target.starts_with("_operator") {
                ["a", "b"][number.min(1)]
            } else {
                name.as_str()
            };
            if let Some(argument) = self.argument(argument) {
                arguments.insert(name.to_string(), argument);
            }
        }
        let (twin, changes) = twin(target);
        let in_place = if changes { self.memory.change(place, call)? } else { false };
        let op = match typed::op(&twin, &mut arguments, self.program, call)? {
            Some(op) => op,
            None if aten::find(&twin).is_some() => Op::Aten {
                target: twin.clone(),
                in_place,
            },
            None => return Err(not_known(&call.target)),
        };
        let (name, parts) = self.names(place, call);
        self.memory.yields(call, &twin, changes);
        self.nodes.push(Node { name, op, arguments, parts });
        Ok(())
    }

    /// Name of the node, and of its parts where it yields several tensors.
    fn names(&self, place: usize, call: &Call) -> (String, Vec<String>) {
        match &call.outputs[..] {
            [Output::Tensor(name) | Output::SymInt(name) | Output::SymBool(name)] => (own(name, self.program), Vec::new()),
            outputs => {
                let parts = outputs.iter().enumerate().flat_map(|(n, output)| match output {
                    Output::Tensors(names) => names.iter().map(|name| own(name, self.program)).collect(),
                    Output::Tensor(name) | Output::SymInt(name) | Output::SymBool(name) => vec![own(name, self.program)],
                    Output::None => vec![format!("nothing_{place}_{n}")],
                });
                (format!("call_{place}"), parts.collect())
            }
        }
    }

    /// None: it has its default.
    fn argument(&mut self, argument: &import::Argument) -> Option<Operand> {
        use import::Argument as Given;
        Some(match argument {
            Given::None | Given::MemoryFormat(_) | Given::Strided | Given::Device => return None,
            Given::Tensor(name) => self.tensor(name),
            Given::Tensors(names) => Operand::Values(names.iter().map(|name| Some(self.value(name))).collect()),
            Given::OptionalTensors(names) => Operand::Values(names.iter().map(|name| name.as_deref().map(|name| self.value(name))).collect()),
            Given::Int(n) => Operand::Int(*n),
            Given::Ints(all) => Operand::Ints(all.iter().map(|n| Extent::Known(*n)).collect()),
            Given::SymInt(name) | Given::SymBool(name) => Operand::Value(self.value(name)),
            Given::SymInts(all) => Operand::Ints(
                all.iter()
                    .map(|dim| match dim {
                        Dim::Known(n) => Extent::Known(*n),
                        Dim::Value(name) => Extent::Of(self.value(name)),
                    })
                    .collect(),
            ),
            Given::Float(x) => Operand::Float(*x),
            Given::Floats(all) => Operand::Floats(all.clone()),
            Given::Bool(yes) => Operand::Bool(*yes),
            Given::Bools(all) => Operand::Ints(all.iter().map(|yes| Extent::Known(i64::from(*yes))).collect()),
            Given::Text(word) => Operand::Text(word.clone()),
            Given::Dtype(kind) => Operand::Kind(*kind),
        })
    }

    fn tensor(&self, name: &str) -> Operand {
        match self.program.state.get(name) {
            Some(reference) if !self.memory.was_changed(name) => Operand::State(reference.name.clone()),
            _ => Operand::Value(own(&self.memory.now(name), self.program)),
        }
    }

    /// The node that yields a value; a part of the state gets one that yields it.
    fn value(&mut self, name: &str) -> String {
        let node = own(&self.memory.now(name), self.program);
        if let state @ Operand::State(_) = self.tensor(name)
            && self.read_as_value.insert(name.to_string())
        {
            self.nodes.push(Node {
                name: node.clone(),
                op: Op::aten("alias"),
                arguments: BTreeMap::from([("self".to_string(), state)]),
                parts: Vec::new(),
            });
        }
        node
    }
}

/// Its name in the graph: the picture is `input` there.
fn own(name: &str, program: &Program) -> String {
    if name == program.input {
        INPUT.into()
    } else if name == INPUT {
        format!("{INPUT}_value")
    } else {
        name.into()
    }
}

/// ATen's own name of a target, with its overload; Python's arithmetic on whole numbers keeps its name.
fn name(target: &str) -> Option<&str> {
    if target.starts_with("_operator.") {
        return Some(target);
    }
    let name = target.strip_prefix("torch.ops.aten.")?;
    Some(name.strip_suffix(".default").unwrap_or(name))
}

/// The operator that does the same and changes nothing that it is given, and whether `target` is another one.
fn twin(target: &str) -> (String, bool) {
    let (base, overload) = target.split_once('.').map_or((target, None), |(base, overload)| (base, Some(overload)));
    match base.strip_suffix('_').filter(|base| !base.is_empty() && *base != "detach") {
        Some(base) => (overload.map_or_else(|| base.to_string(), |overload| format!("{base}.{overload}")), true),
        None => (target.to_string(), false),
    }
}

fn not_known(target: &str) -> Error {
    unusable(
        format!("operator {target} is not among those that delta-guard computes"),
        "write the model without it, or ask for it: docs/models.md lists the networks that were tried",
    )
}

#[cfg(test)]
mod tests;
