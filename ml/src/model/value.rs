//! What flows between nodes, and what nodes are called with.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::{Device, Kind, Scalar, Tensor};

/// An argument of a node, as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// What another node yields (or `input`).
    Value(String),
    /// What several nodes yield; some may be left out.
    Values(Vec<Option<String>>),
    /// A tensor of the state dict, or a constant, by its name.
    State(String),
    /// A whole number.
    Int(i64),
    /// Whole numbers, some of them yielded by nodes.
    Ints(Vec<Extent>),
    /// A number.
    Float(f64),
    /// Numbers.
    Floats(Vec<f64>),
    /// Yes or no.
    Bool(bool),
    /// A word.
    Text(String),
    /// A kind of numbers, in PyTorch's words (`float32`).
    #[serde(serialize_with = "kind_name::serialize", deserialize_with = "kind_name::deserialize")]
    Kind(Kind),
}

/// A whole number, or the node that yields it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Extent {
    /// The number.
    Known(i64),
    /// The node's name.
    Of(String),
}

impl Operand {
    /// Names of what it reads from other nodes.
    pub fn reads(&self) -> Vec<&str> {
        match self {
            Self::Value(name) => vec![name],
            Self::Values(names) => names.iter().flatten().map(String::as_str).collect(),
            Self::Ints(sizes) => sizes
                .iter()
                .filter_map(|size| match size {
                    Extent::Of(name) => Some(name.as_str()),
                    Extent::Known(_) => None,
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The state name that it is, if it is one.
    pub fn state(&self) -> Option<&str> {
        match self {
            Self::State(name) => Some(name),
            _ => None,
        }
    }
}

/// PyTorch's names of kinds of numbers.
pub(super) mod kind_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};
    use tch::Kind;

    const NAMES: [(Kind, &str); 10] = [
        (Kind::Float, "float32"),
        (Kind::Double, "float64"),
        (Kind::Half, "float16"),
        (Kind::BFloat16, "bfloat16"),
        (Kind::Int64, "int64"),
        (Kind::Int, "int32"),
        (Kind::Int16, "int16"),
        (Kind::Int8, "int8"),
        (Kind::Uint8, "uint8"),
        (Kind::Bool, "bool"),
    ];

    /// Write one.
    ///
    /// # Errors
    /// A kind that is not among those that networks hold.
    pub(in crate::model) fn serialize<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
        let name = NAMES.iter().find(|(known, _)| known == kind).map(|(_, name)| *name);
        to.serialize_str(name.ok_or_else(|| serde::ser::Error::custom(format!("numbers of kind {kind:?}")))?)
    }

    /// Read one.
    ///
    /// # Errors
    /// Another word.
    pub(in crate::model) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let text = String::deserialize(from)?;
        let kind = NAMES.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind);
        kind.ok_or_else(|| D::Error::custom(format!("`{text}` is not a kind of numbers")))
    }
}

/// What a node yields or is called with.
#[derive(Debug)]
pub enum Datum {
    /// A tensor.
    Tensor(Tensor),
    /// Several; some may be left out.
    Tensors(Vec<Option<Tensor>>),
    /// A whole number.
    Int(i64),
    /// Whole numbers.
    Ints(Vec<i64>),
    /// A number.
    Float(f64),
    /// Numbers.
    Floats(Vec<f64>),
    /// Yes or no.
    Bool(bool),
    /// A word.
    Text(String),
    /// A kind of numbers.
    Kind(Kind),
}

impl From<Tensor> for Datum {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<Vec<Tensor>> for Datum {
    fn from(tensors: Vec<Tensor>) -> Self {
        Self::Tensors(tensors.into_iter().map(Some).collect())
    }
}

impl Datum {
    /// The same again; tensors share their memory.
    pub fn share(&self) -> Self {
        match self {
            Self::Tensor(tensor) => Self::Tensor(tensor.shallow_clone()),
            Self::Tensors(all) => Self::Tensors(all.iter().map(|t| t.as_ref().map(Tensor::shallow_clone)).collect()),
            Self::Int(n) => Self::Int(*n),
            Self::Ints(all) => Self::Ints(all.clone()),
            Self::Float(x) => Self::Float(*x),
            Self::Floats(all) => Self::Floats(all.clone()),
            Self::Bool(yes) => Self::Bool(*yes),
            Self::Text(word) => Self::Text(word.clone()),
            Self::Kind(kind) => Self::Kind(*kind),
        }
    }

    /// Numbers that its tensors hold.
    pub fn numel(&self) -> i64 {
        match self {
            Self::Tensor(tensor) => tensor.numel() as i64,
            Self::Tensors(all) => all.iter().flatten().map(|t| t.numel() as i64).sum(),
            _ => 0,
        }
    }
}

/// The arguments of one call, by the names of the operator's schema. What is not given has the operator's default.
#[derive(Debug)]
pub struct Args<'a> {
    /// Where tensors are made that are made of nothing.
    pub device: Device,
    /// What the network computes in: floats that are made of nothing are of this kind, whatever kind it was exported in.
    precision: Kind,
    given: BTreeMap<&'a str, Datum>,
}

impl<'a> Args<'a> {
    /// These.
    pub fn new(device: Device, precision: Kind, given: BTreeMap<&'a str, Datum>) -> Self {
        Self { device, precision, given }
    }

    /// The kind that is computed in where `kind` was asked for.
    pub fn computed(&self, kind: Kind) -> Kind {
        if super::aten::is_float(kind) { self.precision } else { kind }
    }

