//! A program in its checked form: every value is defined once and before it is read, every weight is there with the shape that the graph gives it.

use super::archive::{Archive, Part};
use super::inline::{CallReader, Class};
use super::schema::{self, Arg, Exported, InputSpec, MAJOR, OutputSpec, SymInt, Versioned};
use super::weights::{self, Stored};
use super::{broken, shown, unread};
use crate::error::{Result, ResultExt};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use tch::Kind;

/// How a model is brought out of training mode and exported.
const EXPORT: &str = "export it as torch.export.export(model.eval(), (torch.zeros(2, 3, 224, 224),), dynamic_shapes=({0: torch.export.Dim(\"batch\")},)), \
                      the example of the size of your pictures";

/// An exported program: calls of operators by name, in an order in which they can be computed.
#[derive(Debug)]
pub struct Program {
    /// The one value that the caller gives.
    pub input: String,
    /// Its shape; `None` is a size that may change (the batch).
    pub input_shape: Vec<Option<i64>>,
    /// The one value that the caller gets.
    pub output: String,
    /// The calls.
    pub calls: Vec<Call>,
    /// Values that are weights, buffers or constants, by their name in the graph (`p_conv1_weight`).
    pub state: BTreeMap<String, StateRef>,
    /// The tensors of the state dict and the constants, by their own name (`conv1.weight`). May hold more than `state` names (auxiliary heads).
    pub tensors: BTreeMap<String, Stored>,
    /// Shapes and kinds of the graph's values, as torch traced them.
    pub values: BTreeMap<String, Value>,
    /// What the owner added: the entries below `extra/`.
    pub extra: BTreeMap<String, Part>,
    /// The torch that wrote it.
    pub torch_version: String,
}

/// A call of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// `torch.ops.aten.conv2d.default`, `_operator.mul`, …
    pub target: String,
    /// Arguments by the operator's names for them, in its order; those that have its default values are left out.
    pub inputs: Vec<(String, Argument)>,
    /// What it yields.
    pub outputs: Vec<Output>,
    /// Path of the innermost module that it was traced in (`layer1.0.conv1`).
    pub module: Option<String>,
}

/// A value that a call yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A tensor.
    Tensor(String),
    /// A list of tensors (`unbind`, `chunk`, `split`).
    Tensors(Vec<String>),
    /// A whole number, such as the batch's size.
    SymInt(String),
    /// A truth value.
    SymBool(String),
    /// Nothing, where a tensor could be.
    None,
}

/// An argument.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "named as torch names them")]
pub enum Argument {
    None,
    Tensor(String),
    Tensors(Vec<String>),
    OptionalTensors(Vec<Option<String>>),
    Int(i64),
    Ints(Vec<i64>),
    SymInt(String),
    SymInts(Vec<Dim>),
    Float(f64),
    Floats(Vec<f64>),
    Bool(bool),
    Bools(Vec<bool>),
    SymBool(String),
    Text(String),
    Dtype(Kind),
    MemoryFormat(MemoryFormat),
    /// The plain layout: no other is read.
    Strided,
    /// A device: the one that the program runs on, whichever it was exported on.
    Device,
}

/// A whole number that is known, or the value that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Known.
    Known(i64),
    /// In this value.
    Value(String),
}

/// Order of a tensor's elements in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as torch names them")]
pub enum MemoryFormat {
    Contiguous,
    ChannelsLast,
    ChannelsLast3d,
    Preserve,
}

/// What a graph's value stands for in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRef {
    /// Its name in [`Program::tensors`].
    pub name: String,
    /// What it is.
    pub kind: StateKind,
    /// Whether it is in the owner's state dict; other buffers and constants are in the program only.
    pub persistent: bool,
}

/// What a tensor of the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// Trained.
    Parameter,
    /// Not trained by gradients, such as running statistics.
    Buffer,
    /// Written into the code.
    Constant,
}

/// What torch knew of a value when it traced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Sizes; `None` depends on the batch.
    pub shape: Vec<Option<i64>>,
    /// Kind of numbers; `None`: one that is not read.
    pub kind: Option<Kind>,
}

impl Program {
    /// Read a `.pt2` file. Weights stay in the file until they are asked for.
    ///
    /// # Errors
    /// `ProgramUnusable` with file, entry, node.
    pub fn read(path: &Path) -> Result<Self> {
        Archive::open(path)
            .and_then(|archive| Self::of(&archive))
            .context(|| path.display().to_string())
    }

