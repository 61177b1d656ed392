//! Nodes become calls. Names are checked on the way (defined once, before they are read), and a graph inside a node becomes part of the graph around it.

use super::program::{Argument, Call, Dim, MemoryFormat, Output, Value};
use super::schema::{self, Arg, OptionalTensor, STRIDED, SymBoolArg, SymIntArg, TracedGraph, TracedNode};
use super::{broken, shown, unread};
use crate::error::{Error, Result, ResultExt};
use std::collections::{BTreeMap, HashMap, HashSet};

/// More calls than any network has.
const MAX_CALLS: usize = 200_000;
const AUTOCAST: &str = "torch.ops.higher_order.wrap_with_autocast";
const SET_GRAD: &str = "torch.ops.higher_order.wrap_with_set_grad_enabled";
const DETACH: &str = "torch.ops.aten.detach.default";

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tensor,
    Int,
    Bool,
}

/// The names that one graph knows: what they stand for, and under which name all of the program knows it.
#[derive(Default)]
pub(super) struct Scope {
    prefix: String,
    names: HashMap<String, (String, Class)>,
}

impl Scope {
    pub(super) fn tensor(&self, name: &str) -> Result<String> {
        self.read(name, Class::Tensor)
    }

    fn read(&self, name: &str, class: Class) -> Result<String> {
        match self.names.get(name) {
            Some((known, of)) if *of == class => Ok(known.clone()),
            Some((_, of)) => Err(broken(format!("reads `{}` as {class:?}, and it is {of:?}", shown(name)))),
            None => Err(broken(format!("reads `{}`, which nothing before it yields", shown(name)))),
        }
    }

    /// Another name for a value that is known.
    fn alias(&mut self, name: &str, known: String, class: Class) -> Result<()> {
        match self.names.insert(name.into(), (known, class)) {
            None => Ok(()),
            Some(_) => Err(broken(format!("yields `{}`, which is there already", shown(name)))),
        }
    }
}

/// What has been read so far.
#[derive(Default)]
pub(super) struct CallReader {
    calls: Vec<Call>,
    values: BTreeMap<String, Value>,
    taken: HashSet<String>,
}

impl CallReader {
    /// A new scope, its values known to all of the program with `prefix` before their names.
    pub(super) fn scope(&mut self, prefix: String) -> Scope {
        Scope {
            prefix,
            names: HashMap::new(),
        }
    }