    fn wrong(&self, name: &str, wanted: &str) -> Error {
        let found = self.given.get(name).map_or("nothing".to_string(), |value| format!("{value:?}"));
        let found: String = found.chars().take(60).collect();
        Error::internal(format!("argument `{name}` must be {wanted}, it is {found}"))
    }

    /// A tensor.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.maybe_tensor(name)?.ok_or_else(|| self.wrong(name, "a tensor"))
    }

    /// A tensor that may be left out.
    ///
    /// # Errors
    /// Something else.
    pub fn maybe_tensor(&self, name: &str) -> Result<Option<&Tensor>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(Datum::Tensor(tensor)) => Ok(Some(tensor)),
            Some(_) => Err(self.wrong(name, "a tensor")),
        }
    }

    /// Tensors, some of them left out.
    ///
    /// # Errors
    /// There are none.
    pub fn maybe_tensors(&self, name: &str) -> Result<Vec<Option<&Tensor>>> {
        match self.given.get(name) {
            Some(Datum::Tensors(all)) => Ok(all.iter().map(Option::as_ref).collect()),
            _ => Err(self.wrong(name, "tensors")),
        }
    }

    /// Tensors.
    ///
    /// # Errors
    /// There are none, or one is left out.
    pub fn tensors(&self, name: &str) -> Result<Vec<&Tensor>> {
        self.maybe_tensors(name)?
            .into_iter()
            .collect::<Option<_>>()
            .ok_or_else(|| self.wrong(name, "tensors"))
    }

    /// A whole number.
    ///
    /// # Errors
    /// Something else.
    pub fn maybe_int(&self, name: &str) -> Result<Option<i64>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(Datum::Int(n)) => Ok(Some(*n)),
            Some(_) => Err(self.wrong(name, "a whole number")),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Something else.
    pub fn int(&self, name: &str) -> Result<i64> {
        self.maybe_int(name)?.ok_or_else(|| self.wrong(name, "a whole number"))
    }

    /// A whole number or its default.
    ///
    /// # Errors
    /// Something else.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.maybe_int(name)?.unwrap_or(default))
    }

    /// Whole numbers; one alone counts too.
    ///
    /// # Errors
    /// Something else.
    pub fn maybe_ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(Datum::Ints(all)) => Ok(Some(all.clone())),
            Some(Datum::Int(n)) => Ok(Some(vec![*n])),
            Some(_) => Err(self.wrong(name, "whole numbers")),
        }
    }

    /// Whole numbers.
    ///
    /// # Errors
    /// Something else.
    pub fn ints(&self, name: &str) -> Result<Vec<i64>> {
        self.maybe_ints(name)?.ok_or_else(|| self.wrong(name, "whole numbers"))
    }

    /// Height and width; one number stands for both.
    ///
    /// # Errors
    /// Something else.
    pub fn pair_or(&self, name: &str, default: [i64; 2]) -> Result<[i64; 2]> {
        match self.maybe_ints(name)?.as_deref() {
            None | Some([]) => Ok(default),
            Some([both]) => Ok([*both; 2]),
            Some([height, width]) => Ok([*height, *width]),
            Some(_) => Err(self.wrong(name, "two whole numbers")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Something else.
    pub fn maybe_float(&self, name: &str) -> Result<Option<f64>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(Datum::Float(x)) => Ok(Some(*x)),
            Some(Datum::Int(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    /// A number or its default.
    ///
    /// # Errors
    /// Something else.
    pub fn float_or(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.maybe_float(name)?.unwrap_or(default))
    }

    /// Numbers; none where they are left out.
    ///
    /// # Errors
    /// Something else.
    pub fn floats(&self, name: &str) -> Result<Vec<f64>> {
        match self.given.get(name) {
            None => Ok(Vec::new()),
            Some(Datum::Floats(all)) => Ok(all.clone()),
            Some(Datum::Ints(all)) => Ok(all.iter().map(|n| *n as f64).collect()),
            Some(_) => Err(self.wrong(name, "numbers")),
        }
    }

    /// A number that is whole or not: libtorch's arithmetic differs.
    ///
    /// # Errors
    /// Something else.
    pub fn maybe_scalar(&self, name: &str) -> Result<Option<Scalar>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(Datum::Int(n)) => Ok(Some(Scalar::int(*n))),
            Some(Datum::Float(x)) => Ok(Some(Scalar::float(*x))),
            Some(Datum::Bool(yes)) => Ok(Some(Scalar::int(i64::from(*yes)))),
            Some(_) => Err(self.wrong(name, "a number")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// Something else.
    pub fn scalar(&self, name: &str) -> Result<Scalar> {
        self.maybe_scalar(name)?.ok_or_else(|| self.wrong(name, "a number"))
    }

    /// Yes or no.
    ///
    /// # Errors
    /// Something else.
    pub fn bool_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.given.get(name) {
            None => Ok(default),
            Some(Datum::Bool(yes)) => Ok(*yes),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// A word.
    ///
    /// # Errors
    /// Something else.
    pub fn text_or<'b>(&'b self, name: &str, default: &'b str) -> Result<&'b str> {
        match self.given.get(name) {
            None => Ok(default),
            Some(Datum::Text(word)) => Ok(word),
            Some(_) => Err(self.wrong(name, "a word")),
        }
    }

    /// A kind of numbers.
    ///
    /// # Errors
    /// Something else.
    pub fn maybe_kind(&self, name: &str) -> Result<Option<Kind>> {
        match self.given.get(name) {
            None => Ok(None),
            Some(Datum::Kind(kind)) => Ok(Some(*kind)),
            Some(_) => Err(self.wrong(name, "a kind of numbers")),
        }
    }
}