    /// The program in an archive.
    ///
    /// # Errors
    /// As [`Program::read`], without the file's name.
    pub fn of(archive: &Archive) -> Result<Self> {
        let model = model_name(archive)?;
        let text = archive.text(&format!("models/{model}.json"))?;
        let entry = || format!("entry models/{}.json", shown(&model));
        let version: Versioned = serde_json::from_slice(&text).map_err(|e| broken(e.to_string())).context(entry)?;
        if version.schema_version.major != MAJOR {
            return Err(unread(
                format!(
                    "it is of schema version {}.{} (torch {}); version {MAJOR} is read",
                    version.schema_version.major,
                    version.schema_version.minor,
                    shown(&version.torch_version)
                ),
                "export it with torch 2.11, or with a later version that still writes schema 8",
            ));
        }
        let exported: Exported = serde_json::from_slice(&text).map_err(|e| broken(e.to_string())).context(entry)?;
        drop(text);
        let tensors = weights::read(archive, &model)?;
        let mut program = checked(exported.graph_module, tensors).context(entry)?;
        program.torch_version = version.torch_version;
        let extra = archive
            .names("extra/")
            .map(|name| Ok((name.to_string(), archive.entry(&format!("extra/{name}"))?)));
        program.extra = extra.collect::<Result<_>>()?;
        Ok(program)
    }
}

/// The name of the one model in an archive that is of the kind and byte order that are read.
pub(super) fn model_name(archive: &Archive) -> Result<String> {
    let models: Vec<&str> = archive.names("models/").filter_map(|name| name.strip_suffix(".json")).collect();
    let model = match models[..] {
        [model] => model.to_string(),
        [] if archive.names("data/aotinductor/").next().is_some() => {
            return Err(unread(
                "it holds compiled code (AOTInductor), which is not read and could not be differentiated",
                EXPORT,
            ));
        }
        [] => return Err(unread("it holds no model: there is no entry models/…json", EXPORT)),
        _ => {
            let names: Vec<String> = models.iter().take(5).map(|name| shown(name)).collect();
            return Err(unread(
                format!("it holds {} models: {}", models.len(), names.join(", ")),
                "save the one classifier alone",
            ));
        }
    };
    for (name, wanted) in [("archive_format", "pt2"), ("archive_version", "0"), ("byteorder", "little")] {
        let part = archive.entry(name)?;
        if part.bytes() != wanted.as_bytes() {
            let found = String::from_utf8_lossy(&part.bytes()[..part.bytes().len().min(40)]);
            return Err(broken(format!("its {name} is `{}`; `{wanted}` is read", shown(found.trim()))));
        }
    }
    Ok(model)
}

fn checked(module: schema::GraphModule, tensors: BTreeMap<String, Stored>) -> Result<Program> {
    let mut reader = CallReader::default();
    let mut scope = reader.scope(String::new());
    let (input, state) = inputs(&module.signature.input_specs)?;
    for name in state.keys().chain([&input]) {
        reader.define(&mut scope, name, Class::Tensor).context(|| "input".into())?;
    }
    let named: BTreeSet<&str> = module.graph.inputs.iter().filter_map(tensor).collect();
    if let Some(odd) = named.iter().find(|name| **name != input && !state.contains_key(**name)) {
        return Err(broken(format!("input `{}` of the graph is not in its signature", shown(odd))));
    }
    if let Some(odd) = state.keys().chain([&input]).find(|name| !named.contains(name.as_str())) {
        return Err(broken(format!("`{}` of the signature is no input of the graph", shown(odd))));
    }
    reader.graph(&module.graph, &mut scope)?;
    let output = output(&module.signature.output_specs, &module.graph.outputs)?;
    let output = scope.tensor(output).context(|| "output".into())?;
    let (calls, values) = reader.finish(&output);
    let value = values
        .get(&input)
        .ok_or_else(|| broken(format!("input `{}` has no shape", shown(&input))))?;
    let input_shape = value.shape.clone();
    held(&state, &tensors, &values)?;
    Ok(Program {
        input,
        input_shape,
        output,
        calls,
        state,
        tensors,
        values,
        extra: BTreeMap::new(),
        torch_version: String::new(),
    })
}

fn tensor(arg: &Arg) -> Option<&str> {
    match arg {
        Arg::Tensor(tensor) => Some(&tensor.name),
        _ => None,
    }
}

