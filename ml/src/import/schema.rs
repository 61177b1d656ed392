//! The JSON of an exported program as torch writes it, schema 8 (torch/_export/serde/schema.py). What a later minor version adds is passed over.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// The version that is read: minor ones are compatible.
pub(super) const MAJOR: i64 = 8;

/// Enough of a program to see whether the rest can be read.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) schema_version: Version,
    #[serde(default)]
    pub(super) torch_version: String,
}

#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) major: i64,
    pub(super) minor: i64,
}

#[derive(Deserialize)]
pub(super) struct Exported {
    pub(super) graph_module: GraphModule,
}

#[derive(Deserialize)]
pub(super) struct GraphModule {
    pub(super) graph: TracedGraph,
    pub(super) signature: Signature,
}

#[derive(Deserialize)]
pub(super) struct TracedGraph {
    pub(super) inputs: Vec<Arg>,
    pub(super) outputs: Vec<Arg>,
    pub(super) nodes: Vec<TracedNode>,
    #[serde(default)]
    pub(super) tensor_values: BTreeMap<String, TensorMeta>,
}

#[derive(Deserialize)]
pub(super) struct TracedNode {
    pub(super) target: String,
    pub(super) inputs: Vec<Named>,
    // As they come, so that an unknown kind is told with its node.
    pub(super) outputs: Vec<Value>,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Default, Deserialize)]
pub(super) struct Metadata {
    #[serde(default)]
    pub(super) nn_module_stack: String,
}

#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) arg: Value,
}

#[derive(Deserialize)]
pub(super) struct TensorName {
    pub(super) name: String,
}

/// A value that a node reads or yields.
#[derive(Deserialize)]
pub(super) enum Arg {
    #[serde(rename = "as_none")]
    None(serde::de::IgnoredAny),
    #[serde(rename = "as_tensor")]
    Tensor(TensorName),
    #[serde(rename = "as_tensors")]
    Tensors(Vec<TensorName>),
    #[serde(rename = "as_optional_tensor")]
    OptionalTensor(OptionalTensor),
    #[serde(rename = "as_optional_tensors")]
    OptionalTensors(Vec<OptionalTensor>),
    #[serde(rename = "as_int")]
    Int(i64),
    #[serde(rename = "as_ints")]
    Ints(Vec<i64>),
    #[serde(rename = "as_sym_int")]
    SymInt(SymIntArg),
    #[serde(rename = "as_sym_ints")]
    SymInts(Vec<SymIntArg>),
    #[serde(rename = "as_float")]
    Float(Real),
    #[serde(rename = "as_floats")]
    Floats(Vec<Real>),
    #[serde(rename = "as_bool")]
    Bool(bool),
    #[serde(rename = "as_bools")]
    Bools(Vec<bool>),
    #[serde(rename = "as_sym_bool")]
    SymBool(SymBoolArg),
    #[serde(rename = "as_string")]
    Text(String),
    #[serde(rename = "as_scalar_type")]
    ScalarType(i64),
    #[serde(rename = "as_memory_format")]
    MemoryFormat(i64),
    #[serde(rename = "as_layout")]
    Layout(i64),
    #[serde(rename = "as_device")]
    Device(serde::de::IgnoredAny),
    #[serde(rename = "as_graph")]
    Graph(Box<GraphArg>),
}

#[derive(Deserialize)]
pub(super) struct GraphArg {
    pub(super) graph: TracedGraph,
}

#[derive(Deserialize)]
pub(super) enum OptionalTensor {
    #[serde(rename = "as_tensor")]
    Tensor(TensorName),
    #[serde(rename = "as_none")]
    None(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
pub(super) enum SymIntArg {
    #[serde(rename = "as_name")]
    Name(String),
    #[serde(rename = "as_int")]
    Int(i64),
}

#[derive(Deserialize)]
pub(super) enum SymBoolArg {
    #[serde(rename = "as_name")]
    Name(String),
    #[serde(rename = "as_bool")]
    Bool(bool),
}

/// A float; JSON has no infinities, so that torch writes those as texts.
pub(super) struct Real(pub(super) f64);

impl<'de> Deserialize<'de> for Real {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(f64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(number) => Ok(Self(number)),
            Either::Text(text) => match text.as_str() {
                "Infinity" => Ok(Self(f64::INFINITY)),
                "-Infinity" => Ok(Self(f64::NEG_INFINITY)),
                "NaN" => Ok(Self(f64::NAN)),
                _ => Err(serde::de::Error::custom("a text that is no number")),
            },
        }
    }
}

/// A size or stride.
#[derive(Deserialize)]
pub(super) enum SymInt {
    #[serde(rename = "as_int")]
    Int(i64),
    #[serde(rename = "as_expr")]
    Expression(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
pub(super) struct TensorMeta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<SymInt>,
    pub(super) strides: Vec<SymInt>,
    pub(super) storage_offset: SymInt,
    pub(super) layout: i64,
}

#[derive(Deserialize)]
pub(super) struct Signature {
    pub(super) input_specs: Vec<InputSpec>,
    pub(super) output_specs: Vec<OutputSpec>,
}

#[derive(Deserialize)]
pub(super) struct UserSpec {
    pub(super) arg: Arg,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputSpec {
    UserInput(UserSpec),
    Parameter {
        arg: TensorName,
        parameter_name: String,
    },
    Buffer {
        arg: TensorName,
        buffer_name: String,
        persistent: bool,
    },
    TensorConstant {
        arg: TensorName,
        tensor_constant_name: String,
    },
    CustomObj {
        custom_obj_name: String,
    },
    Token(serde::de::IgnoredAny),
    ConstantInput(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OutputSpec {
    UserOutput(UserSpec),
    BufferMutation { buffer_name: String },
    LossOutput(serde::de::IgnoredAny),
    GradientToParameter(serde::de::IgnoredAny),
    GradientToUserInput(serde::de::IgnoredAny),
    UserInputMutation { user_input_name: String },
    Token(serde::de::IgnoredAny),
    ParameterMutation { parameter_name: String },
}

/// `data/weights/…_config.json`: payloads by state-dict name.
#[derive(Deserialize)]
pub(super) struct Payloads {
    pub(super) config: BTreeMap<String, Payload>,
}

#[derive(Deserialize)]
pub(super) struct Payload {
    pub(super) path_name: String,
    pub(super) use_pickle: bool,
    #[serde(default)]
    pub(super) tensor_meta: Option<TensorMeta>,
}

/// torch's numbers for kinds of numbers; `Err` is the name of one that is not read.
pub(super) fn kind(number: i64) -> Result<tch::Kind, String> {
    use tch::Kind;
    Ok(match number {
        1 => Kind::Uint8,
        2 => Kind::Int8,
        3 => Kind::Int16,
        4 => Kind::Int,
        5 => Kind::Int64,
        6 => Kind::Half,
        7 => Kind::Float,
        8 => Kind::Double,
        12 => Kind::Bool,
        13 => Kind::BFloat16,
        9..=11 => return Err("complex numbers".into()),
        28 => return Err("unsigned 16-bit integers".into()),
        29..=32 => return Err("8-bit floats".into()),
        _ => return Err(format!("numbers of kind {number}")),
    })
}

/// The layout of plain tensors.
pub(super) const STRIDED: i64 = 7;
