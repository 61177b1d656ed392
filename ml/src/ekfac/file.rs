//! Files of factors and eigenbases: under their key, for their layers, whole or refused.

use std::collections::BTreeMap;
use std::path::Path;

use delta_guard_contract::{Code, Digest};
use tch::{Kind, Tensor};

use crate::error::{Error, Result, ResultExt};
use crate::files::tensors::{Texts, read_sealed};
use crate::model::layer::Layer;

/// Tensors by name.
pub(super) type Tensors = BTreeMap<String, Tensor>;

/// What the header tells.
pub(super) fn texts(format: &str, key: &Digest, layers: &[Layer]) -> Result<Texts> {
    let texts = [("format", format.to_string()), ("key", key.0.clone()), ("layers", listed(layers)?)];
    Ok(texts.into_iter().map(|(name, text)| (name.to_string(), text)).collect())
}

/// The file's tensors and texts, if it is whole, of this format and key, and for these layers.
pub(super) fn read(path: &Path, format: &str, key: &Digest, layers: &[Layer]) -> Result<(Tensors, Texts)> {
    let wanted = listed(layers)?;
    read_sealed(path, &[("format", format), ("key", &key.0), ("layers", &wanted)]).context(|| "this file is not used".into())
}

/// A tensor of the file, of this shape and finite.
pub(super) fn tensor(tensors: &mut Tensors, name: &str, shape: &[i64]) -> Result<Tensor> {
    let refused = |why: String| {
        Error::new(
            Code::KeptFileUnusable,
            format!("{name} {why}"),
            "delete the file; what it held is then computed again",
        )
    };
    let tensor = tensors.remove(name).ok_or_else(|| refused("is missing".into()))?;
    if tensor.size() != shape {
        return Err(refused(format!("has shape {:?}, expected {shape:?}", tensor.size())));
    }
    if !matches!(tensor.kind(), Kind::Float | Kind::Double) {
        return Err(refused(format!("holds {:?}, expected Float or Double", tensor.kind())));
    }
    if !tensor.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
        return Err(refused("has entries that are not finite".into()));
    }
    Ok(tensor)
}

fn listed(layers: &[Layer]) -> Result<String> {
    serde_json::to_string(layers).map_err(|e| Error::internal(format!("layer list: {e}")))
}