/// The one input of the user, and what the other inputs stand for.
fn inputs(specs: &[InputSpec]) -> Result<(String, BTreeMap<String, StateRef>)> {
    let mut users: Vec<&str> = Vec::new();
    let mut state = BTreeMap::new();
    for spec in specs {
        let (arg, name, kind, persistent) = match spec {
            InputSpec::Parameter { arg, parameter_name } => (arg, parameter_name, StateKind::Parameter, true),
            InputSpec::Buffer {
                arg,
                buffer_name,
                persistent,
            } => (arg, buffer_name, StateKind::Buffer, *persistent),
            InputSpec::TensorConstant { arg, tensor_constant_name } => (arg, tensor_constant_name, StateKind::Constant, false),
            InputSpec::UserInput(user) => {
                let name = tensor(&user.arg).ok_or_else(|| unread("it takes an input that is no tensor", EXPORT))?;
                users.push(name);
                continue;
            }
            // A value that the trace has used up.
            InputSpec::ConstantInput(_) => continue,
            InputSpec::CustomObj { custom_obj_name } => {
                return Err(unread(
                    format!("it reads `{}`, an object of a class of its own", shown(custom_obj_name)),
                    "export a model of tensors only",
                ));
            }
            InputSpec::Token(_) => return Err(unread("it has effects beside its output (tokens)", EXPORT)),
        };
        let reference = StateRef {
            name: name.clone(),
            kind,
            persistent,
        };
        if state.insert(arg.name.clone(), reference).is_some() {
            return Err(broken(format!("`{}` is twice in its signature", shown(&arg.name))));
        }
    }
    match users[..] {
        [input] => Ok((input.into(), state)),
        [] => Err(unread("it takes no input", EXPORT)),
        _ => {
            let names: Vec<String> = users.iter().take(5).map(|name| format!("`{}`", shown(name))).collect();
            Err(unread(
                format!("it takes {} inputs ({}) instead of one batch of pictures", users.len(), names.join(", ")),
                EXPORT,
            ))
        }
    }
}

/// The one output of the user.
fn output<'a>(specs: &'a [OutputSpec], outputs: &[Arg]) -> Result<&'a str> {
    let mut users = Vec::new();
    for spec in specs {
        let changed = match spec {
            OutputSpec::UserOutput(user) => {
                users.push(&user.arg);
                continue;
            }
            OutputSpec::BufferMutation { buffer_name: name }
            | OutputSpec::ParameterMutation { parameter_name: name }
            | OutputSpec::UserInputMutation { user_input_name: name } => name,
            _ => return Err(unread("it yields a loss, gradients or tokens: a training step was exported", EXPORT)),
        };
        return Err(unread(
            format!("it changes `{}` while it runs, as a model in training mode does", shown(changed)),
            EXPORT,
        ));
    }
    match users[..] {
        [arg] => {
            let name = tensor(arg).ok_or_else(|| unread("its output is no tensor", EXPORT))?;
            if outputs.len() != 1 || outputs.first().and_then(tensor) != Some(name) {
                return Err(broken("the outputs of the graph and of its signature differ"));
            }
            Ok(name)
        }
        _ => {
            let names: Vec<String> = users
                .iter()
                .filter_map(|arg| tensor(arg))
                .take(5)
                .map(|name| format!("`{}`", shown(name)))
                .collect();
            Err(unread(
                format!("it yields {} values ({}) instead of logits alone", users.len(), names.join(", ")),
                "export a module whose forward returns the logits only, for instance a wrapper of three lines around the model",
            ))
        }
    }
}

/// Every weight that the graph reads is there, of the shape that the graph gives it.
fn held(state: &BTreeMap<String, StateRef>, tensors: &BTreeMap<String, Stored>, values: &BTreeMap<String, Value>) -> Result<()> {
    for (value, reference) in state {
        let Some(stored) = tensors.get(&reference.name) else {
            return Err(broken(format!("tensor {} is read, and not stored", shown(&reference.name))));
        };
        let Some(traced) = values.get(value) else { continue };
        let found = Value {
            shape: stored.shape.iter().copied().map(Some).collect(),
            kind: Some(stored.kind),
        };
        if found != *traced {
            return Err(broken(format!(
                "tensor {} is stored as {found} and read as {traced}",
                shown(&reference.name)
            )));
        }
    }
    Ok(())
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind:?} [")?,
            None => f.write_str("unknown numbers [")?,
        }
        let sizes: Vec<String> = self.shape.iter().map(|n| n.map_or("?".into(), |n| n.to_string())).collect();
        write!(f, "{}]", sizes.join(", "))
    }
}

impl Value {
    pub(super) fn of(meta: &schema::TensorMeta) -> Self {
        let size = |size: &SymInt| match size {
            SymInt::Int(n) => Some(*n),
            SymInt::Expression(_) => None,
        };
        Self {
            shape: meta.sizes.iter().map(size).collect(),
            kind: schema::kind(meta.dtype).ok(),
        }
    }
}