    /// A value of `scope`; its name in all of the program.
    pub(super) fn define(&mut self, scope: &mut Scope, name: &str, class: Class) -> Result<String> {
        if name.is_empty() || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(broken(format!("yields `{}`, which is no name", shown(name))));
        }
        let known = format!("{}{name}", scope.prefix);
        if !self.taken.insert(known.clone()) {
            return Err(broken(format!("yields `{}`, which is there already", shown(name))));
        }
        scope.alias(name, known.clone(), class)?;
        Ok(known)
    }

    /// The nodes of a graph whose inputs are in its scope.
    pub(super) fn graph(&mut self, graph: &TracedGraph, scope: &mut Scope) -> Result<()> {
        for (number, node) in graph.nodes.iter().enumerate() {
            self.node(number, node, scope)
                .context(|| format!("node {number} ({})", shown(&node.target)))?;
        }
        for (name, meta) in &graph.tensor_values {
            // Names of values that were traced away may be left.
            if let Some((known, Class::Tensor)) = scope.names.get(name) {
                self.values.entry(known.clone()).or_insert_with(|| Value::of(meta));
            }
        }
        Ok(())
    }

    fn node(&mut self, number: usize, node: &TracedNode, scope: &mut Scope) -> Result<()> {
        let no_name = |c: char| c.is_control() || c.is_whitespace();
        if node.target.is_empty() || node.target.len() > 300 || node.target.contains(no_name) {
            return Err(broken("its target is no operator's name"));
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(broken(format!("it has more than {MAX_CALLS} nodes")));
        }
        let args = node
            .inputs
            .iter()
            .map(|named| {
                let arg: Arg = serde_json::from_value(named.arg.clone()).map_err(|e| unknown(&named.name, &e))?;
                Ok((named.name.as_str(), arg))
            })
            .collect::<Result<Vec<_>>>()?;
        let outputs = node
            .outputs
            .iter()
            .map(|output| serde_json::from_value(output.clone()).map_err(|e| unknown("output", &e)))
            .collect::<Result<Vec<Arg>>>()?;
        if args.iter().any(|(_, arg)| matches!(arg, Arg::Graph(_))) {
            return self.inner(number, node, args, outputs, scope);
        }
        let inputs = args
            .into_iter()
            .map(|(name, arg)| Ok((name.to_string(), argument(arg, scope).context(|| format!("argument `{}`", shown(name)))?)))
            .collect::<Result<Vec<_>>>()?;
        let outputs = outputs.into_iter().map(|o| self.output(o, scope)).collect::<Result<Vec<_>>>()?;
        self.calls.push(Call {
            target: node.target.clone(),
            inputs,
            outputs,
            module: module(&node.metadata.nn_module_stack),
        });
        Ok(())
    }

    fn output(&mut self, output: Arg, scope: &mut Scope) -> Result<Output> {
        Ok(match output {
            Arg::Tensor(tensor) => Output::Tensor(self.define(scope, &tensor.name, Class::Tensor)?),
            Arg::Tensors(tensors) => {
                let names = tensors.iter().map(|t| self.define(scope, &t.name, Class::Tensor));
                Output::Tensors(names.collect::<Result<_>>()?)
            }
            Arg::SymInt(SymIntArg::Name(name)) => Output::SymInt(self.define(scope, &name, Class::Int)?),
            Arg::SymBool(SymBoolArg::Name(name)) => Output::SymBool(self.define(scope, &name, Class::Bool)?),
            Arg::None(_) => Output::None,
            _ => return Err(unread("yields something that is neither tensor nor whole number", EXPORT_ANOTHER)),
        })
    }

    /// A node that holds a graph and runs it under a setting: its nodes, where the setting changes no number.
    fn inner(&mut self, number: usize, node: &TracedNode, args: Vec<(&str, Arg)>, outputs: Vec<Arg>, scope: &mut Scope) -> Result<()> {
        let mut args = args.into_iter().map(|(_, arg)| arg);
        let mut settings = Vec::new();
        let graph = loop {
            match args.next() {
                Some(Arg::Graph(graph)) => break graph.graph,
                Some(other) => settings.push(other),
                None => return Err(Error::internal("a node with a graph has none")),
            }
        };
        let detached = match (node.target.as_str(), &settings[..]) {
            (AUTOCAST, [_, _, Arg::Bool(false), ..]) => false,
            (AUTOCAST, _) => {
                return Err(unread(
                    "runs a part of the network in another precision (autocast)",
                    "export the model outside of torch.autocast",
                ));
            }
            (SET_GRAD, [Arg::Bool(enabled)]) => !enabled,
            _ => {
                return Err(unread(
                    "holds a part of the network that is chosen or repeated as it runs",
                    EXPORT_ANOTHER,
                ));
            }
        };
        let mut inside = self.scope(format!("{}{number}/", scope.prefix));
        let mut given = args;
        for input in &graph.inputs {
            let (Arg::Tensor(input), Some(Arg::Tensor(value))) = (input, given.next()) else {
                return Err(unread(
                    "hands something else than tensors to the part of the network in it",
                    EXPORT_ANOTHER,
                ));
            };
            inside.alias(&input.name, scope.tensor(&value.name)?, Class::Tensor)?;
        }
        if given.next().is_some() || graph.outputs.len() != flat(&outputs).count() {
            return Err(broken("does not fit the part of the network in it"));
        }
        self.graph(&graph, &mut inside)?;
        for (inner, outer) in graph.outputs.iter().zip(flat(&outputs)) {
            let (Arg::Tensor(inner), Some(outer)) = (inner, outer) else {
                return Err(unread("yields something else than tensors", EXPORT_ANOTHER));
            };
            let value = inside.tensor(&inner.name)?;
            if detached {
                self.detach(value, node, outer, scope)?;
            } else {
                scope.alias(outer, value, Class::Tensor)?;
            }
        }
        Ok(())
    }

    /// What was computed without gradients is a value that none go through.
    fn detach(&mut self, value: String, node: &TracedNode, name: &str, scope: &mut Scope) -> Result<()> {
        let output = self.define(scope, name, Class::Tensor)?;
        self.calls.push(Call {
            target: DETACH.into(),
            inputs: vec![("self".into(), Argument::Tensor(value))],
            outputs: vec![Output::Tensor(output)],
            module: module(&node.metadata.nn_module_stack),
        });
        Ok(())
    }

    /// The calls, without those that only check what was traced, and without numbers that nobody reads then.
    pub(super) fn finish(mut self, output: &str) -> (Vec<Call>, BTreeMap<String, Value>) {
        self.calls.retain(|call| !only_checks(call));
        let mut read: HashSet<String> = HashSet::from([output.to_string()]);
        let mut kept = Vec::with_capacity(self.calls.len());
        for call in self.calls.into_iter().rev() {
            let unread = |output: &Output| matches!(output, Output::SymInt(name) | Output::SymBool(name) if !read.contains(name));
            if !call.outputs.is_empty() && call.outputs.iter().all(unread) {
                continue;
            }
            call.inputs.iter().for_each(|(_, argument)| names(argument, &mut read));
            kept.push(call);
        }
        kept.reverse();
        (kept, self.values)
    }
}

const EXPORT_ANOTHER: &str = "such a network is not read: write that part of its forward with plain tensor operations";

fn unknown(name: &str, error: &serde_json::Error) -> Error {
    let why = error.to_string();
    let why = why.split(", expected one of").next().unwrap_or_default();
    unread(
        format!("argument `{}` is of a kind that is not read: {}", shown(name), shown(why)),
        EXPORT_ANOTHER,
    )
}

