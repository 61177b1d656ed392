//! Which columns of a parquet file hold picture, label and source, and the class names that its schema declares.

use super::rows::{open, wrong_file};
use crate::error::Result;
use ::parquet::basic::{ConvertedType, LogicalType, Type};
use ::parquet::file::reader::FileReader;
use ::parquet::schema::types::ColumnDescriptor;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::path::Path;

/// Most class names that a schema may declare.
const MOST_NAMES: usize = 1_000_000;

/// Places of the columns among the file's leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SetColumns {
    pub(super) picture: usize,
    pub(super) label: usize,
    pub(super) source: Option<usize>,
    /// Class names by number, where the schema declares them.
    pub(super) names: Option<Vec<String>>,
}

impl SetColumns {
    /// Of a file, by its schema.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let file = open(path)?;
        let meta = file.metadata().file_metadata();
        let features = meta.key_value_metadata().and_then(|pairs| {
            let text = pairs.iter().find(|pair| pair.key == "huggingface")?.value.as_deref()?;
            let mut whole: Value = serde_json::from_str(text).ok()?;
            match whole.get_mut("info")?.get_mut("features")?.take() {
                Value::Object(features) => Some(features),
                _ => None,
            }
        });
        let leaves: Vec<&ColumnDescriptor> = meta.schema_descr().columns().iter().map(AsRef::as_ref).collect();
        let features = features.unwrap_or_default();
        let picture = picture(&leaves, &features).map_err(|what| wrong_file(path, &what))?;
        let (label, name) = label(&leaves, &features).map_err(|what| wrong_file(path, &what))?;
        let names = names(features.get(name)).map_err(|what| wrong_file(path, &what))?;
        let source = leaves
            .iter()
            .position(|leaf| leaf.path().parts() == ["source"] && leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() == 0);
        Ok(Self {
            picture,
            label,
            source,
            names,
        })
    }
}

/// Features of a kind, by name.
fn of_kind<'a>(features: &'a Map<String, Value>, kind: &str) -> Vec<&'a str> {
    let is = |value: &Value| value.get("_type").and_then(Value::as_str) == Some(kind);
    features.iter().filter(|(_, value)| is(value)).map(|(name, _)| name.as_str()).collect()
}

fn all(leaves: &[&ColumnDescriptor]) -> String {
    let names: Vec<String> = leaves.iter().map(|leaf| leaf.path().string()).collect();
    super::super::manifest::some(&names)
}

/// Bytes that are no text: of the column itself, or in its field `bytes`.
fn holds_bytes(leaf: &ColumnDescriptor) -> bool {
    let text = matches!(leaf.logical_type_ref(), Some(LogicalType::String)) || leaf.converted_type() == ConvertedType::UTF8;
    let parts = leaf.path().parts();
    let place = matches!(parts, [_]) || matches!(parts, [_, field] if field == "bytes");
    place && !text && leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() == 0
}

fn picture(leaves: &[&ColumnDescriptor], features: &Map<String, Value>) -> std::result::Result<usize, String> {
    let declared = of_kind(features, "Image");
    let fits: Vec<usize> = (0..leaves.len())
        .filter(|at| holds_bytes(leaves[*at]))
        .filter(|at| declared.is_empty() || leaves[*at].path().parts().first().is_some_and(|name| declared.contains(&name.as_str())))
        .collect();
    match fits[..] {
        [one] => Ok(one),
        [] => Err(format!("no column holds pictures as bytes; the columns are: {}", all(leaves))),
        _ => Err(format!("several columns could hold the pictures; the columns are: {}", all(leaves))),
    }
}

fn label<'a>(leaves: &[&'a ColumnDescriptor], features: &Map<String, Value>) -> std::result::Result<(usize, &'a str), String> {
    let declared = of_kind(features, "ClassLabel");
    let called = |name: &str| leaves.iter().position(|leaf| leaf.path().parts() == [name]);
    let at = match (called("label"), called("labels"), &declared[..]) {
        (Some(at), _, _) | (None, Some(at), _) => Some(at),
        (None, None, [one]) => called(one),
        _ => None,
    };
    let Some(at) = at else {
        return Err(format!("no column is called `label`; the columns are: {}", all(leaves)));
    };
    let leaf = leaves[at];
    if leaf.max_rep_level() > 0 || !matches!(leaf.physical_type(), Type::INT32 | Type::INT64 | Type::BYTE_ARRAY) {
        return Err(format!("the column `{}` holds neither numbers nor texts, one a row", leaf.name()));
    }
    Ok((at, leaf.name()))
}

/// The names of a `ClassLabel`.
fn names(feature: Option<&Value>) -> std::result::Result<Option<Vec<String>>, String> {
    let Some(Value::Array(names)) = feature.and_then(|feature| feature.get("names")) else {
        return Ok(None);
    };
    let list: Option<Vec<String>> = names.iter().map(|name| name.as_str().map(String::from)).collect();
    let list = list.filter(|list| list.len() <= MOST_NAMES && list.iter().collect::<HashSet<_>>().len() == list.len());
    match list {
        Some(list) if list.iter().all(|name| super::super::labels::Label::Text(name.clone()).fault().is_none()) => Ok(Some(list)),
        _ => Err("the class names that the schema declares are no list of different names".into()),
    }
}