/// Does a call only hold a value against what torch saw when it traced?
fn only_checks(call: &Call) -> bool {
    let name = call.target.strip_prefix("torch.ops.aten.").unwrap_or_default();
    call.outputs.is_empty() && (name.starts_with("_assert") || name.starts_with("sym_constrain_range"))
}

/// Tensor names of outputs, lists of them laid open; `None` for what is no tensor.
fn flat(outputs: &[Arg]) -> impl Iterator<Item = Option<&str>> {
    outputs.iter().flat_map(|output| match output {
        Arg::Tensor(tensor) => vec![Some(tensor.name.as_str())],
        Arg::Tensors(tensors) => tensors.iter().map(|t| Some(t.name.as_str())).collect(),
        _ => vec![None],
    })
}

/// The names that an argument reads.
fn names(argument: &Argument, read: &mut HashSet<String>) {
    match argument {
        Argument::Tensor(name) | Argument::SymInt(name) | Argument::SymBool(name) => drop(read.insert(name.clone())),
        Argument::Tensors(names) => read.extend(names.iter().cloned()),
        Argument::OptionalTensors(names) => read.extend(names.iter().flatten().cloned()),
        Argument::SymInts(sizes) => read.extend(sizes.iter().filter_map(|size| match size {
            Dim::Value(name) => Some(name.clone()),
            Dim::Known(_) => None,
        })),
        _ => {}
    }
}

fn argument(arg: Arg, scope: &Scope) -> Result<Argument> {
    let optional = |tensor: &OptionalTensor| match tensor {
        OptionalTensor::Tensor(tensor) => scope.tensor(&tensor.name).map(Some),
        OptionalTensor::None(_) => Ok(None),
    };
    Ok(match arg {
        Arg::None(_) => Argument::None,
        Arg::Tensor(tensor) => Argument::Tensor(scope.tensor(&tensor.name)?),
        Arg::Tensors(tensors) => Argument::Tensors(tensors.iter().map(|t| scope.tensor(&t.name)).collect::<Result<_>>()?),
        Arg::OptionalTensor(tensor) => optional(&tensor)?.map_or(Argument::None, Argument::Tensor),
        Arg::OptionalTensors(tensors) => Argument::OptionalTensors(tensors.iter().map(optional).collect::<Result<_>>()?),
        Arg::Int(n) | Arg::SymInt(SymIntArg::Int(n)) => Argument::Int(n),
        Arg::Ints(all) => Argument::Ints(all),
        Arg::SymInt(SymIntArg::Name(name)) => Argument::SymInt(scope.read(&name, Class::Int)?),
        Arg::SymInts(all) => {
            let one = |size: &SymIntArg| match size {
                SymIntArg::Int(n) => Ok(Dim::Known(*n)),
                SymIntArg::Name(name) => scope.read(name, Class::Int).map(Dim::Value),
            };
            Argument::SymInts(all.iter().map(one).collect::<Result<_>>()?)
        }
        Arg::Float(x) => Argument::Float(x.0),
        Arg::Floats(all) => Argument::Floats(all.iter().map(|x| x.0).collect()),
        Arg::Bool(b) | Arg::SymBool(SymBoolArg::Bool(b)) => Argument::Bool(b),
        Arg::Bools(all) => Argument::Bools(all),
        Arg::SymBool(SymBoolArg::Name(name)) => Argument::SymBool(scope.read(&name, Class::Bool)?),
        Arg::Text(text) => Argument::Text(text),
        Arg::ScalarType(number) => Argument::Dtype(schema::kind(number).map_err(|kind| unread(format!("asks for {kind}"), EXPORT_ANOTHER))?),
        Arg::MemoryFormat(number) => Argument::MemoryFormat(match number {
            1 => MemoryFormat::Contiguous,
            2 => MemoryFormat::ChannelsLast,
            3 => MemoryFormat::ChannelsLast3d,
            4 => MemoryFormat::Preserve,
            _ => return Err(broken(format!("memory format {number} is not known"))),
        }),
        Arg::Layout(STRIDED) => Argument::Strided,
        Arg::Layout(_) => return Err(unread("asks for a sparse tensor", EXPORT_ANOTHER)),
        Arg::Device(_) => Argument::Device,
        Arg::Graph(_) => return Err(Error::internal("a graph among the arguments")),
    })
}

/// The innermost path of `key,path,type;key,path,type;…`; a module that is called again has `@` and a number behind its path.
fn module(stack: &str) -> Option<String> {
    let mut innermost = stack.rsplit(';').next()?.splitn(3, ',');
    let (key, path) = (innermost.next()?, innermost.next()?);
    // torch's own nodes.
    if path.is_empty() || key == path || path.contains(char::is_control) {
        return None;
    }
    Some(path.split('@').next().unwrap_or(path).to_string())
}
